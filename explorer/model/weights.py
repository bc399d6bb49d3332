"""The tensor type of loaded weights: an array, a type and a name, and nothing that the user's own model shares."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Weight", "own"]

_BITS_OF_A_BYTE = 8


class Weight:
    """An array as an ONNX tensor (onnx-ir's ``TensorProtocol``); it is not copied, and must not be changed.

    It is what ``onnx_ir.Tensor`` is for an array, at a tenth of its cost: that one asks of every array, by structural
    type checks, whether it is one (measured, Python 3.11: 0.1 ms each, a second for 10,000 weights).
    """

    __slots__ = ("doc_string", "dtype", "meta", "metadata_props", "name", "raw", "shape")

    def __init__(self, array: npt.NDArray[Any], dtype: ir.DataType, name: str) -> None:
        self.name: str | None = name
        self.doc_string: str | None = None
        self.metadata_props: MutableMapping[str, str] = {}
        self.meta: MutableMapping[str, Any] = {}
        self.raw: Any = array
        self.dtype = dtype
        self.shape: ir.ShapeProtocol = ir.Shape(array.shape, frozen=True)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.raw.size)

    @property
    def nbytes(self) -> int:
        """Size as ONNX stores it, in bytes."""
        return math.ceil(self.dtype.itemsize * self.size)

    def numpy(self) -> npt.NDArray[Any]:
        """Return the array itself."""
        array: npt.NDArray[Any] = self.raw
        return array

    def __array__(self, dtype: Any = None) -> npt.NDArray[Any]:
        return np.asarray(self.raw, dtype)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self.raw.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.raw.__dlpack_device__()
        return device

    def tobytes(self) -> bytes:
        """Return the data as ONNX stores it: little-endian, elements smaller than a byte packed."""
        if self.dtype.bitwidth < _BITS_OF_A_BYTE:
            return ir.Tensor(self.raw, dtype=self.dtype).tobytes()
        array = self.numpy()
        if sys.byteorder != "little":
            array = array.astype(array.dtype.newbyteorder("<"))
        return array.tobytes()

    def __repr__(self) -> str:
        return f"Weight({self.dtype}, {self.shape}, name={self.name!r})"


def own(tensor: ir.TensorProtocol, name: str, *, anew: bool = False) -> ir.TensorProtocol:
    """Return the tensor under ``name``, with nothing that a proto shares; external ones stay in their file.

    Args:
        tensor: the tensor.
        name: the name of the result.
        anew: return a new tensor even where the given one is owned already, so that it may be renamed.

    Raises:
        ValueError: its data does not fill its shape.
    """
    if isinstance(tensor, Weight) and tensor.name == name and not anew:
        return tensor
    if isinstance(tensor, ir.ExternalTensor) and not anew:
        tensor.name = name
        return tensor
    if tensor.dtype == ir.DataType.STRING:
        strings = [item if isinstance(item, bytes) else str(item).encode() for item in np.ravel(tensor.numpy())]
        return ir.StringTensor(strings, shape=ir.Shape(tensor.shape.numpy()), name=name)
    array = np.asarray(tensor.numpy())
    if array.shape != tuple(tensor.shape.numpy()):
        raise ValueError(f"shape {array.shape} instead of {tuple(tensor.shape.numpy())}")
    return Weight(array, tensor.dtype, name)
