"""Numbers for the panel: as JSON carries them, and as people read them."""

from __future__ import annotations

from typing import Any

from explorer.report import text
from explorer.scene import num

__all__ = ["figure", "sqnr_text"]

Json = dict[str, Any]


def figure(value: float | None, words: str, provenance: str) -> Json:
    """Return a `Figure` of js/src/protocol.ts."""
    return {"value": num(value), "text": words, "provenance": provenance}


def sqnr_text(decibels: float) -> str:
    """Return an SQNR in words.

    >>> sqnr_text(float("-inf")), sqnr_text(41.26).replace(chr(160), " ")
    ('not finite', '41.3 dB')
    """
    return text.sqnr(decibels).text
