"""The switchable graph with true low-precision operators: valid, typed, and the fp32 model where nothing runs low."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import FLOAT, INT64, model, node, run, value, weight
from support.probing import entries, feeds_of, random_graphs, same

from explorer.convert import convert, decide, type_layers
from explorer.errors import PlanError
from explorer.model import load_model, load_samples
from explorer.model.graph import check_structure
from explorer.plan import Plan
from explorer.probe import Emulator
from explorer.probe.fidelity import Fidelity, compare_errors, measure_fidelity
from explorer.probe.graphs import weave_local
from explorer.probe.low import lower_bodies
from explorer.probe.native import NativeLayers
from explorer.probe.switchable import weave_switchable
from explorer.probe.weave import EmulationGraph

TYPES = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
BOTH = st.sampled_from(tuple(TYPES))
LAW = settings(max_examples=25, deadline=None)


def natively(proto, low_format="fp16"):
    loaded = load_model(proto)
    typing = type_layers(loaded, low_format)
    return loaded, typing, weave_switchable(typing, {}, native=True)


def branches(woven):
    """Yields the If of each layer on the plan's path: its name without suffix, its low branch and its high one."""
    for item in onnx.ModelProto.FromString(woven.model).graph.node:
        if item.op_type == "If" and item.name.endswith("::plan"):
            found = {attribute.name: attribute.g for attribute in item.attribute}
            yield item.name.removesuffix("::plan"), found["then_branch"], found["else_branch"]


def typed(low, loaded, known):
    """The element type of every value in a low branch, from the types outside and the operators inside."""
    types = dict(known)
    for item in low.node:
        if item.op_type == "Cast":
            types[item.output[0]] = next(a.i for a in item.attribute if a.name == "to")
    return types


@LAW
@given(random_graphs(), st.integers(0, 99))
def test_with_nothing_low_it_computes_the_fp32_model_bit_for_bit(proto, seed):
    """In fp16: for bf16 this CPU has no kernels, even to load the graph."""
    low_format = "fp16"
    feeds, loaded = feeds_of(seed), load_model(proto)
    samples = load_samples(loaded, feeds)
    emulator = Emulator(type_layers(loaded, low_format), samples, native=True, threads=1)
    decisions = decide(Plan(format=low_format, base="fp32"), emulator.typing)
    found = emulator.accumulated(decisions, keep_outputs=True)
    assert all(sums["error_squares"] == 0 for sums in entries(found).values())
    for spec, wanted in zip(proto.graph.output, run(proto, feeds), strict=True):
        assert same(found.plan_outputs[spec.name], wanted)


@LAW
@given(random_graphs(), BOTH)
def test_low_branches_hold_operators_whose_inputs_are_low(proto, low_format):
    """Each input that may be low reaches the operator as the format's own type, each result comes back as float32."""
    loaded, typing, woven = natively(proto, low_format)
    weights = {tensor.name: tensor.data_type for tensor in onnx.ModelProto.FromString(woven.model).graph.initializer}
    seen = 0
    for layer_id, low, high in branches(woven):
        if layer_id not in typing.layers:
            continue  # the switch of a model input or output
        may = typing.layers[layer_id]
        (operator,) = [item for item in low.node if item.name == f"{layer_id}::low"]
        types = typed(low, loaded, weights)
        for index, takes_low in enumerate(may.low_inputs):
            if takes_low and operator.input[index]:
                assert types[operator.input[index]] == TYPES[low_format]
                seen += 1
        for index, gives_low in enumerate(may.low_outputs):
            if gives_low and operator.output[index]:
                (back,) = [item for item in low.node if item.input[0] == operator.output[index]]
                assert (back.op_type, types[back.output[0]]) == ("Cast", FLOAT)
                (told,) = [info for info in low.output if info.name == back.output[0]]
                assert told.type.tensor_type.elem_type == FLOAT
        assert [item.op_type for item in high.node] == [operator.op_type]
    assert seen or not any(may.switchable for may in typing.layers.values())


@LAW
@given(random_graphs(), BOTH)
def test_the_graphs_are_valid_onnx_with_types_that_agree(proto, low_format):
    _, typing, woven = natively(proto, low_format)
    for made in (woven, weave_local(typing, {}, native=True)):
        assert not made.arrays  # all weights are inside, so that the checker sees them
        checked = onnx.ModelProto.FromString(made.model)
        check_structure(checked)
        onnx.shape_inference.infer_shapes(checked, check_type=True, strict_mode=True)


@LAW
@given(random_graphs(), st.integers(0, 99))
def test_it_runs_with_everything_low(proto, seed):
    """On this CPU the numbers mean nothing (its provider drops casts), but every operator is found and shapes agree."""
    loaded = load_model(proto)
    emulator = Emulator(type_layers(loaded, "fp16"), load_samples(loaded, feeds_of(seed)), native=True, threads=1)
    found = emulator.accumulated(decide(Plan(), emulator.typing), keep_outputs=True)
    for name, exact in found.exact_outputs.items():
        assert np.shape(found.plan_outputs[name]) == np.shape(exact)
    assert set(emulator.local().values) <= set(emulator.typing.types)


def test_weights_are_stored_low_once():
    proto = model(
        [node("MatMul", ["x", "w"], ["a"], name="one"), node("MatMul", ["a", "w"], ["y"], name="two")],
        [value("x", [2, 3])],
        [value("y", [2, 3])],
        [weight("w", np.full((3, 3), 1 / 3, np.float32))],
    )
    _, _, woven = natively(proto)
    stored = [t for t in onnx.ModelProto.FromString(woven.model).graph.initializer if t.data_type == TYPES["fp16"]]
    assert len(stored) == 1
    assert (onnx.numpy_helper.to_array(stored[0]) == np.float16(1 / 3)).all()


def test_attributes_that_name_a_type_are_patched():
    proto = model(
        [
            node("Cast", ["n"], ["c"], name="cast", to=FLOAT),
            node("Shape", ["c"], ["s"], name="shape"),
            node("ConstantOfShape", ["s"], ["k"], name="fill", value=onnx.helper.make_tensor("v", FLOAT, [1], [0.1])),
            node("Add", ["c", "k"], ["y"], name="add"),
        ],
        [value("n", [3], INT64)],
        [value("y", [3])],
    )
    _, typing, woven = natively(proto)
    found = {name: low for name, low, _ in branches(woven)}
    cast = next(item for item in found["cast"].node if item.name == "cast::low")
    assert cast.attribute[0].i == TYPES["fp16"]
    if typing.layers["fill"].switchable:
        fill = next(item for item in found["fill"].node if item.name == "fill::low")
        assert onnx.numpy_helper.to_array(fill.attribute[0].t).dtype == np.float16


def test_layers_in_bodies_have_true_operators_too():
    body = onnx.helper.make_graph([node("Sqrt", ["x"], ["t"], name="root")], "t", [], [value("t", [2])])
    other = onnx.helper.make_graph([node("Abs", ["x"], ["e"], name="size")], "e", [], [value("e", [2])])
    proto = model(
        [node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=other)],
        [value("c", [], onnx.TensorProto.BOOL), value("x", [2])],
        [value("y", [2])],
    )
    loaded = load_model(proto)
    typing = type_layers(loaded, "fp16")
    made = EmulationGraph(loaded)
    low = NativeLayers(made, typing)
    copy = onnx.NodeProto()
    copy.CopyFrom(made.originals["if"])
    assert lower_bodies(low, copy)
    inner = next(attribute.g for attribute in copy.attribute if attribute.name == "then_branch")
    assert [item.op_type for item in inner.node] == ["Cast", "Sqrt", "Cast"]


@pytest.mark.parametrize("low_format", ["tf32", "int8", "fp8e4m3"])
def test_formats_without_operators_are_refused(low_format):
    proto = model([node("Relu", ["x"], ["y"], name="relu")], [value("x", [2])], [value("y", [2])])
    loaded = load_model(proto)
    with pytest.raises(PlanError, match="No ONNX operator computes in"):
        NativeLayers(EmulationGraph(loaded), type_layers(loaded, low_format))


def test_a_layer_is_what_conversion_makes_of_it():
    """A plan of one layer: same operator, same types of its inputs, same weight bits as the converted model."""
    proto = model(
        [node("MatMul", ["x", "w"], ["y"], name="product")],
        [value("x", [2, 3])],
        [value("y", [2, 3])],
        [weight("w", np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3))],
    )
    loaded, _, woven = natively(proto)
    converted = convert(loaded, Plan()).proto
    (theirs,) = [t for t in converted.graph.initializer if t.data_type == TYPES["fp16"]]
    (ours,) = [t for t in onnx.ModelProto.FromString(woven.model).graph.initializer if t.data_type == TYPES["fp16"]]
    assert onnx.numpy_helper.to_array(theirs).tobytes() == onnx.numpy_helper.to_array(ours).tobytes()
    ((_, low, _),) = [item for item in branches(woven) if item[0] == "product"]
    assert [item.op_type for item in low.node] == [item.op_type for item in converted.graph.node]


def fidelity(emulated, real, ops=None):
    names = tuple(f"v{index}" for index in range(len(emulated)))
    return Fidelity(names, names, tuple(ops or ["Op"] * len(emulated)), np.array(emulated), np.array(real))


def test_the_difference_is_in_decibels_of_the_real_error_over_the_emulated():
    found = fidelity([1e-3, 1e-3, 0.0, 0.0, np.nan, 1e-3, np.inf], [1e-3, 1e-2, 0.0, 1e-6, np.inf, np.nan, 1e-3])
    assert found.difference_db.tolist() == [0, pytest.approx(20), 0, np.inf, 0, np.inf, -np.inf]


def test_operators_are_summed_up_with_their_worst_layer():
    found = fidelity([1.0, 1.0, 1.0, 1.0], [1.0, 1.2, 0.1, 1.0], ["Conv", "Conv", "Conv", "Relu"]).by_op()
    assert [(item.op, item.count) for item in found] == [("Conv", 3), ("Relu", 1)]
    assert (found[0].worst_layer, found[0].worst_db) == ("v2", pytest.approx(-20))
    assert found[0].close == pytest.approx(2 / 3)


def test_both_sides_are_compared_by_value():
    proto = model(
        [node("Exp", ["x"], ["e"], name="exp"), node("Sum", ["e", "x"], ["y"], name="sum")],
        [value("x", [4])],
        [value("y", [4])],
    )
    loaded = load_model(proto)
    typing = type_layers(loaded, "fp16")
    samples = load_samples(loaded, {"x": np.linspace(0, 1, 4, dtype=np.float32)})
    errors = Emulator(typing, samples, threads=1).local()
    same_errors = compare_errors(typing, errors, errors)
    assert same_errors.layers == ("exp", "sum")
    assert same_errors.ops == ("Exp", "Sum")
    assert (same_errors.difference_db == 0).all()
    assert (same_errors.emulated > 0).all()
    on_cpu = measure_fidelity(typing, samples, provider="cpu", threads=1)
    assert on_cpu.values == same_errors.values
    assert (on_cpu.emulated == same_errors.emulated).all()
