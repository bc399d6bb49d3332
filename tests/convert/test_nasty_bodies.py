"""Control flow and quantized models that break converters: each converted, checked, run and compared."""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs import (
    BOOL,
    FLOAT,
    INT64,
    X,
    Y,
    blocked,
    feeds_for,
    formats,
    graph,
    mixed,
    model,
    node,
    types_of,
    value,
    weight,
)

from explorer.plan import Plan

# --- bodies ----------------------------------------------------------------------------------------------------------


def if_model(*, opset=17, then=None, other=None, nodes=(), weights=(), outputs=None):
    then = then or graph([node("Neg", ["x"], ["t"], "n")], [], [value("t")], name="then")
    other = other or graph([node("Exp", ["x"], ["t"], "e")], [], [value("t")], name="else")
    body = node("If", ["c"], ["b"], "if", then_branch=then, else_branch=other)
    return model(
        [*nodes, body, node("Abs", ["b"], ["y"], "abs")],
        [X, value("c", (), BOOL)],
        outputs or [Y],
        weights,
        opset=opset,
    )


BOTH = [np.array(True), np.array(False)]


@pytest.mark.parametrize("condition", BOTH)
@pytest.mark.parametrize("names", [(), ("if",), ("n",), ("e",), ("abs",), ("n", "e")], ids=str)
def test_if_with_outer_captures_and_any_layer_blocked(names, condition):
    source = if_model()
    got = mixed(source, blocked(*names), feeds={**feeds_for(source), "c": condition})
    assert formats(got)["if"] == "fp32"
    assert formats(got)["n"] == ("fp32" if "n" in names else "fp16")


@pytest.mark.parametrize("condition", BOTH)
def test_same_names_in_both_branches(condition):
    def branch(op, number):
        w = weight("w", np.full(4, number))
        return graph([node(op, ["x", "w"], ["t"], "same")], [], [value("t")], [w], name=f"b{number:.0f}")

    source = if_model(then=branch("Add", 2.0), other=branch("Mul", 3.0))
    got = mixed(source, feeds={**feeds_for(source), "c": condition})
    assert len(got.weights.weights) == 2
    mixed(source, blocked("same"), feeds={**feeds_for(source), "c": condition})


@pytest.mark.parametrize("condition", BOTH)
def test_branches_that_return_a_weight_or_a_constant(condition):
    then = graph([], [], [value("t")], [weight("t", np.full((2, 4), 2.0))], name="then")
    other = graph([node("Constant", [], ["t"], value=weight("", np.full((2, 4), 3.0)))], [], [value("t")], name="else")
    source = if_model(then=then, other=other)
    mixed(source, feeds={**feeds_for(source), "c": condition})


@pytest.mark.parametrize("condition", BOTH)
def test_a_low_value_of_the_outer_graph_is_cast_once_for_all_bodies(condition):
    inner = [graph([node(op, ["a"], ["t"], op)], [], [value("t")], name=op) for op in ("Exp", "Sin")]
    source = if_model(then=inner[0], other=inner[1], nodes=[node("Neg", ["x"], ["a"], "n")])
    got = mixed(source, blocked("Exp", "Sin"), feeds={**feeds_for(source), "c": condition})
    assert len([cast for cast in got.casts if cast.value == "a" and cast.to == "fp32"]) == 1


@pytest.mark.parametrize("condition", BOTH)
def test_nested_ifs_with_captures_from_every_level(condition):
    inner = graph([node("Mul", ["x", "m"], ["u"], "deep")], [], [value("u")], name="inner")
    inner2 = graph([node("Sub", ["m", "w"], ["u"], "deep2")], [], [value("u")], name="inner2")
    then = graph(
        [node("Neg", ["x"], ["m"], "mid"), node("If", ["c"], ["t"], "if2", then_branch=inner, else_branch=inner2)],
        [], [value("t")], name="then",
    )  # fmt: skip
    source = if_model(then=then, weights=[weight("w", np.ones(4))])
    for names in ((), ("deep",), ("mid",), ("if",), ("if2",)):
        mixed(source, blocked(*names), feeds={**feeds_for(source), "c": condition})


def loop_model(*, opset=17):
    body = graph(
        [
            node("Mul", ["s", "k"], ["m"], "mul"),
            node("Add", ["m", "x"], ["s2"], "add"),
            node("ReduceSum", ["s2"], ["total"], "sum", keepdims=0),
            node("Less", ["total", "limit"], ["go2"], "less"),
            node("Relu", ["s2"], ["scan"], "relu"),
        ],
        [value("i", (), INT64), value("go", (), BOOL), value("s")],
        [value("go2", (), BOOL), value("s2"), value("scan")],
        name="body",
    )
    nodes = [
        node("Neg", ["x"], ["start"], "neg"),
        node("Loop", ["n", "true", "start"], ["last", "all"], "loop", body=body),
        node("Abs", ["last"], ["y"], "abs"),
    ]
    ws = [
        weight("n", np.int64(3)),
        weight("true", np.array(True)),
        weight("k", np.float32(0.5)),
        weight("limit", np.float32(1e6)),
    ]
    return model(nodes, [X], [Y, value("all", (None, 2, 4))], ws, opset=opset)


@pytest.mark.parametrize("names", [(), ("loop",), ("mul",), ("add",), ("relu",), ("less", "sum"), ("neg",)], ids=str)
def test_loops_with_captures_scan_outputs_and_a_computed_condition(names):
    got = mixed(loop_model(), blocked(*names))
    assert {"loop", "mul", "add", "relu"} <= set(formats(got))
    assert got.decisions.typing.model.layer("mul").container == "loop"


@pytest.mark.parametrize("opset", [9, 11, 17, 21])
@pytest.mark.parametrize("names", [(), ("scan",), ("add",), ("relu",)], ids=str)
def test_scans(names, opset):
    body = graph(
        [node("Add", ["s", "e"], ["s2"], "add"), node("Relu", ["s2"], ["o"], "relu")],
        [value("s", (4,)), value("e", (4,))],
        [value("s2", (4,)), value("o", (4,))],
        name="body",
    )
    nodes = [node("Scan", ["zero", "x"], ["y", "all"], "scan", body=body, num_scan_inputs=1)]
    source = model(nodes, [X], [value("y", (4,)), value("all", (2, 4))], [weight("zero", np.zeros(4))], opset=opset)
    mixed(source, blocked(*names))


def test_scan_of_opset_8_has_a_batch_axis():
    body = graph(
        [node("Add", ["s", "e"], ["s2"], "add"), node("Relu", ["s2"], ["o"], "relu")],
        [value("s", (4,)), value("e", (4,))],
        [value("s2", (4,)), value("o", (4,))],
        name="body",
    )
    nodes = [node("Scan", ["", "start", "x"], ["y", "all"], "scan", body=body, num_scan_inputs=1)]
    inputs = [value("start", (1, 4)), value("x", (1, 3, 4))]
    source = model(nodes, inputs, [value("y", (1, 4)), value("all", (1, 3, 4))], opset=8)
    mixed(source)


def test_loop_inside_if():
    body = graph(
        [node("Add", ["s", "x"], ["s2"], "add"), node("Identity", ["go"], ["go2"], "id")],
        [value("i", (), INT64), value("go", (), BOOL), value("s")],
        [value("go2", (), BOOL), value("s2")],
        name="body",
    )
    then = graph([node("Loop", ["n", "", "x"], ["t"], "loop", body=body)], [], [value("t")], name="then")
    source = if_model(then=then, weights=[weight("n", np.int64(2))])
    for condition in BOTH:
        mixed(source, feeds={**feeds_for(source), "c": condition})


# --- quantized models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [10, 13, 17, 19, 21, 23])
@pytest.mark.parametrize(
    "plan", [Plan(), Plan().block(op_types=["MatMul"]), Plan(format="bf16")], ids=["full", "block", "bf16"]
)
def test_quantized_models_keep_their_scales(opset, plan):
    if plan.format == "bf16" and opset < 13:
        pytest.skip("opset 10 has no bfloat16")
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["qx"], "q"),
        node("DequantizeLinear", ["qx", "sx", "zx"], ["dx"], "dq"),
        node("DequantizeLinear", ["qw", "sw", "zw"], ["dw"], "dqw"),
        node("MatMul", ["dx", "dw"], ["a"], "mm"),
        node("QuantizeLinear", ["a", "sa", "zx"], ["qa"], "qa"),
        node("DequantizeLinear", ["qa", "sa", "zx"], ["y"], "dqa"),
    ]
    ws = [
        weight("sx", np.float32(0.0123456)), weight("zx", np.uint8(128)), weight("sw", np.float32(0.0345678)),
        weight("zw", np.int8(0)), weight("sa", np.float32(0.05)),
        weight("qw", np.arange(-8, 8, dtype=np.int8).reshape(4, 4)),
    ]  # fmt: skip
    source = model(nodes, [X], [Y], ws, opset=opset)
    x = np.full((2, 4), 0.0123456 * 40, np.float32)
    got = mixed(source, plan, feeds={"x": x}, runs=plan.format == "fp16", tolerance=200)
    assert {types_of(got.proto)[name] for name in ("sx", "sw", "sa")} == {FLOAT}
    assert formats(got)["mm"] == "int8"  # whatever the plan: it is between the source model's own pairs


@pytest.mark.parametrize("opset", [10, 21])
def test_qlinear_operators_keep_their_scales(opset):
    nodes = [
        node("Neg", ["x"], ["n"], "n"),
        node("QuantizeLinear", ["n", "s", "z"], ["q"], "q"),
        node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["r"], "qmm"),
        node("DequantizeLinear", ["r", "s", "z"], ["y"], "dq"),
    ]
    ws = [weight("s", np.float32(0.1)), weight("z", np.uint8(128)), weight("w", np.full((4, 4), 130, np.uint8))]
    got = mixed(model(nodes, [X], [Y], ws, opset=opset), tolerance=200)
    assert formats(got)["qmm"] == "int8"
    assert types_of(got.proto)["s"] == FLOAT
