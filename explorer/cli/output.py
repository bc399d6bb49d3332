"""The folder that results go to: checked before the work, made just before it is filled."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from explorer.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_folder", "folder"]


def check_folder(path: Path) -> None:
    """Check that files can be written into a folder that need not exist yet; nothing is made.

    Raises:
        ExportError: it, or what stands above it, is no folder or may not be written to.
    """
    standing = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not standing.is_dir():
        raise _unusable(path, f"'{standing}' is a file")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise _unusable(path, f"you may not write to '{standing}'")


@contextmanager
def folder(path: Path) -> Iterator[None]:
    """Make the folder for the block; what was made here and is empty goes again when the block fails.

    Raises:
        ExportError: it cannot be made.
    """
    fresh = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    try:
        yield
    except BaseException:
        for each in fresh:
            with suppress(OSError):
                each.rmdir()
        raise


def _unusable(path: Path, reason: str) -> ExportError:
    return ExportError(
        f"The folder '{path}' cannot take the results: {reason}.",
        why="Nothing was written.",
        fix="Name another folder with --out.",
    )
