"""Borders that break converters (outputs, functions, domains, opsets): each converted, checked, run and compared."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.graphs import (
    BFLOAT16,
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    NEWEST,
    RUNS_UP_TO,
    X,
    Y,
    Z,
    blocked,
    chain,
    formats,
    graph,
    mixed,
    model,
    node,
    run,
    value,
    weight,
)

from explorer.convert import convert
from explorer.errors import ConversionError
from explorer.model import load_model
from explorer.model.wire import serialized
from explorer.plan import Plan

# --- inputs and outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_io", [True, False])
@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([node("Neg", ["x"], ["y"], "n"), node("Exp", ["y"], ["z"], "e")], ["y", "z"]),
        ([node("Neg", ["x"], ["y"], "n")], ["x", "y"]),
        ([node("Add", ["x", "w"], ["y"], "n")], ["w", "y"]),
        ([node("Neg", ["x"], ["y"], "n")], ["y", "y"]),
        ([node("Identity", ["x"], ["y"], "i")], ["y"]),
        ([node("Identity", ["w"], ["y"], "i")], ["y"]),
        ([node("Constant", [], ["y"], value=weight("", np.ones((2, 4))))], ["y"]),
        ([], ["x"]),
        ([], ["w"]),
        ([node("Neg", ["x"], ["a"], "n"), node("Exp", ["a"], ["y"], "e")], ["a", "y"]),
    ],
    ids=[
        "consumed",
        "input-as-output",
        "weight-as-output",
        "twice",
        "identity",
        "identity-of-weight",
        "constant",
        "no-nodes",
        "no-nodes-weight",
        "two",
    ],
)
@pytest.mark.parametrize("plan", [Plan(), Plan().block(layers=["*"]), Plan(base="fp32")], ids=["full", "none", "fp32"])
def test_outputs_of_every_sort(nodes, outputs, plan, keep_io):
    if plan.rules and not [each for each in nodes if each.op_type != "Constant"]:
        pytest.skip("a rule that matches no layer is refused")
    plan = Plan(plan.format, plan.base, keep_io, plan.rules)
    source = model(nodes, [X], [value(name) for name in outputs], [weight("w", np.full((2, 4), 0.1))])
    got = mixed(source, plan)
    wanted = FLOAT if keep_io else FLOAT16
    assert {info.type.tensor_type.elem_type for info in got.proto.graph.output} == {wanted}
    assert {info.type.tensor_type.elem_type for info in got.proto.graph.input} == {wanted}


def test_outputs_stay_fp32_when_the_last_layer_is_blocked_or_low():
    nodes = [node("Neg", ["x"], ["a"], "n"), node("Exp", ["a"], ["y"], "e")]
    for plan in (Plan(), blocked("e"), blocked("n")):
        assert mixed(model(nodes, [X], [Y]), plan).proto.graph.output[0].type.tensor_type.elem_type == FLOAT


def test_an_output_without_a_declared_shape_or_rank():
    source = model([node("Neg", ["x"], ["y"], "n")], [value("x", None)], [value("y", None)])
    mixed(source, feeds={"x": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("keep_io", [True, False])
def test_initializers_that_a_user_may_override_stay_inputs(keep_io):
    nodes = [
        node("Add", ["x", "w"], ["a"], "a"),
        node("Reshape", ["w", "s"], ["b"], "r"),
        node("Mul", ["a", "b"], ["y"], "m"),
    ]
    w = weight("w", np.full((2, 4), 3.0))
    source = model(nodes, [X, value("w")], [Y], [w, weight("s", np.int64([2, 4]))], ir_version=8)
    got = mixed(source, Plan(keep_io=keep_io))
    assert [info.name for info in got.proto.graph.input] == ["x", "w"]
    x = np.ones((2, 4), np.float32)
    kind = np.float32 if keep_io else np.float16
    override = {"x": x.astype(kind), "w": x}
    np.testing.assert_allclose(run(got.proto, override)[0].astype(np.float32), run(source, {"x": x, "w": x})[0])


def test_models_of_ir_3_list_weights_as_inputs():
    w = weight("w", np.full(4, 0.5))
    source = model([node("Add", ["x", "w"], ["y"], "a")], [X, value("w", (4,))], [Y], [w], opset=9, ir_version=3)
    got = mixed(source)
    assert [info.name for info in got.proto.graph.input] == ["x"]


def test_an_empty_tensor_passes():
    nodes = [node("Concat", ["x", "none"], ["a"], "c", axis=0), node("Neg", ["a"], ["y"], "n")]
    mixed(model(nodes, [X], [Y], [weight("none", np.zeros((0, 4)))]))


def test_scalars_pass():
    mixed(model([node("Mul", ["x", "k"], ["y"], "m")], [X], [Y], [weight("k", np.float32(3))]))


# --- local functions -------------------------------------------------------------------------------------------------


def function(name, inputs, outputs, nodes, *, attributes=(), opset=17):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs, outputs, nodes, imports, attributes=list(attributes))


def test_local_functions_are_inlined_and_their_layers_can_be_chosen():
    slope = node("LeakyRelu", ["a"], ["b"], "leaky")
    slope.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    block = function("Block", ["a"], ["b"], [slope], attributes=["slope"])
    twice = function(
        "Twice", ["p"], ["r"],
        [
            helper.make_node("Block", ["p"], ["q"], domain="local", slope=0.5),
            helper.make_node("Block", ["q"], ["r"], domain="local", slope=0.25),
        ],
    )  # fmt: skip
    nodes = [
        helper.make_node("Twice", ["x"], ["m"], domain="local"),
        helper.make_node("Twice", ["m"], ["y"], domain="local"),
    ]
    source = model(nodes, [X], [Y], functions=[block, twice], domains=["local"])
    got = mixed(source)
    assert [layer.op for layer in got.decisions.typing.model.layers] == ["LeakyRelu"] * 4
    assert not got.proto.functions


def test_a_function_that_returns_its_input_keeps_the_names_of_inputs_and_outputs():
    same = function("Same", ["a", "b"], ["a", "c"], [node("Neg", ["b"], ["c"])])
    nodes = [helper.make_node("Same", ["x", "x"], ["y", "z"], domain="local")]
    got = mixed(model(nodes, [X], [Y, Z], functions=[same], domains=["local"]), runs=False)  # ONNX Runtime refuses it
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(got.proto, {"x": x}), [x, -x])


def test_functions_with_constants_and_bodies():
    then = graph([node("Neg", ["a"], ["t"])], [], [value("t", None)], name="then")
    other = graph([node("Add", ["a", "k"], ["t"])], [], [value("t", None)], name="else")
    body = [
        node("Constant", [], ["k"], value_float=2.0),
        node("Constant", [], ["yes"], value=weight("", np.array(True))),
        node("If", ["yes"], ["b"], then_branch=then, else_branch=other),
    ]
    source = model(
        [helper.make_node("F", ["x"], ["y"], domain="local")], [X], [Y],
        functions=[function("F", ["a"], ["b"], body)], domains=["local"],
    )  # fmt: skip
    mixed(source)


# --- sequences, optionals, strings -----------------------------------------------------------------------------------


def test_sequences_keep_their_element_type():
    nodes = [
        node("Neg", ["x"], ["a"], "n"),
        node("SequenceConstruct", ["a", "x"], ["s"], "seq"),
        node("SequenceAt", ["s", "zero"], ["b"], "at"),
        node("ConcatFromSequence", ["s"], ["all"], "cat", axis=0),
        node("Abs", ["b"], ["y"], "abs"),
    ]
    got = mixed(model(nodes, [X], [Y, value("all", (4, 4))], [weight("zero", np.int64(0))]))
    assert formats(got) == {"n": "fp16", "seq": "fp32", "at": "fp32", "cat": "fp32", "abs": "fp16"}


def test_split_to_sequence_and_a_sequence_output():
    nodes = [node("Neg", ["x"], ["a"], "n"), node("SplitToSequence", ["a"], ["s"], "split", axis=0)]
    output = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    mixed(model(nodes, [X], [output]))


def test_a_sequence_that_a_loop_carries():
    body = graph(
        [
            node("Neg", ["x"], ["m"], "neg"),
            node("SequenceInsert", ["s", "m"], ["s2"], "ins"),
            node("Identity", ["go"], ["go2"], "id"),
        ],
        [value("i", (), INT64), value("go", (), BOOL), helper.make_tensor_sequence_value_info("s", FLOAT, None)],
        [value("go2", (), BOOL), helper.make_tensor_sequence_value_info("s2", FLOAT, None)],
        name="body",
    )  # fmt: skip
    nodes = [
        node("SequenceEmpty", [], ["start"], "empty", dtype=FLOAT),
        node("Loop", ["n", "", "start"], ["s9"], "loop", body=body),
        node("ConcatFromSequence", ["s9"], ["y"], "cat", axis=0),
    ]
    mixed(model(nodes, [X], [value("y", (4, 4))], [weight("n", np.int64(2))]))


def test_optionals_keep_their_element_type():
    nodes = [
        node("Neg", ["x"], ["a"], "n"),
        node("Optional", ["a"], ["o"], "opt"),
        node("OptionalGetElement", ["o"], ["b"], "get"),
        node("Abs", ["b"], ["y"], "abs"),
    ]
    got = mixed(model(nodes, [X], [Y], opset=18))
    assert formats(got)["opt"] == formats(got)["get"] == "fp32"


# --- operators that nobody knows -------------------------------------------------------------------------------------


def test_custom_operators_stay_in_fp32_and_so_does_what_depends_on_their_types():
    nodes = [
        node("Neg", ["x"], ["n"], "n"),
        helper.make_node("Mystery", ["n"], ["m"], "m", domain="my.domain"),
        node("Add", ["x", "m"], ["a"], "a"),
        node("Abs", ["x"], ["y"], "abs"),
    ]
    source = model(nodes, [X], [Y, value("a")], domains=["my.domain"])
    got = mixed(source, runs=False)
    assert formats(got) == {"n": "fp16", "m": "fp32", "a": "fp32", "abs": "fp16"}
    assert "my.domain" in got.decisions["m"].reason
    assert "unknown" in got.decisions["a"].reason


def test_custom_operators_with_declared_types_let_their_consumers_run_low():
    nodes = [helper.make_node("Mystery", ["x"], ["m"], "m", domain="my.domain"), node("Add", ["x", "m"], ["y"], "a")]
    source = model(nodes, [X], [Y], domains=["my.domain"], value_info=[value("m")])
    assert formats(mixed(source, runs=False)) == {"m": "fp32", "a": "fp16"}


def test_microsoft_operators_run_and_stay_in_fp32():
    nodes = [
        node("Neg", ["x"], ["n"], "n"),
        helper.make_node("Gelu", ["n"], ["g"], "gelu", domain="com.microsoft"),
        node("Abs", ["g"], ["y"], "a"),
    ]
    got = mixed(model(nodes, [X], [Y], domains=["com.microsoft"]))
    assert formats(got)["gelu"] == "fp32"


def test_the_standard_domain_by_its_other_name():
    nodes = [helper.make_node("Neg", ["x"], ["a"], "n", domain="ai.onnx"), node("Abs", ["a"], ["y"], "a")]
    source = model(nodes, [X], [Y])
    assert formats(mixed(source)) == {"n": "fp16", "a": "fp16"}


def test_classical_machine_learning_operators_stay():
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], "s", domain="ai.onnx.ml", offset=[0.5], scale=[2.0]),
        node("Abs", ["s"], ["y"], "a"),
    ]
    got = mixed(model(nodes, [X], [Y], domains=["ai.onnx.ml"]))
    assert formats(got)["s"] == "fp32"


# --- opsets, formats, storage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(9, NEWEST + 1))
def test_every_opset(opset):
    source = chain(8, opset=opset)
    plan = Plan().block(op_types=["Mul"])
    got = mixed(source, plan, runs=opset <= RUNS_UP_TO)
    assert set(formats(got).values()) == {"fp16", "fp32"}
    if opset >= 13:
        mixed(source, Plan(format="bf16"), runs=False)
    else:
        with pytest.raises(ConversionError, match="bfloat16 from opset 13"):
            convert(load_model(source), Plan(format="bf16"))


def test_bfloat16_as_target_gives_what_rounding_gives():
    source = model([node("Add", ["x", "w"], ["y"], "a")], [X], [Y], [weight("w", np.linspace(0, 1, 4))])
    got = mixed(source, Plan(format="bf16"), runs=False)
    assert got.proto.graph.initializer[0].data_type == BFLOAT16


def test_int8_without_a_calibration_is_refused_with_a_reason():
    source = model([node("MatMul", ["x", "w"], ["y"], "a")], [X], [Y], [weight("w", np.eye(4))])
    with pytest.raises(ConversionError, match="There is no calibration"):
        convert(load_model(source), Plan(format="int8"))


def test_tf32_is_a_mode_and_not_a_type():
    source = model([node("MatMul", ["x", "w"], ["y"], "a")], [X], [Y], [weight("w", np.eye(4))])
    got = convert(load_model(source), Plan(format="tf32"))
    assert "mode" in got.notes[-1]
    assert not got.casts
    assert got.proto.graph.node[0].op_type == "MatMul"


def test_external_weights_in_and_out(tmp_path):
    source = chain(12)
    path = tmp_path / "in.onnx"
    onnx.save_model(
        onnx.ModelProto.FromString(source.SerializeToString()),
        path,
        save_as_external_data=True,
        location="in.bin",
        size_threshold=0,
    )
    before = (path.read_bytes(), (tmp_path / "in.bin").read_bytes())
    loaded = load_model(path)
    got = convert(loaded, Plan())
    inside = convert(load_model(source), Plan())
    one, other = ({tensor.name: tensor.raw_data for tensor in each.proto.graph.initializer} for each in (got, inside))
    assert one == other

    again = onnx.ModelProto.FromString(b"".join(serialized(convert(loaded, Plan().block(layers=["*_0"])).ir)))
    onnx.checker.check_model(again, full_check=True)
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in again.graph.initializer)
    assert (path.read_bytes(), (tmp_path / "in.bin").read_bytes()) == before


def test_ten_thousand_layers_take_no_quadratic_time():
    """A hang guard: what it takes on a quiet machine is for the benchmarks."""
    times = {}
    for count in (2_500, 10_000):
        loaded = load_model(chain(count))
        start = time.process_time()
        got = convert(loaded, Plan().block(op_types=["Relu"]))
        times[count] = time.process_time() - start
        assert len(got.decisions) == count
    assert times[10_000] < 15
    assert times[10_000] < 10 * times[2_500], f"4 times the layers: {times}"
