"""Every error that the package raises on purpose.

::

    ExplorerError
    ├── ModelError         (ValueError)     the model cannot be read, checked or run
    ├── InputError         (ValueError)     the samples do not fit the model
    ├── PlanError          (ValueError)     a plan names something that does not exist or cannot be
    ├── ConversionError    (RuntimeError)   a plan could not be turned into a valid model
    ├── CalibrationError   (ValueError)     int8 lacks a range, or the ranges that were given are not good
    ├── BackendError       (RuntimeError)   a backend cannot run here, or failed while running
    ├── ExportError        (OSError)        a file could not be written
    └── MissingDependency  (ImportError)    an optional package is needed and absent

Each message tells what happened (with the actual values), why it matters, and what to do.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BackendError",
    "CalibrationError",
    "ConversionError",
    "ExplorerError",
    "ExportError",
    "InputError",
    "MissingDependency",
    "ModelError",
    "PlanError",
]


class ExplorerError(Exception):
    """Root of all errors that this package raises on purpose.

    Args:
        what: what happened, with the actual values.
        why: why it matters to the caller; may be empty where it is plain.
        fix: what the caller can do about it.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(" ".join(part for part in (what, why, fix) if part))


class ModelError(ExplorerError, ValueError):
    """The model cannot be read, checked or run."""


class InputError(ExplorerError, ValueError):
    """The samples do not fit the model."""


class PlanError(ExplorerError, ValueError):
    """A plan names something that does not exist, or asks for what cannot be."""


class ConversionError(ExplorerError, RuntimeError):
    """A plan could not be turned into a valid mixed-precision model."""


class CalibrationError(ExplorerError, ValueError):
    """A tensor lacks the range that int8 needs, or a calibration cannot be read or does not fit the model."""


class BackendError(ExplorerError, RuntimeError):
    """A backend cannot run here, or failed while it ran."""


class ExportError(ExplorerError, OSError):
    """A file could not be written; whatever stood there before is untouched."""


class MissingDependency(ExplorerError, ImportError):  # noqa: N818 - named by what happened, like its siblings
    """An optional package is needed and not installed."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return ``Did you mean 'a', 'b'?`` for the known names nearest to ``name``, or an empty string.

    >>> nearest("Sofmax", ["Softmax", "Conv"])
    "Did you mean 'Softmax'?"
    """
    by_folded = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=count, cutoff=0.6)
    return f"Did you mean {', '.join(repr(by_folded[item]) for item in close)}?" if close else ""
