"""TensorRT's calibration cache: a text of scales by tensor, which TensorRT 10 and older write and read.

The first line is ``TRT-<version>-<algorithm>``; each other line is the name of a tensor, a colon, and its scale, the
bits of a float32 in hexadecimal, the highest byte first. The scale is the largest |value| / 127.

Source: README of TensorRT's sampleINT8 ("Calibration File"). Not run against a TensorRT library.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.calibrate.activations import float_values
from explorer.calibrate.calibration import Calibration
from explorer.errors import CalibrationError, nearest
from explorer.model.files import replacing

if TYPE_CHECKING:
    import os

    from explorer.model import Model

__all__ = ["ALGORITHMS", "read_tensorrt_cache", "write_tensorrt_cache"]

METHOD: Final = "tensorrt cache"
ALGORITHMS: Final = ("EntropyCalibration2", "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration")
_HEADER: Final = re.compile(r"TRT-(?P<version>\w+)-(?P<algorithm>\w+)")
_LARGEST: Final = 127  # code of the largest |value|
_NAMED: Final = 5  # tensors that a warning names; of the others it tells the number


def read_tensorrt_cache(path: str | os.PathLike[str], model: Model) -> Calibration:
    """Return the ranges that a calibration cache of TensorRT holds for a model.

    Args:
        path: the file.
        model: the model that the cache was made for.

    Returns:
        A calibration of the method ``tensorrt cache``. Its ``warnings`` name the tensors of the cache that the model
        does not have (TensorRT gives names of its own to what it adds), and those of the model that the cache lacks.

    Raises:
        CalibrationError: the file cannot be read, is no such cache, has a scale that is none, or two for one tensor,
            or none of its tensors is in the model.
    """
    algorithm, scales = _parsed(Path(path))
    wanted = [spec.name for spec in model.inputs if spec.dtype == "float32"] + float_values(model)
    known = {name: scales[name] * _LARGEST for name in wanted if name in scales}
    unknown = [name for name in scales if name not in known]
    if unknown and not known:
        raise CalibrationError(
            f"None of the {len(scales)} tensors in '{path}' is in the model, such as '{unknown[0]}'.",
            why="The cache belongs to another model, or the names of its tensors changed.",
            fix=nearest(unknown[0], wanted) or "Give the model that TensorRT calibrated.",
        )
    warnings = []
    if unknown:
        warnings.append(f"The TensorRT cache ({algorithm}) names tensors that the model lacks: {_listed(unknown)}.")
    if missing := [name for name in wanted if name not in known]:
        warnings.append(f"The TensorRT cache ({algorithm}) has no scale for: {_listed(missing)}.")
    return Calibration(known, METHOD, 0, model.digest, warnings=tuple(warnings), found_in=str(path))


def write_tensorrt_cache(
    calibration: Calibration,
    path: str | os.PathLike[str],
    *,
    version: str = "101300",
    algorithm: str = "EntropyCalibration2",
) -> Path:
    """Write the scales of a calibration as a cache that TensorRT 10 and older read, and return the path.

    TensorRT takes a cache only from its own version and for a calibrator of the algorithm that the first line names,
    and calibrates anew otherwise; ``trtexec --calib`` uses EntropyCalibration2, whatever the ranges were chosen by.

    Args:
        calibration: what to write; a range of zero gets the scale 1.
        path: the file.
        version: of TensorRT, as one number: 101300 is 10.13.0, 8601 is 8.6.1.
        algorithm: one of `ALGORITHMS`.

    Raises:
        CalibrationError: the version or algorithm is none, or a tensor's name has a line break.
        ExportError: the file cannot be written.
    """
    if not version.isalnum() or algorithm not in ALGORITHMS:
        raise CalibrationError(
            f"A cache cannot begin with 'TRT-{version}-{algorithm}'.",
            fix=f"The version is a number such as 101300 (10.13.0), the algorithm one of: {', '.join(ALGORITHMS)}.",
        )
    lines = [f"TRT-{version}-{algorithm}"]
    for name in calibration.amax:
        if len(name.splitlines()) > 1:
            raise CalibrationError(
                f"The tensor {name!r} has a line break in its name.",
                why="The cache has one tensor a line.",
                fix="Rename the tensor.",
            )
        lines.append(f"{name}: {struct.pack('>f', calibration.scale(name)).hex()}")
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def _parsed(path: Path) -> tuple[str, dict[str, float]]:
    """Return the algorithm, and the scale of each tensor."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CalibrationError(f"'{path}' cannot be read: {reason}.", fix="Check the path.") from error
    header = _HEADER.fullmatch(lines[0].strip())
    if header is None:
        raise CalibrationError(
            f"'{path}' begins with {lines[0]!r:.60}; a calibration cache of TensorRT begins with 'TRT-'.",
            why="Scales in another form would be misread.",
            fix="Give the file that TensorRT's calibrator wrote.",
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        name, _, code = line.strip("\r").rpartition(":")
        scale = _scale(code.strip())
        if not name or scale is None:
            raise CalibrationError(
                f"Line {number} of '{path}' is {line!r:.80}, not a tensor and its scale.",
                why="Each line is the name, a colon, and a positive finite float32 as 8 hexadecimal digits.",
                fix="Give the file as TensorRT wrote it.",
            )
        if scales.setdefault(name, scale) != scale:
            raise CalibrationError(
                f"'{path}' has two scales for '{name}', the second in line {number}.",
                fix="Remove the one that is wrong.",
            )
    return header["algorithm"], scales


def _scale(code: str) -> float | None:
    """Return the scale that stands in hexadecimal; None where it is none. Leading zeros may be missing."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,8}", code):
        return None
    scale = float(struct.unpack(">f", bytes.fromhex(code.zfill(8)))[0])
    return scale if np.isfinite(scale) and scale >= 0 else None


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
