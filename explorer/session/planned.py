"""A model, its samples and a plan, and what becomes of the layers under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from explorer.convert import DEFAULT_TARGET, Conversion, Decisions
from explorer.errors import PlanError
from explorer.export import save_onnx
from explorer.plan import Plan
from explorer.results import Results, TriedPlan

if TYPE_CHECKING:
    from pathlib import Path

    from explorer.model import Model, Samples

__all__ = ["Planned", "Progress"]

Progress = Callable[[str, int, int], None]
Watcher = Callable[[Plan, str | None], None]


class Planned:
    """What has a plan; attributes as of :class:`explorer.Exploration`."""

    def __init__(
        self,
        model: Model,
        samples: Samples,
        plan: Plan | None = None,
        *,
        target: str | None = DEFAULT_TARGET,
        threads: int | None = None,
        progress: Progress | None = None,
        results: Results | None = None,
    ) -> None:
        self.model, self.samples = model, samples
        self.progress: Progress = progress or (lambda *_: None)
        self.command = ""
        self.results = results or Results(model, samples, threads=threads, progress=self._tell)
        self.controller: Any = None  # what the panels on this exploration share; made by explorer.view
        self.shown: Any = None  # the panel that a notebook shows for the exploration itself; likewise
        self._watchers: list[Watcher] = []
        self._target = target
        self._plan = self._checked(plan or Plan(), target)

    @property
    def plan(self) -> Plan:
        """Which layers shall run low; set a new one to change it."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.change(plan, self._target)

    @property
    def target(self) -> str | None:
        """The backend whose kernels decide what may run low; None asks only what ONNX allows. Set it to change it."""
        return self._target

    @target.setter
    def target(self, target: str | None) -> None:
        self.change(self._plan, target)

    def change(self, plan: Plan, target: str | None) -> None:
        """Set plan and target at once.

        Raises:
            PlanError: the plan names something that the model does not have; what was set before stays.
        """
        checked = self._checked(plan, target)
        before = (self._plan, self._target)
        if (checked, target) == before:
            return
        self._plan, self._target = checked, target
        for watcher in tuple(self._watchers):
            watcher(*before)

    def _checked(self, plan: Plan, target: str | None) -> Plan:
        if not isinstance(plan, Plan):
            raise PlanError(
                f"A plan must be a Plan, not {type(plan).__name__}.", fix="Use x.plan.block(...) or Plan(...)."
            )
        plan.check(self.model)
        self.results.typing(plan.format, target)  # refuses a format that the model cannot have before anything runs
        return plan

    def watch(self, changed: Watcher) -> Callable[[], None]:
        """Call ``changed`` with the plan and the target that were, after each change of one of them.

        Returns:
            What ends that.
        """
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed) if changed in self._watchers else None

    @property
    def tried(self) -> tuple[TriedPlan, ...]:
        """Every plan whose errors were measured, in the order of the first time."""
        return tuple(self.results.tried)

    def _tell(self, stage: str, done: int, count: int) -> None:
        self.progress(stage, done, count)  # looked up at each call: it may be set later

    # -- what becomes of the plan ----------------------------------------------------------------------------------

    def decisions(self) -> Decisions:
        """Return what becomes of each layer under the plan, with reasons."""
        return self.results.decisions(self._plan, self._target)

    def convert(self, *, clamp: bool = False) -> Conversion:
        """Return the converted, checked model under the plan.

        Args:
            clamp: weights beyond the range of the low format become its largest value instead of infinity.
        """
        return self.results.conversion(self._plan, self._target, clamp=clamp)

    def export(self, path: str | Path, *, clamp: bool = False) -> Conversion:
        """Write the converted model, checked, and return how it came to be.

        Raises:
            ConversionError: the result is not valid; nothing is written.
            ExportError: the file cannot be written; what stood there is untouched.
        """
        conversion = self.convert(clamp=clamp)
        save_onnx(conversion, self.model, path)
        return conversion
