"""Small problems of the search, random or built by hand, all plans of one, and the sample models to search."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

import explorer
from explorer.search.energy import HIGH, LOW, Energy, Terms
from explorer.search.problem import Problem, objective

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def opened(name, **options):
    """Return a sample model, opened with its samples."""
    return explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", **options)


def clauses(rows, *, swapped=False):
    """Return terms from rows of (owner, members, weight)."""
    return Terms.of(
        np.array([owner for owner, _, _ in rows], np.intp),
        np.repeat(np.arange(len(rows)), [len(members) for _, members, _ in rows]),
        np.array([member for _, members, _ in rows for member in members], np.intp),
        np.array([weight for _, _, weight in rows], np.float64),
        swapped=swapped,
    )


def random_problem(seed, count=None, *, pinned=0.15, agreeing=0.3, span=3.0):
    """Return a problem of up to 12 layers on a random graph: shared tensors, casts, bonds, pins, agreement."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 13)) if count is None else count
    change = rng.normal(-1.0, 2.0, count) * 10.0 ** rng.uniform(-span / 2, span / 2, count)
    sources, down, up = [], [], []
    for maker in range(-1, count):  # what a layer makes is taken by some of the next ones
        ahead = np.arange(maker + 1, min(count, maker + 6))
        takers = ahead[rng.random(ahead.size) < 0.4].tolist()
        if maker == count - 1 or not takers:
            takers = [HIGH] if rng.random() < 0.7 else [LOW]
        elif rng.random() < 0.2:
            takers.append(int(rng.choice([HIGH, LOW])))
        owner = maker if maker >= 0 else int(rng.choice([HIGH, LOW]))
        us = 10.0 ** rng.uniform(-1, 0.5)
        down.append((owner, takers, us))
        up.append((owner, takers, us * rng.uniform(0.5, 1.5)))
        touchers = [layer for layer in (maker, *takers) if layer >= 0]
        if touchers and rng.random() < 0.8:
            sources.append((HIGH, touchers, 10.0 ** rng.uniform(-6, -2)))
    sources += [(HIGH, [layer], 10.0 ** rng.uniform(-6, -2)) for layer in range(count) if rng.random() < 0.7]
    ends = rng.integers(0, count, (int(rng.integers(0, 4)), 2))
    energy = Energy(
        base_us=100.0,
        base_noise=float(rng.choice([0.0, 1e-7])),
        change_us=change,
        change_noise=np.zeros(count),
        sources=clauses(sources),
        down=clauses(down),
        up=clauses(up, swapped=True),
        first=ends[:, 0],
        second=ends[:, 1],
        bond_us=rng.uniform(0, 2, len(ends)),
    )
    groups = np.arange(count)
    if count > 2 and rng.random() < agreeing:
        groups[rng.choice(count, 2, replace=False)] = groups[0]
    fixed = np.where(rng.random(count) < pinned, rng.choice([0, 0, 0, 1], count), -1).astype(np.int8)
    for label in np.unique(groups):  # a pin holds for those that agree, as build_problem has it
        pins = fixed[groups == label]
        if (pins >= 0).any():
            fixed[groups == label] = pins[pins >= 0][0]
    return Problem(tuple(f"layer{number}" for number in range(count)), energy, fixed, groups)


def every_plan(problem):
    """Yield (low, us, noise) of all plans that the pins and groups allow, without the code under test's shortcuts."""
    labels = np.unique(problem.groups)
    for choice in product([False, True], repeat=labels.size):
        low = np.array(choice)[np.searchsorted(labels, problem.groups)]
        if np.all((problem.fixed < 0) | (problem.fixed == low)):
            yield low, *by_hand(problem, low)


def by_hand(problem, low):
    """Return latency and noise of a plan, clause by clause in plain Python."""
    energy = problem.energy

    def is_low(layer):
        return layer == LOW if layer < 0 else bool(low[layer])

    def total(terms):
        paid = 0.0
        for number, owner in enumerate(terms.owner.tolist()):
            members = terms.members[terms.start[number] : terms.start[number + 1]].tolist()
            if is_low(owner) == terms.swapped and any(is_low(member) != terms.swapped for member in members):
                paid += float(terms.weight[number])
        return paid

    us = energy.base_us + sum(change for change, is_on in zip(energy.change_us, low, strict=True) if is_on)
    us += total(energy.down) + total(energy.up)
    bonds = zip(energy.first, energy.second, energy.bond_us, strict=True)
    us += sum(weight for one, other, weight in bonds if low[one] != low[other])
    noise = energy.base_noise + sum(change for change, is_on in zip(energy.change_noise, low, strict=True) if is_on)
    return float(us), float(noise + total(energy.sources))


def worth(problem, low, price):
    """Return latency + price * noise of a plan."""
    us, noise = objective(problem, low)
    return us + price * noise
