"""What searches measured, kept in the user's cache folder so that a later search goes on where one stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import onnxruntime

from explorer.backends.cache_folder import cache_folder
from explorer.model import hash_feeds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.model import Samples

__all__ = ["Store"]

_VERSION: Final = 1  # raised when what is measured, or how, changes
_SAVE_EVERY_S: Final = 5.0
_MOST_FILES: Final = 200


class Store:
    """Squared errors of the outputs by group of rounded tensors, of one model, samples and format.

    Nothing that is wrong with the folder stops a search: it then measures afresh.

    Args:
        path: the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._saved = time.monotonic()
        self._batches, self._known = (None, {}) if path is None else _read(path)

    @property
    def batches(self) -> int | None:
        """How many batches of the samples ran; None while nothing is known. Another number forgets what is."""
        return self._batches

    @batches.setter
    def batches(self, batches: int) -> None:
        if batches != self._batches:
            self._batches, self._known = batches, {}

    @classmethod
    def open(cls, typing: Typing, samples: Samples) -> Store:
        """Return the store of a model, its samples and what each layer may be."""
        sha = hashlib.sha256(typing.model.digest.encode())
        sha.update(f"{_VERSION} {typing.format} {typing.backend} {onnxruntime.__version__}".encode())
        if typing.calibration is not None:
            sha.update(typing.calibration.to_json().encode())
        hash_feeds(sha, samples)
        return cls(cache_folder() / "noise" / f"{sha.hexdigest()[:32]}.json")

    def get(self, names: Sequence[str]) -> list[float] | None:
        """Return what was measured of a group, or None."""
        return self._known.get(_key(names))

    def put(self, names: Sequence[str], squares: npt.NDArray[np.float64]) -> None:
        """Keep what was measured; it is written from time to time, so that little is lost when the process ends."""
        with self._lock:
            self._known[_key(names)] = squares.tolist()
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write what is kept, whole or not at all."""
        self._saved = time.monotonic()
        if self._path is None:
            return
        with self._lock:
            text = json.dumps({"version": _VERSION, "batches": self._batches, "squares": self._known})
        part = self._path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(self._path)
            _forget_oldest(self._path.parent)
        except OSError:  # a full disk, a read-only home: the search goes on without
            with contextlib.suppress(OSError):
                part.unlink()


def _key(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else hashlib.sha256("\0".join(names).encode()).hexdigest()


def _read(path: Path) -> tuple[int | None, dict[str, list[float]]]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] == _VERSION:
            squares = {str(key): [float(each) for each in value] for key, value in data["squares"].items()}
            return int(data["batches"]), squares
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # there is none, or it is broken: measured afresh
    return None, {}


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
    for file in files[:-_MOST_FILES]:
        file.unlink(missing_ok=True)
