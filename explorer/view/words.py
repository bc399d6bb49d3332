"""Numbers and errors for the panel: as JSON carries them, and as people read them."""

from __future__ import annotations

from typing import Any

from explorer.errors import ExplorerError
from explorer.report import text
from explorer.scene import num

__all__ = ["figure", "sqnr_text", "words_of"]

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


def words_of(error: BaseException) -> Json:
    """Return an error in words: what happened, why it matters, what to do."""
    if isinstance(error, ExplorerError):
        return {"what": error.what, "why": error.why, "fix": error.fix}
    return {
        "what": f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        "why": "This was not foreseen: it is a fault of the program, not of yours.",
        "fix": "Please report it, with the model if you can share it.",
    }
