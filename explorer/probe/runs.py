"""Compiles emulation graphs and runs samples through them, one caller at a time, stoppable from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from explorer.backends.runtime import Cancel, Session, create_session, default_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from explorer.backends.runtime import Provider
    from explorer.model import Samples
    from explorer.probe.graphs import Woven

__all__ = ["Progress", "Runs"]

Progress = Callable[[str, int, int], None]  # what is being done, batches done, batches in all
T = TypeVar("T")


class Runs:
    """Runs the samples of one emulator.

    Args:
        samples: what runs through the model.
        threads: of the runtime; None takes what this process may use.
        progress: called after each batch.
        cancel: stops a run from another thread; may be replaced at any time, and the next turn then takes the new one.
        provider: ``cpu`` or ``cuda``, where sessions run.
        device: index of the CUDA device.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        threads: int | None,
        progress: Progress | None,
        cancel: Cancel | None,
        provider: Provider = "cpu",
        device: int = 0,
    ) -> None:
        self.samples = samples
        self._provider: Provider = provider
        self._device = device
        self.cancel = cancel or Cancel()
        threads = threads or default_threads()
        # Batches side by side, each on few threads, beat one batch on all: no operator waits for another thread.
        self._workers = max(1, min(threads, len(samples)))
        self._threads = max(1, threads // self._workers)
        self._progress = progress or (lambda *_: None)
        self._turn = threading.RLock()
        self._token: Cancel | None = None  # of the turn that runs

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let the block run alone, under the token that is set as it is asked for.

        A newer token neither frees nor stops a turn that began with an older one, and a turn inside a turn belongs to
        it.

        Raises:
            RunCancelled: the token was cancelled before the turn came.
        """
        token = self.cancel
        with self._turn:
            outer = self._token
            self._token = outer or token
            try:
                self._token.check()
                yield
            finally:
                self._token = outer

    def check(self) -> None:
        """Raise `RunCancelled` if the turn that runs was cancelled."""
        (self._token or self.cancel).check()

    def compile(self, woven: Woven) -> Session:
        """Return the session of an emulation graph."""
        # No graph optimization: fusions would compute a layer differently on the exact path than on the plan's.
        return create_session(
            woven.model,
            provider=self._provider,
            device=self._device,
            optimize="none",
            threads=self._threads,
            initializers=woven.arrays,
            plan_memory=False,
            cancel=self._token or self.cancel,
        )

    def batches(
        self,
        session: Session,
        stage: str,
        then: Callable[[int, dict[str, Any]], T],
        *,
        wanted: list[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        exact: Sequence[Mapping[str, Any]] = (),
    ) -> Iterator[T]:
        """Yield what ``then`` makes of what the session returns for each batch, in order.

        Args:
            session: what runs.
            stage: what is being done, in words.
            then: called with the number of a batch and its outputs by name, beside the runs of other batches, so that
                large outputs need not wait until they are read.
            wanted: outputs; None takes all, and nothing is run where nothing is wanted.
            extra: fed with each batch.
            exact: by batch, values that are fed too; empty feeds none.
        """
        if wanted == []:
            yield from (then(index, {}) for index in range(len(self.samples)))
            return
        token = self._token or self.cancel  # asked for now: batches run in threads of their own, later
        known = exact or [{}] * len(self.samples)
        feeds = [{**batch, **more, **(extra or {})} for batch, more in zip(self.samples, known, strict=True)]
        feeds = [{name: value for name, value in feed.items() if name in session.input_names} for feed in feeds]

        def run(index: int) -> T:
            return then(index, session.run(feeds[index], wanted, cancel=token))

        with ThreadPoolExecutor(self._workers) as pool:
            for done, made in enumerate(pool.map(run, range(len(feeds))), 1):
                self._progress(stage, done, len(feeds))
                token.check()  # the rest may have run already, and is not wanted either
                yield made
