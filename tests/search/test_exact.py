"""Integer programming finds the best of all plans, at a price and within a budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.searching import clauses, every_plan, random_problem

from explorer.backends.runtime import Cancel, RunCancelled
from explorer.errors import InputError
from explorer.search.energy import HIGH, Energy
from explorer.search.exact import best_plan, refine
from explorer.search.fill import fill
from explorer.search.hull import hull
from explorer.search.problem import Problem

NEAR = 1e-5  # the solver's tolerances


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_best_of_all_plans(seed):
    problem = random_problem(seed, count=seed % 9 + 1)
    plans = np.array([figures for _, *figures in every_plan(problem)])
    for price in (0.0, 1e3, 1e5):
        found = best_plan(problem, price=price)
        assert found.us + price * found.noise == pytest.approx((plans @ [1.0, price]).min(), rel=NEAR)
    least, most = plans[:, 1].min(), plans[:, 1].max()
    for share in (0.0, 0.13, 0.61):
        budget = least + share * (most - least)
        found = best_plan(problem, max_noise=budget)
        assert found.noise <= budget * (1 + NEAR)
        assert found.us == pytest.approx(plans[plans[:, 1] <= budget * (1 + NEAR), 0].min(), rel=NEAR)
        assert np.all((problem.fixed < 0) | (problem.fixed == found.low))


@pytest.mark.parametrize("seed", range(12))
def test_refining_adds_plans_that_are_the_best_within_their_noise(seed):
    problem = random_problem(seed, count=9, pinned=0.0)
    plans = np.array([figures for _, *figures in every_plan(problem)])
    cuts = hull(problem)
    refined = refine(problem, cuts)
    assert {id(cut) for cut in cuts} <= {id(cut) for cut in refined}
    for left, right in pairwise(refined):
        assert left.noise < right.noise
        assert left.us > right.us
    for cut in refined:
        assert cut.us == pytest.approx(plans[plans[:, 1] <= cut.noise * (1 + NEAR), 0].min(), rel=NEAR)


def test_a_block_that_no_price_divides_is_divided_within_budgets():
    """Twenty layers in a row with dear casts: at any price all run low or none, within a budget some do."""
    count = 20
    rows = [(layer - 1 if layer else HIGH, [layer if layer < count else HIGH], 3.0) for layer in range(count + 1)]
    nothing = np.zeros(0, np.intp)
    noise = np.linspace(2.0, 1.0, count) * 1e-6
    energy = Energy(
        50.0, 0.0, np.full(count, -1.0), noise, clauses([]), clauses(rows), clauses(rows, swapped=True),
        nothing, nothing, np.zeros(0),
    )  # fmt: skip
    problem = Problem(tuple(map(str, range(count))), energy, np.full(count, -1, np.int8), np.arange(count))
    cuts = hull(problem)
    assert len(cuts) == 2
    refined = refine(problem, cuts)
    assert len(refined) > 8
    budget = float(np.sort(noise)[:11].sum())
    for known in (cuts, refined):
        best = fill(problem, known, max_noise=budget)
        assert best.us == pytest.approx(50.0 - 11.0 + 6.0)
        assert np.flatnonzero(best.low).tolist() == list(range(9, 20))


def test_a_large_model_is_not_refined_and_no_time_refines_nothing():
    large = random_problem(2, count=600)
    cuts = hull(large, most=6)
    assert refine(large, cuts) == cuts
    small = random_problem(2, count=30)
    assert len(refine(small, hull(small), seconds=0.0)) == len(hull(small))
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(RunCancelled):
        refine(small, hull(small), cancel=cancel)


def test_noise_that_every_plan_has_can_be_over_the_budget():
    problem = random_problem(3, count=6)
    noisy = replace(problem, energy=replace(problem.energy, base_noise=1e-3))
    with pytest.raises(InputError, match=r"No plan has a noise of 0\.0001"):
        best_plan(noisy, max_noise=1e-4)


def test_a_solver_without_time_says_so():
    with pytest.raises(InputError, match="gave up"):
        best_plan(random_problem(5, count=400, pinned=0.0), max_noise=1e-3, seconds=0.0)
