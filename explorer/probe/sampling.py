"""Pairs of exact and planned values for a scatter plot: a few thousand points that stand for millions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Scatter", "merge_pairs", "sample_pairs"]

Floats = npt.NDArray[np.float32]

POINTS = 4000  # a scatter plot of more shows nothing more
EXTREMES = 400  # of them, the elements of the largest error
_STRATA = POINTS - EXTREMES
_SEED = 20  # where in its stretch an element is drawn: any, but always the same


@dataclass(frozen=True, eq=False)
class Scatter:
    """Elements of a tensor: exact, and under the plan.

    Attributes:
        exact: float32 of shape (points,).
        plan: likewise, of the same elements.
        total: number of elements of the tensor in all samples.
        extremes: how many points are there for their error alone, beside the even sample.
    """

    exact: Floats
    plan: Floats
    total: int
    extremes: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """Candidates of one batch; ``even`` marks those of the even sample."""

    exact: Floats
    plan: Floats
    even: npt.NDArray[np.bool_]
    total: int


def sample_pairs(exact: Floats, plan: Floats, *, elements: int, batch: int) -> Pairs:
    """Return the candidates of one batch.

    Args:
        exact: float32 of shape (n,).
        plan: likewise.
        elements: how many there are in all batches together.
        batch: the number of this batch; with it the draw is always the same.
    """
    size = exact.size
    stretch = max(1, -(-elements // (POINTS if elements <= POINTS else _STRATA)))
    starts = np.arange(0, size, stretch)
    # Drawn inside each stretch: a fixed stride would meet the same channel again and again.
    offsets = np.random.default_rng((_SEED, batch)).integers(0, stretch, starts.size)
    even = np.unique(np.minimum(starts + offsets, size - 1)) if size else starts
    wrong = _errors(exact, plan)
    worst = np.argpartition(wrong, size - EXTREMES)[size - EXTREMES :] if size > EXTREMES else np.arange(size)
    worst = worst[wrong[worst] > 0]
    chosen = np.union1d(even, worst)
    return Pairs(exact[chosen], plan[chosen], np.isin(chosen, even, assume_unique=True), size)


def merge_pairs(parts: Sequence[Pairs]) -> Scatter:
    """Return the points of all batches: the even sample, and the largest errors of all."""
    exact = np.concatenate([part.exact for part in parts])
    plan = np.concatenate([part.plan for part in parts])
    even = np.concatenate([part.even for part in parts])
    total = sum(part.total for part in parts)
    if even.sum() > (most := POINTS if total <= POINTS else _STRATA):
        # Many small batches: each has a stretch of its own, however short.
        where = np.flatnonzero(even)
        even = np.zeros_like(even)
        even[where[np.linspace(0, where.size - 1, most).astype(np.int64)]] = True
    wrong = _errors(exact, plan)
    worst = np.argsort(-wrong, kind="stable")[:EXTREMES]
    shown = even.copy()
    shown[worst[wrong[worst] > 0]] = True
    return Scatter(exact[shown], plan[shown], total, int(shown.sum() - even[shown].sum()))


def _errors(exact: Floats, plan: Floats) -> Floats:
    """Return |plan - exact|: inf where either alone is not finite, 0 where both are the same infinity or both NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: Floats = np.abs(plan - exact)
    odd = np.isnan(found)
    if odd.any():
        same = (plan[odd] == exact[odd]) | (np.isnan(plan[odd]) & np.isnan(exact[odd]))
        found[odd] = np.where(same, np.float32(0), np.float32(np.inf))
    return found
