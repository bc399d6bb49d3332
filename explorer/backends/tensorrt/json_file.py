"""JSON that ``trtexec`` wrote: one file, read whole, with errors that tell what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.errors import InputError

__all__ = ["is_profile", "is_times", "parse", "read"]

_PROFILED = "averageMs"
_TIMED = "startComputeMs"
_TOLD = 80  # characters of a file's start that an error quotes


def read(path: str | Path) -> str:
    """Return the text of a file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no text file"
        raise InputError(
            f"'{path}' cannot be read: {reason}.",
            why="Layers and their times are read from the JSON files that trtexec writes.",
            fix="Name the files of --exportLayerInfo and --exportProfile.",
        ) from error


def parse(text: str, name: str) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the JSON.
        name: what to call it in an error.

    Raises:
        InputError: it is no JSON.
    """
    try:
        # Not strict: TensorRT parts the entries of metadata by control characters, which may stand there raw.
        return json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        start = text.strip()[:_TOLD]
        raise InputError(
            f"{name} is no JSON ({error}){f'; it starts with {start!r}' if start else '; it is empty'}.",
            why="A run of trtexec that failed or was stopped leaves such files behind.",
            fix="Run trtexec again with --exportLayerInfo=layers.json --exportProfile=profile.json, and read its end.",
        ) from error


def is_profile(content: Any) -> bool:
    """Return whether this is what ``--exportProfile`` writes."""
    return isinstance(content, list) and any(isinstance(each, dict) and _PROFILED in each for each in content)


def is_times(content: Any) -> bool:
    """Return whether this is what ``--exportTimes`` writes."""
    return isinstance(content, list) and any(isinstance(each, dict) and _TIMED in each for each in content)
