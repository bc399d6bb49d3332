"""Sums over samples, one entry per measured tensor, from which every error metric follows; they merge exactly."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["ErrorSums", "RangeSums"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_MAXIMA = ("max_error", "max_abs")
_LONGEST_RATIO = 1e4  # of two norms: float32 sums hold 7 digits, of which this costs the cosine 4
_IDENTICAL_DB = np.inf  # SQNR of a tensor without any error


@dataclass(frozen=True)
class _Sums:
    """Vectors over measured tensors; merging adds them, and takes the larger of the maxima."""

    def merge(self, other: Self) -> Self:
        """Return the sums over the samples of both."""
        merged = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            with np.errstate(invalid="ignore", over="ignore"):  # NaN and inf stay what they are
                merged[item.name] = np.maximum(mine, theirs) if item.name in _MAXIMA else mine + theirs
        return type(self)(**merged)

    @classmethod
    def zeros(cls, count: int) -> Self:
        """Return the sums over no samples."""
        made = {}
        for item in fields(cls):
            dtype = np.float64 if item.type in ("Floats", Floats) else np.int64
            made[item.name] = np.zeros(count, dtype)
        return cls(**made)


@dataclass(frozen=True)
class ErrorSums(_Sums):
    """Error of low tensors y against exact ones r, summed over their elements and over samples.

    Attributes:
        error_squares: sum of (y - r)^2; inf or NaN where y is not finite and r is.
        exact_squares: sum of r^2.
        low_squares: sum of y^2.
        max_error: largest |y - r|.
        elements: number of elements.
        nan: number of NaN in y where r is finite; counted only where the error is not finite.
        infinite: number of infinities in y where r is finite; likewise.
    """

    error_squares: Floats
    exact_squares: Floats
    low_squares: Floats
    max_error: Floats
    elements: Counts
    nan: Counts
    infinite: Counts

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Whether every element of y is finite where r is."""
        return np.isfinite(self.error_squares)

    @property
    def rel_l2(self) -> Floats:
        """Relative error ||y - r|| / ||r||; 0 where both are zero; inf where only r is; NaN where y holds NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt(self.error_squares) / np.sqrt(self.exact_squares)
        return np.where(self.error_squares == 0, 0.0, ratio)

    @property
    def sqnr_db(self) -> Floats:
        """Signal-to-quantization-noise ratio 10 log10(sum r^2 / sum (y - r)^2) in dB.

        inf where there is no error at all; -inf where y overflowed; NaN where y holds NaN.
        """
        with np.errstate(divide="ignore"):
            return np.where(self.error_squares == 0, _IDENTICAL_DB, -20 * np.log10(self.rel_l2))

    @property
    def cosine(self) -> Floats:
        """Cosine of the angle between y and r.

        NaN where either is zero or not finite, or so much longer than the other that the sums do not tell.
        """
        low, exact = np.sqrt(self.low_squares), np.sqrt(self.exact_squares)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # |y - r|^2 = (|y| - |r|)^2 + 2 |y||r| (1 - cos): solved for 1 - cos, so that small angles keep their digits
            short = (self.error_squares - (low - exact) ** 2) / (2 * low * exact)
            told = np.maximum(low, exact) <= _LONGEST_RATIO * np.minimum(low, exact)
        return np.where(self.finite & told, 1 - np.clip(short, 0, 2), np.nan)


@dataclass(frozen=True)
class RangeSums(_Sums):
    """Where the values of exact tensors lie relative to a low format, summed over samples.

    Attributes:
        squares: sum of r^2.
        max_abs: largest |r|; inf where r holds infinities.
        elements: number of elements.
        overflow: finite values that become infinite in the format.
        subnormal: values that become subnormal: kept with fewer bits.
        flushed: values that become zero and are not.
        nonfinite: infinities and NaN that the exact tensor itself holds.
    """

    squares: Floats
    max_abs: Floats
    elements: Counts
    overflow: Counts
    subnormal: Counts
    flushed: Counts
    nonfinite: Counts

    @property
    def rms(self) -> Floats:
        """Root mean square of the values; NaN for empty tensors."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(self.squares / self.elements)
