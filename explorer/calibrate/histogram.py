"""Streamed histograms of magnitudes, in constant memory, that do not depend on the order of what streams through.

A histogram has a fixed number of bins of equal width, and the width is a power of two. When a value comes that lies
beyond the last bin, the width doubles until it fits, and neighbouring bins are merged in pairs. Because edges are
multiples of a power of two, which bin a value lies in is exact at every width, so one pass over the data gives the very
counts that a second pass with the final width would give, in whatever order and pieces the values come.
"""

from __future__ import annotations

import math
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from explorer.formats.rounding import check_float32

__all__ = ["BINS", "StreamedHistogram"]

Counts = npt.NDArray[np.int64]

BINS: Final = 1 << 13  # at least half of them are in use: a bin is at most 1/4096 of the range; 64 KiB a tensor
_CHUNK: Final = 1 << 15  # elements: what is made on the way stays in the processor's cache
_LEAST_EXPONENT: Final = -126  # of float32's normal numbers: 1 / width must be finite


class StreamedHistogram:
    """Counts of |x| in `BINS` bins of equal width; values may be added from several threads.

    >>> seen = StreamedHistogram()
    >>> seen.add(np.float32([0.0, -1.0, 3.0, np.inf]))
    >>> seen.total, seen.max_abs, seen.nonfinite
    (3, 3.0, 1)

    Attributes:
        counts: int64 of shape (`BINS`,): entry i counts values in [i * width, (i + 1) * width).
        exponent: log2 of the width of a bin; None while nothing but zeros was seen, all in the first bin.
        max_abs: the largest finite |x|.
        nonfinite: number of infinities and NaN, which stand in no bin.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(BINS, np.int64)
        self.exponent: int | None = None
        self.max_abs = 0.0
        self.nonfinite = 0
        self._lock = threading.Lock()

    @property
    def width(self) -> float:
        """Width of a bin; 0 while nothing but zeros was seen."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many finite values were counted."""
        return int(self.counts.sum())

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count float32 values of any shape.

        Raises:
            InputError: the values are not float32; a count of others would be of what they round to.
        """
        check_float32(values)
        values, odd = _finite(values.reshape(-1))
        if not values.size:
            with self._lock:
                self.nonfinite += odd
            return
        top = max(float(values.max()), -float(values.min()))
        # Counted outside of the lock, in bins that are wide enough; they may have become wider when it is taken.
        known = self.exponent
        exponent = max((each for each in (_fitting(top), known) if each is not None), default=None) if top else None
        counts = _counted(values, exponent)
        with self._lock:
            self._merge(counts, exponent)
            self.max_abs = max(self.max_abs, top)
            self.nonfinite += odd

    def merge(self, other: StreamedHistogram) -> None:
        """Add what another one has counted."""
        with self._lock:
            self._merge(other.counts, other.exponent)
            self.max_abs = max(self.max_abs, other.max_abs)
            self.nonfinite += other.nonfinite

    def _merge(self, counts: Counts, exponent: int | None) -> None:
        if exponent is None:  # zeros, which stand in the first bin of any width
            self.counts[: counts.size] += counts
            return
        if self.exponent is None:
            self.exponent = exponent
        if exponent > self.exponent:
            merged = _merged(self.counts, exponent - self.exponent)
            self.counts[: merged.size] = merged
            self.counts[merged.size :] = 0
            self.exponent = exponent
        counts = _merged(counts, self.exponent - exponent)
        self.counts[: counts.size] += counts


def _fitting(top: float) -> int | None:
    """Return log2 of the smallest width with which ``top`` lies in one of the bins; None for zero."""
    if top == 0:
        return None
    return max(math.frexp(top)[1] - BINS.bit_length() + 1, _LEAST_EXPONENT)


def _finite(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], int]:
    """Return the finite values, and how many others there were."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all are: it is the fastest look (one that overflows only costs the slow one).
        if np.isfinite(values.sum()):
            return values, 0
    finite = np.isfinite(values)
    kept = values[finite]
    return kept, values.size - kept.size


def _counted(values: npt.NDArray[np.float32], exponent: int | None) -> Counts:
    """Return counts of |values|, up to the last bin that is in use, in bins of width ``2**exponent``."""
    if exponent is None:
        return np.array([values.size], np.int64)
    size = min(values.size, _CHUNK)
    scaled, bins = np.empty(size, np.float32), np.empty(size, np.intp)
    inverse = np.float32(math.ldexp(1.0, -exponent))
    counts: Counts = np.zeros(0, np.int64)
    for start in range(0, values.size, _CHUNK):
        piece = values[start : start + _CHUNK]
        part, index = scaled[: piece.size], bins[: piece.size]
        np.multiply(piece, inverse, out=part)  # exact: a power of two, and what becomes subnormal lies in bin 0
        np.abs(part, out=part)
        index[...] = part
        found: Counts = np.bincount(index)
        if found.size > counts.size:
            counts, found = found, counts
        counts[: found.size] += found
    return counts


def _merged(counts: Counts, doublings: int) -> Counts:
    """Return the counts in bins that are ``2**doublings`` times as wide."""
    if not doublings:
        return counts
    factor = 1 << min(doublings, BINS.bit_length())
    padded = np.zeros(-(-counts.size // factor) * factor, np.int64)
    padded[: counts.size] = counts
    return np.asarray(padded.reshape(-1, factor).sum(axis=1), np.int64)
