"""A choice among several formats: each layer has a label, and what a plan costs is a sum over the labels.

Label 0 is fp32. Noise and casts of a format depend only on which layers run in it: a tensor that is cast from one low
format to another goes through fp32, as conversion has it, and the noise of a tensor that two formats round is the sum
of both. So the energy of a plan is the sum of one two-format energy for each label, each seeing its own layers as the
low ones, and all that knows two formats (evaluation, steps, the minimum cut) serves each part as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from explorer.search.energy import HIGH, LOW, Energy, Terms
from explorer.search.hull import Cut
from explorer.search.problem import agreement

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from explorer.search.costs import CostModel
    from explorer.search.problem import Problem

__all__ = ["Choice", "Labels", "Moves", "build_choice", "moves"]

Labels = npt.NDArray[np.int8]  # by layer of the model, its label


@dataclass(frozen=True, eq=False)
class Choice:
    """A choice of a label for each layer.

    Attributes:
        formats: by label, the format; fp32 first.
        layer_ids: every layer of the model, in order.
        parts: by label, what the layers of that label pay; label 0 pays for kernels that are split, and what every
            plan does.
        allowed: labels x layers, whether a layer may have the label.
        groups: by layer, a number; layers of one number have one label.
        tied: likewise coarser; of these layers either all have the last label, or none.
    """

    formats: tuple[str, ...]
    layer_ids: tuple[str, ...]
    parts: tuple[Energy, ...]
    allowed: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.intp]
    tied: npt.NDArray[np.intp]

    def evaluate(self, labels: Labels) -> tuple[float, float]:
        """Return latency in microseconds and noise (squared relative error of the worst output, at most)."""
        us, noise = zip(*(part.evaluate(labels == label) for label, part in enumerate(self.parts)), strict=True)
        return sum(us), sum(noise)

    def cut(self, labels: Labels, price: float = float("nan")) -> Cut:
        """Return a plan with its figures."""
        return Cut(labels, *self.evaluate(labels), price)

    def units(self, labels: Labels, target: int) -> npt.NDArray[np.intp]:
        """Return a number by layer; layers of one number take ``target`` together or not at all."""
        last = len(self.parts) - 1
        if target == last:
            return self.tied
        return np.where(labels == last, self.tied, self.groups + int(self.tied.max(initial=-1)) + 1)

    def fits(self, labels: Labels) -> bool:
        """Return whether a plan is allowed."""
        in_last = labels == len(self.parts) - 1
        agree = _agree(labels, self.groups) and _agree(in_last, self.tied)
        return agree and bool(self.allowed[labels, np.arange(labels.size)].all())

    def without_noise(self) -> Choice:
        """Return the choice among labels that add no noise."""
        allowed = self.allowed.copy()
        for label, part in enumerate(self.parts[1:], 1):
            noisy = part.change_noise > 0
            noisy[part.sources.members[part.sources.members >= 0]] = True
            number = self.tied if label == len(self.parts) - 1 else self.groups
            allowed[label] &= ~np.isin(number, number[noisy])
        return replace(self, allowed=allowed)

    @cached_property
    def free(self) -> npt.NDArray[np.bool_]:
        """By layer, whether there is a choice."""
        return np.asarray(self.allowed[1:].any(axis=0))


def _agree(values: npt.NDArray[np.generic], numbers: npt.NDArray[np.intp]) -> bool:
    """Return whether those of one number have one value."""
    order = np.argsort(numbers)
    value, number = values[order], numbers[order]
    return bool(np.all((value[1:] == value[:-1]) | (number[1:] != number[:-1])))


def build_choice(
    formats: Sequence[str],
    problems: Sequence[Problem],
    costs: Sequence[CostModel],
    *,
    agree: Sequence[Collection[str]] = (),
) -> Choice:
    """Return the choice among fp32 and the formats of two-format problems of one model.

    Args:
        formats: the low formats.
        problems: of each against fp32; the last one's groups bind only layers that are in its format.
        costs: that each was made of.
        agree: groups of layers, by id, that have one label.
    """
    ids = problems[0].layer_ids
    high_us = costs[0].high_bond_us
    base = float(np.nansum(costs[0].high_us))
    nothing = np.zeros(len(ids))
    empty = _terms()
    first, second, _ = costs[0].bond_columns
    parts = [Energy(base, 0.0, nothing, nothing, empty, empty, _terms(swapped=True), first, second, high_us)]
    for problem, cost in zip(problems, costs, strict=True):
        energy = problem.energy
        parts.append(replace(energy, base_us=0.0, bond_us=np.maximum(energy.bond_us - cost.high_bond_us, 0.0)))
    allowed = np.array([np.ones(len(ids), np.bool_), *(problem.fixed < 0 for problem in problems)])
    index = {layer_id: number for number, layer_id in enumerate(ids)}
    groups = agreement(len(ids), [[index[each] for each in group] for group in agree])
    return Choice(("fp32", *formats), ids, tuple(parts), allowed, groups, problems[-1].groups)


def _terms(*, swapped: bool = False) -> Terms:
    none = np.zeros(0, np.intp)
    return Terms(none, np.zeros(1, np.intp), none, np.zeros(0), swapped)


@dataclass(frozen=True, eq=False)
class Moves:
    """Every way to give one unit of layers another label, with what that changes; exact, not estimated.

    Attributes:
        target: by move, the label.
        us: by move, what latency changes by.
        noise: by move, what noise changes by.
        start: where the layers of each move begin, and the end of the last (moves + 1).
        layers: positions in the model.
    """

    target: npt.NDArray[np.int8]
    us: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    start: npt.NDArray[np.intp]
    layers: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return self.target.size

    def of(self, move: int) -> npt.NDArray[np.intp]:
        """Return the layers of a move."""
        return self.layers[self.start[move] : self.start[move + 1]]

    def applied(self, labels: Labels, move: int) -> Labels:
        """Return the plan after a move."""
        made = labels.copy()
        made[self.of(move)] = self.target[move]
        return made


def moves(choice: Choice, labels: Labels) -> Moves:
    """Return every allowed move from a plan."""
    parts = [_towards(choice, labels, target) for target in range(len(choice.parts))]
    ends = np.cumsum([0, *(each.layers.size for each in parts)])
    starts = [each.start[:-1] + end for each, end in zip(parts, ends, strict=False)]
    return Moves(
        np.concatenate([each.target for each in parts]),
        np.concatenate([each.us for each in parts]),
        np.concatenate([each.noise for each in parts]),
        np.concatenate([*starts, ends[-1:]]).astype(np.intp),
        np.concatenate([each.layers for each in parts]),
    )


def _towards(choice: Choice, labels: Labels, target: int) -> Moves:
    """Return the moves that give one unit the label ``target``."""
    place, count = movable(choice, labels, target)
    us, noise = np.zeros(count), np.zeros(count)
    for label, part in enumerate(choice.parts):
        here = labels == label
        if label == target:
            local = part.restrict(np.where(here, LOW, place), count)
            change = local.steps(np.zeros(count, np.bool_))
        else:
            local = part.restrict(np.where(here, np.where(place >= 0, place, LOW), HIGH), count)
            change = local.steps(np.ones(count, np.bool_))
        us, noise = us + change[0], noise + change[1]
    layers = np.flatnonzero(place >= 0)
    order = np.argsort(place[layers], kind="stable")
    start = np.searchsorted(place[layers][order], np.arange(count + 1))
    return Moves(np.full(count, target, np.int8), us, noise, start.astype(np.intp), layers[order])


def movable(choice: Choice, labels: Labels, target: int) -> tuple[npt.NDArray[np.intp], int]:
    """Return by layer the number of the unit in which it could take a label, else ``HIGH``; and how many there are."""
    units = choice.units(labels, target)
    other = labels != target
    stuck = other & ~choice.allowed[target]
    free = other & ~np.isin(units, units[stuck])
    place = np.full(labels.size, HIGH, np.intp)
    numbers, place[free] = np.unique(units[free], return_inverse=True)
    return place, numbers.size
