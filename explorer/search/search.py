"""The search: measure the noise of each tensor, cut, run what the cut proposes, and keep what holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.search.agree import agreeing
from explorer.search.exact import refine
from explorer.search.fill import fill
from explorer.search.front import Front, spread
from explorer.search.hull import hull
from explorer.search.noise import sweep
from explorer.search.plans import blocked_layers
from explorer.search.problem import build_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.convert import Typing
    from explorer.measure.tables import LayerSums
    from explorer.model import Samples
    from explorer.search.costs import CostModel
    from explorer.search.noise import NoiseModel
    from explorer.search.point import Judge, Settings
    from explorer.search.store import Store

__all__ = ["MEASURING", "VERIFYING", "Ground", "search"]

MEASURING: Final = "noise of each tensor"  # stages, as they are told to whoever watches
VERIFYING: Final = "plans of the front"

_CUTS: Final = 64  # of the lower hull
_FIRST_CUTS: Final = 12  # while tensors are still being measured
_RUNS: Final = 14  # plans of the hull that are run
_REFINE_S: Final = 3.0  # for exact plans between the corners of the hull
_LEAST: Final = 1e-4  # of the most noise of a plan: below a hundredth of its error, plans differ in nothing of use
_MOST_PINS: Final = 12  # layers that runs of plans may pin before the search gives up on the fastest plans
_SHOW_EVERY_S: Final = 2.0


@dataclass(frozen=True)
class Ground:
    """What a search stands on.

    Attributes:
        settings: what is searched for.
        typing: what each layer may be.
        samples: what runs through the model.
        local: local errors by layer, for a first guess of the noise.
        ranges: ranges of the exact values by layer.
        costs: what each layer takes in each format.
        judge: runs plans.
        agree: kinds of layers that shall run in one format.
        threads: of the runtime.
        store: what was measured before; None keeps nothing.
    """

    settings: Settings
    typing: Typing
    samples: Samples
    local: Callable[[], LayerSums]
    ranges: Callable[[], LayerSums]
    costs: CostModel
    judge: Judge
    agree: Collection[str]
    threads: int | None
    store: Store | None


def search(
    ground: Ground,
    *,
    seconds: float | None = None,
    cancel: Cancel | None = None,
    progress: Callable[[str, int, int, float | None], None] | None = None,
    found: Callable[[Front], None] | None = None,
) -> Front:
    """Return the front of error and latency; every plan on it was run.

    Args:
        ground: what it stands on.
        seconds: after which no further tensor is measured; None measures until that no longer pays.
        cancel: stops it from another thread.
        progress: called with what is being done, how much of it, of how much, and the seconds left where that is
            known.
        found: called with every better front on the way.

    Raises:
        RunCancelled: `cancel` was called; what was measured is in the store.
    """
    return _Search(ground, cancel, progress or (lambda *_: None), found or (lambda _: None)).front(seconds)


class _Search:
    def __init__(
        self,
        ground: Ground,
        cancel: Cancel | None,
        progress: Callable[[str, int, int, float | None], None],
        found: Callable[[Front], None],
    ) -> None:
        self.ground, self.cancel, self.progress, self.found = ground, cancel, progress, found
        settings, typing = ground.settings, ground.typing
        self.costs = ground.costs
        self.blocked = blocked_layers(settings.plan, typing)
        self.groups = agreeing(typing, ground.agree, self.costs)

    def front(self, seconds: float | None) -> Front:
        """Return the front."""
        ground = self.ground
        shown = 0.0
        noise: NoiseModel | None = None
        for noise in sweep(
            ground.typing,
            ground.samples,
            ground.local,
            ground.ranges,
            seconds=seconds,
            store=ground.store,
            threads=ground.threads,
            cancel=self.cancel,
            progress=lambda done, total, left: self.progress(MEASURING, done, total, left),
        ):
            if time.monotonic() - shown > _SHOW_EVERY_S:
                self.found(self._made(noise, {}, _FIRST_CUTS))
                shown = time.monotonic()
        assert noise is not None
        front = self._verified(noise)
        front.complete = True
        self.found(front)
        return front

    def _made(self, noise: NoiseModel, pins: Mapping[str, str], most: int) -> Front:
        ground = self.ground
        problem = build_problem(
            ground.typing,
            noise,
            self.costs,
            blocked=self.blocked | pins.keys(),
            keep_io=ground.settings.plan.keep_io,
            agree=self.groups,
        )
        cuts = hull(problem, most=most, cancel=self.cancel)
        if noise.complete:
            cuts = refine(problem, cuts, seconds=_REFINE_S, cancel=self.cancel)
        return Front(
            ground.settings,
            ground.typing,
            noise=noise,
            costs=self.costs,
            problem=problem,
            cuts=cuts,
            judge=ground.judge,
            pinned=pins,
        )

    def _verified(self, noise: NoiseModel) -> Front:
        """Return the front whose plans were run; layers by which one of them breaks the model are pinned."""
        pins: dict[str, str] = {}
        while True:
            front = self._made(noise, pins, _CUTS)
            broken = self._run(front)
            fresh = [layer_id for layer_id in broken if layer_id not in pins]
            if not fresh or len(pins) >= _MOST_PINS:
                return front
            pins |= dict.fromkeys(fresh, "plans that run it low make inf or NaN, as runs of them showed")

    def _run(self, front: Front) -> tuple[str, ...]:
        """Run plans of the hull, the fastest first, then some between; stop at one that breaks, and return by what."""
        chosen = [cut.low for cut in spread(front.cuts, _RUNS)[::-1]]
        chosen += self._between(front, max(0, _RUNS - len(chosen)))
        start = time.monotonic()
        for index, low in enumerate(chosen):
            left = (time.monotonic() - start) / index * (len(chosen) - index) if index else None
            self.progress(VERIFYING, index, len(chosen), left)
            if self.cancel is not None:
                self.cancel.check()
            _, outcome = front.measured(low, cancel=self.cancel)
            if outcome.suspects:
                return outcome.suspects
            self.found(front)
        self.progress(VERIFYING, len(chosen), len(chosen), 0.0)
        return ()

    @staticmethod
    def _between(front: Front, count: int) -> list[npt.NDArray[np.bool_]]:
        """Return plans between the corners of the hull, evenly over the logarithm of their noise."""
        noises = [cut.noise for cut in front.cuts if cut.noise > 0]
        if not count or not noises:
            return []
        budgets = np.geomspace(max(min(noises), max(noises) * _LEAST), max(noises), count + 2)[1:-1]
        return [fill(front.problem, front.cuts, max_noise=float(each)).low for each in budgets]
