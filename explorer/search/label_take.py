"""Taking a plan of three formats from the front: never a worse one than either pair of formats gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.errors import InputError
from explorer.search.labels import moves
from explorer.search.take import Taker

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.search.label_front import LabelFront
    from explorer.search.point import FrontPoint

__all__ = ["LabelTaker"]

_RUNS: Final = 10  # of plans that give layers back
_SHARES: Final = (1.0, 0.25, 0.05, 0.0)  # of the moves that could be made; the last is one of them
_SMALLEST_GAIN: Final = 1e-3  # of the latency: less is not worth a run
_TINY: Final = 1e-300


class LabelTaker(Taker):
    """Finds plans within budgets; every plan that it returns was run.

    What either low format alone gives within the budget is found first, and is a candidate.

    Args:
        front: where from.
        cancel: stops it from another thread.
    """

    def __init__(self, front: LabelFront, cancel: Cancel | None = None) -> None:
        super().__init__(front, cancel)
        self._labels = front

    def error(self, budget: float) -> FrontPoint:
        """Return the fastest plan whose measured error is at most ``budget``."""
        self._sides(lambda taker: taker.error(budget))
        return super().error(budget)

    def latency(self, budget: float) -> FrontPoint:
        """Return the most exact plan that takes at most ``budget`` microseconds.

        Raises:
            InputError: no plan is so fast.
        """
        self._sides(lambda taker: taker.latency(budget))
        point = super().latency(budget)
        good = [each for each in self._front.run if each.latency_us <= budget]
        return min([point, *good], key=lambda each: (each.worst, each.cost))

    def drop(self, budget: float) -> FrontPoint:
        """Return the fastest plan that loses at most ``budget`` of the metric.

        Raises:
            InputError: the search had no metric.
        """
        self._sides(lambda taker: taker.drop(budget))
        return super().drop(budget)

    def _sides(self, take: Callable[[Taker], FrontPoint]) -> None:
        """Find what each low format alone gives; what is run stands on the front."""
        for side in self._labels.sides:
            try:
                take(Taker(side, self._cancel))
            except InputError:  # none of its plans keeps the budget; the front itself says why none does at all
                continue

    def _give_back(self, point: FrontPoint, budget: float) -> FrontPoint:
        """Return the plan after moves that the budget leaves room for, those that save most for their error first."""
        for _ in range(_RUNS):
            chosen = self._moves(point.choice)
            tried = set[int]()
            for share in _SHARES:
                count = max(1, int(share * len(chosen)))
                if not chosen or count in tried:
                    continue
                tried.add(count)
                made = self._front.point(self._applied(point.choice, chosen[:count]))
                if made.error is None and made.cost >= point.cost * (1 - _SMALLEST_GAIN):
                    continue
                made, _ = self._front.measured(made.choice, cancel=self._cancel)
                if made.error is not None and made.error <= budget and made.cost < point.cost:
                    break
            else:
                return point
            point = made
        return point

    def _moves(self, labels: npt.NDArray[Any]) -> list[tuple[npt.NDArray[np.intp], int]]:
        """Return moves that save time, of different layers, the best ratio of time to noise first."""
        found = moves(self._labels.choice, labels)
        ratio = np.where(found.us < 0, -found.us / np.maximum(found.noise, _TINY), -np.inf)
        taken, chosen = np.zeros(labels.size, np.bool_), []
        for move in np.argsort(-ratio, kind="stable").tolist():
            layers = found.of(move)
            if found.us[move] >= 0:
                break
            if not taken[layers].any():
                taken[layers] = True
                chosen.append((layers, int(found.target[move])))
        return chosen

    def _applied(
        self, labels: npt.NDArray[Any], chosen: list[tuple[npt.NDArray[np.intp], int]]
    ) -> npt.NDArray[np.int8]:
        """Return the plan after several moves; those that the ones before forbid are left out."""
        made = labels.astype(np.int8)
        for layers, target in chosen:
            tried = made.copy()
            tried[layers] = target
            made = tried if len(chosen) == 1 or self._labels.choice.fits(tried) else made
        return made
