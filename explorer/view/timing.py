"""Measures the latency of the plan that is set, beside what emulates its errors: to build an engine takes minutes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from explorer.backends.ort_errors import RunCancelled
from explorer.view.devices import builds
from explorer.view.runner import Pace, Runner
from explorer.view.shown import Run
from explorer.view.words import words_of

if TYPE_CHECKING:
    from explorer.backends.runtime import Cancel
    from explorer.session import Exploration
    from explorer.view.controller import Controller

__all__ = ["Timing"]


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be measured: the plan and target of an exploration of its own, on a device by its name."""

    x: Exploration
    device: str

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same for jobs that measure the same."""
        return self.x.plan, self.x.target, self.device


class Timing:
    """Measures in a thread of its own, one plan at a time.

    What follows a change of the plan, or of the device, stops what is under way; the emulated figures come first then,
    and after them what is to be measured anew.

    Args:
        controller: of the panel.

    Attributes:
        run: how it goes.
    """

    def __init__(self, controller: Controller) -> None:
        self.run = Run()
        self._c = controller
        self._job: _Job | None = None
        self._runner = Runner(self._work, quiet_s=0)
        self._pace = Pace()

    def request(self, x: Exploration, revision: int) -> None:
        """Measure what is missing of a plan whose errors are known; one that is being measured already goes on.

        Args:
            x: an exploration with the plan, which nobody changes.
            revision: of the plan; where it is out of date, another request follows.
        """
        c = self._c
        with c.lock:
            job = _Job(x, c.gpu)
            under_way = self._job if self.run.state == "running" else None
            if revision != c.revision or (under_way is not None and under_way.key == job.key):
                return
            self.stop()
            if c.measuring.missing(x.plan, x.target):
                self._job, self.run = job, Run("running")
                self._runner.request()
            c.publish_runs()

    def stop(self) -> None:
        """Stop what is measured: it is of another plan or device than the one that is set now."""
        with self._c.lock:
            self._job, self.run = None, Run()
            self._runner.cancel()

    def cancel(self) -> None:
        """Stop what is measured because the user said so."""
        with self._c.lock:
            self._runner.cancel()
            if self.run.state == "running":
                self.run = Run("cancelled")

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing is being measured; return whether that was reached in time."""
        return self._runner.wait(timeout)

    def aside(self, patience_s: float) -> AbstractContextManager[None]:
        """Let the block run the model soon, as of `Runner.aside`; a build goes on, for it keeps nobody waiting."""
        return self._runner.aside(patience_s) if self.alone else nullcontext()

    @property
    def alone(self) -> bool:
        """Whether something is measured that is timed from the host: what runs beside it would spoil its times."""
        job = self._job
        return self.run.state == "running" and job is not None and not builds(job.device)

    def _work(self, token: Cancel) -> None:
        c, job = self._c, self._job
        if job is None:
            return  # it was stopped before it began
        try:
            c.measuring.measure(job.x, token, lambda *done: self._tell(token, *done))
            run = Run()
        except RunCancelled:
            run = Run("cancelled")
        except Exception as error:  # noqa: BLE001 - the thread has no caller: what goes wrong is shown on the panel
            run = Run("failed", error=words_of(error))
        with c.lock:
            if token.cancelled:
                return  # whoever stopped it tells how it goes
            self.run = run
            c.publish()
        c.advise()

    def _tell(self, token: Cancel, stage: str, done: int, total: int) -> None:
        def tell() -> None:
            with self._c.lock:
                if not token.cancelled:
                    self.run = replace(self.run, stage=stage, done=done, total=total)
                    self._c.publish_runs()

        self._pace.tell(tell)
