"""The search: measure the noise of each tensor, cut, run what the cut proposes, and keep what holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from explorer.search.agree import agreeing, following
from explorer.search.exact import refine
from explorer.search.front import Front, spread
from explorer.search.hull import hull
from explorer.search.noise import sweep
from explorer.search.plans import blocked_layers
from explorer.search.problem import build_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.convert import Typing
    from explorer.measure.tables import LayerSums
    from explorer.model import Samples
    from explorer.search.costs import CostModel
    from explorer.search.noise import NoiseModel
    from explorer.search.point import Judge, Settings
    from explorer.search.store import Store

__all__ = [
    "CUTS", "FIRST_CUTS", "MEASURING", "VERIFYING", "Ground", "Search", "chosen_plans", "search", "verified",
]  # fmt: skip

MEASURING: Final = "noise of each tensor"  # stages, as they are told to whoever watches
VERIFYING: Final = "plans of the front"

CUTS: Final = 64  # of the lower hull
FIRST_CUTS: Final = 12  # while tensors are still being measured
_RUNS: Final = 14  # plans of the hull that are run
_REFINE_S: Final = 3.0  # for exact plans between the corners of the hull
_LEAST: Final = 1e-4  # of the most noise of a plan: below a hundredth of its error, plans differ in nothing of use
_MOST_PINS: Final = 12  # layers that runs of plans may pin before the search gives up on the fastest plans
_SHOW_EVERY_S: Final = 2.0

F = TypeVar("F", bound=Front)


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
    return Search(ground, cancel, progress or (lambda *_: None), found or (lambda _: None)).front(seconds)


class Search:
    """A search among fp32 and one low format; arguments as of :func:`search`."""

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
        self.groups = [*agreeing(typing, ground.agree, self.costs), *following(typing, self.blocked)]

    def front(self, seconds: float | None) -> Front:
        """Return the front."""
        noise = self.measure(seconds, lambda noise: self.found(self.made(noise, {}, FIRST_CUTS)))
        front = verified(lambda pins: self.made(noise, pins, CUTS), self.run)
        front.complete = True
        self.found(front)
        return front

    def measure(self, seconds: float | None, show: Callable[[NoiseModel], None]) -> NoiseModel:
        """Return the noise of each tensor; ``show`` is called with what is known so far, every other second."""
        ground, shown = self.ground, 0.0
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
                show(noise)
                shown = time.monotonic()
        assert noise is not None
        return noise

    def made(self, noise: NoiseModel, pins: Mapping[str, str], most: int) -> Front:
        """Return the front by the models; nothing of it was run.

        Args:
            noise: what is known of the noise.
            pins: layers that stay in fp32, with the reason.
            most: cuts at most.
        """
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

    def run(self, front: Front) -> tuple[str, ...]:
        """Run plans of the hull, the fastest first, then some between; stop at one that breaks, and return by what."""
        return self.run_all([(front, low) for low in chosen_plans(front)], front)

    def run_all(self, chosen: Sequence[tuple[Front, npt.NDArray[Any]]], whole: Front) -> tuple[str, ...]:
        """Run plans of fronts that are parts of ``whole``; stop at one that breaks, and return by what."""
        start = time.monotonic()
        for index, (front, low) in enumerate(chosen):
            left = (time.monotonic() - start) / index * (len(chosen) - index) if index else None
            self.progress(VERIFYING, index, len(chosen), left)
            if self.cancel is not None:
                self.cancel.check()
            _, outcome = front.measured(low, cancel=self.cancel)
            if outcome.suspects:
                return outcome.suspects
            self.found(whole)
        self.progress(VERIFYING, len(chosen), len(chosen), 0.0)
        return ()


def verified(make: Callable[[Mapping[str, str]], F], run: Callable[[F], tuple[str, ...]]) -> F:
    """Return the front whose plans were run; layers by which one of them breaks the model are pinned.

    Args:
        make: returns the front in which some layers are pinned, with the reason.
        run: runs its plans, and returns by which layers one breaks.
    """
    pins: dict[str, str] = {}
    while True:
        front = make(pins)
        broken = run(front)
        fresh = [layer_id for layer_id in broken if layer_id not in pins]
        if not fresh or len(pins) >= _MOST_PINS:
            return front
        pins |= dict.fromkeys(fresh, "plans that run it low make inf or NaN, as runs of them showed")


def chosen_plans(front: Front) -> list[npt.NDArray[Any]]:
    """Return the plans of a front that are run: of the hull, the fastest first, then some between."""
    chosen = [cut.low for cut in spread(front.cuts, _RUNS)[::-1]]
    noises = [cut.noise for cut in front.cuts if cut.noise > 0]
    count = max(0, _RUNS - len(chosen))
    if not count or not noises:
        return chosen
    # Between the corners of the hull, evenly over the logarithm of their noise.
    budgets = np.geomspace(max(min(noises), max(noises) * _LEAST), max(noises), count + 2)[1:-1]
    return [*chosen, *(front.filled(max_noise=float(each)).low for each in budgets)]
