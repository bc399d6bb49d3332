"""The layer table as the page's script reads it: columns, not rows, and words that repeat only once."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.report import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from explorer.report.layers import Layers

__all__ = ["layer_table", "script_json"]

DIGITS: Final = 5  # significant digits of a figure in the page; the CSV file has them all
_ESCAPES: Final = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}
_FIGURES: Final = (
    # key, column, label, kind, group
    ("local", "local_sqnr_db", "local SQNR", "db"),
    ("acc", "acc_sqnr_db", "accumulated SQNR", "db"),
    ("max", "range_max_abs", "largest |x|", "number"),
    ("rms", "range_rms", "rms of x", "number"),
    ("overflow", "overflow", "overflow", "count"),
    ("nan", "nan", "NaN", "count"),
    ("subnormal", "subnormal", "subnormal", "count"),
    ("flushed", "flushed", "flushed to 0", "count"),
    ("fp32", "fp32_us", "fp32", "time"),
    ("low", "low_us", "low", "time"),
    ("local_rel", "local_rel_l2", "local relative L2", "number"),
    ("acc_rel", "acc_rel_l2", "accumulated relative L2", "number"),
    ("local_abs", "local_max_abs", "local max |error|", "number"),
    ("acc_abs", "acc_max_abs", "accumulated max |error|", "number"),
)
_DETAILS: Final = {"local_rel", "acc_rel", "local_abs", "acc_abs"}  # shown when a row is opened
_WORDS: Final = ("op", "scope", "format", "reason", "provenance", "note", "fused_with")


def layer_table(layers: Layers, low: str) -> dict[str, Any]:
    """Return the table as JSON-ready values, a row for every layer.

    Args:
        layers: the layers.
        low: name of the low format, for the heading of its latency.

    Returns:
        ``columns`` (key, label, kind, detail), ``figures`` (key -> numbers; null not measured, ``"inf"``, ``"-inf"``),
        ``words`` (key -> the distinct words and an index a row), ``names``, ``ids``, and row numbers:
        ``broken``, ``alone`` and ``unmeasured``.
    """
    labels = {"low": low}
    columns, figures = [], {}
    for key, column, label, kind in _FIGURES:
        values = layers.column(column)
        if np.isnan(values).all():
            continue  # nothing was measured: an empty column says nothing
        columns.append({"key": key, "label": labels.get(key, label), "kind": kind, "detail": key in _DETAILS})
        figures[key] = _numbers(values)
    names, ids = layers.words("name"), layers.words("id")
    return {
        "columns": columns,
        "figures": figures,
        "words": {key: _distinct(layers.words(key)) for key in _WORDS},
        "names": [text.visible(name) for name in names],
        "ids": None if ids == names else [text.visible(name) for name in ids],
        "broken": [int(row) for row in np.flatnonzero(layers.broken)],
        "alone": [int(row) for row in np.flatnonzero(layers.broken_alone)],
        "unmeasured": [int(row) for row in np.flatnonzero(layers.unmeasured)],
        "low": low,
        "timing": layers.timing,
    }


def script_json(value: Any) -> str:
    r"""Return JSON that is safe inside a ``<script>`` element, whatever the strings in it hold.

    >>> script_json({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _numbers(values: NDArray[np.float64]) -> list[float | int | str | None]:
    return [_number(float(value)) for value in values]


def _number(value: float) -> float | int | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == int(value) and abs(value) < 2**53:  # IEEE 754 binary64: integers are exact up to here
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def _distinct(words: Sequence[str]) -> dict[str, Any]:
    """Return the distinct words and, for each row, the index of its word."""
    index: dict[str, int] = {}
    rows = [index.setdefault(word, len(index)) for word in words]
    return {"list": [text.visible(word) for word in index], "rows": rows}
