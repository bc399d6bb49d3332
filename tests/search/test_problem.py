"""A problem says what the cost model and the noise model say, and pins what must stay in fp32."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import BOOL, graph, model, node, value, weight
from support.probing import random_graphs
from support.searching import by_hand, clauses, every_plan, random_problem

from explorer.convert import type_layers
from explorer.model import load_model
from explorer.probe.sources import rounding_sources
from explorer.search.costs import roofline_costs
from explorer.search.energy import HIGH, LOW, Energy
from explorer.search.problem import build_problem, objective

SEEDS = st.integers(0, 1 << 30)


class Bench:
    """A model with its costs, and noise drawn at random."""

    def __init__(self, proto, seed=0, broken=0.0):
        rng = np.random.default_rng(seed)
        self.typing = type_layers(load_model(proto), "fp16")
        self.costs = roofline_costs(self.typing.model, {}, self.typing, "H100")
        sources = rounding_sources(self.typing)
        values = 10.0 ** rng.uniform(-12, -3, (len(sources), 2))
        values[rng.random(len(sources)) < broken] = np.inf
        self.noise = SimpleNamespace(sources=sources, noise=values, pinned={})
        self.index = {layer.id: number for number, layer in enumerate(self.typing.model.layers)}

    def problem(self, **more):
        return build_problem(self.typing, self.noise, self.costs, **more)

    def bound(self, low, *, keep_io):
        """Noise of a plan, source by source."""
        rounded = set() if keep_io else set(self.noise.sources.outputs.tolist())
        for layer_id, touched in self.noise.sources.touched.items():
            if low[self.index[layer_id]]:
                rounded |= set(touched.tolist())
        worst = self.noise.noise.max(axis=1)
        return sum(worst[source] for source in rounded)

    def fixed(self, **more):
        problem = self.problem(**more)
        return {layer_id for layer_id, fixed in zip(problem.layer_ids, problem.fixed, strict=True) if fixed == 0}


def attention(batch=2):
    """Three products of one tensor, a sum, a shape that is read, an If whose body reads a tensor of the model."""
    body = graph([node("Neg", ["v"], ["o"], "inner")], [], [value("o", None)], name="body")
    other = graph([node("Identity", ["v"], ["p"], "copied")], [], [value("p", None)], name="other")
    nodes = [
        node("Relu", ["x"], ["t"], "head"),
        *(node("MatMul", ["t", f"w{each}"], [each], f"product_{each}") for each in "qkv"),
        node("Shape", ["t"], ["shape"], "shape"),
        node("Add", ["q", "k"], ["sum"], "sum"),
        node("If", ["flag"], ["chosen"], "choice", then_branch=body, else_branch=other),
        node("Add", ["sum", "chosen"], ["y"], "last"),
    ]
    weights = [weight(f"w{each}", np.eye(4, dtype=np.float32)) for each in "qkv"]
    inputs = [value("x", (batch, 4)), value("flag", (), BOOL)]
    return model(nodes, inputs, [value("y", (batch, 4)), value("shape", (2,), 7)], weights)


@settings(max_examples=40, deadline=None)
@given(random_graphs(), SEEDS, st.booleans())
def test_the_objective_is_the_cost_models_total_and_the_sum_of_the_rounded_sources(proto, seed, keep_io):
    bench = Bench(proto, seed)
    problem = bench.problem(keep_io=keep_io)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        low = (problem.fixed < 0) & (rng.random(problem.fixed.size) < 0.5)
        us, noise = objective(problem, low)
        assert us == pytest.approx(bench.costs.total(low, keep_io=keep_io), rel=1e-9, abs=1e-9)
        assert noise == pytest.approx(bench.bound(low, keep_io=keep_io), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(random_graphs(), SEEDS)
def test_no_free_layer_touches_a_tensor_that_breaks_the_model(proto, seed):
    bench = Bench(proto, seed, broken=0.2)
    problem = bench.problem()
    assert np.isfinite(bench.bound(problem.fixed < 0, keep_io=True))
    assert np.isfinite(objective(problem, problem.fixed < 0)).all()


def test_layers_without_a_choice_are_fixed_high():
    bench = Bench(attention())
    assert bench.fixed() == {"shape", "choice", "inner", "copied"}


def test_a_shape_read_from_a_tensor_needs_no_cast():
    bench = Bench(attention())
    problem = bench.problem()
    tensor = bench.costs.places.names.index("t")
    up = problem.energy.up
    assert "shape" not in {problem.layer_ids[each] for each in up.members[up.clause == tensor] if each >= 0}


def test_a_body_that_reads_a_tensor_needs_it_in_fp32():
    bench = Bench(attention())
    problem = bench.problem()
    tensor = bench.costs.places.names.index("v")
    low = np.zeros(len(problem.layer_ids), np.bool_)
    low[bench.index["product_v"]] = True
    assert problem.energy.up.paid(np.concatenate([low, [True, False]]))[tensor]


def test_blocked_and_pinned_layers_and_what_agrees_with_them_stay_high():
    bench = Bench(attention())
    groups = [["product_q", "product_k"], ["product_k", "product_v"]]
    always = bench.fixed()
    assert bench.fixed(blocked={"sum"}) == always | {"sum"}
    assert bench.fixed(blocked={"product_v"}, agree=groups) == always | {"product_q", "product_k", "product_v"}
    bench.noise.pinned = {"head": "its result overflows"}
    assert bench.fixed(agree=groups) == always | {"head"}


def test_agreeing_layers_are_one_variable():
    bench = Bench(attention())
    free = bench.problem()
    joined = bench.problem(agree=[["product_q", "product_k"], ["product_k", "product_v"]])
    assert len(free.core) - len(joined.core) == 2
    assert len({joined.place[bench.index[f"product_{each}"]] for each in "qkv"}) == 1


def test_noise_that_low_inputs_and_outputs_make_is_in_every_plan():
    bench = Bench(attention(), seed=3)
    bench.noise.noise[bench.noise.sources.outputs[0]] = np.inf  # which no plan can avoid, so it decides nothing
    problem = bench.problem(keep_io=False)
    nothing = np.zeros(len(problem.layer_ids), np.bool_)
    worst = bench.noise.noise.max(axis=1)[bench.noise.sources.outputs]
    assert objective(problem, nothing)[1] == pytest.approx(worst[np.isfinite(worst)].sum())
    assert (problem.fixed < 0).any()


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_joining_and_fixing_variables_changes_no_figure(seed):
    problem = random_problem(seed, count=seed % 8 + 1)
    for low, us, noise in list(every_plan(problem))[:40]:
        assert objective(problem, low) == pytest.approx((us, noise), rel=1e-9, abs=1e-15)
        variables = problem.variables(low)
        assert np.array_equal(problem.layers(variables), low)
        assert problem.core.evaluate(variables) == pytest.approx((us, noise), rel=1e-9, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_step_is_what_switching_one_variable_changes(seed):
    problem = random_problem(seed)
    core = problem.core
    low = np.random.default_rng(seed).random(len(core)) < 0.5
    us, noise = by_hand(problem, problem.layers(low))
    for variable, step in enumerate(zip(*core.steps(low), strict=True)):
        other = low.copy()
        other[variable] ^= True
        after = by_hand(problem, problem.layers(other))
        assert step == pytest.approx((after[0] - us, after[1] - noise), rel=1e-6, abs=1e-9)


def test_constants_own_and_take_as_layers_do():
    terms = clauses([(HIGH, [0], 1.0), (LOW, [0], 2.0), (0, [LOW], 4.0), (0, [HIGH], 8.0), (HIGH, [LOW], 16.0)])
    assert terms.total(np.array([False, True, False])) == 4.0 + 16.0
    assert terms.total(np.array([True, True, False])) == 1.0 + 16.0


def test_a_cost_below_zero_is_refused():
    with pytest.raises(AssertionError):
        Energy(
            0.0, 0.0, np.zeros(1), np.zeros(1), *[clauses([(HIGH, [0], -1.0)])] * 3, *[np.zeros(0, int)] * 2, np.ones(0)
        )
