"""The best plan of several formats at a price, by expansion moves: each one is a minimum cut.

With more than two labels the optimum is hard to find; but the best way to let *any* layers take one label, the others
keeping theirs, is one minimum cut. Such moves, label after label until none helps, end in a plan that no change of any
number of layers to one format improves. On small models that is the optimum nearly always; tests compare it with all
plans and with a mixed-integer program.

Source:
    Boykov, Veksler, Zabih, "Fast approximate energy minimization via graph cuts", IEEE TPAMI 23 (2001).
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.search.cut import minimum
from explorer.search.energy import HIGH, LOW, Energy, Terms
from explorer.search.hull import Cut
from explorer.search.labels import movable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.search.labels import Choice, Labels

__all__ = ["best_at", "expanded", "label_hull", "undominated"]

_ROUNDS: Final = 6  # over all labels; two or three are usual
_BETTER: Final = 1e-9  # of a plan's worth: less is no better, cuts are exact to nine digits
_ON_THE_LINE: Final = 1e-7  # of the latency between two plans, as for two formats
_MOST: Final = 64
_SECONDS: Final = 10.0  # for all plans of the hull
_TINY: Final = 1e-16  # squared relative error of float64


def expanded(choice: Choice, labels: Labels, target: int, price: float) -> Labels:
    """Return the best of all plans in which each layer keeps its label or takes ``target``.

    Args:
        choice: what is decided.
        labels: the plan.
        target: the label.
        price: microseconds for each unit of noise.
    """
    place, count = movable(choice, labels, target)
    if not count:
        return labels
    parts = []
    for label, part in enumerate(choice.parts):
        here = labels == label
        if label == target:
            parts.append(part.restrict(np.where(here, LOW, place), count))
        else:
            parts.append(_complement(part.restrict(np.where(here, np.where(place >= 0, place, LOW), HIGH), count)))
    taken = minimum(_sum(parts, price), 0.0)
    made = labels.copy()
    made[np.concatenate([taken, [False]])[place]] = target
    return made


def _complement(energy: Energy) -> Energy:
    """Return the energy over the opposite variables."""
    return Energy(
        energy.base_us + float(energy.change_us.sum()),
        energy.base_noise + float(energy.change_noise.sum()),
        -energy.change_us,
        -energy.change_noise,
        _flipped(energy.sources),
        _flipped(energy.down),
        _flipped(energy.up),
        energy.first,
        energy.second,
        energy.bond_us,
    )


def _flipped(terms: Terms) -> Terms:
    def other(places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return np.where(places == HIGH, LOW, np.where(places == LOW, HIGH, places))

    return Terms(other(terms.owner), terms.start, other(terms.members), terms.weight, not terms.swapped)


def _sum(parts: Sequence[Energy], price: float) -> Energy:
    """Return latency + price * noise of all parts as the latency of one."""
    terms = [(each.sources, price) for each in parts]
    terms += [(each, 1.0) for part in parts for each in (part.down, part.up)]
    down, up = (
        _joined([(each, unit) for each, unit in terms if each.swapped is swapped], swapped=swapped)
        for swapped in (False, True)
    )
    count = len(parts[0])
    change = np.sum([part.change_us + price * part.change_noise for part in parts], axis=0)
    return Energy(
        sum(part.base_us + price * part.base_noise for part in parts),
        0.0,
        change,
        np.zeros(count),
        _joined([], swapped=False),
        down,
        up,
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.bond_us for part in parts]),
    )


def _joined(tables: Sequence[tuple[Terms, float]], *, swapped: bool) -> Terms:
    """Return several tables of clauses, each with a factor, as one."""
    sizes = [np.zeros(0, np.intp), *(terms.sizes for terms, _ in tables)]
    start = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.intp)
    none = np.zeros(0, np.intp)
    return Terms(
        np.concatenate([none, *(terms.owner for terms, _ in tables)]),
        start,
        np.concatenate([none, *(terms.members for terms, _ in tables)]),
        np.concatenate([np.zeros(0), *(unit * terms.weight for terms, unit in tables)]),
        swapped,
    )


def best_at(choice: Choice, price: float, starts: Iterable[Labels]) -> Cut:
    """Return the plan of least latency + price * noise that expansion finds from any of the starts.

    Args:
        choice: what is decided.
        price: microseconds for each unit of noise; inf allows no noise that can be avoided.
        starts: plans to begin with, at least one; the result is no worse than any of them.
    """
    if price == np.inf:
        quiet = choice.without_noise()
        found = best_at(quiet, 0.0, [np.zeros(len(choice.layer_ids), np.int8)])
        return Cut(found.low, found.us, found.noise, price)
    made = [_descended(choice, labels, price) for labels in starts]
    return min(made, key=lambda cut: (cut.us + price * cut.noise, cut.noise))


def _descended(choice: Choice, labels: Labels, price: float) -> Cut:
    now = choice.cut(labels, price)
    useless = 0  # moves in a row that did not help
    for _ in range(_ROUNDS):
        for target in (*range(1, len(choice.parts)), 0):
            made = choice.cut(expanded(choice, now.low, target, price), price)
            better = now.us + price * now.noise - made.us - price * made.noise
            if better > _BETTER * abs(now.us):
                now, useless = made, 0
            else:
                useless += 1
            if useless >= len(choice.parts):
                return now
    return now


def label_hull(
    choice: Choice,
    known: Sequence[Cut],
    *,
    most: int = _MOST,
    seconds: float = _SECONDS,
    cancel: Cancel | None = None,
) -> list[Cut]:
    """Return plans that no known one beats in latency and noise, from the least noise to the least latency.

    As for two formats, prices are asked at which two neighbours on the lower hull cost the same.

    Args:
        choice: what is decided.
        known: plans to begin with, such as those of the hulls of two formats; what is returned is never worse.
        most: prices at most.
        seconds: after which no more prices are asked.
        cancel: stops it from another thread.

    Raises:
        RunCancelled: `cancel` was called.
    """
    end = time.monotonic() + seconds
    high = np.zeros(len(choice.layer_ids), np.int8)
    pool = [*known, choice.cut(high), best_at(choice, np.inf, [high])]
    pool.append(best_at(choice, 0.0, [high, *([min(known, key=lambda cut: cut.us).low] if known else [])]))
    asked: set[tuple[float, float]] = set()
    for _ in range(most):
        if cancel is not None:
            cancel.check()
        corners = _corners(pool)
        gaps = [gap for gap in pairwise(corners) if (gap[0].noise, gap[1].noise) not in asked]
        if not gaps or time.monotonic() > end:
            break
        left, right = max(gaps, key=_width)
        asked.add((left.noise, right.noise))
        price = (left.us - right.us) / (right.noise - left.noise)
        made = best_at(choice, price, [left.low, right.low])
        if left.us + price * left.noise - made.us - price * made.noise > _ON_THE_LINE * (left.us - right.us):
            pool.append(made)
    return undominated(pool)


def undominated(pool: Iterable[Cut]) -> list[Cut]:
    """Return the plans that no other beats in both, from the least noise to the least latency."""
    kept: list[Cut] = []
    for cut in sorted(pool, key=lambda each: (each.noise, each.us)):
        if not kept or cut.us < kept[-1].us:
            kept.append(cut)
    return kept


def _corners(pool: Iterable[Cut]) -> list[Cut]:
    """Return the lower convex hull of noise and latency."""
    kept: list[Cut] = []
    for cut in undominated(pool):
        while len(kept) > 1 and _turn(kept[-2], kept[-1], cut) <= 0:
            kept.pop()
        kept.append(cut)
    return kept


def _turn(one: Cut, two: Cut, three: Cut) -> float:
    first = (two.us - one.us) * (three.noise - two.noise)
    second = (three.us - two.us) * (two.noise - one.noise)
    return second - first


def _width(gap: tuple[Cut, Cut]) -> float:
    """Return how much a plan between two may matter: latency times decades of noise."""
    left, right = gap
    low, high = (max(cut.noise, _TINY) for cut in gap)
    return (left.us - right.us) * (float(np.log10(high / low)) + 0.1)
