"""Shared tensors, names, casts and constants that break converters: each converted, checked, run and compared."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.graphs import (
    BFLOAT16,
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    X,
    Y,
    Z,
    blocked,
    feeds_for,
    formats,
    mixed,
    model,
    node,
    run,
    types_of,
    value,
    weight,
)

# --- tensors that several consumers share ----------------------------------------------------------------------------


def test_two_blocked_consumers_share_one_cast():
    source = model(
        [node("Neg", ["x"], ["a"], "n"), node("Exp", ["a"], ["y"], "e1"), node("Sin", ["a"], ["z"], "e2")], [X], [Y, Z]
    )
    got = mixed(source, blocked("e1", "e2"))
    assert [cast.to for cast in got.casts] == ["fp16", "fp32"]


def test_a_tensor_that_is_both_operands_is_cast_once():
    got = mixed(model([node("Mul", ["x", "x"], ["y"], "m")], [X], [Y]))
    assert len([cast for cast in got.casts if cast.value == "x"]) == 1


def test_a_weight_used_in_both_formats_is_there_twice_and_else_once():
    w = weight("w", np.linspace(-1, 1, 4))
    nodes = [node("Add", ["x", "w"], ["a"], "low"), node("Mul", ["a", "w"], ["y"], "high")]
    source = model(nodes, [X], [Y], [w])
    both = mixed(source, blocked("high")).proto.graph.initializer
    assert sorted(tensor.data_type for tensor in both) == [FLOAT, FLOAT16]
    once = mixed(source).proto.graph.initializer
    assert [(tensor.name, tensor.data_type) for tensor in once] == [("w", FLOAT16)]


def test_tied_weights_stay_tied():
    w = weight("w", np.eye(4))
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    got = mixed(model(nodes, [X], [Y], [w]))
    assert len(got.proto.graph.initializer) == 1
    assert len(got.weights.weights) == 1


def test_a_chain_of_blocked_layers_never_passes_through_fp16():
    nodes = [node("Exp", ["x"], ["a"], "e"), node("Log", ["a"], ["b"], "l"), node("Sin", ["b"], ["y"], "s")]
    got = mixed(model(nodes, [X], [Y]), blocked("e", "l", "s"))
    assert got.casts == ()


def test_reshapes_between_fp32_layers_stay_in_fp32_and_between_low_ones_low():
    nodes = [
        node("Exp", ["x"], ["a"], "e"),
        node("Transpose", ["a"], ["b"], "t1"),
        node("Sin", ["b"], ["c"], "s"),
        node("Neg", ["c"], ["d"], "n"),
        node("Transpose", ["d"], ["f"], "t2"),
        node("Abs", ["f"], ["y"], "abs"),
    ]
    got = mixed(model(nodes, [X], [Y]), blocked("e", "s"))
    assert formats(got) == {"e": "fp32", "t1": "fp32", "s": "fp32", "n": "fp16", "t2": "fp16", "abs": "fp16"}
    assert len(got.casts) == 2


def test_joins_take_the_widest():
    nodes = [
        node("Exp", ["x"], ["a"], "e"),
        node("Neg", ["x"], ["b"], "n"),
        node("Concat", ["a", "b"], ["y"], "c", axis=1),
    ]
    got = mixed(model(nodes, [X], [value("y", (2, 8))]), blocked("e"))
    assert formats(got)["c"] == "fp32"
    assert "widest" in got.decisions["c"].reason


# --- names -----------------------------------------------------------------------------------------------------------


def test_unnamed_and_duplicately_named_nodes_get_ids_of_their_own():
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Relu", ["a"], ["b"], "same"),
        node("Relu", ["b"], ["c"], "same"),
        node("Relu", ["c"], ["y"], "Relu_1"),
    ]
    got = mixed(model(nodes, [X], [Y]), blocked("same_2"), runs=False)  # ONNX Runtime refuses the source
    assert len(formats(got)) == 4
    np.testing.assert_array_equal(run(got.proto, {"x": np.full((2, 4), -1, np.float32)})[0], 0)
    assert formats(got)["same_2"] == "fp32"


def test_names_that_look_like_ours_are_left_alone():
    nodes = [
        node("Relu", ["x"], ["x_fp16"], "x_cast_fp16"),
        node("Neg", ["x_fp16"], ["y_fp16"], "y_cast_fp32"),
        node("Abs", ["y_fp16"], ["y"], "y_fp16_cast_fp32"),
    ]
    mixed(model(nodes, [X], [Y]))
    mixed(model(nodes, [X], [Y]), blocked("y_cast_fp32"))


def test_a_weight_named_as_its_low_twin_would_be():
    ws = [weight("w", np.ones(4)), weight("w_fp16", np.full(4, 2.0))]
    nodes = [
        node("Add", ["x", "w"], ["a"], "a1"),
        node("Add", ["a", "w_fp16"], ["b"], "a2"),
        node("Mul", ["b", "w"], ["y"], "m"),
    ]
    mixed(model(nodes, [X], [Y], ws), blocked("m"))


# --- casts of the source ---------------------------------------------------------------------------------------------


def test_a_cast_to_float_of_the_source_is_patched():
    nodes = [node("Cast", ["i"], ["a"], "c", to=FLOAT), node("Mul", ["a", "x"], ["y"], "m")]
    got = mixed(model(nodes, [X, value("i", dtype=INT64)], [Y]))
    assert formats(got)["c"] == "fp16"
    assert types_of(got.proto)["a"] == FLOAT16


def test_a_float_to_int_to_float_cast_is_no_pair_to_remove():
    nodes = [
        node("Mul", ["x", "k"], ["s"], "m"),
        node("Cast", ["s"], ["a"], "down", to=INT64),
        node("Cast", ["a"], ["y"], "up", to=FLOAT),
    ]
    source = model(nodes, [X], [Y], [weight("k", np.float32(8))])
    x = np.float32([[0.3, -0.3, 1.7, -1.7], [0.1, 0.2, 0.9, 2.5]])
    got = mixed(source, feeds={"x": x})
    np.testing.assert_array_equal(run(got.proto, {"x": x})[0], np.trunc(x * 8))


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, FLOAT16, BFLOAT16])
def test_casts_from_and_to_other_floats_keep_their_meaning(kind):
    nodes = [
        node("Neg", ["x"], ["n"], "n"),
        node("Cast", ["n"], ["a"], "out", to=kind),
        node("Cast", ["a"], ["b"], "back", to=FLOAT),
        node("Abs", ["b"], ["y"], "abs"),
    ]
    got = mixed(model(nodes, [X], [Y]), tolerance=16)
    assert formats(got)["back"] == "fp32"


def test_a_cast_of_a_cast_in_the_source_is_kept():
    nodes = [
        node("Cast", ["x"], ["a"], "c1", to=FLOAT),
        node("Cast", ["a"], ["b"], "c2", to=BOOL),
        node("Cast", ["b"], ["y"], "c3", to=FLOAT),
    ]
    mixed(model(nodes, [X], [Y]))


def test_text_keeps_its_digits():
    nodes = [node("Neg", ["x"], ["a"], "n"), node("Cast", ["a"], ["t"], "c", to=TensorProto.STRING)]
    got = mixed(model(nodes, [X], [value("t", dtype=TensorProto.STRING)]), runs=False)
    assert formats(got)["c"] == "fp32"


def test_cast_like_keeps_its_type():
    nodes = [node("Neg", ["x"], ["a"], "n"), node("CastLike", ["i", "a"], ["y"], "c")]
    got = mixed(model(nodes, [X, value("i", dtype=INT64)], [Y]))
    assert formats(got)["c"] == "fp32"


# --- constants -------------------------------------------------------------------------------------------------------


CONSTANTS = {
    "value": {"value": weight("", np.float32([1, 2, 3, 4]))},
    "value_float": {"value_float": 1.5},
    "value_floats": {"value_floats": [1.0, 2.0, 3.0, 4.0]},
    "sparse_value": {
        "sparse_value": helper.make_sparse_tensor(weight("s", np.float32([5, 7])), weight("i", np.int64([0, 3])), [4])
    },
    "sparse_value_by_axis": {
        "sparse_value": helper.make_sparse_tensor(
            weight("s", np.float32([5, 7])), weight("i", np.int64([[0, 1], [1, 3]])), [2, 4]
        )
    },
}


@pytest.mark.parametrize("form", CONSTANTS)
def test_constants_in_every_form_are_weights(form):
    nodes = [node("Constant", [], ["k"], **CONSTANTS[form]), node("Add", ["x", "k"], ["y"], "a")]
    got = mixed(model(nodes, [X], [Y]))
    assert [layer.id for layer in got.decisions.typing.model.layers] == ["a"]
    assert types_of(got.proto)["k"] == FLOAT16


@pytest.mark.parametrize("form", ["value_int", "value_ints"])
def test_integer_constants_stay_integers(form):
    nodes = [
        node("Constant", [], ["k"], **{form: -1 if form == "value_int" else [-1]}),
        node("Unsqueeze", ["k", "zero"], ["s"]) if form == "value_int" else node("Identity", ["k"], ["s"]),
        node("Reshape", ["x", "s"], ["y"]),
    ]
    mixed(model(nodes, [X], [value("y", (8,))], [weight("zero", np.int64([0]))]))


@pytest.mark.parametrize("texts", [{"value_string": "é"}, {"value_strings": ["a", "ü"]}])
def test_text_constants_survive(texts):
    shape = () if "value_string" in texts else (2,)
    nodes = [
        node("Constant", [], ["k"], **texts),
        node("Identity", ["k"], ["t"]),
        node("Neg", ["x"], ["y"]),
    ]
    source = model(nodes, [X], [Y, value("t", shape, TensorProto.STRING)])
    got = mixed(source)
    assert run(got.proto, feeds_for(source))[1].tolist() == run(source, feeds_for(source))[1].tolist()


def test_sparse_initializers_become_dense_ones():
    sparse = helper.make_sparse_tensor(weight("k", np.float32([5, 7])), weight("i", np.int64([0, 3])), [4])
    source = model([node("Mul", ["x", "k"], ["y"], "m")], [X], [Y], sparse_initializer=[sparse])
    got = mixed(source)
    assert formats(got) == {"m": "fp16"}


@pytest.mark.parametrize(
    "made",
    [
        node("ConstantOfShape", ["s"], ["k"], "k", value=weight("v", np.float32([0.1]))),
        node("ConstantOfShape", ["s"], ["k"], "k"),
        node("EyeLike", ["i"], ["k"], "k", dtype=FLOAT),
        node("EyeLike", ["x"], ["k"], "k"),
        node("RandomNormal", [], ["k"], "k", dtype=FLOAT, shape=[2, 4]),
        node("RandomNormal", [], ["k"], "k", shape=[2, 4]),
        node("RandomUniformLike", ["x"], ["k"], "k"),
    ],
    ids=lambda made: f"{made.op_type}-{len(made.attribute)}",
)
def test_dtype_attributes_are_patched_with_the_type(made):
    nodes = [made, node("Add", ["x", "k"], ["y"], "a")]
    source = model(nodes, [X, value("i", dtype=INT64)], [Y], [weight("s", np.int64([2, 4]))])
    got = mixed(source, runs=made.op_type == "ConstantOfShape")  # the CPU has no float16 EyeLike
    assert formats(got)["a"] == "fp16"
    assert formats(got)["k"] == ("fp32" if made.op_type.startswith("Random") else "fp16")


@pytest.mark.parametrize("window", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows(window):
    nodes = [node(window, ["n"], ["k"], "k"), node("Mul", ["x", "k"], ["y"], "m")]
    got = mixed(model(nodes, [X], [Y], [weight("n", np.int64(4))]))
    assert formats(got)["k"] == "fp16"


def test_range_of_floats():
    nodes = [node("Range", ["a", "b", "c"], ["k"], "r"), node("Add", ["x", "k"], ["y"], "m")]
    ws = [weight(name, np.float32(number)) for name, number in (("a", 0), ("b", 4), ("c", 1))]
    mixed(model(nodes, [X], [Y], ws))
