"""What TensorRT says while it works: kept, so that a failure, which is only a ``None``, can be told.

TensorRT has one logger a process: as long as a builder, a runtime or an engine lives it keeps the first that it was
given and ignores others (NVIDIA/TensorRT, issue 1475). So there is one here, and it tells everyone who listens.
"""

from __future__ import annotations

import functools
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from explorer.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Messages", "failure", "listen", "load_plugins", "start"]

_MESSAGES: Final = 50  # the first errors name the cause, what follows repeats it
_WORDS: Final = 600  # characters of TensorRT's own words in one error
_MEMORY: Final = re.compile(
    r"out ?of ?memory|OutOfMemory|insufficient memory|cudaMalloc|memory allocation", re.IGNORECASE
)
LOWER: Final = (
    "Lower the batch (batch_size, --batch-size) or the length of the inputs, the workspace limit, or the builder "
    "optimization level; close what else uses the GPU."
)


class Messages:
    """What TensorRT said since `listen`, for as long as this object is held.

    Attributes:
        logger: the logger that TensorRT's objects are given.
        errors: the first errors, in order.
        warnings: the first warnings, likewise.
        thread: who listens: what is said in the thread of another listener is not for this one.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.thread = threading.current_thread()


_LISTENING: Final[weakref.WeakSet[Messages]] = weakref.WeakSet()
_CHANGES: Final = threading.RLock()  # of the set; one thread may come twice, by what a collected object logs


def listen(trt: Any) -> Messages:
    """Return what TensorRT will say from now on."""
    messages = Messages(_logger(trt))
    with _CHANGES:
        _LISTENING.add(messages)
    return messages


def _listeners() -> list[Messages]:
    """Return who listens in this thread; in one of TensorRT's own threads, everyone."""
    with _CHANGES:
        all_of_them = list(_LISTENING)
    here = threading.current_thread()  # not its number, which a later thread may have again
    return [each for each in all_of_them if each.thread is here] or all_of_them


@functools.lru_cache(maxsize=1)  # of the one module of the process; tests have many
def _logger(trt: Any) -> Any:
    severity_of = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is known only at run time
        """Prints nothing; it may be called from TensorRT's own threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Pass an error or a warning on."""
            for each in _listeners():
                if severity in (severity_of.INTERNAL_ERROR, severity_of.ERROR):
                    _keep(each.errors, message)
                elif severity == severity_of.WARNING:
                    _keep(each.warnings, message)

    return Logger()


def _keep(kept: list[str], message: str) -> None:
    if len(kept) < _MESSAGES:
        kept.append(str(message))


def start(kind: Callable[..., Any], *arguments: Any, said: Messages) -> Any:
    """Return a new object of TensorRT's: a builder, a runtime, a parser.

    Raises:
        BackendError: TensorRT cannot make it, for one because the driver is older than the CUDA that it is built for.
    """
    try:
        return kind(*arguments, said.logger)
    except (TypeError, RuntimeError) as error:  # TypeError: what the bindings make of a null pointer
        raise failure(
            f"start its {kind.__name__}",
            said,
            fix="Check that the driver is new enough for this TensorRT and that the GPU can be used: `nvidia-smi` and "
            "`precision-explorer backends` tell; else install a TensorRT that is built for the driver's CUDA.",
        ) from error


def load_plugins(trt: Any, said: Messages) -> None:
    """Register TensorRT's own plugins, which the parser makes some operators of and engines may hold."""
    trt.init_libnvinfer_plugins(said.logger, "")


def failure(doing: str, said: Messages, *, fix: str = "") -> BackendError:
    """Return the error for something that TensorRT did not do, told in its own words.

    Args:
        doing: what failed, as ``"TensorRT could not <doing>"``.
        said: from `listen`, begun before.
        fix: what to do where the cause is not a lack of memory.
    """
    words = " ".join(dict.fromkeys(" ".join(each.split()) for each in said.errors))
    if len(words) > _WORDS:
        words = words[:_WORDS].rstrip() + " ..."
    if _MEMORY.search(words):
        return BackendError(
            f"TensorRT could not {doing}: the GPU's memory is too small ({words}).",
            fix=LOWER,
        )
    told = f": {words}" if words else ", and gave no reason."
    return BackendError(f"TensorRT could not {doing}{told}", fix=fix)
