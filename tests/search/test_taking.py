"""A plan that is taken keeps its budget, its layers agree, and no plan that was run is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import model, node, value, weight
from support.searching import clauses, random_problem

import explorer
from explorer.errors import InputError
from explorer.search.agree import agreeing
from explorer.search.energy import HIGH, Energy
from explorer.search.fill import fill
from explorer.search.hull import hull
from explorer.search.point import FrontPoint
from explorer.search.problem import Problem, objective
from explorer.search.take import Taker

HEADS = 25


class Plans:
    """A front whose runs are a function of the plan."""

    device, latency_provenance = "T4", "predicted"

    def __init__(self, problem, error):
        self.problem, self.cuts, self._error = problem, hull(problem), error
        self.known = {}
        for cut in (self.cuts[0], self.cuts[-1]):
            self.measured(cut.low)

    def point(self, low):
        us, noise = objective(self.problem, low)
        made = FrontPoint(
            plan=None, low=int(low.sum()), low_share=0.0, predicted_error=noise**0.5, cost=us, latency_us=us, mask=low
        )
        return self.known.setdefault(low.tobytes(), made)

    def measured(self, low, *, cancel=None):
        del cancel
        point = self.known[low.tobytes()] = replace(self.point(low), error=self._error(low))
        return point, None

    @property
    def run(self):
        return [point for point in self.known.values() if point.error is not None]

    @property
    def points(self):
        return [point for point in self.run if np.isfinite(point.error)]

    def filled(self, **budget):
        return fill(self.problem, self.cuts, **budget)


def runs_of(problem, seed, broken=0.0):
    """Return errors of plans: less than predicted by up to a half, as where tensors are shared; a few are inf."""

    least = hull(problem)[0].noise

    def error(low):
        random = np.random.default_rng([seed, *np.flatnonzero(low)])
        noise = objective(problem, low)[1]
        infinite = noise > least and random.random() < broken
        return np.inf if infinite else float(np.sqrt(noise) * random.uniform(0.5, 1.0))

    return error


def assert_allowed(problem, point):
    assert ((problem.fixed < 0) | (problem.fixed == point.mask)).all()
    for label in np.unique(problem.groups):
        assert len(set(point.mask[problem.groups == label].tolist())) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.2))
def test_a_plan_within_an_error_is_allowed_and_the_fastest_that_was_run(seed, share):
    problem = random_problem(seed, agreeing=0.8)
    front = Plans(problem, runs_of(problem, seed))
    exact, fast = (front.measured(cut.low)[0] for cut in (front.cuts[0], front.cuts[-1]))
    budget = exact.error + share * max(0.0, fast.error - exact.error)
    point = Taker(front).error(budget)
    assert_allowed(problem, point)
    assert point.error <= budget
    assert point.cost == min(each.cost for each in front.run if each.error <= budget)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.2), st.sampled_from([0.0, 0.3]))
def test_a_plan_within_a_latency_is_the_most_exact_that_was_run(seed, share, broken):
    problem = random_problem(seed)
    front = Plans(problem, runs_of(problem, seed, broken))
    fastest, slowest = (pick(each.latency_us for each in front.points) for pick in (min, max))
    budget = fastest + share * (slowest - fastest)
    point = Taker(front).latency(budget)
    assert np.isfinite(point.error)
    assert point.latency_us <= budget
    assert point.error == min(each.error for each in front.run if each.latency_us <= budget)
    with pytest.raises(InputError, match="No plan takes at most"):
        Taker(front).latency(front.cuts[-1].us - 1)


def test_a_layer_behind_one_that_breaks_the_budget_is_given_back_alone():
    """Four layers that save alike; runs show that the best by its noise breaks the budget, and the next does not."""
    count = 4
    nothing, none = np.zeros(count), np.zeros(0, np.intp)
    sources = clauses([(HIGH, [layer], (1 + layer) * 1e-8) for layer in range(count)])
    energy = Energy(
        100.0, 0.0, np.full(count, -10.0), nothing, sources, clauses([]), clauses([], swapped=True), none, none, none
    )  # fmt: skip
    problem = Problem(tuple("abcd"), energy, np.full(count, -1, np.int8), np.arange(count))
    kept = {(): 0.0, (0,): 2e-3, (1,): 5e-4, (2,): 2e-3, (3,): 2e-3, (1, 2): 2e-3, (1, 3): 9e-4}
    front = Plans(problem, lambda low: kept.get(tuple(np.flatnonzero(low).tolist()), 2e-3))
    assert np.flatnonzero(Taker(front).error(1e-3).mask).tolist() == [1, 3]


@pytest.fixture(scope="module")
def branches():
    """A trunk with heads that read the same tensor; one of them feeds an Exp, which makes much of its error."""
    random = np.random.default_rng(0)
    nodes, outputs = [node("MatMul", ["x", "w"], ["a"], "trunk")], []
    weights = [weight("w", random.standard_normal((64, 64)) / 8)]
    for head in range(HEADS):
        shape, scale = ((64, 8), 1.0) if head else ((64, 4), 30.0)
        weights.append(weight(f"h{head}", random.standard_normal(shape) / 8 * scale))
        nodes.append(node("MatMul", ["a", f"h{head}"], [f"y{head}"], f"head{head}/mm"))
        nodes.append(node("Tanh" if head else "Exp", [f"y{head}"], [f"z{head}"], f"head{head}/act"))
        outputs.append(value(f"z{head}", ["batch", shape[1]]))
    proto = model(nodes, [value("x", ["batch", 64])], outputs, weights)
    x = explorer.open(proto, inputs={"x": (random.standard_normal((16, 64)) * 0.3).astype(np.float32)})
    return x, x.search(gpu_model="")


@pytest.mark.parametrize("budget", [3e-4, 1e-3])
def test_layers_that_agree_are_given_back_together(branches, budget):
    x, front = branches
    (group,) = agreeing(front.typing, ("qkv",), front.costs)
    assert len(group) == HEADS
    x.plan = front.best(max_error=budget)
    formats = {row.format for row in x.decisions() if row.layer_id in group}
    assert len(formats) == 1
    assert x.output_error()["rel_l2"].max() <= budget


def test_a_model_without_float32_values_has_nothing_to_search():
    proto = model([node("Add", ["x", "x"], ["y"])], [value("x", [4], 7)], [value("y", [4], 7)])
    with pytest.raises(InputError, match="No layer of the model has a format to choose"):
        explorer.open(proto).search(gpu_model="")


def test_a_model_without_a_float32_output_has_no_error_to_search_by():
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("ArgMax", ["a"], ["y"], axis=1)]
    proto = model(nodes, [value("x", [2, 4])], [value("y", [2, 1], 7)], [weight("w", np.ones((4, 4)))])
    with pytest.raises(InputError, match="no float32 output"):
        explorer.open(proto).search(gpu_model="")
