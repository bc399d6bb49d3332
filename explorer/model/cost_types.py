"""What the cost of a layer is made of, and the view of one layer that the cost rules read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from explorer.model.graph import Layer, TensorSpec, WeightInfo

__all__ = ["GemmShape", "Kind", "LayerCost", "Operands", "UnknownCostError", "Work"]

Kind = Literal["conv", "matmul", "elementwise", "normalization", "reduction", "movement", "softmax", "pool", "other"]

SWITCHABLE = frozenset({"float32", "float16", "bfloat16"})  # dtypes whose size follows the plan's format
_BYTES = {"bool": 1, "int4": 0.5, "uint4": 0.5, "float4e2m1": 0.5, "complex64": 8, "complex128": 16, "string": math.nan}


@dataclass(frozen=True, slots=True)
class GemmShape:
    """The matrix product ``batch`` x (m x k) @ (k x n) that a layer comes down to.

    Attributes:
        m: rows: output positions of a convolution (batch and space), tokens of a matrix product.
        n: columns: output channels (of one group).
        k: the summed extent: input channels of one group times the kernel's size.
        batch: independent products of this shape (matrix batch, convolution groups).
        k_inner: the part of ``k`` that lies together in memory and must be aligned (input channels); 0 means ``k``.
        steps: products that must follow one another (time steps of a recurrent layer).
    """

    m: int
    n: int
    k: int
    batch: int = 1
    k_inner: int = 0
    steps: int = 1

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiply-add being two."""
        return 2 * self.m * self.n * self.k * self.batch * self.steps

    @property
    def aligned_extent(self) -> int:
        """The part of ``k`` whose alignment decides on the tensor cores."""
        return self.k_inner or self.k


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Arithmetic and traffic of one layer; NaN where shapes are unknown, with the reason in ``note``.

    Attributes:
        layer_id: the layer.
        flops: floating-point operations of one run; a multiply-add is two.
        weight_elements: floating-point elements that are read from initializers.
        read_elements: floating-point elements that are read from other layers' outputs or model inputs.
        write_elements: floating-point elements that are written.
        gemm: the matrix product that it comes down to, else None.
        kind: what sort of work it is.
        fixed_bytes: bytes of tensors whose size no plan changes (integers, booleans, float64).
        note: why a number is NaN, or what it leaves out; empty otherwise.
    """

    layer_id: str
    flops: float
    weight_elements: float
    read_elements: float
    write_elements: float
    gemm: GemmShape | None
    kind: Kind
    fixed_bytes: float = 0.0
    note: str = ""

    @property
    def is_free(self) -> bool:
        """True when it neither computes nor moves anything: a view, or a container whose body is counted."""
        return not (self.flops or self.moved_elements or self.fixed_bytes)

    @property
    def moved_elements(self) -> float:
        """Floating-point elements that travel between memory and chip."""
        return self.weight_elements + self.read_elements + self.write_elements

    @property
    def is_known(self) -> bool:
        """True when neither arithmetic nor traffic is NaN."""
        return not math.isnan(self.flops + self.moved_elements + self.fixed_bytes)

    def bytes(self, element_bytes: float) -> float:
        """Return the bytes moved when a floating-point element takes ``element_bytes``."""
        return self.moved_elements * element_bytes + self.fixed_bytes


class UnknownCostError(Exception):
    """A rule cannot tell: carries the reason; never leaves this package."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a rule found: arithmetic, and where it departs from 'read every input once, write every output once'.

    Attributes:
        read_fraction: share of the first input that is touched.
        first_read: elements of the first input that are touched; overrides ``read_fraction``.
        moves: False for a view.
    """

    flops: float
    kind: Kind
    gemm: GemmShape | None = None
    read_fraction: float = 1.0
    first_read: float | None = None
    moves: bool = True
    note: str = ""


@dataclass(frozen=True)
class Operands:
    """One layer as its rule sees it: shapes of what goes in and out, and its attributes."""

    layer: Layer
    specs: Mapping[str, TensorSpec]
    weights: Mapping[str, WeightInfo]
    attributes_of: Callable[[str], Mapping[str, Any]]
    _cache: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute as a Python value, text decoded."""
        if "all" not in self._cache:
            self._cache["all"] = self.attributes_of(self.layer.id)
        value = self._cache["all"].get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Return whether input ``index`` is there (optional inputs may be absent)."""
        return index < len(self.layer.inputs) and bool(self.layer.inputs[index])

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the concrete shape of a value.

        Raises:
            UnknownCostError: it is not known.
        """
        if name in self.weights:
            return self.weights[name].shape
        spec = self.specs.get(name)
        shape = spec.shape if spec is not None else None
        if shape is None:
            raise UnknownCostError(f"the shape of '{name}' is unknown")
        for dim in shape:
            if not isinstance(dim, int):
                raise UnknownCostError(f"dimension '{'?' if dim is None else dim}' of '{name}' is unknown")
        return tuple(dim for dim in shape if isinstance(dim, int))

    def dtype_of(self, name: str) -> str:
        """Return the dtype of a value.

        Raises:
            UnknownCostError: it is not known.
        """
        known = self.weights.get(name) or self.specs.get(name)
        if known is None or not known.dtype:
            raise UnknownCostError(f"the type of '{name}' is unknown")
        return known.dtype

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the concrete shape of input ``index``."""
        if not self.has(index):
            raise UnknownCostError(f"input {index} is absent")
        return self.shape_of(self.layer.inputs[index])

    def output_shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the concrete shape of output ``index``."""
        return self.shape_of(self.layer.outputs[index])

    def elements(self, index: int = 0) -> int:
        """Return the number of elements of input ``index``."""
        return math.prod(self.shape(index))

    def output_elements(self, index: int = 0) -> int:
        """Return the number of elements of output ``index``."""
        return math.prod(self.output_shape(index))


def item_bytes(dtype: str) -> float:
    """Return the bytes of one element.

    >>> item_bytes("int64"), item_bytes("bool"), item_bytes("uint4")
    (8.0, 1.0, 0.5)

    Raises:
        UnknownCostError: the dtype has no fixed size (sequences, strings).
    """
    digits = "".join(char for char in dtype.split("e", maxsplit=1)[0].removeprefix("bfloat") if char.isdigit())
    size = _BYTES.get(dtype, int(digits) / 8 if digits and "(" not in dtype else math.nan)
    if math.isnan(size):
        raise UnknownCostError(f"elements of type '{dtype}' have no fixed size")
    return float(size)
