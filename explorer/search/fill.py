"""The best plan within a budget: between two plans of the hull there are others, off the hull, that use a budget up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from explorer.search.energy import Energy, extended, summed
from explorer.search.hull import Cut
from explorer.search.improve import (
    FEWEST,
    TRIED,
    Budget,
    best_of_all,
    by_doubt,
    by_exclusion,
    by_runs,
    only,
    step_count,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from explorer.search.problem import Problem

__all__ = ["fill"]


_LARGE: Final = 1_000  # variables up to which there is time to look between more plans of the hull
_CLIMBED: Final = 3  # plans that are improved then, the best ones
_DIVIDED: Final = 2  # parts that fit no more as a whole of which a part is looked for
_TINY: Final = 1e-300  # in place of nothing, where it divides


def fill(problem: Problem, hull: Sequence[Cut], *, max_noise: float | None = None, max_us: float | None = None) -> Cut:
    """Return the best plan within a budget that is found in milliseconds; runs nothing.

    It is never worse than the plans of the hull that keep the budget. When none does, it is the one that comes nearest:
    the most exact, or the fastest.

    Args:
        problem: what is decided.
        hull: its hull, as :func:`explorer.search.hull.hull` returns it.
        max_noise: the fastest plan with at most this noise (squared relative error) is asked.
        max_us: or else, the most exact plan that takes at most these microseconds.
    """
    assert (max_noise is None) != (max_us is None)
    core = problem.core
    budget = Budget(core, max_noise if max_noise is not None else float(max_us or 0.0), noise=max_noise is not None)
    kept = [cut for cut in hull if budget.keeps((cut.us, cut.noise))]
    if not kept:
        return hull[0] if max_noise is not None else hull[-1]
    inside = min(kept, key=lambda cut: budget.order((cut.us, cut.noise)))
    at = next(number for number, cut in enumerate(hull) if cut is inside)
    pairs = _pairs(at, 1 if max_noise is not None else -1, len(hull))
    start = problem.variables(inside.low)
    best = start
    if pairs:
        ends = [(problem.variables(hull[here].low), problem.variables(hull[there].low)) for here, there in pairs]
        near, far = (hull[number] for number in pairs[0])
        best = _between(core, start, ends, (near.us - far.us) / (far.noise - near.noise), budget)
    if np.array_equal(best, start):
        return inside
    us, noise = core.evaluate(best)
    return Cut(problem.layers(best), us, noise, float("nan"))


def _between(
    core: Energy,
    start: npt.NDArray[np.bool_],
    ends: Sequence[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]],
    price: float,
    budget: Budget,
) -> npt.NDArray[np.bool_]:
    """Return the best plan that is found from pairs of plans of the hull; the first are those around the budget."""
    large = len(core) > _LARGE
    found = [start]
    for near, far in ends[: 1 if large else None]:
        found += _towards(core, near, far, budget)
    near, far = ends[0]
    differ = near ^ far
    if not large:
        found += by_exclusion(core, near & far, near | far, price, budget)
    best = start
    for low in budget.best(found, 1 if large else _CLIMBED):
        better = by_runs(core, budget.climb(low), np.flatnonzero(differ | (low ^ start)), budget)
        better = by_doubt(core, better, price, budget, rounds=2 if large else FEWEST)
        best = budget.best([best, better])[0]
    return best


def _pairs(at: int, step: int, count: int) -> list[tuple[int, int]]:
    """Return pairs of plans of the hull between which to look: the neighbours on either side of the budget first."""
    pairs = [(at, at + step), (at - step, at + step), (at, at + 2 * step), (at - step, at + 2 * step)]
    return [(one, other) for one, other in pairs if 0 <= one < count and 0 <= other < count]


def _towards(
    core: Energy, start: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], budget: Budget
) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield plans between two, of which the first keeps the budget.

    What differs falls into parts that no term joins. Whole parts are taken first, those that give most for what they
    use; then some of the parts that did not fit are divided.
    """
    where = np.flatnonzero(start ^ other)
    local = only(core, start, where)
    base = start[where]
    part = _parts(local)
    goal, used = budget.order(_by_part(local, base, part))
    room = budget.limit - budget.order(core.evaluate(start))[1]
    taken, left_out = np.zeros(goal.size, np.bool_), []
    for label in np.argsort(goal / np.maximum(used, _TINY), kind="stable").tolist():
        if used[label] <= room:
            taken[label] = True
            room -= used[label]
        else:
            left_out.append(label)
    plan = start.copy()
    plan[where] ^= taken[part]
    yield plan
    for label in left_out[:_DIVIDED]:
        yield from _within(core, plan, where[part == label], budget)


def _by_part(
    energy: Energy, base: npt.NDArray[np.bool_], part: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what latency and noise change by when each of the independent parts is switched as a whole."""
    count = int(part.max(initial=-1)) + 1
    sign = np.where(base, -1.0, 1.0)
    us = summed(part, sign * energy.change_us, count)  # bonds stay as they are: both ends are switched
    noise = summed(part, sign * energy.change_noise, count)
    for terms in (energy.down, energy.up, energy.sources):
        change = terms.paid(extended(~base)).astype(float) - terms.paid(extended(base))
        by_part = summed(part[terms.members[terms.start[:-1]]], change * terms.weight, count)
        us, noise = (us, noise + by_part) if terms is energy.sources else (us + by_part, noise)
    return us, noise


def _parts(energy: Energy) -> npt.NDArray[np.intp]:
    """Return a label by variable; no term joins variables of different labels."""
    one, other = [energy.first], [energy.second]
    for terms in (energy.sources, energy.down, energy.up):
        head = terms.members[terms.start[:-1]]
        owned = terms.owner >= 0
        one += [head[terms.clause], head[owned]]
        other += [terms.members, terms.owner[owned]]
    rows, columns = np.concatenate(one), np.concatenate(other)
    joined = coo_array((np.ones(rows.size, np.int8), (rows, columns)), shape=(len(energy), len(energy)))
    return connected_components(joined, directed=False)[1].astype(np.intp)


def _within(
    core: Energy, low: npt.NDArray[np.bool_], part: npt.NDArray[np.intp], budget: Budget
) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield plans that switch some of the variables ``part``: the best of all if they are few, else by walks."""
    local = only(core, low, part)
    inner = Budget(local, budget.limit, noise=budget.noise)
    base = low[part]
    found = [best_of_all(local, base, inner)] if part.size <= TRIED else _walks(local, base, inner)
    for each in found:
        plan = low.copy()
        plan[part] = each
        yield plan


def _walks(local: Energy, base: npt.NDArray[np.bool_], budget: Budget) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the best plan that keeps the budget on a walk from either end to the other.

    Each step switches what costs least at the price of the line between the ends, so that a walk goes along it.
    """
    here, there = (budget.order(local.evaluate(plan)) for plan in (base, ~base))
    price = (here[0] - there[0]) / max(there[1] - here[1], _TINY)
    for start in (base, ~base):
        low, best = start.copy(), None
        left = np.ones(base.size, np.bool_)
        while left.any():
            goal, used = budget.order(local.steps(low))
            stride = min(-(-base.size // step_count(base.size)), int(left.sum()))
            chosen = np.argpartition(np.where(left, goal + price * used, np.inf), stride - 1)[:stride]
            left[chosen] = False
            low[chosen] ^= True
            figures = budget.order(local.evaluate(low))
            if figures[1] <= budget.limit and (best is None or figures < best[0]):
                best = (figures, low.copy())
        if best is not None:
            yield budget.climb(best[1])
