"""Casts told from decisions alone are those that conversion inserts: on every edge, and in number."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_graphs import unet
from support.graphs import BOOL, FLOAT16, INT64, graph, model, node, value, weight
from support.probing import plans_for as random_plans
from support.probing import random_graphs
from test_tree import SAMPLES, if_model, loaded

import explorer
from explorer.convert import convert, decide, type_layers
from explorer.model import Model, load_model
from explorer.plan import Plan
from explorer.scene import cast_count, edge_casts, pair_count
from explorer.scene.casts import TO_INT8, TO_LOW
from explorer.scene.wiring import wiring

SHIPPED = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")
PLANS = {
    "full": Plan(),
    "low I/O": Plan(keep_io=False),
    "safe": Plan.preset("safe"),
    "safe, low I/O": Plan.preset("safe", keep_io=False),
    "fp32": Plan.preset("fp32"),
    "fp32, low I/O": Plan.preset("fp32", keep_io=False),
    "bf16": Plan(format="bf16"),
}


def plans_for(loaded_model: Model):
    """The named plans, and random ones."""
    yield from PLANS.values()
    yield Plan.preset("fp32").allow(op_types={layer.qualified_op for layer in loaded_model.layers[::2]})
    random = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        chosen = {layer.id: "fp32" for layer in loaded_model.layers if random.random() < share}
        yield Plan(overrides=chosen, keep_io=bool(random.integers(2)))


def truth(loaded_model: Model, conversion) -> np.ndarray:
    """By edge what stands there in the converted graph: 0 nothing, 1 a cast to the low format, 2 one to fp32."""
    casts = {cast.name: cast.to for cast in conversion.casts}
    nodes = {str(each.name): each for each in conversion.ir.graph.all_nodes()}
    low = conversion.decisions.plan.format

    def cast_of(given) -> int:
        maker = given.producer() if given is not None else None
        return 0 if maker is None or maker.name not in casts else 1 if casts[maker.name] == low else 2

    wires, layers = wiring(loaded_model), loaded_model.layers
    names = list(wires.tensors)
    found = []
    for target, tensor in zip(wires.targets, wires.carried, strict=True):
        if target < len(layers):
            layer = layers[target]
            places = [at for at, name in enumerate(layer.inputs) if name == names[tensor]]
            found.append(max(cast_of(nodes[layer.id].inputs[at]) for at in places))
        else:
            at = target - len(layers) - len(loaded_model.inputs)
            found.append(cast_of(conversion.ir.graph.outputs[at]))
    return np.array(found, np.uint8)


def assert_agrees(loaded_model: Model, plan: Plan, backend: str | None = None) -> None:
    decisions = decide(plan, type_layers(loaded_model, plan.format, backend))
    conversion = convert(loaded_model, plan, backend=backend, decisions=decisions)
    assert cast_count(decisions) == len(conversion.casts)
    np.testing.assert_array_equal(edge_casts(decisions), truth(loaded_model, conversion))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("backend", [None, "onnxruntime-cuda"])
def test_samples_agree_under_every_plan(name, backend):
    loaded_model = loaded(name)
    for plan in plans_for(loaded_model):
        assert_agrees(loaded_model, plan, backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "unet_3000"])
def test_large_samples_agree(name):
    loaded_model = loaded(name)
    for plan in plans_for(loaded_model):
        assert_agrees(loaded_model, plan)


def loop_model():
    """A Loop that carries a float and returns a value scanned over its rounds."""
    body = graph(
        [
            node("Identity", ["more"], ["more_out"], "keep"),
            node("Mul", ["s", "a"], ["p"], "mul"),
            node("Add", ["p", "w"], ["s_out"], "add"),
            node("Exp", ["s_out"], ["scan"], "exp"),
        ],
        [value("i", [], INT64), value("more", [], BOOL), value("s")],
        [value("more_out", [], BOOL), value("s_out"), value("scan")],
        name="body",
    )
    nodes = [
        node("Abs", ["x"], ["a"], "abs"),
        node("Loop", ["n", "", "a"], ["l", "all"], "loop", body=body),
        node("Relu", ["l"], ["y"], "relu"),
    ]
    return model(
        nodes, [value("x")], [value("y"), value("all", ["n", 2, 4])], [weight("n", np.int64(3)), weight("w", [2.0])]
    )


def edge_cases():
    w, n = weight("w", [1.0, 2.0, 3.0, 4.0]), node
    yield "if", if_model()
    yield "loop", loop_model()
    yield "input is output", model([n("Relu", ["x"], ["y"], "r")], [value("x")], [value("y"), value("x")])
    yield (
        "weight is output",
        model([n("Add", ["x", "w"], ["y"], "a")], [value("x")], [value("y"), value("w", [4])], [w]),
    )
    yield (
        "output inside",
        model([n("Relu", ["x"], ["a"], "r"), n("Exp", ["a"], ["y"], "e")], [value("x")], [value("a"), value("y")]),
    )
    yield "twice", model([n("Mul", ["x", "x"], ["y"], "m")], [value("x")], [value("y")])
    yield (
        "default input",
        model([n("Add", ["x", "w"], ["y"], "a")], [value("x"), value("w", [4])], [value("y")], [w]),
    )
    yield (
        "shape",
        model(
            [n("Relu", ["x"], ["a"], "r"), n("Shape", ["a"], ["s"], "s"), n("Reshape", ["a", "s"], ["y"], "q")],
            [value("x")],
            [value("y")],
        ),
    )
    yield (
        "half",
        model(
            [n("Cast", ["h"], ["a"], "c", to=1), n("Add", ["a", "x"], ["y"], "d")],
            [value("x"), value("h", dtype=FLOAT16)],
            [value("y")],
        ),
    )
    yield (
        "parameters",
        model(
            [n("Resize", ["x", "r", "f"], ["y"], "resize", mode="nearest")],
            [value("x", [1, 1, 2, 2]), value("r", [8])],
            [value("y", [1, 1, 4, 4])],
            [weight("f", [1.0, 1.0, 2.0, 2.0])],
        ),
    )


CASES = dict(edge_cases())


@pytest.mark.parametrize("name", CASES)
def test_edge_cases_agree(name):
    loaded_model = load_model(CASES[name])
    for plan in plans_for(loaded_model):
        assert_agrees(loaded_model, plan)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs_agree(data):
    proto = data.draw(random_graphs())
    assert_agrees(load_model(proto), data.draw(random_plans(proto)))


def test_a_second_plan_costs_milliseconds():
    loaded_model = load_model(unet(31))
    typing = type_layers(loaded_model, "fp16")
    cast_count(decide(Plan(), typing))
    decisions = decide(Plan().block(op_types=["Softmax", "Div"]), typing)
    start = time.thread_time()
    assert cast_count(decisions) > 0
    assert time.thread_time() - start < 0.1, "seconds of CPU; measured 4 ms at 10,699 layers"


@pytest.mark.parametrize("target", [None, "tensorrt"])
@pytest.mark.parametrize(
    "plan",
    [
        Plan(format="int8"),
        Plan(format="int8").block(op_types=["Relu"]),
        Plan().use("int8", op_types=["Conv"]),
        Plan(format="bf16").use("int8", scopes=["classifier"]),
        Plan(format="tf32"),
    ],
    ids=str,
)
def test_pairs_are_those_that_conversion_inserts(plan, target):
    """Casts and quantisation pairs add up to what stands in the file, and every quantised read has one before it."""
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", plan=plan, target=target)
    x.calibrate(method="minmax", cache=False)
    decisions, made = x.decisions(), x.convert()
    assert cast_count(decisions) + pair_count(decisions) == len(made.casts)
    quantize = [each for each in made.ir.graph if each.op_type == "QuantizeLinear"]
    assert pair_count(decisions) == len(quantize)
    low = TO_LOW if plan.format == "int8" else TO_INT8
    stored = {layer_id for layer_id in (decisions.int8_layers or decisions.low_layers) if plan.format != "tf32"}
    wires, layers = wiring(x.model), x.model.layers
    into = {
        target for target, cast in zip(wires.targets, edge_casts(decisions).tolist(), strict=True) if cast == low
    }  # fmt: skip
    assert {layers[each].id for each in into} <= stored
    assert bool(into) == bool(quantize)
