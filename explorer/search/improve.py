"""Plans made better within a budget: by steps, swaps, runs of layers, all choices of a few, and by leaving some out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from scipy.sparse import csr_array

from explorer.search.cut import minimum
from explorer.search.energy import HIGH, LOW, Energy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from explorer.search.energy import Terms

__all__ = ["TRIED", "Budget", "best_of_all", "by_doubt", "by_exclusion", "by_runs", "only", "step_count"]

_Figures = TypeVar("_Figures", float, "npt.NDArray[np.float64]")

TRIED: Final = 10  # variables of which all plans are tried: 1,024
FEWEST: Final = 8  # steps of a walk or a climb, at least
_MOST: Final = 48  # at most
_WORK: Final = 80_000  # steps times variables: about 15 ms
_SWAPS: Final = 24  # candidates of a swap on either side
_RUN_WORK: Final = 200_000  # runs times members of clauses: about 3 ms
_FEWEST_ENDS, _MOST_ENDS = 12, 49  # places where runs may begin or end
_RUNS: Final = 4  # rounds of runs
_LARGE: Final = 500  # variables beyond which there is time for one
_LEFT_OUT: Final = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)  # shares of the layers, the noisiest first
_PRICES: Final = 5  # tried with each share
_SPAN: Final = 8.0  # they are within this factor of the price of the line between two plans of the hull
_SLACK: Final = 1e-12  # of a budget: sums of the same terms in another order differ by less


class Budget:
    """What is asked of a plan: one figure is limited, the other shall be small."""

    def __init__(self, energy: Energy, limit: float, *, noise: bool) -> None:
        self.energy, self.limit, self.noise = energy, limit + _SLACK * abs(limit), noise

    def order(self, figures: tuple[_Figures, _Figures]) -> tuple[_Figures, _Figures]:
        """Return (us, noise) with the figure that shall be small first."""
        return figures if self.noise else figures[::-1]

    def keeps(self, figures: tuple[float, float]) -> bool:
        """Return whether a plan of these figures keeps the budget."""
        return self.order(figures)[1] <= self.limit

    def best(self, plans: Sequence[npt.NDArray[np.bool_]], most: int = 1) -> list[npt.NDArray[np.bool_]]:
        """Return the best of some plans that keep the budget."""
        figures = [self.order(self.energy.evaluate(low)) for low in plans]
        kept = sorted((each, number) for number, each in enumerate(figures) if each[1] <= self.limit)
        return [plans[number] for _, number in kept[:most]]

    def climb(self, low: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return the plan improved by single steps and swaps until none helps."""
        low = low.copy()
        for _ in range(step_count(low.size)):
            now = self.order(self.energy.evaluate(low))
            goal, used = self.order(self.energy.steps(low))
            better = (goal < -_SLACK * abs(now[0])) & (now[1] + used <= self.limit)
            chosen = [int(np.where(better, goal, 0.0).argmin())] if better.any() else self._swap(low, now, goal, used)
            if not chosen:
                break
            low[chosen] ^= True
        return low

    def _swap(
        self,
        low: npt.NDArray[np.bool_],
        now: tuple[float, float],
        goal: npt.NDArray[np.float64],
        used: npt.NDArray[np.float64],
    ) -> list[int]:
        """Return two variables to switch together: one that gains, and one that makes room for it."""
        gains = np.argsort(goal)[:_SWAPS]
        room = np.flatnonzero(used < 0)
        makes_room = room[np.argsort(goal[room] / -used[room])][:_SWAPS]
        sums = goal[gains][:, None] + goal[makes_room][None, :]
        fits = now[1] + used[gains][:, None] + used[makes_room][None, :] <= self.limit
        sums = np.where(fits & (gains[:, None] != makes_room[None, :]), sums, 0.0)
        for place in np.argsort(sums, axis=None)[:4]:  # sums are right unless the two share a term
            one, other = np.unravel_index(place, sums.shape)
            if sums[one, other] >= -_SLACK * abs(now[0]):
                break
            chosen = [int(gains[one]), int(makes_room[other])]
            tried = low.copy()
            tried[chosen] ^= True
            figures = self.order(self.energy.evaluate(tried))
            if figures[1] <= self.limit and figures[0] < now[0] - _SLACK * abs(now[0]):
                return chosen
        return []


def step_count(variables: int) -> int:
    """Return how many steps, each over so many variables, stay within milliseconds."""
    return int(np.clip(_WORK // max(1, variables), FEWEST, _MOST))


def only(energy: Energy, low: npt.NDArray[np.bool_], where: npt.NDArray[np.intp]) -> Energy:
    """Return the energy over some variables, the others being as they are."""
    place = np.where(low, LOW, HIGH).astype(np.intp)
    place[where] = np.arange(where.size)
    return energy.restrict(place, where.size)


def best_of_all(local: Energy, base: npt.NDArray[np.bool_], budget: Budget) -> npt.NDArray[np.bool_]:
    """Return the best of all plans of a few variables; ``base`` keeps the budget."""
    plans = base ^ ((np.arange(1 << base.size)[:, None] >> np.arange(base.size)) & 1 == 1)
    goal, used = budget.order(_evaluate(local, plans))
    best: npt.NDArray[np.bool_] = plans[np.where(used <= budget.limit, goal, np.inf).argmin()]
    return best


def by_doubt(
    core: Energy, low: npt.NDArray[np.bool_], price: float, budget: Budget, *, rounds: int
) -> npt.NDArray[np.bool_]:
    """Return the plan improved by trying all choices of those variables about which the price is least sure."""
    for _ in range(rounds):
        us, noise = core.steps(low)
        where = np.sort(np.argsort(np.abs(us + price * noise))[:TRIED])
        improved = low.copy()
        improved[where] = best_of_all(only(core, low, where), low[where], budget)
        if np.array_equal(improved, low):
            break
        low = improved
    return low


def by_runs(
    core: Energy, low: npt.NDArray[np.bool_], where: npt.NDArray[np.intp], budget: Budget
) -> npt.NDArray[np.bool_]:
    """Return the plan improved by switching whole runs of the variables ``where``, which share the casts at their ends.

    Layers stand in the order in which they run, so a run is mostly a block of the model.
    """
    local = only(core, low, where)
    inner = Budget(local, budget.limit, noise=budget.noise)
    members = sum(terms.members.size for terms in (local.sources, local.down, local.up)) + 1
    count = min(_MOST_ENDS, int(np.sqrt(2 * _RUN_WORK / members)))
    if count < _FEWEST_ENDS:  # coarse runs of thousands of layers help no more than the hull's own steps
        return low
    best = low[where]
    rounds = _RUNS if where.size <= _LARGE else 1
    for turn in range(rounds):
        # Where not every place can be an end, each round tries others.
        ends = np.unique(
            np.linspace(0, where.size, count, endpoint=False).astype(np.intp) + turn * where.size // count // rounds
        )
        one, other = np.triu_indices(ends.size + 1, 1)
        first, last = ends[one], np.append(ends, where.size)[other]
        place = np.arange(where.size)
        run = (place >= first[:, None]) & (place < last[:, None])
        plans = np.concatenate([best[None, :], best | run, best & ~run])
        goal, used = inner.order(_evaluate(local, plans))
        chosen = int(np.where(used <= inner.limit, goal, np.inf).argmin())
        if goal[0] - goal[chosen] > _SLACK * abs(goal[0]):
            best = inner.climb(plans[chosen])
        elif ends.size == where.size:
            break
    improved = low.copy()
    improved[where] = best
    return improved


def by_exclusion(
    core: Energy, near: npt.NDArray[np.bool_], far: npt.NDArray[np.bool_], price: float, budget: Budget
) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield plans between two of the hull that keep the budget: the best cuts without the layers that add most noise.

    Args:
        core: the energy.
        near: the plan with fewer low variables.
        far: the one with more.
        price: at which both are equally good.
        budget: that the plans keep.
    """
    where = np.flatnonzero(far & ~near)
    local = only(core, near, where)
    noise = local.change_noise + local.sources.pulls(where.size)[0]
    saved = np.maximum(-local.change_us, 1e-9 * np.abs(local.change_us).max(initial=0.0) + 1e-300)
    for order in (np.argsort(-noise), np.argsort(-noise / saved)):
        for share in _LEFT_OUT:
            place = np.arange(where.size)
            left_out = np.zeros(where.size, np.bool_)
            left_out[order[: int(np.ceil(share * where.size))]] = True
            place[left_out], place[~left_out] = HIGH, np.arange(int((~left_out).sum()))
            for found in _at_prices(local.restrict(place, int((~left_out).sum())), price, budget):
                plan = near.copy()
                plan[where[~left_out]] = found
                yield plan


def _at_prices(energy: Energy, price: float, budget: Budget) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield cuts that keep the budget, nearer and nearer to it."""
    least, most = price / _SPAN, price * _SPAN
    fastest = minimum(energy, 0.0)
    keeps = budget.keeps(energy.evaluate(fastest))
    if keeps:
        yield fastest
    if keeps == budget.noise:  # nothing better, or nothing faster
        return
    for _ in range(_PRICES):
        middle = float(np.sqrt(least * most))
        found = minimum(energy, middle)
        keeps = budget.keeps(energy.evaluate(found))
        if keeps:
            yield found
        if keeps == budget.noise:
            most = middle
        else:
            least = middle


def _evaluate(energy: Energy, plans: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return latency and noise of many plans (plans x variables)."""
    numbers = plans.astype(np.float64)  # a product with booleans takes several times as long
    us = energy.base_us + numbers @ energy.change_us
    us += (plans[:, energy.first] != plans[:, energy.second]).astype(np.float64) @ energy.bond_us
    noise = energy.base_noise + numbers @ energy.change_noise
    columns = plans.T.astype(np.float32)
    every = np.concatenate([plans.T, np.ones((1, len(plans)), np.bool_), np.zeros((1, len(plans)), np.bool_)])

    def total(terms: Terms) -> npt.NDArray[np.float64]:
        shape = (len(terms), len(energy))
        members = csr_array((np.ones(terms.members.size, np.float32), terms.members, terms.start), shape=shape)
        low = members @ columns  # numbers of low members; a product is faster than a reduction over ragged rows
        fired = low < terms.sizes[:, None] if terms.swapped else low > 0
        paid = fired & (every[terms.owner] == terms.swapped)
        return np.asarray(terms.weight @ paid.astype(np.float64), np.float64)

    return us + total(energy.down) + total(energy.up), noise + total(energy.sources)
