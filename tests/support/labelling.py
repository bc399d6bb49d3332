"""Small choices among several formats, random, and all plans of one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from support.searching import clauses, random_problem

from explorer.search.energy import Energy
from explorer.search.labels import Choice


def random_choice(seed, count=None, *, linked=0.3, **more):
    """Return a choice among three formats on a random graph: two random problems of it, bonds, ties of the last one."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7)) if count is None else count
    low, int8 = (random_problem(seed + part, count, agreeing=0.0, **more) for part in (0, 1 << 31))
    ends = low.energy.first, low.energy.second
    nothing, none = np.zeros(count), clauses([])
    bonds = [rng.uniform(0, 1, ends[0].size) for _ in range(3)]
    parts = [
        Energy(100.0, 0.0, nothing, nothing, none, none, clauses([], swapped=True), *ends, bonds[0]),
        *(
            replace(each.energy, base_us=0.0, first=ends[0], second=ends[1], bond_us=bonds[label])
            for label, each in enumerate((low, int8), 1)
        ),
    ]
    groups = np.arange(count)
    if count > 2 and rng.random() < 0.3:
        groups[rng.choice(count, 2, replace=False)] = groups[0]
    tied = groups.copy()
    for layer in range(1, count):
        if rng.random() < linked:
            tied[tied == tied[layer]] = tied[layer - 1]
    allowed = np.array([np.ones(count, bool), *(each.fixed != 0 for each in (low, int8))])
    for label, numbers in ((1, groups), (2, tied)):
        allowed[label] &= ~np.isin(numbers, numbers[~allowed[label]])
    return Choice(("fp32", "fp16", "int8"), tuple(map(str, range(count))), tuple(parts), allowed, groups, tied)


def every_labelling(choice):
    """Yield (labels, us, noise) of all plans that are allowed, told apart in plain Python."""
    count = len(choice.layer_ids)
    for picked in product(range(len(choice.parts)), repeat=count):
        labels = np.array(picked, np.int8)
        same = all(
            (labels[one] == labels[other] or choice.groups[one] != choice.groups[other])
            and ((labels[one] == 2) == (labels[other] == 2) or choice.tied[one] != choice.tied[other])
            for one in range(count)
            for other in range(one)
        )
        if same and all(choice.allowed[label, layer] for layer, label in enumerate(picked)):
            yield labels, *choice.evaluate(labels)
