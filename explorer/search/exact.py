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
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, vstack

from explorer.errors import InputError
from explorer.search.energy import HIGH, LOW, Energy
from explorer.search.hull import Cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.search.problem import Problem

__all__ = ["best_plan", "differences", "improved", "refine"]

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
    room = np.inf if max_noise is None else max_noise - core.base_noise
    if room < 0:
        raise InputError(
            f"No plan has a noise of {max_noise:.3g}.",
            why=f"Rounding the model's inputs and outputs adds {core.base_noise:.3g}.",
            fix="Keep them in fp32 (keep_io), or allow more.",
        )
    low = _solved(core, price, room, seconds) if len(core) else np.zeros(0, np.bool_)
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


def _solved(core: Energy, price: float, room: float, seconds: float) -> npt.NDArray[np.bool_]:
    """Return the best variables; behind them, the program has one for each clause and each bond that is paid."""
    count = len(core)
    tables = (core.sources, core.down, core.up)
    us = np.concatenate([core.change_us, np.zeros(len(core.sources)), core.down.weight, core.up.weight, core.bond_us])
    noise = np.concatenate([core.change_noise, core.sources.weight, np.zeros(us.size - count - len(core.sources))])
    positive, negative, paid = [], [], []  # what is paid is at least the one less the other
    first = count
    for terms in tables:
        owner, number = terms.owner[terms.clause], first + terms.clause
        positive.append(owner if terms.swapped else terms.members)
        negative.append(terms.members if terms.swapped else owner)
        paid.append(number)
        first += len(terms)
    bonds = first + np.arange(core.bond_us.size)
    positive += [core.first, core.second]
    negative += [core.second, core.first]
    paid += [bonds, bonds]
    rows, limits = differences(np.concatenate(paid), np.concatenate(positive), np.concatenate(negative), us.size)
    if np.isfinite(room):
        # In shares of the room: the solver's tolerances are absolute, and noise is tiny.
        rows = vstack([rows, coo_array((-noise / max(room, 1e-300))[None, :].clip(-1.0))])
        limits = np.append(limits, -1.0)
    found = milp(
        us + price * noise,
        integrality=(np.arange(us.size) < count).astype(np.int8),
        bounds=Bounds(0.0, np.where(noise > room, 0.0, 1.0)),
        constraints=LinearConstraint(rows.tocsr(), limits, np.inf),
        options={"mip_rel_gap": 0.0, "time_limit": seconds},
    )
    if found.x is None or found.status != 0:
        raise InputError(f"The solver gave up: {found.message}", fix="Give it more seconds, or use the search.")
    low: npt.NDArray[np.bool_] = found.x[:count] > 0.5
    return low


def differences(
    paid: npt.NDArray[np.intp], positive: npt.NDArray[np.intp], negative: npt.NDArray[np.intp], width: int
) -> tuple[coo_array, npt.NDArray[np.float64]]:
    """Return rows and lower limits of ``paid - positive + negative >= 0``, where constants go to the limit.

    Args:
        paid: by row, a column.
        positive: likewise, or one of the constants of :mod:`explorer.search.energy`.
        negative: likewise.
        width: columns in all.
    """
    row = np.arange(paid.size)
    known = (positive == LOW).astype(float) - (negative == LOW)
    entries = [(row, paid, 1.0), (row, positive, -1.0), (row, negative, 1.0)]
    free = [column >= 0 for _, column, _ in entries]
    values = np.concatenate([np.full(int(kept.sum()), value) for kept, (*_, value) in zip(free, entries, strict=True)])
    at = np.concatenate([rows[kept] for kept, (rows, *_) in zip(free, entries, strict=True)])
    columns = np.concatenate([column[kept] for kept, (_, column, _) in zip(free, entries, strict=True)])
    assert HIGH < 0  # a constant that is high counts as 0
    return coo_array((values, (at, columns)), shape=(paid.size, width)), known
