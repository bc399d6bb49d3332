"""What the panel does, without a browser: edits, history, runs in the background, and what is shown of all that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer.backends.ort_errors import RunCancelled
from explorer.errors import PlanError
from explorer.scene import cast_count, pair_count
from explorer.view.calls import change_call
from explorer.view.devices import device_named
from explorer.view.edits import edited
from explorer.view.frames import figures_frame
from explorer.view.measuring import Measuring
from explorer.view.runner import Desk, Pace, Runner
from explorer.view.searching import Searching
from explorer.view.shown import Run, Shown
from explorer.view.state import panel_state, run_state, search_state
from explorer.view.timing import Timing
from explorer.view.words import words_of

if TYPE_CHECKING:
    from explorer.advise import Finding
    from explorer.backends.runtime import Cancel
    from explorer.convert import Decisions
    from explorer.plan import Plan
    from explorer.session import Exploration

__all__ = ["Controller"]

Json = dict[str, Any]
Listener = Callable[[Json, "bytes | None"], None]

_QUIET_S = 0.02  # what one gesture changes is one run; a later click cancels it anyway
_ADVICE_S = 0.2  # findings are read, not watched: they wait until the user pauses
_PATIENCE_S = 0.5  # most runs end within it; a user who looks at a layer's values shall not wait much longer
_CALLS = 100  # the latest calls are shown; `code` reproduces the state in any case


class Controller:
    """Everything that panels on one exploration share.

    Args:
        exploration: what they show; changes of its plan or target, from wherever, are followed.
        gpu_model: the GPU that latency is predicted for, or `THIS_CPU`; empty for none.
    """

    def __init__(self, exploration: Exploration, *, gpu_model: str) -> None:
        self.x = exploration
        self.gpu = device_named(gpu_model)
        self.revision = 0
        self.run = Run()
        self.shown: Shown | None = None
        self.calls: list[str] = []
        self.findings: tuple[Finding, ...] = ()
        self.trouble = ""  # why there are no findings
        self.casts: dict[tuple[Plan, str | None], int] = {}
        self.undo: list[tuple[Plan, str | None]] = []
        self.redo: list[tuple[Plan, str | None]] = []
        self.lock = threading.RLock()
        self.desk = Desk()  # for what takes long
        self.reader = Desk()  # for what reads weights: it shall not wait for that
        self.picture = ""  # data: URL of the graph as it was seen last
        self._moving = self._quiet = False
        self._pace = Pace()
        self._listeners: list[Listener] = []
        self._runner = Runner(self._work, quiet_s=_QUIET_S)
        self._advisor = Runner(self._advise, quiet_s=_ADVICE_S)
        self.searching = Searching(self)
        self.measuring = Measuring(self)
        self.timing = Timing(self)
        self._state: Json = {}
        self._figures = b""
        self._show_known()
        self.publish()
        exploration.watch(self._changed)

    # -- what is shown -----------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call back with state and figures (None where they stay) after each change; return what ends that."""
        with self.lock:
            self._listeners.append(listener)
            listener(self._state, self._figures)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    @property
    def state(self) -> Json:
        """The state, as `PanelState` of js/src/protocol.ts."""
        return self._state

    @property
    def figures(self) -> bytes:
        """The figures, as a frame (js/src/frame.ts)."""
        return self._figures

    def publish(self, *, figures: bool = True) -> None:
        """Tell the panels what is so now."""
        with self.lock:
            self._state = panel_state(self)
            if figures:
                self._figures = figures_frame(self)
            for listener in tuple(self._listeners):
                listener(self._state, self._figures if figures else None)

    def publish_runs(self) -> None:
        """Tell the panels how the run and the search go, and nothing else."""
        with self.lock:
            self._state = {**self._state, "run": run_state(self), "search": search_state(self)}
            for listener in tuple(self._listeners):
                listener(self._state, None)

    # -- edits -------------------------------------------------------------------------------------------------------

    def edit(self, edit: Mapping[str, Any]) -> str:
        """Change the plan and return the Python call that does the same; new decisions are published at once.

        Raises:
            ExplorerError: nothing can come of the edit; nothing has changed.
        """
        op = edit.get("op")
        with self._editing() as before:
            if op in ("undo", "redo"):
                self._step(self.undo, self.redo) if op == "undo" else self._step(self.redo, self.undo)
            elif op == "goto":
                self.x.change(*self._tried(edit.get("tried")))
            else:
                self.x.plan = self.planned(edit, self.x.decisions())
            return self._said(before)

    def planned(self, edit: Mapping[str, Any], decisions: Decisions) -> Plan:
        """Return the plan that an edit makes of the one that was decided; nothing changes.

        Raises:
            PlanError: nothing can come of it, or it changes more than the plan.
        """
        if edit.get("op") == "fix":
            return self._fixed(edit.get("finding"), decisions.plan)
        return edited(edit, decisions)

    def set_plan(self, plan: Plan, call: str) -> str:
        """Set a plan that was not made by an edit, and return the Python call, which is given."""
        with self._editing() as before:
            self.x.plan = plan
            return self._said(before, call)

    def set_target(self, name: str) -> str:
        """Choose whose kernels decide; ``""`` asks ONNX alone. Return the Python call."""
        with self._editing() as before:
            self.x.target = name or None
            return self._said(before)

    def set_gpu(self, name: str) -> str:
        """Choose the device that latency is shown of, by its name; ``""`` for none. Return the Python call."""
        with self.lock:
            before, self.gpu = self.gpu, device_named(name)
            if self.gpu != before:
                self.timing.stop()
            self.measuring.again()
            self.publish()
            self._runner.request()
            return self.measuring.call()

    @property
    def gpu_model(self) -> str:
        """The GPU that latency is predicted for; empty where none is."""
        return self.measuring.gpu_model

    def _said(self, before: tuple[Plan, str | None], call: str = "") -> str:
        after = (self.x.plan, self.x.target)
        if after == before:
            self.publish_runs()
            return "x.plan"  # it is so already
        call = call or change_call(before, after)
        self.note(call)
        self.publish()
        return call

    def note(self, call: str) -> None:
        """List a Python call among those that the panel made."""
        self.calls = [*self.calls[1 - _CALLS :], call]

    @contextmanager
    def _editing(self) -> Iterator[tuple[Plan, str | None]]:
        """Yield plan and target before an edit, which is published once, when its call is known."""
        with self.lock:
            self._quiet = True
            try:
                yield self.x.plan, self.x.target
            finally:
                self._quiet = False

    def _fixed(self, name: object, plan: Plan) -> Plan:
        fix = next((each.fix for each in self.findings if each.id == name), None)
        if fix is None:
            raise PlanError(f"There is no finding '{name}' with a fix.", fix="The plan has changed: look again.")
        return fix.apply(plan)

    def _step(self, back: list[tuple[Plan, str | None]], forth: list[tuple[Plan, str | None]]) -> None:
        if not back:
            raise PlanError(
                f"There is nothing to {'undo' if back is self.undo else 'redo'}.", fix="Change the plan first."
            )
        here = (self.x.plan, self.x.target)
        self._moving = True
        try:
            self.x.change(*back[-1])
        finally:
            self._moving = False
        back.pop()
        forth.append(here)

    def _tried(self, index: object) -> tuple[Plan, str | None]:
        tried = self.x.tried
        if not isinstance(index, int) or not 0 <= index < len(tried):
            raise PlanError(f"There is no plan number {index} among the {len(tried)} that were tried.")
        return tried[index].plan, tried[index].target

    def _changed(self, plan: Plan, target: str | None) -> None:
        """Follow a change of plan or target, made by the panel or by a cell of the notebook."""
        with self.lock:
            if not self._moving:
                self.undo.append((plan, target))
                self.redo.clear()
            self.revision += 1
            self.timing.stop()
            self._show_known()
            self.searching.plan_changed()
            if self.shown is None or self.shown.revision != self.revision:
                self.run = Run("running", seconds=self.run.seconds)
            if not self._quiet:
                self.publish()
        self._runner.request()

    def set_picture(self, url: str) -> None:
        """Keep a picture of the graph, for notebooks without a kernel."""
        with self.lock:
            self.picture = url
            self.publish_runs()

    # -- runs --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Measure what is not known of the plan that is set, in the background."""
        with self.lock:
            self.measuring.again()
            self.run = Run("running", seconds=self.run.seconds)
            self.publish_runs()
        self._runner.request()

    @contextmanager
    def way(self, patience_s: float = _PATIENCE_S) -> Iterator[None]:
        """Let the block run the model soon, also while a long run is under way: that one stops, and begins again after.

        A run gives way once; whoever asks again before it could end waits for it.
        """
        with self._runner.aside(patience_s), self.timing.aside(patience_s):
            yield

    def cancel(self) -> None:
        """Stop the run, and what is being found for a budget; the search goes on."""
        self._runner.cancel()
        self.timing.cancel()
        self.measuring.forget()
        self.searching.stop_taking()
        with self.lock:
            if self.run.state == "running":
                self.run = Run("cancelled", seconds=self.run.seconds)
            self.publish_runs()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until figures are current and requests are answered; return whether that was reached in time."""
        end = None if timeout is None else time.monotonic() + timeout
        return all(
            each.wait(None if end is None else max(0.0, end - time.monotonic()))
            for each in (
                self.reader,
                self.desk,
                self.searching.desk,
                self._runner,
                self.timing,
                self._advisor,
                self.searching.looker,
            )
        )

    def _show_known(self) -> bool:
        """Take errors of the plan that is set if they are known; return whether they are."""
        plan, target = self.x.plan, self.x.target
        known = self.x.results.known_errors(plan, target)
        if known is not None and self.x.results.known_figures(plan, target)[1] is not None:
            self.shown = Shown.of(self.revision, self.x)
            return True
        return False

    def _work(self, token: Cancel) -> None:
        start = time.perf_counter()
        with self.lock:
            revision, fork = self.revision, self.x.fork()
            if (self.shown is None or self.shown.revision != revision) and self.run.state != "running":
                self.run = Run("running", seconds=self.run.seconds)
                self.publish_runs()
        try:
            revision = self._calibrated(fork, revision, token)
            known = self.shown is not None and self.shown.revision == revision
            self._measure(fork, revision, token)
            run = Run("idle", seconds=None if known else time.perf_counter() - start)
        except RunCancelled:
            if self._runner.wanted:
                return  # the run that follows tells how it goes
            run = Run("cancelled", seconds=self.run.seconds)
        except Exception as error:  # noqa: BLE001 - the thread has no caller: what goes wrong is shown on the panel
            run = Run("failed", seconds=self.run.seconds, error=words_of(error))
        with self.lock:
            if revision == self.revision:  # else a newer run has taken over
                self.run = run
                self.publish(figures=False)

    def _calibrated(self, fork: Exploration, revision: int, token: Cancel) -> int:
        """Make the calibration that was asked for, and return the revision that figures are then of."""
        if not self.measuring.calibrated(fork, token):
            return revision
        with self.lock:
            current = revision == self.revision
            self.revision += 1  # figures on screen are of the scales that were
            self.timing.stop()
            self._show_known()
            self.publish()
            return self.revision if current else revision

    def _measure(self, fork: Exploration, revision: int, token: Cancel) -> None:
        """Measure what is missing, and publish each result as it comes."""
        results, plan, target = fork.results, fork.plan, fork.target
        with results.turn(token, self.tell):
            for known, ask in enumerate((results.plan_ranges, results.plan_local)):
                if results.known_figures(plan, target)[known] is None:
                    ask(plan, target)
                    self.publish_if(revision)
            errors = results.errors(plan, target)
        with self.lock:
            news = self.shown is None or self.shown.errors is not errors or self.shown.revision != revision
            if news and revision == self.revision:
                self.shown = Shown.of(revision, fork)
                self.publish()
        self._complete(fork, revision, token)

    def _complete(self, fork: Exploration, revision: int, token: Cancel) -> None:
        """Add what follows from errors: latency, and the casts of every plan tried."""
        self.measuring.predict(fork, revision)
        gpu = self.gpu_model
        for each in fork.tried:
            token.check()
            key = (each.plan, each.target)
            if key not in self.casts:
                decisions = fork.results.decisions(*key)
                self.casts[key] = cast_count(decisions) + pair_count(decisions)
            if gpu and each.gpu_model != gpu:
                fork.results.latencies.predict(*key, gpu)
        self.timing.request(fork, revision)
        if not self.timing.alone:
            self.advise()

    def advise(self) -> None:
        """Find out, soon, what breaks and why."""
        self._advisor.request()

    def _advise(self, token: Cancel) -> None:
        """Find what breaks, beside the next run: it converts the model, which cannot be stopped."""
        with self.lock:
            revision, fork, gpu = self.revision, self.x.fork(), self.gpu_model
        if fork.results.known_errors(fork.plan, fork.target) is None:
            return  # of a plan that was not measured after all
        try:
            findings, trouble = tuple(fork.findings(gpu_model=gpu or None)), ""
        except Exception as error:  # noqa: BLE001 - as above: a thread has no caller
            findings, trouble = (), f"There are no findings: {words_of(error)['what']}"
        with self.lock:
            if revision == self.revision and not token.cancelled:
                self.findings, self.trouble = findings, trouble
                self.publish(figures=False)

    def publish_if(self, revision: int) -> None:
        """Tell the panels what is so now, if the plan is still the one of a run."""
        with self.lock:
            if revision == self.revision:
                self.publish()

    def tell(self, stage: str, done: int, total: int) -> None:
        """Tell the panels how far a run is, not too often."""

        def tell() -> None:
            with self.lock:
                if self.run.state == "running":
                    self.run = replace(self.run, stage=stage, done=done, total=total)
                    self.publish_runs()

        self._pace.tell(tell)
