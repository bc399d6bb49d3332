"""What the weights of a layer hold, and what a low format would lose of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from explorer.convert.typing import HIGH
from explorer.formats import Census, census
from explorer.scene.numbers import num
from explorer.scene.text import dims_text

if TYPE_CHECKING:
    from explorer.model import Model

__all__ = ["weight_figures"]

_CHUNK_ELEMENTS = 1 << 18  # a few MB as float64: weights of any size are read without being copied whole


@dataclass(frozen=True)
class _Statistics:
    """Of all elements; None where there are none, or none that are real numbers."""

    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    zeros: int = 0


_KNOWN: WeakKeyDictionary[Model, dict[tuple[str, str], dict[str, Any]]] = WeakKeyDictionary()


def weight_figures(model: Model, name: str, low_format: str) -> dict[str, Any]:
    """Return what a weight holds, as the protocol's WeightFigures; counted once for each format.

    Args:
        model: the model.
        name: of the weight.
        low_format: the format whose losses are counted. Only float32 weights are ever stored in it.
    """
    known = _KNOWN.setdefault(model, {})
    if (name, low_format) not in known:
        known[name, low_format] = _counted(model, name, low_format)
    return known[name, low_format]


def _counted(model: Model, name: str, low_format: str) -> dict[str, Any]:
    info = model.weights[name]
    tensor = model.ir.graph.initializers[name].const_value
    found, lost = _Statistics(), Census()
    if tensor is not None and tensor.dtype != ir.DataType.STRING:
        array = np.asarray(tensor.numpy())
        found = _statistics(array)
        if info.dtype == HIGH:
            lost = census(array, low_format)
    return {
        "name": name,
        "dtype": info.dtype,
        "shape": dims_text(info.shape),
        "elements": info.elements,
        "bytes": info.bytes,
        "min": num(found.low),
        "max": num(found.high),
        "mean": num(found.mean),
        "std": num(found.std),
        "zeros": found.zeros,
        "overflow": lost.overflow,
        "subnormal": lost.subnormal,
        "flushed": lost.flushed,
    }


def _statistics(array: np.ndarray[Any, Any]) -> _Statistics:
    flat = array.reshape(-1)
    if not flat.size or flat.dtype.kind == "c":
        return _Statistics()
    chunks = [slice(start, start + _CHUNK_ELEMENTS) for start in range(0, flat.size, _CHUNK_ELEMENTS)]
    low, high, total, squares, zeros = np.inf, -np.inf, 0.0, 0.0, 0
    with np.errstate(invalid="ignore", over="ignore"):  # weights may hold infinities and NaN, and say so
        for chunk in chunks:
            values = flat[chunk].astype(np.float64)
            low, high = np.minimum(low, values.min()), np.maximum(high, values.max())
            total += float(values.sum())
            zeros += int(values.size - np.count_nonzero(values))
        mean = total / flat.size
        for chunk in chunks:
            squares += float(np.square(flat[chunk].astype(np.float64) - mean).sum())
        return _Statistics(float(low), float(high), mean, float(np.sqrt(squares / flat.size)), zeros)
