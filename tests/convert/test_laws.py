"""Laws that hold for every graph and every plan, tried on random small graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from support.graphs import (
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    assert_laws,
    feeds_for,
    formats,
    graph,
    model,
    node,
    nodes_of,
    run,
    types_of,
    value,
    weight,
)

from explorer.convert import convert, decide, type_layers
from explorer.formats import round_array
from explorer.model import load_model
from explorer.plan import Plan

if TYPE_CHECKING:
    import onnx

SHAPE = (2, 4)
UNARY = ("Relu", "Neg", "Exp", "Sigmoid", "Tanh", "Abs", "Identity", "Erf", "Softmax", "Sin", "Floor", "LeakyRelu")
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Sum")
MOVES = ("Transpose twice", "Reshape", "Concat and split", "Gather", "Pad and slice")
SPECIAL = ("Where", "MatMul", "LayerNormalization", "If", "Cast int", "QuantizeLinear", "ReduceMean", "Clip", "TopK")
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Builder:
    """Grows a graph of values of one shape, so that any value can feed any operator."""

    def __init__(self) -> None:
        self.nodes, self.weights, self.values = [], [], ["x", "x2"]
        self.weights += [weight("w", np.linspace(-2, 2, 8).reshape(SHAPE)), weight("m", np.eye(4) / 2)]
        self.weights += [
            weight("rows", np.int64([1, 0])),
            weight("flat", np.int64([-1])),
            weight("shape", np.int64(SHAPE)),
        ]
        self.weights += [weight("s", np.full(4, 1.5)), weight("low", np.float32(-1)), weight("scale", np.float32(0.05))]
        self.weights += [weight("zero", np.uint8(128)), weight("four", np.int64([4]))]
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def emit(self, op, inputs, outputs=1, **attributes):
        names = [self.new() for _ in range(outputs)]
        self.nodes.append(node(op, inputs, names, f"{op}_{self.count}" if self.count % 3 else None, **attributes))
        return names[0] if outputs == 1 else names

    def grow(self, kind: str, a: str, b: str) -> None:
        self.values.append(self._grow(kind, a, b))

    def _grow(self, kind: str, a: str, b: str) -> str:
        if kind in UNARY:
            return self.emit(kind, [a])
        if kind in BINARY:
            return self.emit(kind, [a, b])
        if kind == "Transpose twice":
            return self.emit("Transpose", [self.emit("Transpose", [a])])
        if kind == "Reshape":
            return self.emit("Reshape", [self.emit("Reshape", [a, "flat"]), "shape"])
        if kind == "Concat and split":
            return self.emit("Split", [self.emit("Concat", [a, b], axis=0)], 2, axis=0)[1]
        if kind == "Gather":
            return self.emit("Gather", [a, "rows"])
        if kind == "Pad and slice":
            return self.emit("Trilu", [a])
        if kind == "Where":
            return self.emit("Where", [self.emit("Less", [a, b]), a, "w"])
        if kind == "MatMul":
            return self.emit("MatMul", [a, "m"])
        if kind == "LayerNormalization":
            return self.emit("LayerNormalization", [a, "s"])
        if kind == "Cast int":
            return self.emit("Cast", [self.emit("Cast", [self.emit("Clip", [a, "low"])], to=BOOL)], to=FLOAT)
        if kind == "QuantizeLinear":
            return self.emit("DequantizeLinear", [self.emit("QuantizeLinear", [a, "scale", "zero"]), "scale", "zero"])
        if kind == "ReduceMean":
            return self.emit("Expand", [self.emit("ReduceMean", [a], axes=[1]), "shape"])
        if kind == "Clip":
            return self.emit("Clip", [a, "low"])
        if kind == "TopK":
            return self.emit("TopK", [a, "four"], 2)[0]
        inner, inner2 = self.new(), self.new()
        then = graph([node("Add", [a, "w"], [inner])], [], [value(inner)], name="then")
        other = graph([node("Neg", [b], [inner2], "neg")], [], [value(inner2)], name="else")
        return self.emit("If", ["c"], then_branch=then, else_branch=other)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        inputs = [value("x"), value("x2"), value("c", (), BOOL)]
        return model(self.nodes, inputs, [value(name) for name in dict.fromkeys(outputs)], self.weights, opset=17)


@st.composite
def graphs(draw) -> onnx.ModelProto:
    builder = Builder()
    kinds = draw(st.lists(st.sampled_from(UNARY + BINARY + MOVES + SPECIAL), min_size=1, max_size=10))
    for kind in kinds:
        recent = [*builder.values[-4:], "w"]
        builder.grow(kind, draw(st.sampled_from(recent)), draw(st.sampled_from(recent)))
    others = draw(st.lists(st.sampled_from(builder.values), max_size=2))
    return builder.model([builder.values[-1], *others])


@st.composite
def plans(draw, ids) -> Plan:
    chosen = draw(st.dictionaries(st.sampled_from(ids), st.sampled_from(["fp32", "fp16"]), max_size=len(ids)))
    return Plan(base=draw(st.sampled_from(["fp16", "fp32"])), keep_io=draw(st.booleans())).set(chosen)


@given(graphs())
@SLOW
def test_the_fp32_plan_is_the_identity_bit_for_bit(source):
    loaded = load_model(source)
    conversion = convert(loaded, Plan.preset("fp32"))
    assert conversion.casts == ()
    assert conversion.low_share == 0
    feeds = feeds_for(source)
    for one, other in zip(run(source, feeds), run(conversion.proto, feeds), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.data(), graphs())
@SLOW
def test_every_conversion_holds_to_the_laws(data, source):
    before = source.SerializeToString(deterministic=True)
    loaded = load_model(source)
    normal = loaded.proto().SerializeToString(deterministic=True)
    plan = data.draw(plans([layer.id for layer in loaded.layers]))
    conversion = convert(loaded, plan)
    assert_laws(source, loaded, conversion)
    assert source.SerializeToString(deterministic=True) == before
    assert loaded.proto().SerializeToString(deterministic=True) == normal


@given(st.data(), graphs())
@SLOW
def test_an_override_is_followed_or_overruled_with_a_reason(data, source):
    loaded = load_model(source)
    plan = data.draw(plans([layer.id for layer in loaded.layers]))
    typing = type_layers(loaded, plan.format)
    for decision in decide(plan, typing):
        wanted = plan.overrides.get(decision.layer_id)
        switchable = typing.layers[decision.layer_id].switchable
        assert wanted is None or not switchable or decision.format == wanted
        assert (decision.format == "fp16") <= switchable


@given(st.data(), graphs())
@SLOW
def test_what_is_low_in_the_decisions_is_low_in_the_graph_and_nothing_else(data, source):
    """The emulator rounds what the decisions and the typing name; the converted graph must store just that low."""
    loaded = load_model(source)
    plan = data.draw(plans([layer.id for layer in loaded.layers]))
    conversion = convert(loaded, plan)
    types = types_of(conversion.proto)
    by_name = {each.name: each for each in nodes_of(conversion.proto)}
    for layer in loaded.layers:
        may, low = conversion.decisions.typing.layers[layer.id], layer.id in conversion.decisions.low_layers
        after = by_name[layer.id]
        for before, sides, flags in (
            (layer.inputs, after.input, may.low_inputs),
            (layer.outputs, after.output, may.low_outputs),
        ):
            for name, now, flag in zip(before, sides, flags, strict=True):
                if not name or loaded.types[name].dtype != "float32" or may.kind.value == "observe":
                    continue
                assert types[now] == (FLOAT16 if low and flag else FLOAT), (layer.id, name, now)


@given(st.data(), graphs())
@SLOW
def test_converting_twice_is_converting_once(data, source):
    loaded = load_model(source)
    plan = data.draw(plans([layer.id for layer in loaded.layers]))
    plan = Plan(base=plan.base, overrides=plan.overrides)
    once = convert(loaded, plan).proto
    again = load_model(once)
    ids = {layer.id for layer in again.layers}
    inserted = ids - {layer.id for layer in loaded.layers}
    twice = convert(again, plan.set(dict.fromkeys(inserted, "fp32"))).proto
    low_layers = {each.name for each in nodes_of(once)}
    assert low_layers <= {each.name for each in nodes_of(twice)}
    first, second = types_of(once), types_of(twice)
    low = {name for name, kind in first.items() if kind == FLOAT16}
    assert {name for name in low if name in second and second[name] != FLOAT16} == set()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_low_layer_computes_on_rounded_inputs_and_stores_a_rounded_result(seed):
    """On one Add, checked against numpy: x and w are rounded, their fp32 sum is rounded once."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(4).astype(np.float32) * 10 ** rng.uniform(-6, 5)
    source = model([node("Add", ["x", "w"], ["y"], "a")], [value("x")], [value("y")], [weight("w", w)])
    x = rng.standard_normal(SHAPE).astype(np.float32) * np.float32(10 ** rng.uniform(-6, 5))
    with np.errstate(all="ignore"):
        wanted = round_array(round_array(x, "fp16") + round_array(w, "fp16"), "fp16")
        native = (x.astype(np.float16) + w.astype(np.float16)).astype(np.float32)
    np.testing.assert_array_equal(wanted, native)
    # ONNX Runtime's CPU provider would compute this in fp32 without any rounding: onnx's own evaluator does not.
    with np.errstate(all="ignore"):
        got = ReferenceEvaluator(convert(load_model(source), Plan()).proto).run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, wanted)


def test_no_pair_of_casts_between_two_fp32_layers():
    nodes = [
        node("Exp", ["x"], ["a"], "e"),
        node("Reshape", ["a", "s"], ["b"], "r"),
        node("Concat", ["b", "b"], ["c"], "c", axis=0),
    ]
    nodes += [node("Sin", ["c"], ["y"], "sin")]
    source = model(nodes, [value("x")], [value("y", (4, 4))], [weight("s", np.int64(SHAPE))])
    got = convert(load_model(source), Plan().block(op_types=["Exp", "Sin"]))
    assert got.casts == ()
    assert formats(got)["r"] == formats(got)["c"] == "fp32"


def test_decisions_made_before_are_used_and_stale_ones_are_not():
    source = model([node("Exp", ["x"], ["y"], "e")], [value("x")], [value("y")])
    loaded = load_model(source)
    old = decide(Plan(), type_layers(loaded, "fp16"))
    assert convert(loaded, Plan(), decisions=old).decisions is old
    assert formats(convert(loaded, Plan.preset("fp32"), decisions=old)) == {"e": "fp32"}


@pytest.mark.parametrize("kind", [INT64, BOOL])
def test_layers_without_floats_have_the_format_none(kind):
    op = "Not" if kind == BOOL else "Neg"
    source = model([node(op, ["x"], ["y"], "n")], [value("x", dtype=kind)], [value("y", dtype=kind)])
    assert formats(convert(load_model(source), Plan())) == {"n": "none"}
