"""Taking a plan of three formats from the front: never a worse one than either pair of formats gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.errors import InputError
from explorer.search.labels import moves
from explorer.search.take import Taker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.search.label_front import LabelFront
    from explorer.search.point import FrontPoint

__all__ = ["LabelTaker"]

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
        return super().latency(budget)

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

    def _moves(self, choice: npt.NDArray[Any]) -> list[tuple[npt.NDArray[np.intp], int]]:
        """Return moves that save time, of different layers, the best ratio of time to noise first."""
        found = moves(self._labels.choice, choice)
        ratio = np.where(found.us < 0, -found.us / np.maximum(found.noise, _TINY), -np.inf)
        taken, chosen = np.zeros(choice.size, np.bool_), []
        for move in np.argsort(-ratio, kind="stable").tolist():
            layers = found.of(move)
            if found.us[move] >= 0:
                break
            if not taken[layers].any():
                taken[layers] = True
                chosen.append((layers, int(found.target[move])))
        return chosen

    def _applied(
        self, choice: npt.NDArray[Any], chosen: Sequence[tuple[npt.NDArray[np.intp], int]]
    ) -> npt.NDArray[np.int8]:
        """Return the plan after moves; those that the ones before forbid are left out."""
        made = choice.astype(np.int8)
        for layers, target in chosen:
            tried = made.copy()
            tried[layers] = target
            made = tried if len(chosen) == 1 or self._labels.choice.fits(tried) else made
        return made
