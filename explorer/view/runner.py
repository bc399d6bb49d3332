"""Work in the background: the newest wish wins, and nothing hangs at the end."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from explorer.backends.runtime import Cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Desk", "Pace", "Runner"]

_WORKERS: weakref.WeakSet[Runner | Desk] = weakref.WeakSet()
_TELL_S = 0.1  # ten times a second is all that a progress bar needs
_TELL_SHARE = 20  # and at most a twentieth of the time goes into telling
_END_S = 5.0  # that the end of the interpreter waits for work to stop


class Runner:
    """Runs one piece of work in a thread of its own, again for each request; a newer request cancels what runs.

    The thread lives only while there is work. It must end its work soon after its token is cancelled.

    Args:
        work: what to do; it reads what is wanted when it starts, and must not raise.
        quiet_s: it starts when no request came for so long, so that a burst of clicks is one run.
    """

    def __init__(self, work: Callable[[Cancel], None], *, quiet_s: float) -> None:
        self._work, self._quiet = work, quiet_s
        self._changed = threading.Condition()
        self._due = 0.0  # when the work that is wanted may start
        self._wanted = False
        self._token: Cancel | None = None
        self._alive = False
        self._aside = False  # it was stopped for others, and begins again after them
        self._stood_aside = False  # so it was, and has not come to an end since
        _WORKERS.add(self)

    def request(self) -> None:
        """Run the work, soon; what runs now is out of date and stops."""
        with self._changed:
            self._wanted, self._aside, self._due = True, False, time.monotonic() + self._quiet
            if self._token is not None:
                self._token.cancel()
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._loop, name="precision-explorer", daemon=True).start()
            self._changed.notify_all()

    def cancel(self) -> None:
        """Stop what runs, and forget what is wanted."""
        with self._changed:
            self._aside = False
            self._drop()

    def _drop(self) -> None:
        self._wanted = False
        if self._token is not None:
            self._token.cancel()
        self._changed.notify_all()

    @contextmanager
    def aside(self, patience_s: float) -> Iterator[None]:
        """Stop what does not end soon while the block runs; it begins again after.

        It stands aside once: whoever asks again before it could end waits for it.

        Args:
            patience_s: what it is given to end by itself.
        """
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._alive, patience_s)
            under_way = self._wanted or (self._token is not None and not self._token.cancelled)
            if not ended and under_way and not self._stood_aside:
                self._aside = self._stood_aside = True
                self._drop()
        try:
            yield
        finally:
            with self._changed:
                if self._aside:
                    self.request()

    @property
    def wanted(self) -> bool:
        """Whether it begins again: there was a request since what runs began, or it stands aside."""
        return self._wanted or self._aside

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is nothing left to do; return whether that was reached in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._alive, timeout)

    def _loop(self) -> None:
        while (token := self._next()) is not None:
            try:
                self._work(token)
            except BaseException:
                with self._changed:
                    self._alive, self._token = False, None
                    self._changed.notify_all()
                raise
            with self._changed:
                self._token = None
                self._stood_aside = self._stood_aside and token.cancelled

    def _next(self) -> Cancel | None:
        with self._changed:
            while self._wanted and (left := self._due - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._wanted:
                self._alive = False
                self._changed.notify_all()
                return None
            self._wanted = False
            self._token = Cancel()
            return self._token


class Pace:
    """Tells how far work is, not too often."""

    def __init__(self) -> None:
        self._told = (0.0, 0.0)  # when it was told last, and how long that took

    def tell(self, tell: Callable[[], None]) -> None:
        """Call ``tell``, if it is time to."""
        now = time.monotonic()
        last, took = self._told
        if now - last < max(_TELL_S, _TELL_SHARE * took):
            return
        tell()
        self._told = (now, time.monotonic() - now)


class Desk:
    """Does slow requests one after the other in a thread of its own, which lives only while there are some."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._waiting: deque[Callable[[], Any]] = deque()
        self._alive = False
        _WORKERS.add(self)

    def put(self, job: Callable[[], Any]) -> None:
        """Do a job, which must not raise, after those that wait."""
        with self._lock:
            self._waiting.append(job)
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._loop, name="precision-explorer requests", daemon=True).start()

    def cancel(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._waiting.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing waits; return whether that was reached in time."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._alive, timeout)

    def _loop(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._alive = False
                    self._lock.notify_all()
                    return
                job = self._waiting.popleft()
            job()


def _end_all() -> None:
    workers, end = tuple(_WORKERS), time.monotonic() + _END_S
    for worker in workers:
        worker.cancel()
    for worker in workers:
        worker.wait(max(0.0, end - time.monotonic()))


# At the end of the interpreter the emulator's thread pool waits for all of its batches, before `atexit` functions are
# called: without this hook, which runs before, a kernel would go on computing until it is killed. And a thread that is
# inside the runtime when the interpreter is gone brings the process down: so the hook waits until all have stopped.
_register: Any = getattr(threading, "_register_atexit", None)
if _register is not None:
    import concurrent.futures.thread  # noqa: F401 - hooks run last in, first out: its own must be there already

    _register(_end_all)
