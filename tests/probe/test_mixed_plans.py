"""Plans of fp16 or bf16 that run some layers in int8: one graph, and every plan a run of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import faithful
from support.graphs import BOOL, graph, model, node, run, value, weight
from support.probing import Bench, entries, same
from support.twin import Twin
from test_int8_emulated import NETWORKS, attention, convolutions

from explorer.convert import convert
from explorer.errors import PlanError
from explorer.plan import Plan
from explorer.probe import Emulator
from explorer.probe import runs as runs_module

LAW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LOW = ("fp16", "bf16")


def mixed(network: str = "convolutions", low_format: str = "fp16", seed: int = 0) -> Twin:
    proto, feeds = NETWORKS[network](seed=seed)
    return Twin.of(proto, feeds, low_format, int8=True)


@st.composite
def mixtures(draw):
    """A network, and a plan that runs its layers in three formats."""
    twin = mixed(draw(st.sampled_from(sorted(NETWORKS))), draw(st.sampled_from(LOW)), draw(st.integers(0, 5)))
    formats = ("fp32", twin.typing.format, "int8")
    return twin, {layer: draw(st.sampled_from(formats)) for layer in twin.layers}


@LAW
@given(mixtures())
def test_any_mixture_equals_the_twin(drawn):
    """Outputs bit for bit, and the errors of every tensor."""
    twin, chosen = drawn
    plan = twin.plan(**chosen)
    found, wanted, exact = twin.emulated(plan), twin.values(plan), twin.values(twin.plan())
    assert same(found.plan_outputs["y"], wanted["y"])
    for name, sums in entries(found).items():
        error = wanted[name].astype(np.float64) - exact[name]
        assert sums["max_error"] == pytest.approx(np.abs(error).max(), rel=1e-6), name


@LAW
@given(mixtures())
def test_any_mixture_equals_the_exported_model(drawn):
    """What conversion writes, run as its storage demands, gives the emulated outputs."""
    twin, chosen = drawn
    plan = twin.plan(**chosen)
    decisions = twin.decisions(plan)
    exported = convert(twin.model, plan, decisions=decisions, calibration=twin.scales)
    got = faithful.evaluate(exported.proto, twin.feeds)
    assert same(twin.emulated(plan).plan_outputs["y"], got["y"])


@LAW
@given(mixtures(), st.data())
def test_toggling_a_layer_changes_nothing_before_it(drawn, data):
    twin, chosen = drawn
    toggled = data.draw(st.sampled_from(twin.layers))
    others = [each for each in ("fp32", twin.typing.format, "int8") if each != chosen[toggled]]
    other = chosen | {toggled: data.draw(st.sampled_from(others))}
    before, after = entries(twin.emulated(twin.plan(**chosen))), entries(twin.emulated(twin.plan(**other)))
    ids = [layer.id for layer in twin.model.layers]
    upstream = {name for layer in twin.model.layers[: ids.index(toggled)] for name in layer.outputs}
    for name in upstream & before.keys():
        assert repr(before[name]) == repr(after[name])


@pytest.mark.parametrize("low_format", LOW)
@pytest.mark.parametrize("network", NETWORKS)
def test_with_one_format_alone_it_is_the_emulator_of_that_format(network, low_format):
    """All in fp32, all in the low format, all that may in int8: the very sums of the emulators that know no other."""
    proto, feeds = NETWORKS[network]()
    twin = mixed(network, low_format)
    high = twin.emulated(Plan(format=low_format, base="fp32"))
    assert same(high.plan_outputs["y"], run(proto, feeds)[0])
    assert (high.sums.error_squares == 0).all()
    plain = Bench.of(proto, feeds, Plan(format=low_format))
    assert repr(entries(twin.emulated(Plan(format=low_format)))) == repr(entries(plain.accumulated()))
    assert repr(entries(twin.emulator.local())) == repr(entries(plain.emulator.local()))
    alone = Twin.of(proto, feeds, "int8")
    chosen = dict.fromkeys(alone.layers, "int8")
    found, wanted = entries(twin.emulated(twin.plan(**chosen))), entries(alone.emulated(alone.plan(**chosen)))
    assert {name: repr(found[name]) for name in wanted} == {name: repr(sums) for name, sums in wanted.items()}


@pytest.mark.parametrize("keep_io", [True, False])
def test_the_models_own_inputs_and_outputs_follow_the_plans_format(keep_io):
    twin = mixed()
    plan = Plan(keep_io=keep_io).use("int8", op_types=["Conv"])
    decisions = twin.decisions(plan)
    assert decisions.int8_layers
    exported = convert(twin.model, plan, decisions=decisions, calibration=twin.scales)
    got = faithful.evaluate(exported.proto, twin.feeds)
    assert same(twin.emulated(plan).plan_outputs["y"], got["y"])


def test_any_plan_is_a_run_of_the_same_session(monkeypatch):
    made = []
    create = runs_module.create_session
    monkeypatch.setattr(runs_module, "create_session", lambda *args, **more: made.append(1) or create(*args, **more))
    twin = mixed()
    first = twin.emulated(Plan())
    count = len(made)
    for op in ("Conv", "Gemm", "MatMul"):
        twin.emulated(Plan().use("int8", op_types=[op]))
    assert len(made) == count
    assert same(twin.emulated(Plan()).plan_outputs["y"], first.plan_outputs["y"])


def test_an_emulator_of_one_format_refuses_the_other():
    """Silence would show a plan's int8 layers as if they were fp32."""
    twin = mixed()
    plan = Plan().use("int8", op_types=["Conv"])
    alone = Emulator(twin.typing, twin.emulator.samples)
    with pytest.raises(PlanError, match="int8"):
        alone.accumulated(twin.decisions(plan))


def test_values_of_a_layer_are_shown_in_the_format_that_it_runs_in():
    twin = mixed()
    decisions = twin.decisions(Plan().use("int8", layers=["conv2"]))
    quantised, half = twin.emulator.values(decisions, "conv2"), twin.emulator.values(decisions, "dense")
    assert (quantised.format, half.format) == ("int8", "fp16")
    assert quantised.bands.overflow == pytest.approx(127.5 * twin.scales.amax["c2"] / 127)
    assert half.bands.overflow == 65520.0
    assert "fp16 and int8 storage rounding" in quantised.provenance
    assert len(np.unique(quantised.scatter.plan)) <= 256


def test_networks_are_what_these_tests_think():
    """The networks have layers of every sort in int8: products, activations in their kernels, movement, joins."""
    layers = {layer: may for proto, feeds in (convolutions(), attention())
              for layer, may in Twin.of(proto, feeds).typing.layers.items() if may.switchable}  # fmt: skip
    assert {may.kind.value for may in layers.values()} == {"compute", "movement", "promote"}
    assert {layer for layer, may in layers.items() if may.after} == {"relu1", "relu2"}


def test_layers_in_bodies_keep_their_own_switches():
    """In a body nothing runs in int8, and the plan's own format does there what it always does."""
    rng = np.random.default_rng(0)
    then = graph([node("MatMul", ["a", "w"], ["t"], "then")], [], [value("t", None)], name="then")
    other = graph([node("Neg", ["a"], ["o"], "other")], [], [value("o", None)], name="else")
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "before"),
        node("If", ["c"], ["b"], "choose", then_branch=then, else_branch=other),
        node("MatMul", ["b", "w"], ["y"], "after"),
    ]
    proto = model(nodes, [value("x", [2, 4]), value("c", [], BOOL)], [value("y", [2, 4])],
                  [weight("w", rng.standard_normal((4, 4)))])  # fmt: skip
    feeds = {"x": rng.standard_normal((2, 4)).astype(np.float32), "c": np.array(True)}
    twin = Twin.of(proto, feeds, "fp16", int8=True, amax=dict.fromkeys("xab", 9.0))
    assert set(twin.layers) == {"before", "then", "other", "after"}
    for inside in ("fp16", "fp32"):
        plan = twin.plan(before="int8", then=inside, after="int8")
        decisions = twin.decisions(plan)
        assert decisions.int8_layers == {"before", "after"}
        exported = convert(twin.model, plan, decisions=decisions, calibration=twin.scales)
        assert same(twin.emulated(plan).plan_outputs["y"], faithful.evaluate(exported.proto, feeds)["y"])
