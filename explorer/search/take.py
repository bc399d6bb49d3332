"""Taking a plan from the front: the best one within a budget, run, repaired where it breaks the promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.search.front import Front
    from explorer.search.point import FrontPoint

__all__ = ["Taker"]

_RUNS: Final = 10  # of plans for one budget, at most
_ROOM: Final = 0.97  # a budget that is kept to this share is used up
_TIGHTER: Final = 0.9  # a plan that broke the promise is asked for this share of what would keep it in proportion
_LESS: Final = (1.0, 0.94, 0.88, 0.8)  # of a budget of noise, that are looked at beside it
_WIDER: Final = 1.1  # an error that gives a plan which was tried is raised by this
_SHARES: Final = (1.0, 0.25, 0.05, 0.0)  # of the moves that could be made; the last is one of them
_SINGLES: Final = 4  # moves that are tried one by one, the best first
_SMALLEST_GAIN: Final = 1e-3  # of the latency: less is not worth a run
_TINY: Final = 1e-300  # in place of nothing, where it divides


class Taker:
    """Finds plans within budgets; every plan that it returns was run.

    Args:
        front: where from.
        cancel: stops it from another thread.
    """

    def __init__(self, front: Front, cancel: Cancel | None = None) -> None:
        self._front, self._cancel = front, cancel

    def error(self, budget: float) -> FrontPoint:
        """Return the fastest plan whose measured error is at most ``budget``.

        The noise model says where to look, runs decide: a plan that breaks the promise is made more exact until it
        keeps it, one that leaves room is given layers back until it does not.
        """
        kept, broke = 0.0, np.inf  # predicted errors whose plans kept the budget, or broke it
        ask, tried = budget, set[bytes]()
        for _ in range(_RUNS):
            low, ask = self._new(ask, broke, tried)
            if low is None:
                break
            point, _ = self._front.measured(low, cancel=self._cancel)
            assert point.error is not None
            if point.error <= budget:
                kept = max(kept, ask)
                if point.error >= _ROOM * budget or point.error == 0:
                    break
            else:
                broke = min(broke, ask)
            ask = self._next(ask, budget, point.error, kept, broke)
        return self._give_back(self._fastest(budget), budget)

    def _new(self, ask: float, broke: float, tried: set[bytes]) -> tuple[npt.NDArray[np.bool_] | None, float]:
        """Return a plan that was not tried, and the predicted error that gives it: this one or a little more."""
        for _ in range(_RUNS):
            low = self._fill(max_noise=ask**2)
            key = low.tobytes()
            if key not in tried:
                tried.add(key)
                return low, ask
            ask *= _WIDER
            if ask >= broke:
                break
        return None, ask

    @staticmethod
    def _next(ask: float, budget: float, error: float, kept: float, broke: float) -> float:
        """Return the predicted error to ask for next: in proportion, between what kept the budget and what broke it."""
        if not np.isfinite(error):
            return float(np.sqrt(kept * broke)) if kept else ask / 10
        aim = ask * budget / error if error else ask * 10
        aim *= _TIGHTER if error > budget else 1.0
        if kept < aim < broke:
            return aim
        return float(np.sqrt(kept * broke)) if kept and np.isfinite(broke) else aim

    def _fastest(self, budget: float) -> FrontPoint:
        """Return the fastest plan that was run and keeps the budget; fp32 keeps every budget."""
        good = [point for point in self._front.run if point.error is not None and point.error <= budget]
        if not good:
            exact, _ = self._front.measured(self._fill(max_noise=0.0), cancel=self._cancel)
            if exact.error is None or exact.error > budget:
                exact, _ = self._front.measured(np.zeros_like(exact.choice), cancel=self._cancel)
            good = [exact]
        return min(good, key=lambda point: (point.cost, point.error))

    def _give_back(self, point: FrontPoint, budget: float) -> FrontPoint:
        """Return the plan after moves that the budget leaves room for, those that save most for their error first.

        Many are made at once while that holds, then fewer, and at last one by one.
        """
        for share in _SHARES:
            for _ in range(_RUNS):
                better = self._better(point, budget, share)
                if better is None:
                    break
                point = better
        return point

    def _better(self, point: FrontPoint, budget: float, share: float) -> FrontPoint | None:
        """Return a faster plan that keeps the budget: after some share of the moves, or after one of the first."""
        moves = self._moves(point.choice)
        for chosen in [moves[: int(share * len(moves))]] if share else [[move] for move in moves[:_SINGLES]]:
            made = self._front.point(self._applied(point.choice, chosen))
            if made.error is None and made.cost < point.cost * (1 - _SMALLEST_GAIN):
                made, _ = self._front.measured(made.choice, cancel=self._cancel)
            if made.error is not None and made.error <= budget and made.cost < point.cost:
                return made
        return None

    def _moves(self, choice: npt.NDArray[Any]) -> list[Any]:
        """Return what could run low and would save time, best ratio of time to noise first.

        Here each is a variable of the problem: layers that run in one format move together.
        """
        problem = self._front.problem
        low = problem.variables(choice)
        us, noise = problem.core.steps(low)
        found = np.flatnonzero(~low & (us < 0))
        ratio = -us[found] / np.maximum(noise[found], _TINY)
        return [*found[np.argsort(-ratio, kind="stable")]]

    def _applied(self, choice: npt.NDArray[Any], chosen: Sequence[Any]) -> npt.NDArray[Any]:
        """Return the plan after moves."""
        return choice | np.isin(self._front.problem.place, np.array(chosen, np.intp))

    def latency(self, budget: float) -> FrontPoint:
        """Return the most exact plan that takes at most ``budget`` microseconds.

        Raises:
            InputError: no plan is so fast.
        """
        if not self._front.device:
            raise InputError(
                "The search was made without a GPU, so no plan has a latency.",
                fix="Search for one: x.search(gpu_model='H100').",
            )
        ask = budget
        for _ in range(_RUNS):
            point = self._front.point(self._fill(max_us=ask))
            if point.latency_us <= budget:
                self._front.measured(point.choice, cancel=self._cancel)
                break
            ask *= 0.995 * budget / point.latency_us
        fastest = min(self._front.points, key=lambda each: each.latency_us)
        if fastest.error is None and fastest.latency_us <= budget:
            self._front.measured(fastest.choice, cancel=self._cancel)
        kept = [each for each in self._front.run if each.latency_us <= budget and np.isfinite(each.worst)]
        if kept:
            return min(kept, key=lambda each: (each.worst, each.cost))
        raise InputError(
            f"No plan takes at most {budget:,.4g} us on {self._front.device}.",
            why=f"The fastest takes {fastest.latency_us:,.1f} us ({self._front.latency_provenance}).",
            fix="Give a larger budget, or unblock layers.",
        )

    def drop(self, budget: float) -> FrontPoint:
        """Return the fastest plan that loses at most ``budget`` of the metric.

        Raises:
            InputError: the search had no metric.
        """
        front = self._front
        if front.judge.score is None:
            raise InputError(
                "The search had no metric, so no plan has a drop of it.",
                fix="Search with one: x.search(metric='top1', data='labelled.npz').",
            )
        least = front.judge.exact_score - budget
        kept, broke = 0, len(front.cuts)  # of the cuts, most exact first: the noise model orders, the metric decides
        while broke - kept > 1:
            middle = (kept + broke) // 2
            if self._score(front.cuts[middle].low) >= least:
                kept = middle
            else:
                broke = middle
        if broke < len(front.cuts):
            self._between(front.cuts[kept].noise, front.cuts[broke].noise, least)
        good = [point for point in front.run if point.metric is not None and point.metric >= least]
        if good:
            return min(good, key=lambda point: point.cost)
        exact, _ = front.measured(np.zeros_like(front.cuts[0].low), cancel=self._cancel)
        return front.scored(exact, cancel=self._cancel)

    def _between(self, kept: float, broke: float, least: float) -> None:
        """Score plans between two budgets of noise of which the one kept the metric and the other did not."""
        kept = max(kept, broke * 1e-4)
        for _ in range(_RUNS // 2):
            middle = float(np.sqrt(kept * broke))
            if self._score(self._fill(max_noise=middle)) >= least:
                kept = middle
            else:
                broke = middle

    def _score(self, low: npt.NDArray[np.bool_]) -> float:
        point, _ = self._front.measured(low, cancel=self._cancel)
        metric = self._front.scored(point, cancel=self._cancel).metric
        return -np.inf if metric is None or np.isnan(metric) else metric

    def _fill(self, *, max_noise: float | None = None, max_us: float | None = None) -> npt.NDArray[np.bool_]:
        # Steps from the hull do not always use a budget best: a plan for a little less is sometimes the faster one.
        front = self._front
        if max_noise is None:
            return front.filled(max_us=max_us).low
        found = [front.filled(max_noise=max_noise * share) for share in _LESS]
        return min(found, key=lambda cut: (cut.us, cut.noise)).low
