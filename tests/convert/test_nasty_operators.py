"""Operators and values that break converters: each converted, checked, run and compared."""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs import (
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    X,
    Y,
    blocked,
    feeds_for,
    formats,
    inserted_casts,
    mixed,
    model,
    node,
    run,
    types_of,
    value,
    weight,
)

from explorer.plan import Plan

# --- operators with inputs that stay in fp32 -------------------------------------------------------------------------


IMAGE = value("x", (1, 3, 4, 4))


@pytest.mark.parametrize("opset", [10, 11, 13, 18, 19, 21])
def test_resize_keeps_scales_and_roi(opset):
    nodes = [node("Neg", ["x"], ["n"], "n"), node("Shape", ["n"], ["shape"], "s")]
    scales = weight("scales", np.float32([1, 1, 2, 2]))
    if opset == 10:
        nodes.append(node("Resize", ["n", "scales"], ["y"], "r"))
    else:
        nodes.append(
            node(
                "Resize",
                ["n", "roi", "scales"],
                ["y"],
                "r",
                coordinate_transformation_mode="tf_crop_and_resize",
                mode="linear",
            )
        )
    roi = weight("roi", np.float32([0, 0, 0, 0, 1, 1, 1, 1]))
    got = mixed(model(nodes, [IMAGE], [value("y", (1, 3, 8, 8))], [scales, roi], opset=opset))
    assert formats(got)["r"] == "fp16"
    assert types_of(got.proto)["scales"] == types_of(got.proto)["roi"] == FLOAT


def test_resize_by_sizes_with_absent_inputs():
    nodes = [node("Resize", ["x", "", "", "sizes"], ["y"], "r", mode="nearest")]
    mixed(model(nodes, [IMAGE], [value("y", (1, 3, 8, 8))], [weight("sizes", np.int64([1, 3, 8, 8]))]))


def test_resize_with_computed_scales():
    nodes = [node("Abs", ["f"], ["g"], "a"), node("Resize", ["x", "", "g"], ["y"], "r", mode="nearest")]
    source = model(nodes, [IMAGE, value("f", (4,))], [value("y", (None,) * 4)])
    mixed(source, feeds={**feeds_for(source), "f": np.float32([1, 1, 2, 2])})


@pytest.mark.parametrize("opset", [9, 14, 15, 21])
def test_batch_normalization_keeps_its_parameters_where_the_schema_lets_it(opset):
    ws = [weight(name, np.full(3, number)) for name, number in (("s", 1.5), ("b", 0.1), ("m", 0.2), ("v", 1e-3))]
    got = mixed(
        model(
            [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], "bn")],
            [IMAGE],
            [value("y", (1, 3, 4, 4))],
            ws,
            opset=opset,
        )
    )
    assert formats(got)["bn"] == "fp16"
    # opset 14 has one type for the statistics; before 15 the scale shares the type of the input
    assert types_of(got.proto)["v"] == (FLOAT if opset >= 14 else FLOAT16)
    assert types_of(got.proto)["s"] == (FLOAT if opset >= 15 else FLOAT16)


def test_layer_normalization_keeps_its_optional_results_in_fp32():
    ws = [weight("s", np.ones(4)), weight("b", np.zeros(4))]
    nodes = [node("LayerNormalization", ["x", "s", "b"], ["y", "m", "d"], "ln")]
    got = mixed(model(nodes, [X], [Y, value("m", (2, 1)), value("d", (2, 1))], ws))
    assert formats(got)["ln"] == "fp16"


def test_group_normalization():
    groups = 3
    ws = [weight("s", np.ones(3)), weight("b", np.zeros(3))]
    nodes = [node("GroupNormalization", ["x", "s", "b"], ["y"], "gn", num_groups=groups)]
    mixed(model(nodes, [IMAGE], [value("y", (1, 3, 4, 4))], ws, opset=21))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_with_lengths_and_absent_inputs(op):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    rng = np.random.default_rng(1)
    ws = [
        weight("w", rng.standard_normal((1, gates * 3, 4)) / 3),
        weight("r", rng.standard_normal((1, gates * 3, 3)) / 3),
        weight("lengths", np.int32([5, 3])), weight("h", np.zeros((1, 2, 3))),
    ]  # fmt: skip
    nodes = [
        node(op, ["x", "w", "r", "", "lengths", "h"], ["", "last"], "rnn", hidden_size=3),
        node("Neg", ["last"], ["y"], "n"),
    ]
    got = mixed(model(nodes, [value("x", (5, 2, 4))], [value("y", (1, 2, 3))], ws))
    assert formats(got)["rnn"] == "fp16"


def test_clip_with_absent_bounds_and_pow_with_an_integer_exponent():
    nodes = [
        node("Clip", ["x", "", "top"], ["a"], "c1"),
        node("Clip", ["a", "low"], ["b"], "c2"),
        node("Clip", ["b"], ["d"], "c3"),
        node("Pow", ["d", "two"], ["y"], "p"),
    ]
    ws = [weight("top", np.float32(0.5)), weight("low", np.float32(-0.5)), weight("two", np.int64(2))]
    mixed(model(nodes, [X], [Y], ws))


@pytest.mark.parametrize("training", [False, True])
def test_dropout_keeps_its_ratio(training):
    nodes = [node("Dropout", ["x", "r", "t"], ["y", "mask"], "d", seed=1)]
    ws = [weight("r", np.float32(0.25)), weight("t", np.array(training))]
    mixed(model(nodes, [X], [Y, value("mask", dtype=BOOL)], ws), runs=not training)


@pytest.mark.parametrize(("opset", "extra"), [(9, {}), (13, {}), (18, {"num_outputs": 2})])
def test_split(opset, extra):
    nodes = [
        node("Neg", ["x"], ["n"], "n"),
        node("Split", ["n"], ["a", "b"], "s", axis=1, **extra),
        node("Add", ["a", "b"], ["y"], "add"),
    ]
    got = mixed(model(nodes, [X], [value("y", (2, 2))], opset=opset))
    assert formats(got)["s"] == "fp16"
    assert len(got.casts) == 2


def test_operators_that_only_look_do_not_round_what_they_see():
    nodes = [
        node("IsInf", ["x"], ["inf"], "inf"),
        node("NonZero", ["x"], ["nz"], "nz"),
        node("ArgMax", ["x"], ["best"], "best", axis=1),
        node("TopK", ["x", "k"], ["top", "where"], "top"),
        node("Unique", ["x"], ["u"], "unique"),
    ]
    outputs = [
        value("inf", dtype=BOOL), value("nz", (2, None), INT64), value("best", (2, 1), INT64), value("top", (2, 2)),
        value("where", (2, 2), INT64), value("u", (None,)),
    ]  # fmt: skip
    x = np.float32([[1e6, 1e-9, 1, 1 + 1e-6], [0, -1e6, 1e-12, 2]])
    got = mixed(model(nodes, [X], outputs, [weight("k", np.int64([2]))]), feeds={"x": x})
    assert got.casts == ()


def test_shapes_are_read_from_whatever_format_comes():
    nodes = [
        node("Neg", ["x"], ["n"], "n"),
        node("Shape", ["n"], ["s"], "shape"),
        node("Size", ["n"], ["size"], "size"),
        node("ConstantOfShape", ["s"], ["k"], "k"),
        node("Add", ["n", "k"], ["y"], "a"),
    ]
    got = mixed(model(nodes, [X], [Y, value("size", (), INT64)]))
    assert len(inserted_casts(got)) == 2


def test_one_hot_and_eye_and_where():
    nodes = [
        node("OneHot", ["i", "depth", "values"], ["h"], "h"),
        node("Where", ["c", "h", "x"], ["y"], "w"),
    ]
    ws = [weight("depth", np.int64(4)), weight("values", np.float32([0.1, 0.9]))]
    mixed(model(nodes, [X, value("i", (2,), INT64), value("c", dtype=BOOL)], [Y], ws))


@pytest.mark.parametrize("opset", [12, 17])
def test_einsum(opset):
    mixed(
        model(
            [node("Einsum", ["x", "w"], ["y"], "e", equation="bi,ij->bj")],
            [X],
            [Y],
            [weight("w", np.eye(4))],
            opset=opset,
        )
    )


def test_attention_and_rotary_embedding_of_opset_23():
    nodes = [
        node("RotaryEmbedding", ["q", "cos", "sin", "pos"], ["qr"], "rope"),
        node("Attention", ["qr", "k", "v", "mask"], ["y"], "att"),
    ]
    shape = (1, 2, 3, 4)
    inputs = [value(name, shape) for name in "qkv"]
    ws = [
        weight("cos", np.ones((8, 2))), weight("sin", np.zeros((8, 2))), weight("pos", np.int64([[0, 1, 2]])),
        weight("mask", np.float32([[0, -3.4e38, -3.4e38], [0, 0, -3.4e38], [0, 0, 0]])),
    ]  # fmt: skip
    got = mixed(model(nodes, inputs, [value("y", shape)], ws, opset=23), tolerance=32)
    assert formats(got) == {"rope": "fp16", "att": "fp16"}
    assert got.weights.total.overflow == 3


def test_non_max_suppression_takes_only_float32():
    nodes = [node("Abs", ["b"], ["c"], "a"), node("NonMaxSuppression", ["c", "s"], ["y"], "nms")]
    source = model(nodes, [value("b", (1, 6, 4)), value("s", (1, 1, 6))], [value("y", (None, 3), INT64)])
    got = mixed(source, runs=False)
    assert formats(got)["nms"] == "fp32"
    assert "only float32" in got.decisions["nms"].reason


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_huge_constant_reaches_its_blocked_consumer_whole():
    source = model(
        [node("Add", ["x", "k"], ["a"], "big"), node("Neg", ["a"], ["y"], "n")],
        [X],
        [Y],
        [weight("k", np.float32(1e6))],
    )
    got = mixed(source, Plan().block(layers=["*"]))
    np.testing.assert_array_equal(run(got.proto, {"x": np.zeros((2, 4), np.float32)})[0], -1e6)
    got = mixed(source, blocked("big"), runs=False)
    kept = {tensor.name: tensor.data_type for tensor in got.proto.graph.initializer}
    assert kept == {"k": FLOAT}


def test_an_embedding_with_large_ids_runs_low():
    table = weight("table", np.random.default_rng(0).standard_normal((70_000, 4)))
    source = model([node("Gather", ["table", "ids"], ["y"], "g")], [value("ids", (2,), INT64)], [Y], [table])
    got = mixed(source, feeds={"ids": np.int64([69_999, 65_521])})
    assert formats(got) == {"g": "fp16"}
