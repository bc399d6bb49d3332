"""The best plan within a budget, exactly, by integer programming: for small models, and to hold the search to it.

It takes a fraction of a second on a hundred layers and minutes on some hundreds, where the minimum cut takes
milliseconds; but the cut knows prices only, and what is best within a *budget* may lie off the hull. Two formats, as in
the cut.
"""

from __future__ import annotations

import time
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.errors import InputError
from explorer.search.hull import Cut
from explorer.search.program import program_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from explorer.backends.runtime import Cancel
    from explorer.search.problem import Problem

__all__ = ["best_plan", "improved", "refine"]

_SECONDS: Final = 60.0
_REFINING: Final = 10.0
_MOST: Final = 32
_LARGEST: Final = 400  # variables; the solver takes 0.3 s for 110 of a transformer (measured)
_NARROW: Final = 0.01  # of the latency between the ends of the hull: a smaller step between two plans is let be
_NEAR: Final = 1.05  # likewise a smaller factor of noise
_LEAST: Final = 1e-4  # of the noise of the next plan, below which it is not divided by decades


def best_plan(
    problem: Problem, *, price: float = 0.0, max_noise: float | None = None, seconds: float = _SECONDS
) -> Cut:
    """Return the plan that minimises latency + price * noise with at most some noise.

    A budget is kept but for a millionth of it, the tolerance of the solver (HiGHS).

    Args:
        problem: what is decided.
        price: microseconds for each unit of noise.
        max_noise: squared relative error of the worst output that is allowed; None allows all.
        seconds: after which the solver gives up.

    Raises:
        InputError: no plan has so little noise, or the solver gave up.
    """
    core = problem.core
    low = program_of([core]).best(price=price, max_noise=max_noise, seconds=seconds)
    us, noise = core.evaluate(low)
    return Cut(problem.layers(low), us, noise, price if max_noise is None else float("nan"))


def refine(
    problem: Problem,
    cuts: Sequence[Cut],
    *,
    seconds: float = _REFINING,
    most: int = _MOST,
    cancel: Cancel | None = None,
) -> list[Cut]:
    """Return the hull with the best plans within some budgets between its plans, from the least noise to the fastest.

    A small model may be one block that runs low as a whole or not at all, as far as prices can tell: its hull has few
    plans, and what is worth knowing lies between. Models of more than 400 variables come back as they are, since
    the solver takes too long and their hulls are dense.

    Args:
        problem: what is decided.
        cuts: its hull.
        seconds: after which no more budgets are tried.
        most: plans in all.
        cancel: stops it from another thread.

    Raises:
        RunCancelled: `cancel` was called.
    """
    if len(problem.core) > _LARGEST:
        return list(cuts)

    def solve(budget: float, left_s: float) -> Cut:
        return best_plan(problem, max_noise=budget, seconds=left_s)

    return improved(cuts, solve, seconds=seconds, most=most, cancel=cancel)


def improved(
    cuts: Sequence[Cut],
    solve: Callable[[float, float], Cut],
    *,
    seconds: float = _REFINING,
    most: int = _MOST,
    cancel: Cancel | None = None,
) -> list[Cut]:
    """Return plans with the best ones within some budgets between them.

    Args:
        cuts: plans, from the least noise to the fastest.
        solve: returns the best plan within a budget of noise, found in so many seconds; raises InputError where there
            was no time.
        seconds: after which no more budgets are tried.
        most: plans in all.
        cancel: stops it from another thread.
    """
    found, end = list(cuts), time.monotonic() + seconds
    gaps = [_gap(left.us, left.noise, right) for left, right in pairwise(cuts)]
    heapify(gaps)
    narrow = _NARROW * (cuts[0].us - cuts[-1].us)
    while gaps and len(found) < most:
        if cancel is not None:
            cancel.check()
        _, noise, us, right = heappop(gaps)
        left_s = end - time.monotonic()
        if left_s <= 0:
            break
        if us - right.us <= narrow or right.noise <= noise * _NEAR:
            continue
        budget = float(np.sqrt(max(noise, right.noise * _LEAST) * right.noise))
        try:
            cut = solve(budget, left_s)
        except InputError:  # out of time
            break
        if cut.us < us - narrow / 100:
            found.append(cut)
            heappush(gaps, _gap(us, noise, cut))
        # It is the best up to the budget, so what is between is between the budget and the next plan.
        heappush(gaps, _gap(min(us, cut.us), budget, right))
    return sorted(found, key=lambda cut: (cut.noise, -cut.us))


def _gap(us: float, noise: float, right: Cut) -> tuple[float, float, float, Cut]:
    """Return a gap for a heap, the widest first: from a plan's figures to the next plan."""
    decades = np.log10(right.noise / max(noise, right.noise * _LEAST)) if right.noise > 0 else 0.0
    return -(us - right.us) * float(decades), noise, us, right
