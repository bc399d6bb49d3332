"""Within a budget, a plan is at least as good as the hull's, mostly the best there is, and found at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import every_plan, random_problem

from explorer.search.exact import best_plan
from explorer.search.fill import fill
from explorer.search.hull import hull
from explorer.search.problem import objective

SEEDS = st.integers(0, 1 << 30)
SHARES = st.floats(0, 1)
OPTIMAL = 0.97  # of the budgets of small problems; measured 1.0 (hull alone: 0.92)
MEAN_GAP = 0.005  # of the latency between the ends of the hull; measured 0


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 120), SHARES, st.integers(2, 40))
def test_it_keeps_a_budget_of_noise_and_is_no_slower_than_the_hull(seed, count, share, most):
    problem = random_problem(seed, count)
    cuts = hull(problem, most=most)
    budget = cuts[0].noise + share**4 * (cuts[-1].noise - cuts[0].noise)
    found = fill(problem, cuts, max_noise=budget)
    assert found.noise <= budget * (1 + 1e-9)
    assert found.us <= min(cut.us for cut in cuts if cut.noise <= budget * (1 + 1e-12)) + 1e-9
    assert (found.us, found.noise) == pytest.approx(objective(problem, found.low), rel=1e-9)
    assert np.all((problem.fixed < 0) | (problem.fixed == found.low))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 120), SHARES, st.integers(2, 40))
def test_it_keeps_a_budget_of_latency_and_is_no_noisier_than_the_hull(seed, count, share, most):
    problem = random_problem(seed, count)
    cuts = hull(problem, most=most)
    budget = cuts[-1].us + share * (cuts[0].us - cuts[-1].us)
    found = fill(problem, cuts, max_us=budget)
    assert found.us <= budget + 1e-9 * abs(budget)
    assert found.noise <= min(cut.noise for cut in cuts if cut.us <= budget + 1e-12 * abs(budget)) * (1 + 1e-9)


def test_it_is_nearly_always_the_best_plan_of_small_problems():
    best, gaps = 0, []
    for seed in range(60):
        problem = random_problem(seed, count=seed % 9 + 1)
        plans = np.array([figures for _, *figures in every_plan(problem)])
        cuts = hull(problem, most=1_000)
        for share in np.random.default_rng(seed).random(4):
            budget = cuts[0].noise + share**4 * (plans[:, 1].max() - cuts[0].noise)
            least = plans[plans[:, 1] <= budget * (1 + 1e-12), 0].min()
            gap = fill(problem, cuts, max_noise=budget).us - least
            best += gap <= 1e-9 * abs(least)
            gaps.append(gap / max(cuts[0].us - cuts[-1].us, 1e-9))
    assert best / len(gaps) >= OPTIMAL
    assert np.mean(gaps) <= MEAN_GAP


def test_it_is_near_the_best_plan_of_middling_problems():
    gaps = []
    for seed in range(8):
        problem = random_problem(seed, count=40)
        cuts = hull(problem, most=1_000)
        for share in (0.02, 0.2, 0.6):
            budget = cuts[0].noise + share * (cuts[-1].noise - cuts[0].noise)
            least = best_plan(problem, max_noise=budget).us
            gaps.append((fill(problem, cuts, max_noise=budget).us - least) / (cuts[0].us - cuts[-1].us))
    assert np.mean(np.array(gaps) < 1e-6) > 0.8  # measured 0.95
    assert np.mean(gaps) < 0.01  # measured 0.002


def test_a_budget_that_no_plan_keeps_gives_the_nearest_plan():
    problem = random_problem(11, count=30)
    cuts = hull(problem)
    assert fill(problem, cuts, max_noise=-1.0) is cuts[0]
    assert fill(problem, cuts, max_us=cuts[-1].us - 1.0) is cuts[-1]


def test_a_budget_that_every_plan_keeps_gives_the_fastest():
    problem = random_problem(11, count=30)
    cuts = hull(problem)
    assert fill(problem, cuts, max_noise=1.0).us == pytest.approx(cuts[-1].us)
    assert fill(problem, cuts, max_us=1e9).noise == pytest.approx(cuts[0].noise)


def test_a_budget_of_ten_thousand_layers_takes_milliseconds():
    problem = random_problem(1, count=10_000, agreeing=0.0)
    cuts = hull(problem, most=40)
    taken = []
    for share in np.linspace(0.05, 0.95, 12):
        budget = cuts[0].noise + share**3 * (cuts[-1].noise - cuts[0].noise)
        start = time.process_time()
        fill(problem, cuts, max_noise=budget)
        taken.append(time.process_time() - start)
    assert np.median(taken) < 0.06  # 0.012 s on 2 idle cores
