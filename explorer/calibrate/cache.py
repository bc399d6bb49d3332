"""Calibrations that are kept beside the model, so that a model is calibrated once for the same samples and method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from explorer.backends.cache_folder import cache_folder
from explorer.calibrate.calibration import KEPT, Calibration
from explorer.errors import CalibrationError, ExportError
from explorer.model.files import replacing

if TYPE_CHECKING:
    from explorer.model import Model

__all__ = ["SUFFIX", "Cache"]

SUFFIX: Final = ".calibration.json"
_VERSION: Final = 2  # raised when what is counted, or how a range is chosen, changes
_MOST: Final = 16  # calibrations in a file; the oldest give way
_REMOVE: Final = "Remove or rename it, or name another file."


class Cache:
    """A file of calibrations, and the one to fall back to where it cannot be written.

    Args:
        path: the file.
        fallback: where to look, and to write, too; None where ``path`` was asked for: what is wrong with it is raised.
    """

    def __init__(self, path: Path, fallback: Path | None = None) -> None:
        self._path, self._fallback = path, fallback

    @classmethod
    def beside(cls, model: Model, cache: bool | Path = True) -> Cache:  # noqa: FBT001, FBT002 - calibrate()'s argument
        """Return the cache of a model: the file that was asked for, or the one beside it, or one in the user's folder.

        >>> from types import SimpleNamespace
        >>> Cache.beside(SimpleNamespace(path=Path("nets/lenet.onnx"), digest="ab"))._path.as_posix()
        'nets/lenet.calibration.json'
        """
        if not isinstance(cache, bool):
            return cls(Path(cache))
        own = cache_folder() / "calibration" / f"{model.digest[:32]}.json"
        if model.path is None:
            return cls(own, own)
        return cls(model.path.with_name(f"{model.path.name.removesuffix('.onnx')}{SUFFIX}"), own)

    def find(self, wanted: Calibration) -> Calibration | None:
        """Return what is kept of the model, samples and method of a calibration; None where there is nothing.

        Raises:
            CalibrationError: the file was asked for, and is something else.
        """
        for path in dict.fromkeys((self._path, self._fallback)):
            if path is None:
                continue
            try:
                entries = _read(path)
            except CalibrationError:
                if self._fallback is None:
                    raise
                continue
            for entry in reversed(entries):
                if _key(entry) == _key(wanted):
                    return replace(entry, notes=(f"Taken from {path}: nothing was calibrated anew.",))
        return None

    def keep(self, found: Calibration) -> Calibration:
        """Write a calibration beside the others and return it, with a note that tells where it is.

        Raises:
            CalibrationError: the file was asked for, and is something else.
            ExportError: it was asked for, and cannot be written.
        """
        try:
            _add(self._path, found)
        except (CalibrationError, ExportError) as error:
            if self._fallback is None:
                raise
            return replace(found, notes=(self._kept_elsewhere(found, error),))
        return replace(found, notes=(f"Kept in {self._path}.",))

    def _kept_elsewhere(self, found: Calibration, error: CalibrationError | ExportError) -> str:
        """Write it to the user's cache folder, and return where it is, and why."""
        if self._fallback is not None and self._fallback != self._path:
            try:
                _add(self._fallback, found)
            except (CalibrationError, ExportError) as second:
                error = second
            else:
                return f"Kept in {self._fallback}. {error.what}"
        return f"Not kept: it will be calibrated anew. {error.what}"


def _key(calibration: Calibration) -> tuple[object, ...]:
    percentile = calibration.percentile if calibration.method == "percentile" else None
    return calibration.model_hash, calibration.data_hash, calibration.method, percentile


def _add(path: Path, found: Calibration) -> None:
    kept = [entry for entry in _read(path) if _key(entry) != _key(found)][-(_MOST - 1) :]
    data = {"kind": KEPT, "version": _VERSION, "entries": [entry.to_data() for entry in (*kept, found)]}
    if path.is_relative_to(cache_folder()):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(f"'{path.parent}' cannot be made: {error.strerror}.", fix="Check its rights.") from error
    with replacing(path) as part:
        part.write_text(json.dumps(data, indent=1), encoding="utf-8")


def _read(path: Path) -> list[Calibration]:
    """Return what a file keeps; nothing where there is none.

    Raises:
        CalibrationError: it cannot be read, or is none of ours: it must not be overwritten.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not JSON ({error})"
        raise CalibrationError(f"'{path}' cannot be read: {reason}.", fix=_REMOVE) from error
    if not isinstance(data, dict) or data.get("kind") != KEPT or not isinstance(data.get("entries"), list):
        raise CalibrationError(f"'{path}' is no file of calibrations; it is left as it is.", fix=_REMOVE)
    if data.get("version") != _VERSION:
        return []  # ours, of another version: measured afresh
    return [Calibration.from_data(entry, found_in=str(path)) for entry in data["entries"]]
