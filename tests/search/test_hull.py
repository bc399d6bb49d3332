"""The hull holds every plan that is best at some price, and no other."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import every_plan, random_problem

from explorer.backends.runtime import Cancel, RunCancelled
from explorer.search.hull import hull
from explorer.search.problem import objective

SEEDS = st.integers(0, 1 << 30)
NEAR = 1e-6  # of the latency between the ends


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 9))
def test_no_plan_is_below_the_hull(seed, count):
    problem = random_problem(seed, count)
    plans = np.array([figures for _, *figures in every_plan(problem)])
    cuts = hull(problem, most=1_000)
    assert cuts[0].noise == pytest.approx(plans[:, 1].min(), rel=1e-9)
    assert cuts[-1].us == pytest.approx(plans[:, 0].min(), rel=1e-9)
    near = NEAR * max(1.0, np.ptp(plans[:, 0]))
    for left, right in pairwise(cuts):
        price = (left.us - right.us) / (right.noise - left.noise)
        assert left.us + price * left.noise <= (plans @ [1.0, price]).min() + near


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 300), st.integers(2, 20))
def test_the_cuts_go_from_exact_to_fast_along_a_convex_line(seed, count, most):
    problem = random_problem(seed, count)
    cuts = hull(problem, most=most)
    assert 1 <= len(cuts) <= most
    for left, right in pairwise(cuts):
        assert left.noise < right.noise
        assert left.us > right.us
        assert not np.any(left.low & ~right.low)
    slopes = [(b.us - a.us) / (b.noise - a.noise) for a, b in pairwise(cuts)]
    assert all(a <= b * (1 - 1e-6) for a, b in pairwise(slopes))
    for cut in cuts:
        assert (cut.us, cut.noise) == pytest.approx(objective(problem, cut.low), rel=1e-9)


def test_with_little_room_the_ends_come_first_and_then_the_widest_gaps():
    problem = random_problem(7, count=300)
    whole = hull(problem, most=10_000)
    few = hull(problem, most=8)
    assert len(whole) > 50
    assert [few[0].us, few[-1].us] == pytest.approx([whole[0].us, whole[-1].us])
    assert np.diff([cut.us for cut in few]).min() > -0.6 * (few[0].us - few[-1].us)


def test_a_hull_can_be_stopped():
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(RunCancelled):
        hull(random_problem(7, count=50), cancel=cancel)


def test_forty_plans_of_ten_thousand_layers_take_a_second():
    problem = random_problem(1, count=10_000, agreeing=0.0)
    start = time.process_time()
    cuts = hull(problem, most=40)
    assert time.process_time() - start < 1.5  # 0.25 s on 2 idle cores
    assert len(cuts) == 40
