"""The cut is the best plan at a price: held to all plans of small problems, to integer programming, and to bounds."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import clauses, every_plan, random_problem, worth

from explorer.search.cut import PRECISION, solve
from explorer.search.energy import HIGH, LOW, Energy
from explorer.search.exact import best_plan
from explorer.search.problem import Problem

SEEDS = st.integers(0, 1 << 30)
PRICES = st.one_of(st.just(0.0), st.floats(0, 9).map(lambda power: 10.0**power))


def scale(problem, price):
    """All that a plan can gain or lose, of which the cut promises a share."""
    energy = problem.energy
    weights = energy.sources.weight.sum() * price + energy.down.weight.sum() + energy.up.weight.sum()
    return weights + np.abs(energy.change_us).sum() + energy.bond_us.sum() + energy.base_us


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 9), PRICES)
def test_the_cut_is_the_best_of_all_plans(seed, count, price):
    problem = random_problem(seed, count)
    low = solve(problem, price)
    assert np.all((problem.fixed < 0) | (problem.fixed == low))
    assert all(len(set(low[problem.groups == label])) == 1 for label in problem.groups)
    best = min(us + price * noise for _, us, noise in every_plan(problem))
    assert worth(problem, low, price) <= best + 2 * PRECISION * scale(problem, price)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 8), PRICES)
def test_nine_digits_hold_where_costs_span_twelve_decades(seed, count, price):
    """Integers of 32 bits alone would lose every cost below a billionth of the largest."""
    problem = random_problem(seed, count, span=12.0, pinned=0.0)
    best = min(us + price * noise for _, us, noise in every_plan(problem))
    assert worth(problem, solve(problem, price), price) <= best + 2 * PRECISION * scale(problem, price)


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_is_the_optimum_of_integer_programming(seed):
    problem = random_problem(seed, count=40)
    for price in (0.0, 3e2, 1e4):
        found = best_plan(problem, price=price)
        cut = worth(problem, solve(problem, price), price)
        assert cut == pytest.approx(found.us + price * found.noise, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 8))
def test_an_infinite_price_gives_the_fastest_plan_of_the_least_noise(seed, count):
    problem = random_problem(seed, count)
    plans = list(every_plan(problem))
    least = min(noise for *_, noise in plans)
    us = min(us for _, us, noise in plans if noise <= least * (1 + 1e-12))
    assert worth(problem, solve(problem, np.inf), 1e9) == pytest.approx(us + 1e9 * least, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(50, 400))
def test_a_higher_price_runs_no_other_layer_low(seed, count):
    problem = random_problem(seed, count)
    cuts = [solve(problem, price) for price in (0.0, 10.0, 1e3, 1e4, 1e6, np.inf)]
    for cheap, dear in pairwise(cuts):
        assert not np.any(dear & ~cheap)


def chain(changes, casts, noise=0.0):
    """Layers in a row, with casts of the same cost at every border; input and output are fp32."""
    count = len(changes)
    rows = [(layer - 1 if layer else HIGH, [layer if layer < count else HIGH], casts) for layer in range(count + 1)]
    nothing = np.zeros(0, np.intp)
    sources = clauses([(HIGH, list(range(count)), noise)] if noise else [])
    energy = Energy(
        0.0, 0.0, np.array(changes, float), np.zeros(count), sources, clauses(rows), clauses(rows, swapped=True),
        nothing, nothing, np.zeros(0),
    )  # fmt: skip
    return Problem(tuple(map(str, range(count))), energy, np.full(count, -1, np.int8), np.arange(count))


def test_a_run_of_layers_is_low_when_it_saves_more_than_its_casts():
    assert solve(chain([-3, 1, -3], casts=2.4), 0.0).tolist() == [True, True, True]
    assert not solve(chain([-3, 1, -3], casts=2.6), 0.0).any()


def test_a_tensor_that_several_layers_round_is_paid_once():
    problem = chain([-3, -3, -3], casts=0.0, noise=1.0)
    assert solve(problem, 8.9).all()
    assert not solve(problem, 9.1).any()


def test_of_plans_that_are_equally_good_the_one_with_the_fewest_low_layers_is_taken():
    assert not solve(chain([0, 0, 0], casts=1.0), 0.0).any()
    assert not solve(chain([-1, -1], casts=1.0), 0.0).any()
    assert not solve(chain([0, 0], casts=0.0), 0.0).any()


def test_layers_between_low_tensors_need_no_cast_when_low():
    problem = chain([1.0, 1.0], casts=2.0)
    down, up = problem.energy.down, problem.energy.up
    for terms in (down, up):  # input and output of the model are low, and no longer fp32
        terms.owner[terms.owner == HIGH] = LOW
        terms.members[terms.members == HIGH] = LOW
    assert solve(problem, 0.0).all()


def test_a_problem_without_free_layers_has_one_plan():
    problem = chain([-1.0, -1.0], casts=0.1)
    fixed = Problem(problem.layer_ids, problem.energy, np.array([0, 1], np.int8), problem.groups)
    assert solve(fixed, 5.0).tolist() == [False, True]
    assert len(fixed.core) == 0


def test_ten_thousand_layers_take_milliseconds():
    problem = random_problem(1, count=10_000, agreeing=0.0)
    taken = []
    for price in (10.0, 100.0, 1e3, 1e4):
        start = time.process_time()
        solve(problem, price)
        taken.append(time.process_time() - start)
    assert np.median(taken) < 0.12  # 0.025 s on 2 idle cores
