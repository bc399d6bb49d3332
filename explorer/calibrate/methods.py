"""How a range is chosen from a histogram: the largest value, a share of the values, or the least loss of information.

Sources: percentile and entropy as in H. Wu et al., "Integer Quantization for Deep Learning Inference: Principles and
Empirical Evaluation" (arXiv:2004.09602), section 5.1; entropy by S. Migacz, "8-bit Inference with TensorRT" (GTC 2017),
in the form that NVIDIA's pytorch-quantization gave it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from explorer.calibrate.calibration import METHODS
from explorer.errors import CalibrationError, nearest

if TYPE_CHECKING:
    from explorer.calibrate.histogram import StreamedHistogram

__all__ = ["amax_of", "check_method", "entropy_bins"]

Floats = npt.NDArray[np.float64]

LEVELS: Final = 128  # magnitudes that an int8 tells apart
_ENTROPY_BINS: Final = 2048  # of TensorRT's histograms
_LEAST_HELD: Final = 0.99  # share of the values that entropy represents at least (chosen here: see docs/int8.md)
_SMOOTH: Final = 1e-4  # counts in a bin that would be empty, as in MXNet's and ONNX Runtime's calibrators
_EQUAL: Final = 1e-10  # divergences that differ by less are equal: ten times what float64 sums of logarithms err by


def check_method(method: str, percentile: float) -> None:
    """Refuse a method that there is not, or a percentile that is none.

    Raises:
        CalibrationError: with what to use.
    """
    if method not in METHODS:
        raise CalibrationError(
            f"There is no calibration method '{method}'.",
            fix=nearest(method, METHODS) or f"Use one of: {', '.join(METHODS)}.",
        )
    if not 0 < percentile <= 100:
        raise CalibrationError(
            f"The percentile is {percentile}.",
            why="It is the share of the values that int8 represents, in percent.",
            fix="Give more than 0 and at most 100; 99.99 is usual.",
        )


def amax_of(seen: StreamedHistogram, method: str, percentile: float) -> float:
    """Return the largest |value| that is to be represented; 0 where nothing but zeros, or nothing, was seen.

    Args:
        seen: what was counted.
        method: one of `METHODS`.
        percentile: of that method; at least this share of the values is represented, in percent.

    Raises:
        CalibrationError: there is no such method or percentile.

    >>> from explorer.calibrate.histogram import StreamedHistogram
    >>> seen = StreamedHistogram()
    >>> seen.add(np.arange(1001, dtype=np.float32))
    >>> amax_of(seen, "minmax", 0.5), amax_of(seen, "percentile", 90)
    (1000.0, 900.125)
    """
    check_method(method, percentile)
    if method == "minmax" or not seen.max_abs:
        return seen.max_abs
    if method == "percentile":
        below = np.cumsum(seen.counts)
        # In whole values: 99.99 / 100 * 10,000 is a little more than 9,999, and must not count one more.
        wanted = math.ceil(round(percentile / 100 * int(below[-1]), 6))
        return min((int(np.searchsorted(below, wanted)) + 1) * seen.width, seen.max_abs)
    merge = seen.counts.size // _ENTROPY_BINS
    counts = seen.counts.reshape(-1, merge).sum(axis=1)
    used = int(np.flatnonzero(counts)[-1]) + 1
    return min(entropy_bins(counts[:used]) * seen.width * merge, seen.max_abs)


def entropy_bins(counts: npt.NDArray[np.int64], levels: int = LEVELS) -> int:
    """Return how many bins of a histogram of |x| are to be represented so that least information is lost.

    For each number of bins, from ``levels`` and from what holds 99 % of the values on, to all: the reference
    distribution has what lies beyond in its last bin; the quantised one is made of the bins alone, merged into
    ``levels`` groups, each group's sum spread evenly over its bins that are not empty. The number with the least
    divergence (Kullback-Leibler) wins, and the largest of equals. Where the last bin is empty but for what lies beyond,
    the quantised one counts `_SMOOTH` there.

    The first bin counts as many as the second: it holds the zeros, of which a ReLU makes many, and int8 represents them
    exactly, so that they must not speak for a smaller range.

    The 99 % are not in the sources, which try every number from ``levels`` on. What is cut off counts as if it lay in
    the last bin, so that a range below nearly all values has a divergence of nothing, and would win: such are the
    tensors without values near zero, as means, variances and sums of many terms are.

    Args:
        counts: shape (bins,), values with |x| in each bin from zero on; the last is not empty.
        levels: magnitudes that the quantised values have.
    """
    if counts.size <= levels:
        return int(counts.size)
    held = counts.astype(np.float64)
    held[0] = held[1]
    below = np.cumsum(held)
    least = int(np.searchsorted(below, _LEAST_HELD * below[-1])) + 1
    candidates = np.arange(max(levels, least), counts.size + 1)
    found = _divergences(held, candidates, levels)
    return int(candidates[found <= found.min() + _EQUAL][-1])


def _divergences(held: Floats, candidates: npt.NDArray[np.intp], levels: int) -> Floats:
    """Return the divergence for each candidate, from sums of what is left of each edge: no histogram is built."""
    total = held.sum()
    below = np.concatenate([[0.0], np.cumsum(held)])  # entry i: sum of the first i bins
    filled = np.concatenate([[0.0], np.cumsum(held > 0)])
    own = np.concatenate([[0.0], np.cumsum(_times_log(held, held))])

    edges = -(-candidates[:, None] * np.arange(levels + 1) // levels)  # first bin of each group
    sums, sizes = np.diff(below[edges]), np.diff(filled[edges])
    spread = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)  # height of each group's bins
    last = held[candidates - 1]
    beyond = total - below[candidates]
    height = np.where(last > 0, spread[:, -1], _SMOOTH)  # of the last bin, where what lies beyond is counted
    # sum of P log P, minus sum of P log Q, where P is the histogram but in the last bin, and Q the spread heights
    entropy = own[candidates] - _times_log(last, last) + _times_log(last + beyond, last + beyond)
    cross = _times_log(sums, spread).sum(axis=1) + beyond * np.log(height)
    mass = below[candidates] + np.where((last == 0) & (beyond > 0), _SMOOTH, 0.0)
    return np.asarray((entropy - cross) / total - np.log(total) + np.log(mass))


def _times_log(x: Floats, y: Floats) -> Floats:
    """Return ``x * log(y)``, 0 where x is."""
    return np.asarray(x * np.log(y, out=np.zeros_like(y), where=x > 0))
