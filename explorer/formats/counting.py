"""What an array of float32 loses when it is stored in a number format: counted, never changed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from explorer.formats.rounding import CHUNK_ELEMENTS, Float32Array, check_float32
from explorer.formats.table import Format, get_format

__all__ = ["Census", "census"]

_MAGNITUDE_BITS = np.uint32(0x7FFFFFFF)  # IEEE 754 binary32: all but the sign
_INFINITY_BITS = np.uint32(0x7F800000)  # IEEE 754 binary32: magnitudes above it are NaN


@dataclass(frozen=True)
class Census:
    """Counts of what happens to the elements of an array when it is stored in a format.

    Two of them add up to the census of both arrays, exactly; ``Census()`` is that of nothing.

    Args:
        elements: how many there are.
        overflow: finite ones that lie beyond the format's range, whatever then stands for them (infinity, NaN, or
            the largest value where the conversion saturates).
        nan: those that are NaN already.
        subnormal: those that become subnormal values: kept, but with fewer bits than the format has.
        flushed: those that are not zero and become zero.
        infinite: those that are infinite already.
        max_abs: the largest finite magnitude; 0 where there is none.

    >>> Census(elements=2, overflow=1, max_abs=7e4) + Census(elements=3, flushed=1, max_abs=0.5)
    Census(elements=5, overflow=1, nan=0, subnormal=0, flushed=1, infinite=0, max_abs=70000.0)
    """

    elements: int = 0
    overflow: int = 0
    nan: int = 0
    subnormal: int = 0
    flushed: int = 0
    infinite: int = 0
    max_abs: float = 0.0

    def __add__(self, other: Census) -> Census:
        return Census(
            elements=self.elements + other.elements,
            overflow=self.overflow + other.overflow,
            nan=self.nan + other.nan,
            subnormal=self.subnormal + other.subnormal,
            flushed=self.flushed + other.flushed,
            infinite=self.infinite + other.infinite,
            max_abs=max(self.max_abs, other.max_abs),
        )


def census(x: Float32Array, fmt: Format | str) -> Census:
    """Return how many elements of ``x`` overflow, lose bits or vanish when they are stored in the format.

    The array is read in chunks: memory stays flat, so a memory-mapped array of any size will do.

    Args:
        x: any shape, float32. For int8, which has a scale, give ``x / scale``.
        fmt: the format, or its name.

    Raises:
        InputError: ``x`` is not float32.

    >>> census(np.float32([1.0, 1e5, 1e-5, 1e-9, 0.0, np.nan]), "fp16")
    Census(elements=6, overflow=1, nan=1, subnormal=1, flushed=1, infinite=0, max_abs=100000.0)
    """
    fmt = get_format(fmt)
    check_float32(x)
    limits = _Limits.of(fmt)
    magnitudes = np.empty(CHUNK_ELEMENTS, np.uint32)
    total = Census()
    for item in np.nditer(x, flags=["external_loop", "buffered", "zerosize_ok"], buffersize=CHUNK_ELEMENTS):
        chunk = cast("Float32Array", item)  # numpy's stubs know only the tuples that several operands give
        total += _census_of_chunk(chunk, magnitudes[: chunk.size], limits)
    return total


@dataclass(frozen=True)
class _Limits:
    """The bits of the float32 at which an element changes its fate: each is the first one above the fate before."""

    kept: np.uint32  # above zero and not flushed
    normal: np.uint32
    overflow: np.uint32
    overflow_below_zero: np.uint32  # the negative side of an integer reaches further

    @classmethod
    @functools.cache  # a converter takes the census of thousands of small weights in one format
    def of(cls, fmt: Format) -> _Limits:
        past_flush = np.nextafter(_float32_at_or_below(fmt.flush_threshold), np.float32(np.inf))
        below_zero = fmt.overflow_threshold
        if not fmt.is_float:
            below_zero = float(np.nextafter(np.float32(fmt.flush_threshold - fmt.min), np.float32(np.inf)))
        kept = _bits(past_flush)
        return cls(
            kept=kept,
            normal=max(kept, _bits(_float32_at_or_above(fmt.subnormal_threshold))),  # an integer has no subnormals
            overflow=_bits(_float32_at_or_above(fmt.overflow_threshold)),
            overflow_below_zero=_bits(_float32_at_or_above(below_zero)),
        )


def _census_of_chunk(chunk: Float32Array, magnitudes: npt.NDArray[np.uint32], limits: _Limits) -> Census:
    """Count one chunk; ``magnitudes`` is scratch. The bits of float32 magnitudes sort as the magnitudes do."""
    np.bitwise_and(chunk.view(np.uint32), _MAGNITUDE_BITS, out=magnitudes)
    largest = magnitudes.max()
    above_zero = int(np.count_nonzero(magnitudes))
    kept = int(np.count_nonzero(magnitudes >= limits.kept))
    normal = int(np.count_nonzero(magnitudes >= limits.normal))
    overflow = infinite = nan = 0
    if largest >= limits.overflow:  # rare, so that most chunks need no look at their upper end
        nan = int(np.count_nonzero(magnitudes > _INFINITY_BITS))
        infinite = int(np.count_nonzero(magnitudes == _INFINITY_BITS))
        beyond = magnitudes >= limits.overflow
        if limits.overflow_below_zero != limits.overflow:
            beyond &= ~np.signbit(chunk) | (magnitudes >= limits.overflow_below_zero)
            beyond |= magnitudes >= _INFINITY_BITS
        overflow = int(np.count_nonzero(beyond)) - nan - infinite
        if largest >= _INFINITY_BITS:
            largest = np.max(magnitudes, where=magnitudes < _INFINITY_BITS, initial=np.uint32(0))
    return Census(
        elements=chunk.size,
        overflow=overflow,
        nan=nan,
        subnormal=kept - normal,
        flushed=above_zero - kept,
        infinite=infinite,
        max_abs=float(np.uint32(largest).view(np.float32)),
    )


def _bits(x: np.float32) -> np.uint32:
    return x.view(np.uint32)


def _float32_at_or_below(x: float) -> np.float32:
    """Return the largest float32 that is not above a positive ``x``."""
    near = _to_float32(x)
    return np.nextafter(near, np.float32(0)) if float(near) > x else near


def _float32_at_or_above(x: float) -> np.float32:
    """Return the smallest float32 that is not below a positive ``x``."""
    near = _to_float32(x)
    return np.nextafter(near, np.float32(np.inf)) if float(near) < x else near


def _to_float32(x: float) -> np.float32:
    with np.errstate(all="ignore"):
        return np.float32(x)
