"""Floats in JSON, which has no NaN and no infinities (type Num of js/src/protocol.ts)."""

from __future__ import annotations

import math

__all__ = ["Num", "num"]

Num = float | int | str | None


def num(value: float | None) -> Num:
    """Return ``value`` as JSON can hold it: what it cannot is a word, what is not known is None.

    >>> num(1.5), num(float("-inf")), num(float("nan")), num(None)
    (1.5, '-inf', 'nan', None)
    """
    if value is None:
        return None
    if isinstance(value, int):
        return value
    value = float(value)
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
