"""Arrays in and out of ONNX Runtime, for the types that numpy lacks too (bfloat16 and float8, from ``ml_dtypes``)."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from explorer._optional import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["array_of", "dtype_of", "needs_values", "value_of"]

_FOREIGN: dict[str, tuple[int, type[Any]]] = {
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float8e4m3fn": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8e5m2": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
}  # ONNX Runtime's name of a type, to its number and numpy's stand-in
_BY_DTYPE = {np.dtype(kind): number for number, kind in _FOREIGN.values()}
_BY_TYPE = {f"tensor({name})": kind for name, (_, kind) in _FOREIGN.items()}
_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
} | {
    f"tensor({kind})": np.dtype(kind)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
    for kind in (f"{sign}int{bits}",)
}


def dtype_of(kind: str) -> np.dtype[Any] | None:
    """Return numpy's dtype of one of ONNX Runtime's type names; None for strings, sequences and the like.

    >>> dtype_of("tensor(float)")
    dtype('float32')
    """
    found = _NUMPY.get(kind) or _BY_TYPE.get(kind)
    return None if found is None else np.dtype(found)


def needs_values(feeds: Iterable[Any], output_types: Iterable[str]) -> bool:
    """Return whether a run meets types that ONNX Runtime cannot exchange with numpy by itself."""
    fed = any(isinstance(feed, np.ndarray) and feed.dtype in _BY_DTYPE for feed in feeds)
    return fed or any(kind in _BY_TYPE for kind in output_types)


def value_of(array: NDArray[Any]) -> Any:
    """Return an OrtValue on the array's own memory, which it keeps alive; only a non-contiguous array is copied."""
    ort = require("onnxruntime", why="to run models", extra="cpu")
    array = np.asarray(array, order="C")  # ascontiguousarray would make a scalar a vector
    number = _BY_DTYPE.get(array.dtype)
    if number is None:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, number)


def array_of(value: Any) -> NDArray[Any]:
    """Return a copy of a tensor that ONNX Runtime returned."""
    kind = _BY_TYPE.get(value.data_type())
    if kind is None:
        return np.asarray(value.numpy())
    buffer = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(buffer, dtype=kind).reshape(value.shape()).copy()
