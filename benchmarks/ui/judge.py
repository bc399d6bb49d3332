"""The arithmetic of the benchmark: what a list of times says, and whether a target is met."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["percentile", "summary", "target"]


def percentile(values: list[float], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values: list[float]) -> dict[str, Any]:
    """Return median, 95th percentile, extremes and number of times in milliseconds."""
    if not values:
        return {"median": None, "p95": None, "min": None, "max": None, "runs": 0}
    rounded = [round(value, 1) for value in values]
    return {
        "median": percentile(rounded, 0.5),
        "p95": percentile(rounded, 0.95),
        "min": min(rounded),
        "max": max(rounded),
        "runs": len(rounded),
    }


def target(what: str, value: float | None, limit: float) -> dict[str, Any]:
    """Return a target as the record holds it; what was not measured is not met."""
    met = value is not None and value <= limit
    ratio = None if value is None else round(value / limit, 3)
    return {"what": what, "limit_ms": limit, "value_ms": value, "ratio": ratio, "met": met}
