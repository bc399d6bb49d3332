"""What the weights of a layer hold, and what a low format would lose of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from explorer.convert.quantise import weight_axis
from explorer.convert.quantised_typing import PRODUCTS
from explorer.convert.typing import HIGH
from explorer.formats import Census, census
from explorer.formats.quantise import weight_scales
from explorer.scene.numbers import num
from explorer.scene.text import dims_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from explorer.model import Layer, Model

__all__ = ["weight_figures"]

_STORED = ("fp16", "bf16")  # formats that any layer may read its weights in
_INT8 = "int8"
_OPERANDS = 2  # of a product; what follows them is a bias
_CHUNK_ELEMENTS = 1 << 18  # a few MB as float64: weights of any size are read without being copied whole


@dataclass(frozen=True)
class _Statistics:
    """Of all elements; None where there are none, or none that are real numbers."""

    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    zeros: int = 0


_KNOWN: WeakKeyDictionary[Model, dict[tuple[str, str, int | None], dict[str, Any]]] = WeakKeyDictionary()


def weight_figures(model: Model, layer: Layer, index: int, low_format: str) -> dict[str, Any]:
    """Return what a weight holds, as the protocol's WeightFigures; counted once for each format.

    Args:
        model: the model.
        layer: the layer that reads it.
        index: which of its inputs it is.
        low_format: the format whose losses are counted. Only float32 weights are ever stored in it; of the formats of
            products, the operands of products alone.
    """
    name = layer.inputs[index]
    stored = low_format in _STORED or (layer.op in PRODUCTS and index < _OPERANDS)
    axis = weight_axis(model, layer, index) if stored and low_format == _INT8 else None
    known, key = _KNOWN.setdefault(model, {}), (name, low_format if stored else "", axis)
    if key not in known:
        known[key] = _counted(model, *key)
    return known[key]


def _lost(array: npt.NDArray[np.float32], low_format: str, axis: int | None) -> Census:
    """Return what storing a weight loses; int8 stores it in steps of its largest value, or of those of its channels."""
    if low_format != _INT8:
        return census(array, low_format) if low_format else Census()
    scales = weight_scales(array, axis)
    if axis is not None:
        scales = scales.reshape([-1 if each == axis else 1 for each in range(array.ndim)])
    return census(np.asarray(array / scales, np.float32), low_format)


def _counted(model: Model, name: str, low_format: str, axis: int | None) -> dict[str, Any]:
    info = model.weights[name]
    tensor = model.ir.graph.initializers[name].const_value
    found, lost = _Statistics(), Census()
    if tensor is not None and tensor.dtype != ir.DataType.STRING:
        array = np.asarray(tensor.numpy())
        found = _statistics(array)
        if info.dtype == HIGH:
            lost = _lost(array, low_format, axis)
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
