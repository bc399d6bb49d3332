"""What TensorRT says while it works: kept, so that a failure, which is only a ``None``, can be told."""

from __future__ import annotations

import re
from typing import Any

from explorer.errors import BackendError

__all__ = ["failure", "load_plugins", "make_logger"]

_MESSAGES = 50  # the first errors name the cause, what follows repeats it
_WORDS = 600  # characters of TensorRT's own words in one error
_MEMORY = re.compile(r"out ?of ?memory|OutOfMemory|insufficient memory|cudaMalloc|memory allocation", re.IGNORECASE)
LOWER = (
    "Lower the batch (batch_size, --batch-size) or the length of the inputs, the workspace limit, or the builder "
    "optimization level; close what else uses the GPU."
)


def make_logger(trt: Any) -> Any:
    """Return a TensorRT logger that prints nothing and keeps errors and warnings in ``errors`` and ``warnings``."""

    class Kept(trt.ILogger):  # type: ignore[misc]  # the base is known only at run time
        """A logger for TensorRT; it may be called from TensorRT's own threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Keep a message."""
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                kept = self.errors
            elif severity == trt.ILogger.Severity.WARNING:
                kept = self.warnings
            else:
                return
            if len(kept) < _MESSAGES:
                kept.append(str(message))

    return Kept()


def load_plugins(trt: Any, logger: Any) -> None:
    """Register TensorRT's own plugins, which the parser makes some operators of and engines may hold."""
    trt.init_libnvinfer_plugins(logger, "")


def failure(doing: str, logger: Any, *, fix: str = "") -> BackendError:
    """Return the error for something that TensorRT did not do, told in its own words.

    Args:
        doing: what failed, as ``"TensorRT could not <doing>"``.
        logger: from `make_logger`.
        fix: what to do where the cause is not a lack of memory.
    """
    said = " ".join(dict.fromkeys(" ".join(each.split()) for each in logger.errors))
    if len(said) > _WORDS:
        said = said[:_WORDS].rstrip() + " ..."
    if _MEMORY.search(said):
        return BackendError(
            f"TensorRT could not {doing}: the GPU's memory is too small ({said}).",
            fix=LOWER,
        )
    told = f": {said}" if said else ", and gave no reason."
    return BackendError(f"TensorRT could not {doing}{told}", fix=fix)
