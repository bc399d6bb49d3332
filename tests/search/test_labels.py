"""Among three formats: expansion and the integer program against all plans, moves against what they change."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.labelling import every_labelling, random_choice
from support.searching import random_problem

from explorer.search.exact_labels import best_labels, refine_labels
from explorer.search.expand import best_at, expanded, label_hull
from explorer.search.labels import moves

SEEDS = st.integers(0, 1 << 30)
PRICES = st.sampled_from([0.0, 10.0, 1e3, 1e4, 1e6])
NEAR = 1e-5  # tolerances of the solver


def worth(figures, price):
    us, noise = figures
    return us + price * noise


def some_plan(choice, seed):
    """A plan that is allowed, reached by random moves."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(len(choice.layer_ids), np.int8)
    for _ in range(8):
        found = moves(choice, labels)
        if len(found):
            labels = found.applied(labels, int(rng.integers(len(found))))
    return labels


@settings(max_examples=60, deadline=None)
@given(SEEDS, PRICES)
def test_an_expansion_is_the_best_of_all_plans_that_keep_or_take_one_label(seed, price):
    choice = random_choice(seed)
    start = some_plan(choice, seed)
    plans = list(every_labelling(choice))
    for target in range(3):
        made = expanded(choice, start, target, price)
        assert choice.fits(made)
        reached = [figures for labels, *figures in plans if np.all((labels == start) | (labels == target))]
        best = min(worth(figures, price) for figures in reached)
        assert worth(choice.evaluate(made), price) == pytest.approx(best, rel=1e-7)


def test_expansion_finds_the_optimum_nearly_always():
    missed = []
    for seed in range(150):
        choice = random_choice(seed)
        high = np.zeros(len(choice.layer_ids), np.int8)
        for price in (0.0, 1e3, 1e5):
            best = min(worth(figures, price) for _, *figures in every_labelling(choice))
            found = best_at(choice, price, [high])
            assert choice.fits(found.low)
            missed.append(found.us + price * found.noise - best > 1e-6 * abs(best))
    assert np.mean(missed) < 0.02


@pytest.mark.parametrize("seed", range(12))
def test_the_integer_program_is_the_best_of_all_plans(seed):
    choice = random_choice(seed)
    plans = np.array([figures for _, *figures in every_labelling(choice)])
    for price in (0.0, 1e3, 1e5):
        found = best_labels(choice, price=price)
        assert choice.fits(found.low)
        assert worth((found.us, found.noise), price) == pytest.approx((plans @ [1.0, price]).min(), rel=NEAR)
    least, most = plans[:, 1].min(), plans[:, 1].max()
    for share in (0.0, 0.2, 0.7):
        budget = least + share * (most - least)
        found = best_labels(choice, max_noise=budget)
        assert found.noise <= budget * (1 + NEAR)
        assert found.us == pytest.approx(plans[plans[:, 1] <= budget * (1 + NEAR), 0].min(), rel=NEAR)


@pytest.mark.parametrize("seed", range(4))
def test_expansion_is_near_the_integer_program_on_thirty_layers(seed):
    choice = random_choice(seed, count=30)
    high = np.zeros(30, np.int8)
    for price in (0.0, 3e2, 1e4):
        exact = worth(choice.evaluate(best_labels(choice, price=price).low), price)
        found = best_at(choice, price, [high])
        assert found.us + price * found.noise <= exact + 0.01 * (100.0 - exact + 1.0)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_moves_say_what_they_change(seed):
    choice = random_choice(seed)
    labels = some_plan(choice, seed)
    us, noise = choice.evaluate(labels)
    found = moves(choice, labels)
    reached = set()
    for move in range(len(found)):
        made = found.applied(labels, move)
        assert choice.fits(made)
        after = choice.evaluate(made)
        assert after[0] - us == pytest.approx(found.us[move], abs=1e-9)
        assert after[1] - noise == pytest.approx(found.noise[move], abs=1e-12)
        reached.add(made.tobytes())
    singles = [made for made, *_ in every_labelling(choice) if (made != labels).sum() == 1]
    assert {made.tobytes() for made in singles} <= reached


@pytest.mark.parametrize("seed", range(10))
def test_the_hull_is_never_worse_than_what_it_is_given_and_has_the_ends(seed):
    choice = random_choice(seed, count=6)
    plans = list(every_labelling(choice))
    known = [choice.cut(labels) for labels, *_ in plans[:: max(1, len(plans) // 5)]]
    cuts = label_hull(choice, known)
    for one, other in pairwise(cuts):
        assert one.noise < other.noise
        assert one.us > other.us
    for each in known:
        assert any(cut.noise <= each.noise and cut.us <= each.us for cut in cuts)
    assert cuts[0].noise == pytest.approx(min(noise for *_, noise in plans))
    assert cuts[-1].us == pytest.approx(min(us for _, us, _ in plans), abs=0.5)
    refined = refine_labels(choice, cuts)
    for cut in cuts:
        assert any(each.noise <= cut.noise and each.us <= cut.us for each in refined)


def test_two_formats_are_the_minimum_cut():
    """With one of the formats forbidden, expansion is what the search of two formats does."""
    problem = random_problem(5, count=40, agreeing=0.0)
    choice = random_choice(5, count=40, linked=0.0)
    choice.allowed[2] = False
    for price in (0.0, 1e3, 1e5):
        exact = best_labels(choice, price=price)
        found = best_at(choice, price, [np.zeros(40, np.int8)])
        assert worth((found.us, found.noise), price) == pytest.approx(worth((exact.us, exact.noise), price), rel=1e-6)
        assert not (found.low == 2).any()
    assert len(problem.layer_ids) == 40


def test_ten_thousand_layers_take_a_second_for_a_price():
    choice = random_choice(1, count=10_000)
    high = np.zeros(10_000, np.int8)
    start = time.process_time()
    found = best_at(choice, 1e3, [high])
    assert time.process_time() - start < 8.0
    assert set(found.low.tolist()) == {0, 1, 2}
