"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replacing"]

_FILE_MODE = 0o666  # what open() would give; the umask takes its share


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    A crash in between leaves the old file whole.

    Raises:
        ExportError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise ExportError(f"'{target}' is a folder.", fix="Name a file inside it.")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".part", dir=target.parent)
        os.close(handle)
        Path(name).chmod(_FILE_MODE & ~_umask())
    except OSError as error:
        raise _unwritable(target, error) from error
    part = Path(name)
    try:
        yield part
        part.replace(target)
    except OSError as error:
        if isinstance(error, ExportError):
            raise
        raise _unwritable(target, error) from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _unwritable(target: Path, error: OSError) -> ExportError:
    return ExportError(
        f"'{target}' cannot be written: {error.strerror or error}.",
        why="Nothing was written; whatever stood there before is untouched.",
        fix="Check that the folder exists, that you may write there, and that the disk is not full.",
    )
