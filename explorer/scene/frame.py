"""Columns of numbers in one binary frame; js/src/frame.ts reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

__all__ = ["decode_frame", "encode_frame"]

_ALIGNMENT = 8  # bytes; typed arrays of float64 begin at multiples of it
_LENGTH_BYTES = 4  # of the header's length, a little-endian unsigned integer
_DTYPES = ("u1", "u2", "f4", "f8")  # that frame.ts knows


def encode_frame(facts: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return length of the header, header (JSON: the facts, and where each column lies), padding, columns.

    Args:
        facts: plain values.
        columns: vectors of uint8, uint16, float32 or float64.
    """
    listed, parts, offset = [], [], 0
    for name, column in columns.items():
        dtype = column.dtype.str[1:]
        assert dtype in _DTYPES, f"{name} is {column.dtype}"
        data = np.ascontiguousarray(column, column.dtype.newbyteorder("<")).tobytes()
        listed.append({"name": name, "dtype": dtype, "offset": offset, "length": len(column)})
        parts += [data, b"\0" * (-len(data) % _ALIGNMENT)]
        offset += len(data) + -len(data) % _ALIGNMENT
    # ASCII: half a surrogate pair in a name must not keep the frame from being written
    header = json.dumps({"columns": listed, **facts}, separators=(",", ":"), allow_nan=False).encode("ascii")
    start = len(header).to_bytes(_LENGTH_BYTES, "little") + header
    return b"".join([start, b"\0" * (-len(start) % _ALIGNMENT), *parts])


def decode_frame(frame: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return facts and columns of a frame.

    >>> facts, columns = decode_frame(encode_frame({"revision": 3}, {"cast": np.uint8([0, 2])}))
    >>> facts, columns["cast"].tolist()
    ({'revision': 3}, [0, 2])
    """
    end = _LENGTH_BYTES + int.from_bytes(frame[:_LENGTH_BYTES], "little")
    facts = json.loads(frame[_LENGTH_BYTES:end])
    start = end + -end % _ALIGNMENT
    columns = {
        item["name"]: np.frombuffer(frame, f"<{item['dtype']}", item["length"], start + item["offset"])
        for item in facts.pop("columns")
    }
    return facts, columns
