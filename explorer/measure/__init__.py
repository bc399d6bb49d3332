"""Streaming statistics, error metrics and result tables."""

from explorer.measure.histogram import Histogram
from explorer.measure.sums import ErrorSums, RangeSums

__all__ = ["ErrorSums", "Histogram", "RangeSums"]
