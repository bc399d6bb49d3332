"""The search as the panel has it: it runs beside what follows clicks, and plans are taken from what it found."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.backends.ort_errors import RunCancelled
from explorer.backends.runtime import Cancel
from explorer.errors import InputError, PlanError
from explorer.plan import NO_FORMAT
from explorer.scene import FrontColumns, ShownFront, known_accuracy, low_mask, num
from explorer.search.plans import blacklist_only
from explorer.search.point import Settings
from explorer.view.runner import Desk, Runner
from explorer.view.shown import Run
from explorer.view.words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from explorer.plan import Plan
    from explorer.search.front import Front
    from explorer.session import Exploration
    from explorer.view.controller import Controller

__all__ = ["SearchRun", "Searching", "Ticket"]

Json = dict[str, Any]

_PROGRESS_S = 0.1  # ten times a second is all that a progress bar needs
_PROGRESS_SHARE = 20  # and at most a twentieth of the time goes into telling
_LOOK_S = 0.1  # fronts that come faster are shown once
_CLICK_S = 0.02  # what may be worked out while a click waits; beyond, it follows
_FINDING = Run("running", stage="plan within the budget")
_TAKEN = 64  # plans whose budget is remembered: undo leads back to them


@dataclass(frozen=True, slots=True)
class SearchRun:
    """How the search goes, as the first fields of `SearchState` of js/src/protocol.ts."""

    state: str = "idle"
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    error: Json | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A wish for a plan of the front.

    Attributes:
        number: of the wish; only the last one counts.
        edits: how often the plan had been changed otherwise.
        token: stops it.
    """

    number: int
    edits: int
    token: Cancel


@dataclass(frozen=True, slots=True)
class _Known:
    """Columns, and what they are of."""

    front: Front
    low: npt.NDArray[np.int8]  # by layer, as low_mask has it
    ground: tuple[Any, ...]
    columns: FrontColumns
    sensitivity_db: npt.NDArray[np.float64]
    took_s: float


class Searching:
    """The search, the front that is shown, and what is taken from it.

    Args:
        controller: what panels on one exploration share.
    """

    def __init__(self, controller: Controller) -> None:
        self._c = controller
        self.run = SearchRun()
        self.finding: Run | None = None  # while the plan within a budget is being found and run
        self.shown: ShownFront | None = None
        self.desk = Desk()  # for runs that a user waits for, who still wants to see values of layers
        self.looker = Runner(self._look, quiet_s=_LOOK_S)
        self._runner = Runner(self._work, quiet_s=0)
        self._sought: Settings | None = None
        self._told = (0.0, 0.0)  # when progress was told last, and how long that took
        self._looking = threading.Lock()
        self._known: _Known | None = None
        self._taken: dict[tuple[Plan, str | None], float] = {}
        self._ticket = Ticket(0, 0, Cancel())
        self._edits = 0
        self._setting = False
        self._follow(controller.x)

    def _follow(self, x: Exploration) -> None:
        """Show every front that is found, also by a cell of the notebook, for as long as the panel lives."""
        me = weakref.ref(self)  # results outlive the forks that share them

        def found(_: Front) -> None:
            if (alive := me()) is not None:
                alive.looker.request()
            else:
                stop()

        stop = x.results.watch_front(found)
        if x.front is not None:
            self.looker.request()

    # -- the search --------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Search with the blacklist and the device that are set, in the background; return the Python call.

        What was measured before is used. A search for the same that is under way goes on.
        """
        c = self._c
        with c.lock:
            call, sought = f"front = x.search(gpu_model={c.gpu_model!r})", self._settings(c.gpu_model)
            if self.run.state == "running" and sought == self._sought:
                return call
            self.run, self._sought = SearchRun("running"), sought
            c.note(call)
            c.publish(figures=False)
        self._runner.request()
        return call

    def stop(self) -> None:
        """Stop the search; what was found stays."""
        self._runner.cancel()
        with self._c.lock:
            if self.run.state == "running":
                self.run = SearchRun("cancelled")
                self._c.publish_runs()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the search has ended and its front is shown; return whether that was reached in time."""
        return self._runner.wait(timeout) and self.looker.wait(timeout)

    def _work(self, token: Cancel) -> None:
        with self._c.lock:
            fork, gpu_model = self._c.x.fork(), self._c.gpu_model
            self._sought = self._settings(gpu_model)
        try:
            fork.search(gpu_model=gpu_model, cancel=token, progress=self._progress)
            run = SearchRun("done")
        except RunCancelled:
            run = SearchRun("cancelled")
        except Exception as error:  # noqa: BLE001 - the thread has no caller: what goes wrong is shown on the panel
            run = SearchRun("failed", error=words_of(error))
        self._look(token, run)

    def _progress(self, stage: str, done: int, total: int, seconds_left: float | None) -> None:
        now = time.monotonic()
        last, took = self._told
        if now - last < max(_PROGRESS_S, _PROGRESS_SHARE * took):
            return
        with self._c.lock:
            if self.run.state == "running" and not self._runner.wanted:
                self.run = replace(self.run, stage=stage, done=done, total=total, seconds_left=seconds_left)
                self._c.publish_runs()
        self._told = (now, time.monotonic() - now)

    # -- the front that is shown -------------------------------------------------------------------------------------

    def _look(self, _token: Cancel, run: SearchRun | None = None) -> None:
        """Work out what is shown of the front, beside the thread that finds it, and publish it.

        Args:
            run: how a search ended.
        """
        with self._looking:  # else an older view of the front could be published last
            front, shown, known = self._c.x.front, self.shown, self._known
            try:
                if front is not None:
                    shown = ShownFront.of(front, known_accuracy(self._c.x.results), self.shown)
                    known = self._explained(front)
            except Exception as error:  # noqa: BLE001 - as above
                run = SearchRun("failed", error=words_of(error))
            with self._c.lock:
                if run is not None and self.run.state == "running" and not self._runner.wanted:
                    self.run = run  # else it was stopped, or the one that follows tells how it goes
                elif self.run.state != "running" and shown is not None and shown.front.complete:
                    self.run = SearchRun("done")  # by a cell of the notebook
                self.shown, self._known = shown, known
                self._c.publish()
            self._told = (time.monotonic(), self._told[1])

    def columns(self) -> FrontColumns:
        """Return what the front tells of the layers; to be called under the controller's lock.

        Where that takes long, it is what it told under the plan before, and the new columns are published when they
        are there.
        """
        known = self._known
        if known is None:
            return FrontColumns()
        same_ground = known.ground == self._ground()
        if same_ground and np.array_equal(known.low, low_mask(self._c.x.decisions())):
            return known.columns
        if known.took_s > _CLICK_S:
            self.looker.request()
            return known.columns if same_ground else FrontColumns()
        self._known = self._explained(known.front)
        return self._known.columns

    def _explained(self, front: Front) -> _Known:
        start, before = time.perf_counter(), self._known
        with self._c.lock:
            decisions, ground = self._c.x.decisions(), self._ground()
        _, target, gpu_model = ground
        sensitivity_db = before.sensitivity_db if before and before.front.noise is front.noise else front.sensitivity_db
        columns = FrontColumns.of(front, decisions, target, gpu_model, sensitivity_db)
        return _Known(front, low_mask(decisions), ground, columns, sensitivity_db, time.perf_counter() - start)

    def _ground(self) -> tuple[Any, ...]:
        """Return what the columns depend on beside which layers run low."""
        c, plan = self._c, self._c.x.plan
        return (plan.format, plan.keep_io), c.x.target, c.gpu_model

    def _settings(self, gpu_model: str) -> Settings:
        x = self._c.x
        return Settings(blacklist_only(x.plan), x.target, gpu_model)

    def stale(self, shown: ShownFront | None) -> str:
        """Return why the front does not fit what is set, in words; empty where it does."""
        if shown is None:
            return ""
        # Where the panel shows no predicted latency, a front for any device will do: it says which.
        return shown.front.differs(self._settings(self._c.gpu_model or shown.front.settings.gpu_model))

    def _front(self) -> ShownFront:
        shown = self.shown
        if shown is None:
            raise InputError("There is no front yet.", fix="Search for the best plans first.")
        with self._c.lock:
            stale = self.stale(shown)
        if stale:
            raise InputError(f"The front does not fit any more: {stale}.", fix="Search again.")
        return shown

    # -- plans of the front ------------------------------------------------------------------------------------------

    def preview(self, budget: float) -> tuple[Json, list[bytes]]:
        """Return `BudgetPreview` of js/src/protocol.ts and its buffer: in milliseconds, and nothing changes.

        Raises:
            InputError: there is no front, it does not fit, or the budget is none.
        """
        start = time.perf_counter()
        found = self._front().front.preview(budget)
        decisions = self._c.x.decisions()
        has_format = np.array([each.format != NO_FORMAT for each in decisions], np.bool_)
        low = 2 if found.labels is None else found.labels + 1
        formats = np.where(found.low, low, has_format).astype(np.uint8)  # none, fp32, low, int8: as in the figures
        message = {
            "format": {"$buffer": 0, "dtype": "u1"},
            "predicted_error": num(found.predicted_error),
            "latency_us": None if np.isnan(found.latency_us) else num(found.latency_us),
            "low_share": found.low_share,
            "seconds": time.perf_counter() - start,
        }
        return message, [formats.tobytes()]

    def chosen(self) -> float | None:
        """Return the budget that the plan was taken for, None where it was not taken from the front."""
        return self._taken.get((self._c.x.plan, self._c.x.target)) if self._taken else None

    def ticket(self) -> Ticket:
        """Return the wish for a plan of the front; what was wished for before is stopped."""
        with self._c.lock:
            self._ticket.token.cancel()
            self._ticket = Ticket(self._ticket.number + 1, self._edits, Cancel())
            return self._ticket

    def stop_taking(self) -> None:
        """Forget the wish for a plan of the front."""
        with self._c.lock:
            self._edits += 1
            self._ticket.token.cancel()

    def plan_changed(self) -> None:
        """Follow a change of the plan: what is being found for a budget is not wanted any more."""
        if not self._setting:
            self.stop_taking()

    def take(self, ticket: Ticket, *, budget: float | None = None, point: int | None = None) -> str:
        """Set the best plan within a budget, run and repaired, or a plan of the front; return the Python call.

        Args:
            ticket: the wish.
            budget: relative L2 error of the worst output.
            point: number of a plan among those that are shown.

        Raises:
            InputError: there is no such front, budget or point.
            PlanError: the plan was changed otherwise while this one was being found.
        """
        shown = self._front()
        try:
            if budget is not None:
                with self._found_here():
                    with self._c.way():
                        plan = shown.front.best(max_error=budget, cancel=ticket.token)
                    return self._take(ticket, plan, budget, f"x.plan = x.front.best(max_error={budget!r})")
            found = shown.points[_index(point, len(shown.points))]
            return self._take(ticket, found.plan, found.worst, _point_call(shown.front, found.plan))
        except RunCancelled:
            if ticket.number != self._ticket.number:
                return "x.plan"  # another plan is on its way
            raise PlanError(
                "The plan within the budget was not set.", why="The plan was changed meanwhile, or this was stopped."
            ) from None

    def _take(self, ticket: Ticket, plan: Plan, budget: float, call: str) -> str:
        c = self._c
        with self._set_here():
            if ticket.edits != self._edits:  # before its run began
                ticket.token.cancel()
            ticket.token.check()
            self._taken.pop((plan, c.x.target), None)
            self._taken[plan, c.x.target] = budget
            while len(self._taken) > _TAKEN:
                del self._taken[next(iter(self._taken))]
            said = c.set_plan(plan, call)
        self.looker.request()  # runs that looked for it are on the front too
        return said

    @contextmanager
    def _found_here(self) -> Iterator[None]:
        """Show that a plan is being found, from now until it is set or given up: runs it takes are runs like any."""
        self._show_finding(_FINDING)
        try:
            yield
        finally:
            self._show_finding(None)

    def _show_finding(self, run: Run | None) -> None:
        with self._c.lock:
            self.finding = run
            self._c.publish_runs()

    @contextmanager
    def _set_here(self) -> Iterator[None]:
        with self._c.lock:
            self._setting = True
            try:
                yield
            finally:
                self._setting = False


def _index(number: object, count: int) -> int:
    if type(number) is not int or not 0 <= number < count:
        raise InputError(f"There is no plan number {number} among the {count} of the front.", fix="Look again.")
    return number


def _point_call(front: Front, plan: Plan) -> str:
    """Return the Python call that sets a plan of the front; empty where it is there no more."""
    number = next((number for number, each in enumerate(front.points) if each.plan == plan), None)
    return "" if number is None else f"x.plan = x.front.points[{number}].plan"
