"""Where results that took long to compute are kept between sessions."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]

FOLDER = "PRECISION_EXPLORER_CACHE"


def cache_folder() -> Path:
    """Return the user's cache folder for this package; it need not exist.

    ``$PRECISION_EXPLORER_CACHE`` where it is set, else ``precision-explorer`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if given := os.environ.get(FOLDER):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or (Path.home() / ".cache")
    return Path(base) / "precision-explorer"
