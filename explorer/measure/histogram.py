"""Histograms of magnitudes by powers of two; they merge exactly, so tensors of any size stream through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Histogram", "common_axis", "tally"]

Counts = npt.NDArray[np.int64]

LOWEST, HIGHEST = -149, 127  # floor(log2 |x|) of the smallest subnormal and of the largest float32 (IEEE 754: binary32)
_BIAS = 127  # of binary32's exponent: the stored one is floor(log2 |x|) + 127 for normal numbers
_SMALLEST_NORMAL = -126
_FRACTION_BITS = 23
_NONFINITE = 255  # the stored exponent of infinities and NaN
_CHUNK = 1 << 17  # elements: what is made on the way stays in the processor's cache
_BINS = HIGHEST - LOWEST + 1


def tally(values: npt.NDArray[np.float32]) -> Counts:
    """Return how many values have each floor(log2 |value|): int64 of shape (279,), to be added up.

    The first entry counts zeros, the last infinities and NaN, entry ``1 + i`` those in [2^(i-149), 2^(i-148)).

    Args:
        values: float32 of any shape.

    Raises:
        TypeError: the values are not float32; a count of others would be of what they round to.
    """
    if values.dtype != np.float32:
        raise TypeError(f"a histogram is made of float32 values, not of {values.dtype}")
    counts = np.zeros(1 + _BINS + 1, np.int64)
    bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    by_exponent = np.zeros(_NONFINITE + 1, np.int64)
    for start in range(0, bits.size, _CHUNK):
        # Shifted left once the sign is gone, and the stored exponent is the highest byte.
        unsigned = bits[start : start + _CHUNK] << np.uint32(1)
        found = np.bincount(unsigned >> np.uint32(_FRACTION_BITS + 1), minlength=_NONFINITE + 1)
        by_exponent += found
        zeros = unsigned.size - int(np.count_nonzero(unsigned))
        counts[0] += zeros
        if found[0] > zeros:
            _add_subnormals(counts, unsigned)
    counts[1 + _SMALLEST_NORMAL - LOWEST : -1] = by_exponent[_SMALLEST_NORMAL + _BIAS : _NONFINITE]
    counts[-1] = by_exponent[_NONFINITE]
    return counts


def _add_subnormals(counts: Counts, unsigned: npt.NDArray[np.uint32]) -> None:
    """Count float32's own subnormals, whose exponent is where their highest bit stands."""
    some = unsigned[(unsigned != 0) & (unsigned >> np.uint32(_FRACTION_BITS + 1) == 0)]
    highest = np.frexp((some >> np.uint32(1)).astype(np.float64))[1] - 1  # of a fraction in units of 2^-149
    counts[1:] += np.bincount(highest, minlength=_BINS + 1)


@dataclass(frozen=True)
class Histogram:
    """How many values of a tensor have which magnitude, on a log2 axis without gaps.

    >>> Histogram.of(np.float32([0, 1, -1.5, 2, 9, np.nan]))
    Histogram(first=0, counts=(2, 1, 0, 1), zeros=1, nonfinite=1)

    Attributes:
        first: log2 of where the first bin begins; 0 where there is no bin.
        counts: entry i counts the values with |value| in [2^(first+i), 2^(first+i+1)); neither end is 0.
        zeros: number of zeros of either sign.
        nonfinite: number of infinities and NaN.
    """

    first: int = 0
    counts: tuple[int, ...] = ()
    zeros: int = 0
    nonfinite: int = 0

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> Histogram:
        """Return the histogram of float32 values of any shape."""
        return cls.of_tally(tally(values))

    @classmethod
    def of_tally(cls, counts: Counts) -> Histogram:
        """Return the histogram of what :func:`tally` counted, or of a sum of such."""
        bins = counts[1:-1]
        used = np.flatnonzero(bins)
        zeros, nonfinite = int(counts[0]), int(counts[-1])
        if not used.size:
            return cls(zeros=zeros, nonfinite=nonfinite)
        first, last = int(used[0]), int(used[-1])
        return cls(LOWEST + first, tuple(bins[first : last + 1].tolist()), zeros, nonfinite)

    @property
    def elements(self) -> int:
        """Number of values that were counted."""
        return sum(self.counts) + self.zeros + self.nonfinite

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of the values of both."""
        first, mine, theirs = common_axis(self, other)
        merged = tuple(one + two for one, two in zip(mine, theirs, strict=True))
        return Histogram(first, merged, self.zeros + other.zeros, self.nonfinite + other.nonfinite)


def common_axis(one: Histogram, two: Histogram) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return log2 of the first bin, and the counts of both histograms on one axis that holds either."""
    some = [each for each in (one, two) if each.counts]
    if not some:
        return 0, (), ()
    first = min(each.first for each in some)
    length = max(each.first + len(each.counts) for each in some) - first

    def placed(each: Histogram) -> tuple[int, ...]:
        if not each.counts:
            return (0,) * length
        before = each.first - first
        return (0,) * before + each.counts + (0,) * (length - before - len(each.counts))

    return first, placed(one), placed(two)
