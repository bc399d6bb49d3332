"""How other tools search, as rules on a judge: each asks for errors of plans, and returns what shall stay in fp32.

The rules are written here because the originals need a GPU and TensorRT, or see no fp16 on a CPU. A plan is named by
its *high* layers; all others that can run low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Answer", "Asking", "OutOfTimeError", "bisect", "halve", "order_by", "raise_in_order", "searched"]

High = frozenset[str]
NOTHING: High = frozenset()


class OutOfTimeError(Exception):
    """A search has had its time."""


@dataclass(frozen=True)
class Answer:
    """What a search returns.

    Attributes:
        high: the layers to keep in fp32; None where it found no plan that holds.
        runs: how many plans it ran.
        seconds: that their runs took.
        stopped: whether its time was up; ``high`` is then what it had.
    """

    high: High | None
    runs: int
    seconds: float
    stopped: bool = False


class Asking:
    """Runs plans for one search, and counts what it asks for.

    Args:
        run: from high layers to error and seconds that the run took.
        budget: the error that a plan may have.
        limit_s: of seconds that the runs may take.
    """

    def __init__(self, run: Callable[[High], tuple[float, float]], budget: float, limit_s: float = math.inf) -> None:
        self.run, self.budget, self.limit_s = run, budget, limit_s
        self.runs, self.seconds = 0, 0.0
        self.holding: High | None = None  # the last plan that kept the budget

    def holds(self, high: High) -> bool:
        if self.seconds > self.limit_s:
            raise OutOfTimeError
        error, seconds = self.run(high)
        self.runs += 1
        self.seconds += seconds
        if error <= self.budget:  # never for NaN
            self.holding = high
            return True
        return False


def searched(rule: Callable[[Asking], High | None], asking: Asking) -> Answer:
    """Return what a rule finds, or what it has when its time is up."""
    try:
        high = rule(asking)
    except OutOfTimeError:
        return Answer(asking.holding, asking.runs, asking.seconds, stopped=True)
    return Answer(high, asking.runs, asking.seconds)


def _end(layers: Sequence[str], count: int, *, forward: bool) -> High:
    return frozenset(layers[:count] if forward else layers[len(layers) - count :])


def bisect(layers: Sequence[str], asking: Asking, *, forward: bool) -> High | None:
    """Bisect how many of the first (or last) layers are high; `polygraphy debug precision --mode bisect`.

    Like the original it believes that more high layers never harm, and that none high is too few; unlike it, it looks
    at the latter first, and takes the fp32 model for an answer.
    """
    if asking.holds(NOTHING):
        return NOTHING
    good, bad, marked = len(layers) + 1, 0, len(layers)
    while True:
        if asking.holds(_end(layers, marked, forward=forward)):
            good, following = marked, (marked + bad) // 2
        else:
            bad, following = marked, math.ceil((good + marked) / 2)
        if following in (marked, len(layers) + 1) or good - bad <= 1:
            break
        marked = following
    return None if good > len(layers) else _end(layers, good, forward=forward)


@dataclass
class _Segment:
    layers: Sequence[str]
    state: str = "open"  # "low" once it was seen to hold, "high" where one layer alone does not


def halve(layers: Sequence[str], asking: Asking) -> High | None:
    """Lower the largest segment not yet decided, split it where that breaks the budget; `auto_convert_mixed_precision`.

    All segments that are not low yet are high while one is tried.
    """
    segments = [_Segment(layers)] if layers else []

    def high_without(tried: _Segment | None) -> High:
        return frozenset(
            layer for each in segments if each is not tried and each.state != "low" for layer in each.layers
        )

    while undecided := [each for each in segments if each.state == "open"]:
        tried = max(undecided, key=lambda each: len(each.layers))  # the first of the largest
        if asking.holds(high_without(tried)):
            tried.state = "low"
        elif len(tried.layers) == 1:
            tried.state = "high"
        else:
            half, place = len(tried.layers) // 2, segments.index(tried)
            segments[place : place + 1] = [_Segment(tried.layers[:half]), _Segment(tried.layers[half:])]
    made = high_without(None)
    return made if asking.holding == made or asking.holds(made) else None


def order_by(figures: Mapping[str, float]) -> list[str]:
    """Return the layers with the worst (largest) first; what is NaN, an error beyond all, before it."""
    return sorted(figures, key=lambda layer: -math.inf if math.isnan(figures[layer]) else -figures[layer])


def _prefixes(order: Sequence[str], step: int) -> Iterator[High]:
    yield from (frozenset(order[:count]) for count in range(0, len(order), step))
    yield frozenset(order)


def raise_in_order(order: Sequence[str], asking: Asking, *, step: int = 1) -> High | None:
    """Start with everything low, and raise the layers one after the other until the budget holds.

    Args:
        order: the layers, those to raise first at the front.
        asking: runs plans.
        step: how many are raised at once.
    """
    return next((high for high in _prefixes(order, step) if asking.holds(high)), None)
