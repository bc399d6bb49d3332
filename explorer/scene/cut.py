"""Cut a long row of boxes into segments that can be read, where few tensors are live."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST_CHILDREN", "Flow", "cut"]

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MOST_CHILDREN = 60  # boxes side by side that a reader still takes in; issue 3 opens to about 150 in all
_FEWEST_SEGMENTS = 3
_LARGEST_SHARE = 0.5  # of the row: a larger block is no block, but what lies between two skip connections
_FEW, _MANY = 10, 40  # segments of one level, where their number is ours to choose
_SPREAD_TAKERS = 3  # a mask or a time embedding is taken by so many, all along the row; it separates no blocks
_SPREAD_SHARE = 0.1  # of the row, up to the middle one of its takers: a skip connection has but one far away
_SHORT, _USUAL = 0.4, 75  # what is shorter than this, times this percentile of all, is no block but inside of one
_NO_FORK = 0.5  # of a live tensor: what a cut costs where no branch begins
_UNEVEN = 1.0  # of a live tensor: what a segment costs whose length is off by the wished one
_SHORTEST, _LONGEST = 0.7, 1.5  # of the wished length


@dataclass(frozen=True)
class Flow:
    """Tensors that run along a row of boxes.

    Attributes:
        made: by tensor, the position of the box that makes it.
        last: by tensor, the last position that takes it.
        middle: by tensor, the median of the positions that take it.
        takers: by tensor, how many boxes of the row take it.
    """

    made: Sequence[int]
    last: Sequence[int]
    middle: Sequence[int]
    takers: Sequence[int]


def cut(count: int, flow: Flow) -> list[int]:
    """Return where each segment of a row of ``count`` boxes starts; the first at 0.

    Blocks of a residual network are found by the tensor that leaves one and enters the next at several places, being
    the only one alive there. Where there are too many blocks, each segment takes several; where there are hardly any
    (a U-Net keeps tensors alive from one end to the other) the row is cut where the fewest are alive, near even
    lengths.

    Args:
        count: number of boxes, in execution order.
        flow: tensors between them.
    """
    live, forks = _alive(count, flow)
    places = np.flatnonzero(live <= 1)
    lengths = np.diff(places, append=count - 1)  # to the next place where the branches have joined again
    begins = forks[places] & (live[places] == 1)
    if begins.any():
        begins &= lengths >= _SHORT * np.percentile(lengths[begins], _USUAL)
    blocks = [0, *(int(at) + 1 for at in places[begins])]
    if len(blocks) < _FEWEST_SEGMENTS or max(np.diff(blocks, append=count)) > _LARGEST_SHARE * count:
        return _evenly(count, live, forks)
    if len(blocks) <= MOST_CHILDREN:
        return blocks
    several = math.ceil(len(blocks) / min(_MANY, math.ceil(math.sqrt(len(blocks)))))
    return blocks[::several]


def _alive(count: int, flow: Flow) -> tuple[Counts, Flags]:
    """Return for each place between two boxes how many tensors cross it, and whether one begins there and branches."""
    made, last, middle, takers = (
        np.asarray(column, np.int64) for column in (flow.made, flow.last, flow.middle, flow.takers)
    )
    spread = (takers >= _SPREAD_TAKERS) & (middle - made >= _SPREAD_SHARE * count)
    crosses = (last > made) & ~spread
    change = np.zeros(count + 1, np.int64)
    np.add.at(change, made[crosses], 1)
    np.add.at(change, last[crosses], -1)
    forks = np.zeros(count, np.bool_)
    forks[made[crosses & (takers > 1)]] = True
    return np.cumsum(change)[: count - 1], forks[: count - 1]


def _evenly(count: int, live: Counts, forks: Flags) -> list[int]:
    """Return starts of segments of about even length, each at the best place near by."""
    segments = min(_MANY, max(_FEW, round(math.sqrt(count))))
    wished = count / segments
    cost = live + np.where(forks, 0.0, _NO_FORK)
    starts = [0]
    while count - starts[-1] > _LONGEST * wished:
        near = np.arange(starts[-1] + math.ceil(_SHORTEST * wished), starts[-1] + math.floor(_LONGEST * wished) + 1)
        uneven = np.abs(near - starts[-1] - wished) / wished
        starts.append(int(near[np.argmin(cost[near - 1] + _UNEVEN * uneven)]))
    return starts
