"""The plans that are best at some price of noise: the lower hull of latency over noise."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.search.cut import minimum
from explorer.search.energy import HIGH, LOW

if TYPE_CHECKING:
    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.search.energy import Energy
    from explorer.search.problem import Problem

__all__ = ["Cut", "hull"]

_MOST: Final = 64
_ON_THE_LINE: Final = 1e-7  # of the latency between two cuts: a plan that is better by less is on the line between them
_LEAST_NOISE: Final = 1e-16  # squared relative error of float64, below which noise counts as this where logarithms do


@dataclass(frozen=True, eq=False)
class Cut:
    """A plan with its figures.

    Attributes:
        low: by layer of the model, whether it runs low; of plans of several formats, its label.
        us: latency in microseconds, by the cost model.
        noise: squared relative error of the worst output, at most, by the noise model.
        price: microseconds for each unit of noise at which no plan is better; NaN for a plan off the hull.
    """

    low: npt.NDArray[Any]
    us: float
    noise: float
    price: float


def hull(problem: Problem, *, most: int = _MOST, cancel: Cancel | None = None) -> list[Cut]:
    """Return plans on the lower hull of latency over noise, from the least noise to the least latency.

    The ends are the fastest plan whose noise no plan undercuts, and the fastest plan at all. The low layers of each are
    low in all that follow. With room for all, it is the whole hull; otherwise the widest gaps are divided first.

    Args:
        problem: what is decided.
        most: plans at most, at least 2.
        cancel: stops it from another thread.

    Raises:
        RunCancelled: `cancel` was called.
    """
    core = problem.core
    exact = _cut(core, minimum(core, np.inf), np.inf)
    fast = _between(core, exact.low, np.ones(len(core), np.bool_), 0.0)
    found = [exact]
    if fast.us < exact.us:
        found = _divided(core, exact, fast, max(2, most), cancel)
    return [Cut(problem.layers(cut.low), cut.us, cut.noise, cut.price) for cut in found]


def _divided(core: Energy, exact: Cut, fast: Cut, most: int, cancel: Cancel | None) -> list[Cut]:
    """Return the hull over the variables: a line between two of its plans either touches it, or a plan is below."""
    found, gaps = [exact, fast], [(0.0, 0, exact, fast)]
    while gaps and len(found) < most:
        if cancel is not None:
            cancel.check()
        _, _, left, right = heappop(gaps)
        price = (left.us - right.us) / (right.noise - left.noise)
        # At a price between theirs, what is low in the left one stays low, and what is high in the right one high.
        cut = _between(core, left.low, right.low, price)
        below = left.us + price * left.noise - cut.us - price * cut.noise
        if below <= _ON_THE_LINE * (left.us - right.us):
            continue
        found.append(cut)
        for one, other in ((left, cut), (cut, right)):
            if one.us > other.us and one.noise < other.noise:
                heappush(gaps, (-_width(one, other), len(found) * 2 + (one is cut), one, other))
    return sorted(found, key=lambda cut: (cut.noise, -cut.us))


def _width(left: Cut, right: Cut) -> float:
    """Return how much a plan between two may matter: latency times decades of noise."""
    low, high = (max(cut.noise, _LEAST_NOISE) for cut in (left, right))
    return (left.us - right.us) * (float(np.log10(high / low)) + 0.1)


def _between(core: Energy, least: npt.NDArray[np.bool_], most: npt.NDArray[np.bool_], price: float) -> Cut:
    """Return the best plan that runs at least ``least`` and at most ``most`` low."""
    free = most & ~least
    place = np.where(least, LOW, HIGH).astype(np.intp)
    place[free] = np.arange(int(free.sum()))
    low = np.concatenate([minimum(core.restrict(place, int(free.sum())), price), [True, False]])[place]
    return _cut(core, low, price)


def _cut(core: Energy, low: npt.NDArray[np.bool_], price: float) -> Cut:
    us, noise = core.evaluate(low)
    return Cut(low, us, noise, price)
