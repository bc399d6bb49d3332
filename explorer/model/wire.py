"""Read and write the bytes of large models without copying their weights: protobuf's wire format, as far as needed.

Python's protobuf copies every weight when it parses a model, again when the weight is read, and twice more when the
model is serialized. Here a weight is read once, straight into its own aligned array, and written straight from it;
neither way is bound to protobuf's limit of 2 GB.
"""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["StoredWeight", "cut_weights", "graph_without_weights", "model_without_graph", "read_weights", "serialized"]

# Field numbers and wire types of protobuf's encoding, as onnx.proto3 numbers them.
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
_MAX_VARINT_BYTES = 10  # a 64-bit number, 7 bits a byte
_CUT_BYTES = 1 << 12  # below a page, protobuf is as fast
_READERS = 2  # a second thread hides the page faults of the first one's buffers; more gained nothing (2 cores)
_PLAIN = frozenset(
    # Types that lie in a file as numpy holds them (on a little-endian machine): whole bytes, no packing.
    ir.DataType[name]
    for name in [
        *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "INT16", "INT32", "INT64"),
        *("UINT8", "UINT16", "UINT32", "UINT64", "BOOL"),
    ]
)


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """Where the data of one initializer lies: ``length`` bytes from ``offset``."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    length: int


def cut_weights(data: mmap.mmap | bytes) -> tuple[bytes, list[StoredWeight]] | None:
    """Return a serialized model without the data of its large initializers, and where that data lies.

    None when the bytes are no well-formed protobuf message; protobuf's own parser then tells what is wrong.
    """
    if sys.byteorder != "little":
        return None
    view = memoryview(data)
    try:
        return _cut_model(view)
    except (IndexError, DecodeError):
        return None
    finally:
        view.release()


def _cut_model(view: memoryview) -> tuple[bytes, list[StoredWeight]]:
    pieces: list[bytes] = []
    weights: list[StoredWeight] = []
    for number, start, body, end in _fields(view, 0, len(view)):
        if number != _MODEL_GRAPH:
            pieces.append(bytes(view[start:end]))
            continue
        graph = b"".join(_cut_graph(view, body, end, weights))
        pieces += [_tag(_MODEL_GRAPH), _varint(len(graph)), graph]
    return b"".join(pieces), weights


def _cut_graph(view: memoryview, begin: int, stop: int, weights: list[StoredWeight]) -> Iterator[bytes]:
    plain = begin  # start of what was not yet copied: everything between two cuts goes over in one piece
    for number, start, body, end in _fields(view, begin, stop):
        if number != _GRAPH_INITIALIZER or end - body < _CUT_BYTES:
            continue
        found = _cut_tensor(view, body, end)
        if found is None:
            continue
        header, weight = found
        yield bytes(view[plain:start])
        yield _tag(_GRAPH_INITIALIZER) + _varint(len(header)) + header
        plain = end
        weights.append(weight)
    yield bytes(view[plain:stop])


def _cut_tensor(view: memoryview, begin: int, stop: int) -> tuple[bytes, StoredWeight] | None:
    kept: list[bytes] = []
    raw: tuple[int, int] | None = None
    for number, start, body, end in _fields(view, begin, stop):
        if number == _TENSOR_RAW_DATA:
            raw = body, end - body
        elif end - start > _CUT_BYTES:
            return None  # the data lies in a typed field
        else:
            kept.append(bytes(view[start:end]))
    if raw is None:
        return None
    header = b"".join(kept)
    tensor = onnx.TensorProto.FromString(header)
    dtype, shape = ir.DataType(tensor.data_type), tuple(tensor.dims)
    if dtype not in _PLAIN or math.prod(shape) * dtype.itemsize != raw[1]:
        return None
    return header, StoredWeight(tensor.name, dtype, shape, *raw)


def _fields(view: memoryview, position: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, start, start of the content, and end of each field of a message.

    Raises:
        IndexError: the bytes are no message.
    """
    while position < stop:
        start = position
        key, position = _read_varint(view, position)
        wire = key & 7
        body = position
        if wire == _LENGTH:
            size, body = _read_varint(view, position)
            position = body + size
        elif wire == _VARINT:
            _, position = _read_varint(view, position)
        else:
            position += _FIXED_SIZES.get(wire, stop)
        if position > stop:
            raise IndexError(position)
        yield key >> 3, start, body, position


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = view[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise IndexError(position)


def read_weights(source: Path | bytes, weights: list[StoredWeight]) -> dict[str, npt.NDArray[Any]]:
    """Return the data of each weight in an array of its own, read-only.

    Raises:
        OSError: the file cannot be read, or became shorter.
    """

    def read(weight: StoredWeight) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.empty(weight.shape, weight.dtype.numpy())
        target = _bytes_of(array)
        if isinstance(source, bytes):
            target[:] = memoryview(source)[weight.offset : weight.offset + weight.length]
        else:
            with source.open("rb", buffering=0) as file:
                file.seek(weight.offset)
                _fill(file, target)
        array.flags.writeable = False
        return array

    with ThreadPoolExecutor(_READERS) as readers:
        return dict(zip((weight.name for weight in weights), readers.map(read, weights), strict=True))


def _fill(file: BinaryIO, target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])  # type: ignore[attr-defined]  # raw files have it
        if not count:
            raise OSError("the file became shorter while it was read")
        done += count


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Return the memory of an array as bytes; numpy's extension types know no buffer format of their own."""
    return array.reshape(-1).view(np.uint8).data


def graph_without_weights(graph: ir.Graph, target: onnx.GraphProto) -> None:
    """Write the main graph into ``target``, without any initializer."""
    view = ir.GraphView(
        graph.inputs, graph.outputs, nodes=tuple(graph), name=graph.name, doc_string=graph.doc_string,
        opset_imports=graph.opset_imports, metadata_props=dict(graph.metadata_props),
    )  # fmt: skip
    ir.serde.serialize_graph_into(target, cast("ir.GraphViewProtocol", view))


def model_without_graph(model: ir.Model) -> onnx.ModelProto:
    """Return everything of a model but its main graph."""
    proto = onnx.ModelProto(
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version,
        domain=model.domain, model_version=model.model_version, doc_string=model.doc_string,
    )  # fmt: skip
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for key, value in model.metadata_props.items():
        proto.metadata_props.add(key=key, value=value)
    proto.functions.extend(ir.to_proto(function) for function in model.functions.values())
    return proto


def serialized(model: ir.Model) -> Iterator[bytes | memoryview]:
    """Yield the serialized model, weights inside, piece by piece; write the pieces one after the other.

    No weight is copied. External weights are read in, so that the result stands alone.
    """
    yield model_without_graph(model).SerializeToString()
    graph = onnx.GraphProto()
    graph_without_weights(model.graph, graph)
    parts: list[bytes | memoryview] = [graph.SerializeToString()]
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            tensor = list(_tensor_parts(value.const_value, name))
            parts += [_tag(_GRAPH_INITIALIZER), _varint(sum(map(len, tensor))), *tensor]
    yield _tag(_MODEL_GRAPH) + _varint(sum(map(len, parts)))
    yield from parts


def _tensor_parts(tensor: ir.TensorProtocol, name: str) -> Iterator[bytes | memoryview]:
    if tensor.dtype == ir.DataType.STRING:
        proto = ir.to_proto(tensor)
        proto.name = name
        yield proto.SerializeToString()
        return
    header = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    yield header.SerializeToString()
    if tensor.dtype in _PLAIN and sys.byteorder == "little":
        data: bytes | memoryview = _bytes_of(np.ascontiguousarray(tensor.numpy()))
    else:
        data = tensor.tobytes()
    yield _tag(_TENSOR_RAW_DATA) + _varint(len(data))
    yield data


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
