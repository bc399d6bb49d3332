"""GPUs take turns too: what is built or timed on one, by whatever thread and of whatever model, has it to itself."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.backends.runtime import Cancel

__all__ = ["gpu_turn"]

_POLL_S: Final = 0.05  # how soon one that waits sees that it is not wanted any more

_TURNS: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)
_KNOWN = threading.Lock()


@contextmanager
def gpu_turn(device: int, cancel: Cancel) -> Iterator[None]:
    """Have a GPU for one build or measurement: another beside it would spoil the times of both.

    Where the turn of `Results` is wanted too, that one is taken inside: never the GPU's inside it.

    Args:
        device: index of the GPU.
        cancel: ends the waiting.

    Raises:
        RunCancelled: `cancel` was called before the GPU was free.
    """
    with _KNOWN:
        turn = _TURNS[device]
    cancel.check()
    while not turn.acquire(timeout=_POLL_S):
        cancel.check()
    try:
        yield
    finally:
        turn.release()
