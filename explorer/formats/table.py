"""The table of number formats; only what a standard fixes is written down, every limit is derived from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np

from explorer.errors import PlanError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMATS", "Format", "get_format"]


@dataclass(frozen=True)
class Format:
    """Facts of one number format.

    An integer format is described as a fixed-point one: no exponent bits, one step of 1 everywhere, no subnormals. Its
    limits are those of the codes, that is, of ``x / scale``.

    Args:
        name: the word for it in plans, tables and views.
        exponent_bits: width of the exponent field; 0 for an integer.
        mantissa_bits: width of the mantissa field, without the hidden bit; without the sign for an integer.
        encoding: ``ieee`` spends the top exponent on infinities and NaN; ``finite`` spends only the very top code of
            each sign, on NaN, and has no infinity; ``integer`` is two's complement and has neither.
        onnx_dtype: name in ``onnx.TensorProto`` of the type in which tensors of this format are stored.
        dtype_name: name in numpy or ml_dtypes, or None where numpy has no such type.
        saturates: whether ONNX clamps values beyond the range by default when it converts to this format: Cast does
            for FP8 (attribute ``saturate``), QuantizeLinear always does.

    >>> fp16 = get_format("fp16")
    >>> fp16.bits, fp16.max, fp16.min_normal == 2**-14, fp16.overflow_threshold
    (16, 65504.0, True, 65520.0)
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    encoding: Literal["ieee", "finite", "integer"]
    onnx_dtype: str
    dtype_name: str | None
    saturates: bool = False

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point format."""
        return self.encoding != "integer"

    @property
    def has_infinity(self) -> bool:
        """Whether it can hold infinities."""
        return self.encoding == "ieee"

    @property
    def bits(self) -> int:
        """Bits that carry information: 19 for tf32, which is nevertheless stored in 32 (``storage_bits``)."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def storage_bits(self) -> int:
        """Bits that one element takes in memory."""
        return 8 * self.storage_dtype.itemsize

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The numpy (or ml_dtypes) type of exactly this format; None for tf32, which has none."""
        if self.dtype_name is None:
            return None
        home = np if hasattr(np, self.dtype_name) else ml_dtypes
        dtype: np.dtype[Any] = np.dtype(getattr(home, self.dtype_name))
        return dtype

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """The numpy type that stores it: ``numpy_dtype``, and float32 for tf32."""
        return self.numpy_dtype or np.dtype(np.float32)

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value; for an integer, the one that makes every step 1."""
        return 2 - (1 << (self.exponent_bits - 1)) if self.is_float else self.mantissa_bits

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest value."""
        if not self.is_float:
            return self.mantissa_bits - 1
        top = (1 << (self.exponent_bits - 1)) - 1
        return top if self.has_infinity else top + 1

    @property
    def max(self) -> float:
        """The largest finite value."""
        if not self.is_float:
            return float(2**self.mantissa_bits - 1)
        # The largest mantissa is all ones, except where that code is taken by NaN.
        lost_steps = 1 if self.has_infinity else 2
        return math.ldexp(2 ** (self.mantissa_bits + 1) - lost_steps, self.max_exponent - self.mantissa_bits)

    @property
    def min(self) -> float:
        """The most negative finite value."""
        return -self.max if self.is_float else -self.max - 1

    @property
    def epsilon(self) -> float:
        """Distance from 1 to the next value: one unit in the last place of 1."""
        return math.ldexp(1.0, max(0, self.min_exponent) - self.mantissa_bits)

    @property
    def min_normal(self) -> float:
        """The smallest positive value with full precision; 1 for an integer, which has no subnormals."""
        return math.ldexp(1.0, self.min_exponent) if self.is_float else 1.0

    @property
    def min_subnormal(self) -> float:
        """The smallest positive value."""
        return math.ldexp(1.0, self.min_exponent - self.mantissa_bits)

    @property
    def overflow_threshold(self) -> float:
        """The smallest float32 that is nearer to the step beyond ``max`` than to ``max``.

        What becomes of it and of everything above is infinity, NaN where there is no infinity, or ``max`` where the
        conversion saturates. For fp32 itself it is no float32: it tells which float64 overflow. For an integer it is
        the limit of positive values; the negative side reaches one step further.
        """
        step = math.ldexp(1.0, max(self.max_exponent, self.min_exponent) - self.mantissa_bits)
        halfway = self.max + step / 2
        # A tie goes to the even mantissa: beyond max when max is odd, back to max when it is even (fp8e4m3).
        max_is_odd = (self.max / step) % 2 == 1
        return halfway if max_is_odd else float(np.nextafter(np.float32(halfway), np.float32(np.inf)))

    @property
    def subnormal_threshold(self) -> float:
        """The smallest positive number that rounds to ``min_normal`` or more; below it precision is lost."""
        return self.min_normal - self.min_subnormal / 2

    @property
    def flush_threshold(self) -> float:
        """The largest positive number that rounds to zero."""
        return self.min_subnormal / 2


_ALL = (
    Format("fp32", 8, 23, "ieee", "FLOAT", "float32"),  # IEEE 754-2019, table 3.5: binary32
    Format("tf32", 8, 10, "ieee", "FLOAT", None),  # NVIDIA A100 architecture whitepaper (2020), "TF32"
    Format("bf16", 8, 7, "ieee", "BFLOAT16", "bfloat16"),  # ONNX IR, TensorProto.BFLOAT16: the upper half of binary32
    Format("fp16", 5, 10, "ieee", "FLOAT16", "float16"),  # IEEE 754-2019, table 3.5: binary16
    Format("fp8e4m3", 4, 3, "finite", "FLOAT8E4M3FN", "float8_e4m3fn", saturates=True),  # arXiv:2209.05433, table 1
    Format("fp8e5m2", 5, 2, "ieee", "FLOAT8E5M2", "float8_e5m2", saturates=True),  # arXiv:2209.05433, table 1
    Format("int8", 0, 7, "integer", "INT8", "int8", saturates=True),  # ONNX operators, QuantizeLinear
)

FORMATS: Mapping[str, Format] = MappingProxyType({fmt.name: fmt for fmt in _ALL})
"""Every format by name, widest first."""


def get_format(name: str | Format) -> Format:
    """Return the format of that name (a `Format` is returned as it is).

    Args:
        name: one of the names in `FORMATS`.

    Raises:
        PlanError: there is no format of that name.

    >>> get_format("bf16").max
    3.3895313892515355e+38
    >>> get_format("fp61")
    Traceback (most recent call last):
    explorer.errors.PlanError: There is no number format 'fp61'. Did you mean 'fp16'? Known formats: ...
    """
    if isinstance(name, Format):
        return name
    try:
        return FORMATS[name]
    except KeyError as error:
        raise PlanError(
            f"There is no number format {name!r}.",
            fix=f"{nearest(name, FORMATS)} Known formats: {', '.join(FORMATS)}.".strip(),
        ) from error
