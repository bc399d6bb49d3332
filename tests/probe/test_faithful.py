"""What is emulated is what is exported: the exported model, evaluated as its types demand, gives the same numbers."""

from __future__ import annotations

import inspect
import re
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import support.faithful
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from support.faithful import evaluate, faithful
from support.graphs import BOOL, FLOAT, INT64, feeds_for, graph, model, node, run, value, weight
from support.probing import Bench, feeds_of, plans_for, random_graphs, rounded, same

from explorer.convert import convert, decide, type_layers
from explorer.model import Samples, load_model
from explorer.plan import Plan
from explorer.probe import Emulator

SLOW_GRAPHS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def assert_as_exported(proto, plan, feeds=None):
    """The emulated outputs equal those of the exported model."""
    feeds = feeds_for(proto) if feeds is None else feeds
    bench = Bench.of(proto, feeds, plan)
    found, exported = bench.planned(), evaluate(bench.converted(), feeds)
    assert set(found) == set(exported)
    for name, wanted in exported.items():
        assert same(found[name], wanted), f"{name} under {plan}:\n{found[name]}\n{wanted}"
    return found


# -- the evaluator itself ------------------------------------------------------------------------------------------


def test_the_evaluator_agrees_with_onnx_reference_evaluator():
    """On elementwise operators, onnx's own evaluator computes fp16 graphs in numpy: both give the same."""
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node("Add", ["a", "x"], ["b"], "add"),
        node("Relu", ["b"], ["c"], "relu"),
        node("Sub", ["c", "w"], ["d"], "sub"),
        node("Div", ["d", "w"], ["e"], "div"),
        node("Max", ["e", "x"], ["y"], "max"),
    ]
    proto = model(nodes, [value("x")], [value("y")], [weight("w", [0.3, 7000.0, -0.001, 1.7])])
    bench = Bench.of(proto, {"x": np.float32([[0.1, 9.7, 3.0, 1e-3], [5.0, -2.0, 1e-7, 100.0]])})
    for plan in (Plan(), Plan(keep_io=False), Plan().block(op_types=["Add", "Div"])):
        converted = bench.converted(plan)
        feeds = {"x": bench.emulator.samples.feeds[0]["x"]}
        low_feeds = {"x": feeds["x"] if plan.keep_io else feeds["x"].astype(np.float16)}
        with np.errstate(over="ignore"):
            (wanted,) = ReferenceEvaluator(converted).run(None, low_feeds)
        assert same(evaluate(converted, feeds)["y"], wanted.astype(np.float32))
        assert same(bench.planned(plan)["y"], wanted.astype(np.float32))


def test_the_evaluator_leaves_no_low_arithmetic_behind():
    """In the rewritten model only Casts see low tensors."""
    proto = model([node("Add", ["x", "x"], ["a"]), node("Exp", ["a"], ["y"])], [value("x")], [value("y")])
    rewritten = faithful(Bench.of(proto).converted())
    casts = [each for each in rewritten.graph.node if each.op_type == "Cast"]
    low = {each.output[0] for each in casts if each.attribute[0].i != FLOAT}
    assert low
    assert not [each.name for each in rewritten.graph.node if each.op_type != "Cast" and low & set(each.input)]


# -- random graphs and plans ---------------------------------------------------------------------------------------


@SLOW_GRAPHS
@given(st.data())
def test_random_plans_of_random_graphs(data):
    """Blacklists, overrides, promote and movement layers, shared weights, both formats, I/O kept or not."""
    proto = data.draw(random_graphs())
    plan = data.draw(plans_for(proto))
    assert_as_exported(proto, plan, feeds_of(data.draw(st.integers(0, 99)), scale=data.draw(st.sampled_from((1, 200)))))


# -- constructed cases ---------------------------------------------------------------------------------------------


PLANS = {
    "all low": Plan(),
    "all low, low I/O": Plan(keep_io=False),
    "bf16": Plan(format="bf16"),
    "adds blocked": Plan().block(op_types=["Add"]),
    "adds blocked, low I/O": Plan(keep_io=False).block(op_types=["Add"]),
}


def with_weight_in_both_precisions():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "low_use"),
        node("Add", ["x", "w"], ["b"], "high_use"),
        node("Sub", ["a", "b"], ["y"], "join"),
    ]
    return model(nodes, [value("x")], [value("y")], [weight("w", [0.1, 0.2, 70000.0, 1e-9])])


def with_movement_and_promotion():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "scale"),
        node("Transpose", ["a"], ["at"], "turn", perm=[1, 0]),
        node("Add", ["x", "w"], ["b"], "shift"),
        node("Transpose", ["b"], ["bt"], "turn_too", perm=[1, 0]),
        node("Concat", ["at", "bt", "kt"], ["c"], "join", axis=0),
        node("Slice", ["c", "zero", "five"], ["d"], "cut"),
        node("Max", ["d", "m"], ["y"], "limit"),
    ]
    weights = [weight("w", [0.1, 0.2, 0.3, 0.7]), weight("kt", np.full((4, 2), 0.9)), weight("m", 0.123)]
    weights += [weight("zero", np.array([0])), weight("five", np.array([11]))]
    return model(nodes, [value("x")], [value("y", None)], weights)


def with_padding(opset):
    if opset < 11:
        pad = node("Pad", ["a"], ["b"], "pad", pads=[0, 1, 0, 1], value=0.1)
        weights = []
    else:
        pad = node("Pad", ["a", "pads", "fill"], ["b"], "pad")
        weights = [weight("pads", np.array([0, 1, 0, 1])), weight("fill", 0.1)]
    nodes = [node("Relu", ["x"], ["a"], "before"), pad, node("Add", ["b", "b"], ["y"], "after")]
    return model(nodes, [value("x")], [value("y", [2, 6])], weights, opset=opset)


def with_outputs_everywhere():
    """An output that is consumed, an input, a weight, and two that are one value."""
    nodes = [node("Mul", ["x", "w"], ["a"], "first"), node("Add", ["a", "w"], ["y"], "second")]
    return model(
        nodes, [value("x")], [value("y"), value("a"), value("x"), value("w", [4])], [weight("w", [0.1, 1, 2, 3])]
    )


def with_overridable_weight():
    nodes = [node("Mul", ["x", "w"], ["a"], "mul"), node("Sub", ["a", "w"], ["y"], "sub")]
    return model(nodes, [value("x"), value("w", [4])], [value("y")], [weight("w", [0.1, 0.2, 0.3, 0.4])])


def with_integers():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "scale"),
        node("ArgMax", ["a"], ["best"], "best", axis=1, keepdims=1),
        node("Cast", ["best"], ["f"], "cast", to=FLOAT),
        node("Cast", ["a"], ["i"], "trunc", to=INT64),
        node("Shape", ["a"], ["s"], "shape"),
        node("ConstantOfShape", ["s"], ["k"], "fill", value=numpy_helper.from_array(np.float32([0.1]))),
        node("Add", ["k", "f"], ["y"], "sum"),
    ]
    return model(nodes, [value("x")], [value("y"), value("i", dtype=INT64)], [weight("w", [1000.7, 0.1, 3.3, 4.4])])


def with_quantization():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "scale"),
        node("QuantizeLinear", ["a", "s", "z"], ["q"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "dq"),
        node("Add", ["d", "w"], ["y"], "add"),
    ]
    weights = [weight("w", [0.1, 0.2, 0.3, 0.4]), weight("s", 0.0123), weight("z", np.int8(3))]
    return model(nodes, [value("x")], [value("y")], weights, opset=17)


def with_normalizations():
    nodes = [
        node("Conv", ["x", "k"], ["a"], "conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], "bn"),
        node("Resize", ["n", "", "sc"], ["r"], "resize", mode="linear"),
        node("GlobalAveragePool", ["r"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flat"),
        node("LayerNormalization", ["f", "g", "b"], ["y"], "ln"),
    ]
    rng = np.random.default_rng(0)
    weights = [weight("k", rng.integers(-4, 4, (2, 2, 3, 3)) / 8), weight("sc", [1.0, 1.0, 2.0, 2.0])]
    weights += [weight(name, rng.random(2) + 0.1) for name in "gbmv"]
    return model(nodes, [value("x", (1, 2, 4, 4))], [value("y", (1, 2))], weights)


def with_if():
    """Both branches capture what is low outside, share an input between two layers, and use one name twice."""
    then = graph(
        [node("Mul", ["a", "w"], ["t1"], "mul"), node("Add", ["a", "t1"], ["t2"], "add"),
         node("Sub", ["t2", "a"], ["out"], "sub")],
        [], [value("out")],
    )  # fmt: skip
    other = graph([node("Div", ["a", "w"], ["t1"], "mul"), node("Exp", ["t1"], ["out"], "exp")], [], [value("out")])
    nodes = [
        node("Mul", ["x", "w"], ["a"], "before"),
        node("If", ["c"], ["b"], "branch", then_branch=then, else_branch=other),
        node("Add", ["a", "b"], ["y"], "after"),
    ]
    return model(nodes, [value("x"), value("c", (), BOOL)], [value("y")], [weight("w", [0.1, 0.7, 0.3, 0.9])])


def with_nested_if():
    """A branch inside a branch; both read the same outer tensor."""
    inner = graph([node("Mul", ["a", "w"], ["p"], "p"), node("Add", ["a", "p"], ["q"], "q")], [], [value("q")])
    spare = graph([node("Neg", ["a"], ["r"], "r")], [], [value("r")])
    then = graph(
        [node("Mul", ["a", "a"], ["s"], "s"), node("If", ["c"], ["t"], "inner", then_branch=inner, else_branch=spare),
         node("Add", ["s", "t"], ["u"], "u")],
        [], [value("u")],
    )  # fmt: skip
    other = graph([node("Identity", ["a"], ["o"], "o")], [], [value("o")])
    nodes = [
        node("Mul", ["x", "w"], ["a"], "before"),
        node("If", ["c"], ["y"], "outer", then_branch=then, else_branch=other),
    ]
    return model(nodes, [value("x"), value("c", (), BOOL)], [value("y")], [weight("w", [0.1, 0.7, 0.3, 0.9])])


def with_loop():
    body = graph(
        [node("Mul", ["state", "w"], ["m"], "scale"), node("Add", ["m", "a"], ["next"], "step"),
         node("Relu", ["next"], ["seen"], "look"), node("Identity", ["go"], ["going"], "keep")],
        [value("i", (), INT64), value("go", (), BOOL), value("state")],
        [value("going", (), BOOL), value("next"), value("seen")],
    )  # fmt: skip
    nodes = [
        node("Mul", ["x", "w"], ["a"], "before"),
        node("Loop", ["n", "", "a"], ["last", "all"], "loop", body=body),
        node("ReduceSum", ["all", "axes"], ["y"], "sum", keepdims=0),
    ]
    weights = [weight("w", [0.1, 0.7, 0.3, 0.9]), weight("n", np.array(3)), weight("axes", np.array([0]))]
    return model(nodes, [value("x")], [value("y"), value("last")], weights)


def with_scan():
    body = graph(
        [node("Add", ["state", "row"], ["sum"], "sum"), node("Mul", ["sum", "w"], ["next"], "next"),
         node("Tanh", ["sum"], ["out"], "out")],
        [value("state", [4]), value("row", [4])], [value("next", [4]), value("out", [4])],
    )  # fmt: skip
    nodes = [
        node("Mul", ["x", "w"], ["a"], "before"),
        node("Scan", ["start", "a"], ["last", "y"], "scan", body=body, num_scan_inputs=1),
    ]
    return model(
        nodes,
        [value("x")],
        [value("y"), value("last", [4])],
        [weight("w", [0.1, 0.7, 0.3, 0.9]), weight("start", np.zeros(4))],
    )


def with_sequences():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "before"),
        node("SplitToSequence", ["a"], ["seq"], "cut", axis=0),
        node("SequenceAt", ["seq", "one"], ["b"], "pick"),
        node("Add", ["b", "w"], ["y"], "after"),
    ]
    return model(
        nodes, [value("x")], [value("y", None)], [weight("w", [0.1, 0.7, 0.3, 0.9]), weight("one", np.array(1))]
    )


def with_several_outputs():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "before"),
        node("Split", ["a", "sizes"], ["b", "c"], "split", axis=1),
        node("TopK", ["a", "k"], ["v", "at"], "top"),
        node("Mul", ["b", "v"], ["d"], "mul"),
        node("Sum", ["d", "c", "v"], ["y"], "sum"),
    ]
    weights = [weight("w", [0.1, 0.7, 0.3, 0.9]), weight("sizes", np.array([2, 2])), weight("k", np.array([2]))]
    return model(nodes, [value("x")], [value("y", (2, 2)), value("at", (2, 2), INT64)], weights)


CASES = {
    "shared weight": with_weight_in_both_precisions(),
    "movement": with_movement_and_promotion(),
    "pad, opset 9": with_padding(9),
    "pad, opset 13": with_padding(13),
    "outputs": with_outputs_everywhere(),
    "overridable": with_overridable_weight(),
    "integers": with_integers(),
    "qdq": with_quantization(),
    "normalizations": with_normalizations(),
    "if": with_if(),
    "nested if": with_nested_if(),
    "loop": with_loop(),
    "scan": with_scan(),
    "sequences": with_sequences(),
    "several outputs": with_several_outputs(),
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("case", CASES)
def test_constructed_graphs(case, plan):
    """Every way in which a graph can be built, under every kind of plan."""
    proto, asked = CASES[case], PLANS[plan]
    if asked.format == "bf16" and proto.opset_import[0].version < 13:
        pytest.skip("ONNX has bfloat16 from opset 13 on")
    if asked.rules and not any(each.op_type == "Add" for each in _all_nodes(proto.graph)):
        asked = Plan(keep_io=asked.keep_io).block(op_types=[proto.graph.node[0].op_type])
    for condition in (False, True):
        feeds = feeds_for(proto)
        if "c" in feeds:
            feeds["c"] = np.array(condition)
        elif condition:
            continue
        assert_as_exported(proto, asked, feeds)


def _all_nodes(graph_proto):
    for each in graph_proto.node:
        yield each
        for attribute in each.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


@pytest.mark.parametrize("plan", ["all low", "adds blocked"])
@pytest.mark.parametrize("case", CASES)
def test_local_errors_run_on_every_graph(case, plan):
    """The local error of every layer is measured, control flow as one layer."""
    proto = CASES[case]
    plan = PLANS[plan] if any(each.op_type == "Add" for each in _all_nodes(proto.graph)) else Plan()
    bench = Bench.of(proto, feeds_for(proto), plan)
    found = bench.emulator.local()
    switchable = {
        name
        for layer in bench.model.layers
        if layer.container is None and bench.emulator.typing.layers[layer.id].switchable
        for name in layer.outputs
        if bench.emulator.typing.types[name].dtype == "float32"
    }
    assert switchable <= set(found.values)
    assert np.isfinite(found.sums.error_squares).all() or case == "shared weight"  # it holds 70,000


def test_overrides_of_body_layers_reach_the_bodies():
    """A layer inside a Loop body that the user sets to fp32 is fp32 in the emulation."""
    proto = with_loop()
    everything = assert_as_exported(proto, Plan())
    names = [layer.id for layer in Bench.of(proto).model.layers if layer.container == "loop" and layer.op != "Identity"]
    outside = assert_as_exported(proto, Plan().set(dict.fromkeys(names, "fp32")))
    assert not same(everything["y"], outside["y"])


def test_a_movement_layer_that_is_overridden_rounds_what_it_moves():
    """An override makes a layer that only moves data low although its input is fp32: its result is rounded."""
    nodes = [node("Relu", ["x"], ["a"], "relu"), node("Transpose", ["a"], ["y"], "turn")]
    proto = model(nodes, [value("x")], [value("y", [4, 2])])
    plan = Plan(base="fp32").set({"turn": "fp16"})
    feeds = feeds_for(proto)
    found = assert_as_exported(proto, plan, feeds)
    assert same(found["y"], rounded(np.maximum(feeds["x"], 0)).T)


def test_decisions_rule_the_switches():
    """A layer that conversion keeps in fp32 for its own reasons is fp32 in the emulation too."""
    nodes = [node("Mul", ["x", "w"], ["a"], "mul"), node("Custom", ["a"], ["b"], "custom", domain="my.ops")]
    del nodes[1]
    nodes.append(node("QuantizeLinear", ["a", "s", "z"], ["q"], "q"))
    nodes.append(node("DequantizeLinear", ["q", "s", "z"], ["y"], "dq"))
    weights = [weight("w", [0.1, 0.2, 0.3, 0.4]), weight("s", 0.0123), weight("z", np.int8(3))]
    proto = model(nodes, [value("x")], [value("y")], weights)
    bench = Bench.of(proto)
    assert {each.layer_id for each in bench.decisions() if each.format == "fp16"} == {"mul"}
    found = bench.planned()["y"]
    quantized = np.round(
        rounded(rounded(bench.emulator.samples.feeds[0]["x"]) * rounded([0.1, 0.2, 0.3, 0.4])) / np.float32(0.0123)
    )
    assert same(found, (np.clip(quantized + 3, -128, 127) - 3).astype(np.float32) * np.float32(0.0123))


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 17, 18, 20, 21, 22, 23, 24])
def test_every_opset(opset):
    """The graph and the sums that are woven into it are valid from opset 9 to the newest."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "mm"),
        node("Add", ["a", "b"], ["c"], "add"),
        node("BatchNormalization", ["c", "b", "b", "b", "v"], ["d"], "bn"),
        node("Softmax", ["d"], ["e"], "soft", axis=1),
        node("Identity", ["e"], ["y"], "same"),
    ]
    weights = [weight("w", np.arange(16).reshape(4, 4) / 16), weight("b", [1, 2, 3, 4.0]), weight("v", [1.0, 2, 1, 2])]
    proto = model(nodes, [value("x")], [value("y")], weights, opset=opset)
    assert_as_exported(proto, Plan())
    assert_as_exported(proto, Plan(keep_io=False).block(op_types=["Softmax"]))
    bench = Bench.of(proto)
    assert len(bench.emulator.local().values) == len(bench.emulator.ranges().values) == 5


UNEVALUATED = 5  # cases of the suite that onnx's own inference refuses (MeanVarianceNormalization)


@pytest.mark.slow
def test_every_case_of_the_node_suite():
    """Every operator that ONNX Runtime runs here: in fp32 the identity, low as exported, bit for bit."""
    compared, refused = 0, []
    for case in node_cases():
        feeds = case_feeds(case)
        if feeds is None:
            continue
        loaded = load_model(case.model)
        typing = type_layers(loaded, "fp16")
        emulator = Emulator(typing, Samples((feeds,), 1, "user"), threads=1)
        everything = {name: "fp16" for name, may in typing.layers.items() if may.switchable}
        for plan in (Plan(base="fp32"), Plan(), Plan(keep_io=False).set(everything)):
            found = emulator.accumulated(decide(plan, typing), keep_outputs=True)
            try:
                exported = evaluate(convert(loaded, plan).proto, feeds)
            except onnx.shape_inference.InferenceError:
                refused.append(case.name)
                continue
            for name, wanted in exported.items():
                if isinstance(wanted, np.ndarray) and wanted.dtype.kind != "O" and not RANDOM.search(case.name):
                    emulated = np.asarray(found.plan_outputs[name]).astype(wanted.dtype)  # low in the source: float32
                    assert same(emulated, wanted), f"{case.name}: {name} under {plan}"
                    compared += 1
        assert len(emulator.local().values) <= len(emulator.ranges().values)
    assert compared > 3500
    assert len(refused) <= UNEVALUATED, refused


RANDOM = re.compile("bernoulli|dropout|random")


def node_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own numpy code overflows on purpose
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - it runs the suite's numpy code

        return collect_testcases(None)


def case_feeds(case) -> dict[str, np.ndarray] | None:
    """The case's inputs, where it has a float32 one and ONNX Runtime runs it; else None."""
    kinds = {info.type.tensor_type.elem_type for info in case.model.graph.input}
    opset = next((item.version for item in case.model.opset_import if not item.domain), 1)
    tensors = [
        numpy_helper.to_array(each) if isinstance(each, onnx.TensorProto) else each for each in case.data_sets[0][0]
    ]
    if FLOAT not in kinds or opset < 9 or not all(isinstance(each, np.ndarray) for each in tensors):
        return None
    names = [info.name for info in case.model.graph.input]
    feeds = dict(zip(names, tensors, strict=False))
    state = ort.capi.onnxruntime_pybind11_state
    try:
        run(case.model, feeds)
    except (state.NotImplemented, state.Fail, state.InvalidGraph, state.InvalidArgument, RuntimeError, ValueError):
        return None
    return feeds


def test_the_evaluator_shares_no_code_with_the_emulator():
    """What checks the emulator must not use it."""
    imports = [line for line in inspect.getsource(support.faithful).splitlines() if "import" in line]
    assert not [line for line in imports if "explorer" in line]
