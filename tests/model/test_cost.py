"""FLOP, traffic and matrix shapes of layers against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from explorer.model import load_model
from explorer.model.cost import GemmShape, layer_costs
from explorer.model.cost_types import item_bytes

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def weight(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def cost_of(op, inputs, *, weights=(), outputs=1, out_type=FLOAT, domain="", shapes=None, opset=21, **attributes):
    """Cost of a one-layer model; ``inputs`` maps names to shapes (floats) or (shape, type); '' is an absent input."""
    names = [name for name, _ in inputs]
    infos = []
    for name, kind in inputs:
        if name and kind is not None:
            shape, dtype = kind if isinstance(kind, tuple) and kind and isinstance(kind[0], list) else (kind, FLOAT)
            infos.append(helper.make_tensor_value_info(name, dtype, list(shape)))
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, names, results, name="layer", domain=domain, **attributes)
    out = [helper.make_tensor_value_info(name, out_type, None) for name in results]
    graph = helper.make_graph([node], "g", infos, out, list(weights))
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    proto = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=imports, ir_version=10))
    for value in proto.graph.output:  # a custom operator's rank is anybody's guess; the checker wants one
        if not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.dim.add().dim_param = "unknown"
    model = load_model(proto)
    specs = model.infer(shapes)
    return layer_costs(model.layers, specs, model.weights, model.attributes)[model.layers[0].id]


def test_convolution_counts_two_flop_per_multiply_add():
    """64 filters of 3 x 7 x 7 over 112 x 112 positions of a batch of two, plus bias."""
    cost = cost_of(
        "Conv",
        [("x", [2, 3, 224, 224]), ("w", None), ("b", None)],
        weights=[weight("w", 64, 3, 7, 7), weight("b", 64)],
        strides=[2, 2],
        pads=[3, 3, 3, 3],
    )
    positions = 2 * 112 * 112
    assert cost.gemm == GemmShape(m=positions, n=64, k=147, batch=1, k_inner=3)
    assert cost.flops == 2 * positions * 64 * 147 + positions * 64
    assert cost.kind == "conv"
    assert (cost.weight_elements, cost.read_elements, cost.write_elements) == (
        64 * 147 + 64,
        2 * 3 * 224**2,
        positions * 64,
    )


def test_groups_divide_the_work_and_dilation_does_not_change_it():
    weights = [weight("w", 8, 2, 3, 3)]
    grouped = cost_of("Conv", [("x", [1, 8, 10, 10]), ("w", None)], weights=weights, group=4, pads=[1, 1, 1, 1])
    assert grouped.gemm == GemmShape(m=100, n=2, k=18, batch=4, k_inner=2)
    assert grouped.flops == 2 * 100 * 8 * 2 * 9
    dilated = cost_of(
        "Conv", [("x", [1, 8, 10, 10]), ("w", None)], weights=weights, group=4, dilations=[2, 2], pads=[2, 2, 2, 2]
    )
    assert dilated.flops == grouped.flops


def test_a_stride_beyond_the_kernel_leaves_input_unread():
    cost = cost_of("Conv", [("x", [1, 16, 8, 8]), ("w", None)], weights=[weight("w", 4, 16, 1, 1)], strides=[2, 2])
    assert cost.read_elements == 16 * 4 * 4


def test_transposed_convolution_meets_the_kernel_at_every_input_position():
    cost = cost_of(
        "ConvTranspose", [("x", [1, 6, 5, 5]), ("w", None)], weights=[weight("w", 6, 4, 2, 2)], strides=[2, 2]
    )
    assert cost.flops == 2 * 25 * 6 * 4 * 4
    assert cost.write_elements == 4 * 10 * 10


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([5, 7], [7, 3], GemmShape(5, 3, 7)),
        ([4, 5, 7], [7, 3], GemmShape(20, 3, 7)),  # one right matrix: the batch is more rows
        ([4, 5, 7], [1, 7, 3], GemmShape(20, 3, 7)),
        ([4, 5, 7], [4, 7, 3], GemmShape(5, 3, 7, batch=4)),
        ([2, 1, 5, 7], [6, 7, 3], GemmShape(5, 3, 7, batch=12)),
        ([7], [7, 3], GemmShape(1, 3, 7)),
        ([5, 7], [7], GemmShape(5, 1, 7)),
        ([7], [4, 7, 3], GemmShape(1, 3, 7, batch=4)),
    ],
)
def test_matrix_product_broadcasts(left, right, expected):
    cost = cost_of("MatMul", [("a", left), ("b", right)])
    assert cost.gemm == expected
    assert cost.flops == expected.flops == 2 * 7 * cost.write_elements


def test_gemm_reads_its_transposes():
    cost = cost_of("Gemm", [("a", [7, 5]), ("w", None), ("c", [3])], weights=[weight("w", 3, 7)], transA=1, transB=1)
    assert cost.gemm == GemmShape(5, 3, 7)
    assert cost.flops == 2 * 5 * 3 * 7 + 15


@pytest.mark.parametrize(
    ("equation", "shapes", "gemm", "flops"),
    [
        ("ij,jk->ik", ([5, 7], [7, 3]), GemmShape(5, 3, 7), 210),
        ("bhid,bhjd->bhij", ([2, 3, 4, 8], [2, 3, 5, 8]), GemmShape(4, 5, 8, batch=6), 2 * 6 * 4 * 5 * 8),
        ("...ij,...jk->...ik", ([2, 5, 7], [2, 7, 3]), GemmShape(5, 3, 7, batch=2), 420),
        ("...ij,...jk", ([2, 5, 7], [2, 7, 3]), GemmShape(5, 3, 7, batch=2), 420),
        ("ij,jk", ([5, 7], [7, 3]), GemmShape(5, 3, 7), 210),
        ("ij->i", ([5, 7],), None, 35),
        ("ij->ji", ([5, 7],), None, 0),
        ("i,j->ij", ([5], [7]), None, 35),
    ],
)
def test_einsum(equation, shapes, gemm, flops):
    inputs = [(f"x{index}", shape) for index, shape in enumerate(shapes)]
    cost = cost_of("Einsum", inputs, equation=equation)
    assert (cost.gemm, cost.flops) == (gemm, flops)


def test_lstm_is_one_product_per_step_and_direction():
    seq, batch, width, hidden = 6, 2, 5, 8
    cost = cost_of(
        "LSTM",
        [("x", [seq, batch, width]), ("w", None), ("r", None)],
        weights=[weight("w", 2, 4 * hidden, width), weight("r", 2, 4 * hidden, hidden)],
        hidden_size=hidden,
        direction="bidirectional",
    )
    assert cost.gemm == GemmShape(m=batch, n=4 * hidden, k=width + hidden, batch=2, steps=seq)
    assert cost.flops == 2 * seq * 2 * batch * 4 * hidden * (width + hidden) + 24 * hidden * batch * seq * 2


def test_attention_is_two_products_and_a_softmax():
    cost = cost_of("Attention", [("q", [2, 3, 4, 8]), ("k", [2, 3, 5, 8]), ("v", [2, 3, 5, 6])], opset=23)
    pairs = 2 * 3 * 4 * 5
    assert cost.flops == 2 * pairs * (8 + 6) + 5 * pairs


@pytest.mark.parametrize("op", ["Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"])
def test_views_move_nothing(op):
    extra = {"Reshape": [("s", None)], "Unsqueeze": [("s", None)], "Squeeze": [("s", None)]}.get(op, [])
    values = {"Reshape": (8, 3), "Unsqueeze": (0,), "Squeeze": (0,)}.get(op)
    shape = [1, 4, 6] if op == "Squeeze" else [4, 6]
    cost = cost_of(op, [("x", shape), *extra], weights=[ints("s", *values)] if values else [])
    assert cost.is_free
    assert cost.flops == 0


@pytest.mark.parametrize(
    ("op", "flops", "kind"),
    [
        ("Relu", 1, "elementwise"),
        ("Sigmoid", 4, "elementwise"),
        ("Softmax", 5, "softmax"),
        ("ReduceMean", 1, "reduction"),
        ("Transpose", 0, "movement"),
        ("GlobalAveragePool", 1, "pool"),
    ],
)
def test_flop_per_element(op, flops, kind):
    cost = cost_of(op, [("x", [2, 3, 4, 4])])
    assert (cost.flops, cost.kind) == (flops * 96, kind)
    assert cost.read_elements == 96


def test_normalization_counts_scale_and_bias_as_weights():
    cost = cost_of(
        "LayerNormalization", [("x", [4, 16]), ("s", None), ("b", None)], weights=[weight("s", 16), weight("b", 16)]
    )
    assert (cost.kind, cost.flops, cost.weight_elements) == ("normalization", 7 * 64, 32)


def test_pooling_counts_its_window():
    cost = cost_of("MaxPool", [("x", [1, 2, 8, 8])], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    assert cost.flops == 9 * 2 * 4 * 4
    assert cost.read_elements == 2 * 64


def test_broadcasting_counts_the_output():
    cost = cost_of("Add", [("x", [4, 1, 8]), ("y", [1, 5, 8])])
    assert cost.flops == 160
    assert (cost.read_elements, cost.write_elements) == (32 + 40, 160)


def test_a_value_used_twice_is_read_once():
    node = helper.make_node("Mul", ["x", "x"], ["y"], name="square")
    info = [helper.make_tensor_value_info(name, FLOAT, [10]) for name in "xy"]
    model = load_model(
        helper.make_model(
            helper.make_graph([node], "g", info[:1], info[1:]),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        )
    )
    (cost,) = layer_costs(model.layers, model.types, model.weights, model.attributes).values()
    assert cost.read_elements == 10


def test_an_embedding_reads_only_its_rows_and_integers_keep_their_size():
    cost = cost_of("Gather", [("table", None), ("ids", ([2, 7], INT64))], weights=[weight("table", 1000, 16)])
    assert (cost.weight_elements, cost.write_elements) == (2 * 7 * 16, 2 * 7 * 16)
    assert cost.fixed_bytes == 14 * 8
    assert cost.bytes(2) == 2 * 2 * 14 * 16 + 14 * 8


def test_an_unknown_dimension_gives_nan_and_names_itself():
    cost = cost_of("MatMul", [("x", ["batch", 7]), ("w", None)], weights=[weight("w", 7, 3)])
    assert math.isnan(cost.flops)
    assert math.isnan(cost.read_elements)
    assert not cost.is_known
    assert "batch" in cost.note


def test_given_shapes_make_the_unknown_known():
    cost = cost_of("MatMul", [("x", ["batch", 7]), ("w", None)], weights=[weight("w", 7, 3)], shapes={"x": (4, 7)})
    assert cost.flops == 2 * 4 * 7 * 3


def test_a_custom_operator_is_not_guessed():
    cost = cost_of("Wavelet", [("x", [4, 4])], domain="my.domain")
    assert math.isnan(cost.flops)
    assert "my.domain::Wavelet" in cost.note


def test_control_flow_is_carried_by_its_body():
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="inner")],
        "b",
        [],
        [helper.make_tensor_value_info("y", FLOAT, [8])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"], name="other")], "b", [], [helper.make_tensor_value_info("z", FLOAT, [8])]
    )
    node = helper.make_node("If", ["c"], ["out"], name="if", then_branch=body, else_branch=other)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("x", FLOAT, [8])],
        [helper.make_tensor_value_info("out", FLOAT, [8])],
    )
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    costs = layer_costs(model.layers, model.types, model.weights, model.attributes)
    by_op = {model.layer(key).op: cost for key, cost in costs.items()}
    assert by_op["If"].is_free
    assert by_op["Relu"].flops == 8


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float64", 8), ("uint8", 1), ("bool", 1), ("float8e4m3fn", 1), ("int4", 0.5), ("bfloat16", 2), ("complex64", 8)],
)
def test_item_bytes(dtype, size):
    assert item_bytes(dtype) == size
