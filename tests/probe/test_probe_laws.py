"""Laws that hold of the emulator for every graph and every plan, tried on random small graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.graphs import BOOL, INT64, feeds_for, graph, model, node, run, value, weight
from support.probing import Bench, entries, feeds_of, plans_for, random_graphs, same

from explorer.plan import Plan

LAW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FLOAT32_SUMS = 1e-4  # the order of adding float32 squares differs between one batch and several
MILD = (1.0, 0.1, 30.0)  # magnitudes of weights: nothing overflows float32


def alike(one, other) -> bool:
    """The same sums, up to the order in which float32 numbers were added."""
    return one.keys() == other.keys() and all(
        other[value_name][name] == pytest.approx(number, rel=FLOAT32_SUMS, nan_ok=True)
        for value_name, sums in one.items()
        for name, number in sums.items()
    )


@LAW
@given(random_graphs(), st.integers(0, 99), st.sampled_from(("fp16", "bf16")), st.booleans())
def test_the_fp32_plan_is_the_identity(proto, seed, low_format, keep_io):
    """All in fp32: no error anywhere, and the outputs of ONNX Runtime without optimization, bit for bit."""
    plan = Plan(format=low_format, base="fp32")
    feeds = feeds_of(seed)
    bench = Bench.of(proto, feeds, plan)
    found = bench.accumulated()
    for name, sums in entries(found).items():
        assert sums["error_squares"] == sums["max_error"] == 0, name
        assert sums["nan"] == sums["infinite"] == 0, name
    assert (found.output_sums.error_squares == 0).all()
    assert np.isposinf(found.output_sums.sqnr_db).all()
    assert not found.incomparable
    for spec, wanted in zip(proto.graph.output, run(proto, feeds), strict=True):
        assert same(found.plan_outputs[spec.name], wanted)
        assert same(found.exact_outputs[spec.name], wanted)


@LAW
@given(st.data())
def test_toggling_a_layer_changes_nothing_upstream(data):
    """Whatever is switched, the values of the layers before it keep their error."""
    proto = data.draw(random_graphs())
    plan = data.draw(plans_for(proto))
    bench = Bench.of(proto, feeds_of(data.draw(st.integers(0, 99))), plan)
    names = [layer.id for layer in bench.model.layers]
    toggled = data.draw(st.sampled_from(names))
    now = bench.decisions().by_layer[toggled].format
    other = plan.set({toggled: "fp32" if now == plan.format else plan.format})
    before, after = entries(bench.accumulated()), entries(bench.accumulated(other))
    upstream = {name for layer in bench.model.layers[: names.index(toggled)] for name in layer.outputs}
    for name in upstream & set(before):
        assert repr(before[name]) == repr(after[name])


@LAW
@given(st.data())
def test_local_errors_do_not_depend_on_the_plan(data):
    proto = data.draw(random_graphs())
    low_format = data.draw(st.sampled_from(("fp16", "bf16")))
    feeds = feeds_of(data.draw(st.integers(0, 99)))
    one = Bench.of(proto, feeds, data.draw(plans_for(proto, low_format=low_format)))
    other = Bench.of(proto, feeds, data.draw(plans_for(proto, low_format=low_format)))
    other.accumulated()  # nor on what was run before
    assert repr(entries(one.emulator.local())) == repr(entries(other.emulator.local()))


@LAW
@given(st.data())
def test_the_only_low_layer_has_its_local_error(data):
    """When one layer alone runs low on fp32 inputs, accumulated and local error of its results are the same."""
    proto = data.draw(random_graphs())
    low_format = data.draw(st.sampled_from(("fp16", "bf16")))
    plan = Plan(format=low_format, base="fp32")
    bench = Bench.of(proto, feeds_of(data.draw(st.integers(0, 99))), plan)
    switchable = [layer.id for layer in bench.model.layers if bench.emulator.typing.layers[layer.id].switchable]
    if not switchable:
        return
    chosen = data.draw(st.sampled_from(switchable))
    local = entries(bench.emulator.local())
    accumulated = entries(bench.accumulated(plan.set({chosen: low_format})))
    for name in bench.model.layer(chosen).outputs:
        if name in local:
            for sum_name in ("error_squares", "max_error", "exact_squares", "elements"):
                wanted = pytest.approx(local[name][sum_name], rel=1e-6, nan_ok=True)
                assert accumulated[name][sum_name] == wanted, (name, sum_name)


@LAW
@given(st.data())
def test_batches_merge_exactly(data):
    """One batch of N and N batches of one give the same sums and counts, and outputs in the same order."""
    proto = data.draw(random_graphs(magnitudes=MILD))
    plan = data.draw(plans_for(proto))
    rows = data.draw(st.integers(2, 6))
    feeds = feeds_of(data.draw(st.integers(0, 99)), rows=rows)
    whole = Bench.of(proto, feeds, plan, batch_size=rows)
    single = Bench.of(proto, feeds, plan, batch_size=1, threads=data.draw(st.sampled_from((1, 2))))
    assert len(whole.emulator.samples) == 1
    assert len(single.emulator.samples) == rows
    assert alike(entries(whole.emulator.ranges()), entries(single.emulator.ranges()))
    for low, many in zip(
        entries(whole.emulator.local()).items(), entries(single.emulator.local()).items(), strict=True
    ):
        assert low[0] == many[0]
    one, several = whole.accumulated(), single.accumulated()
    for name, array in one.plan_outputs.items():
        assert array.shape == several.plan_outputs[name].shape


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_elementwise_batches_merge_to_the_last_digit(batch):
    """Where no kernel depends on the batch size, maxima and counts are equal and sums up to float32's order."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node("Add", ["a", "x"], ["b"], "add"),
        node("Transpose", ["b"], ["c"], "turn", perm=[0, 2, 1]),
        node("Mul", ["c", "c"], ["y"], "square"),
    ]
    proto = model(
        nodes, [value("x", ["n", 4, 4])], [value("y", ["n", 4, 4])], [weight("w", rng.standard_normal((4, 4)) * 5)]
    )
    feeds = {"x": (rng.standard_normal((7, 4, 4)) * 10).astype(np.float32)}
    for plan in (Plan(), Plan().block(op_types=["Add"]), Plan(format="bf16", keep_io=False)):
        whole = Bench.of(proto, feeds, plan, batch_size=7)
        parts = Bench.of(proto, feeds, plan, batch_size=batch, threads=2)
        for kind in ("ranges", "local"):
            assert alike(entries(getattr(whole.emulator, kind)()), entries(getattr(parts.emulator, kind)()))
        one, several = whole.accumulated(), parts.accumulated()
        assert alike(entries(one), entries(several))
        assert same(one.plan_outputs["y"], several.plan_outputs["y"])
        assert same(one.exact_outputs["y"], several.exact_outputs["y"])
        assert one.output_sums.sqnr_db == pytest.approx(several.output_sums.sqnr_db, rel=FLOAT32_SUMS)
        assert one.output_sums.cosine == pytest.approx(several.output_sums.cosine, rel=FLOAT32_SUMS)


@LAW
@given(st.data())
def test_switches_follow_the_decisions(data):
    """A layer has an error of its own only where its decision, or one upstream, is low."""
    proto = data.draw(random_graphs())
    plan = data.draw(plans_for(proto, keep_io=True))
    bench = Bench.of(proto, feeds_of(data.draw(st.integers(0, 99))), plan)
    decisions = bench.decisions()
    found = entries(bench.accumulated())
    touched: set[str] = set()  # values that a low layer may have changed
    for layer in bench.model.layers:
        if decisions[layer.id].format == plan.format or touched & set(layer.inputs):
            touched |= set(layer.outputs)
        for name in set(layer.outputs) & set(found):
            if name not in touched:
                assert found[name]["error_squares"] == 0, (layer.id, name)


def test_a_toggle_compiles_nothing_anew(monkeypatch):
    """One session for the exact values, one for the plans: any further plan is a run."""
    from explorer.probe import runs as module  # noqa: PLC0415

    made = []
    create = module.create_session
    monkeypatch.setattr(module, "create_session", lambda *args, **more: made.append(1) or create(*args, **more))
    proto = model(
        [node("Add", ["x", "x"], ["a"], "add"), node("Mul", ["a", "x"], ["y"], "mul")], [value("x")], [value("y")]
    )
    bench = Bench.of(proto, feeds_for(proto))
    first = bench.accumulated()
    count = len(made)
    for layers in (["add"], ["mul"], ["add", "mul"], []):
        bench.accumulated(Plan().block(layers=layers))
    assert len(made) == count
    assert same(bench.accumulated().plan_outputs["y"], first.plan_outputs["y"])


def with_bodies():
    """Control flow of every kind, one in another, all capturing a value of the main graph."""
    then = graph(
        [node("Mul", ["a", "x"], ["p"], "p"), node("Add", ["p", "a"], ["q"], "q")], [], [value("q")],
    )  # fmt: skip
    other = graph([node("Tanh", ["a"], ["r"], "r")], [], [value("r")])
    body = graph(
        [node("If", ["c"], ["s"], "choose", then_branch=then, else_branch=other),
         node("Add", ["s", "state"], ["next"], "n"),
         node("Identity", ["go"], ["going"], "keep")],
        [value("i", (), INT64), value("go", (), BOOL), value("state")], [value("going", (), BOOL), value("next")],
    )  # fmt: skip
    nodes = [
        node("Add", ["x", "w"], ["a"], "before"),
        node("Loop", ["n", "", "a"], ["b"], "loop", body=body),
        node("Mul", ["b", "w"], ["y"], "after"),
    ]
    weights = [weight("w", [0.1, 0.2, 0.3, 0.7]), weight("n", np.array(2))]
    return model(nodes, [value("x"), value("c", (), BOOL)], [value("y")], weights)


def test_the_identity_holds_inside_bodies():
    proto = with_bodies()
    for condition in (True, False):
        feeds = feeds_for(proto) | {"c": np.array(condition)}
        bench = Bench.of(proto, feeds, Plan(base="fp32"))
        found = bench.accumulated()
        assert (found.sums.error_squares == 0).all()
        assert same(found.plan_outputs["y"], run(proto, feeds)[0])


def test_a_layer_inside_a_body_is_switched_alone():
    """Only the layer that is toggled inside a body changes what the body computes."""
    proto = with_bodies()
    feeds = feeds_for(proto) | {"c": np.array(True)}
    plan = Plan(base="fp32")
    bench = Bench.of(proto, feeds, plan)
    errors = {}
    for layer in bench.model.layers:
        if bench.emulator.typing.layers[layer.id].switchable:
            found = entries(bench.accumulated(plan.set({layer.id: "fp16"})))
            errors[layer.id] = found["b"]["error_squares"]
    assert errors["r"] == errors["after"] == 0, "the branch that is not taken, and what comes later"
    assert min(errors[name] for name in ("p", "q", "n", "before")) > 0


@pytest.mark.parametrize("fed", [True, False])
def test_both_ways_to_have_the_exact_values_give_the_same(monkeypatch, fed):
    """Exact values are kept while they fit, and computed beside the plan's where they do not."""
    from explorer.probe import emulator as module  # noqa: PLC0415

    proto = with_bodies()
    feeds = feeds_for(proto) | {"c": np.array(True)}
    plan = Plan().block(layers=["n"])
    wanted = Bench.of(proto, feeds, plan).accumulated()
    if not fed:
        monkeypatch.setattr(module, "_EXACT_CACHE_BYTES", -1)
    bench = Bench.of(proto, feeds, plan)
    found = bench.accumulated()
    assert bool(bench.emulator._exact) == fed
    assert repr(entries(found)) == repr(entries(wanted))
    assert same(found.exact_outputs["y"], wanted.exact_outputs["y"])
    assert same(found.plan_outputs["y"], wanted.plan_outputs["y"])


@LAW
@given(st.data())
def test_values_beside_the_plan_are_those_that_are_fed(data):
    """The same on random graphs, when nothing may be kept."""
    from explorer.probe import emulator as module  # noqa: PLC0415

    proto = data.draw(random_graphs())
    plan = data.draw(plans_for(proto))
    feeds = feeds_of(data.draw(st.integers(0, 99)))
    wanted = Bench.of(proto, feeds, plan).accumulated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_EXACT_CACHE_BYTES", -1)
        found = Bench.of(proto, feeds, plan).accumulated()
    assert repr(entries(found)) == repr(entries(wanted))
    for name, array in wanted.plan_outputs.items():
        assert same(found.plan_outputs[name], array)
