"""Small models, built in code, that ONNX Runtime fuses, rewrites or refuses in known ways."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
FLOAT, FLOAT16, BFLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights=None, opset=17):
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cnn():
    """Conv+BN+Relu, a residual block, an Identity and a linear head."""
    weights = {
        "w": noise(16, 3, 3, 3),
        "b": noise(16),
        "s": noise(16),
        "bb": noise(16),
        "m": noise(16),
        "v": np.abs(noise(16)),
        "w2": noise(16, 16, 3, 3),
        "fc": noise(16, 10),
        "fb": noise(10),
    }
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1] * 4),
        node("BatchNormalization", ["c", "s", "bb", "m", "v"], ["n"], name="bn"),
        node("Relu", ["n"], ["r"], name="relu"),
        node("Conv", ["r", "w2"], ["c2"], name="block/conv", pads=[1] * 4),
        node("Add", ["c2", "r"], ["a"], name="block/add"),
        node("Relu", ["a"], ["r2"], name="block/relu"),
        node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Identity", ["f"], ["fi"], name="identity"),
        node("MatMul", ["fi", "fc"], ["mo"], name="fc/matmul"),
        node("Add", ["mo", "fb"], ["ao"], name="fc/add"),
        node("Softmax", ["ao"], ["y"], name="softmax"),
    ]
    return model(nodes, [value("x", [1, 3, 16, 16])], [value("y", [1, 10])], weights), {"x": noise(1, 3, 16, 16)}


GELU = ["gelu/div", "gelu/erf", "gelu/add", "gelu/mul", "gelu/half"]
LAYER_NORM = ["mean", "sub", "pow", "var", "eps", "sqrt", "div", "mul", "add"]


def transformer_block():
    """A linear layer with bias and Gelu, a residual, a decomposed LayerNorm, and a weight that is transposed first."""
    weights = {
        "w": noise(32, 32),
        "b": noise(32),
        "g": noise(32),
        "be": noise(32),
        "two": np.float32(2),
        "e": np.float32(1e-5),
        "root": np.float32(1.4142135),
        "one": np.float32(1),
        "h": np.float32(0.5),
    }
    nodes = [
        node("MatMul", ["x", "w"], ["m0"], name="matmul"),
        node("Add", ["m0", "b"], ["a0"], name="bias"),
        node("Div", ["a0", "root"], ["g0"], name="gelu/div"),
        node("Erf", ["g0"], ["g1"], name="gelu/erf"),
        node("Add", ["g1", "one"], ["g2"], name="gelu/add"),
        node("Mul", ["a0", "g2"], ["g3"], name="gelu/mul"),
        node("Mul", ["g3", "h"], ["g4"], name="gelu/half"),
        node("Add", ["g4", "x"], ["res"], name="residual"),
        node("ReduceMean", ["res"], ["l0"], name="ln/mean", axes=[-1]),
        node("Sub", ["res", "l0"], ["l1"], name="ln/sub"),
        node("Pow", ["l1", "two"], ["l2"], name="ln/pow"),
        node("ReduceMean", ["l2"], ["l3"], name="ln/var", axes=[-1]),
        node("Add", ["l3", "e"], ["l4"], name="ln/eps"),
        node("Sqrt", ["l4"], ["l5"], name="ln/sqrt"),
        node("Div", ["l1", "l5"], ["l6"], name="ln/div"),
        node("Mul", ["l6", "g"], ["l7"], name="ln/mul"),
        node("Add", ["l7", "be"], ["ln"], name="ln/add"),
        node("Transpose", ["w"], ["wt"], name="weight/transpose", perm=[1, 0]),
        node("MatMul", ["ln", "wt"], ["y"], name="head"),
    ]
    return model(nodes, [value("x", [1, "t", 32])], [value("y", [1, "t", 32])], weights), {"x": noise(1, 7, 32)}


def branching():
    """An If whose condition depends on the input; both bodies read an outer value."""
    then = [node("Sigmoid", ["r"], ["t1"], name="then/sigmoid"), node("Mul", ["t1", "r"], ["t2"], name="then/mul")]
    bodies = {
        "then_branch": helper.make_graph(then, "then", [], [value("t2", [8, 8])]),
        "else_branch": helper.make_graph([node("Neg", ["r"], ["e1"], name="neg")], "else", [], [value("e1", [8, 8])]),
    }
    nodes = [
        node("Relu", ["x"], ["r"], name="relu"),
        node("ReduceSum", ["r"], ["s"], name="sum", keepdims=0),
        node("Greater", ["s", "zero"], ["c"], name="greater"),
        node("If", ["c"], ["o"], name="if", **bodies),
        node("Exp", ["o"], ["y"], name="exp"),
    ]
    return model(nodes, [value("x", [8, 8])], [value("y", [8, 8])], {"zero": np.float32(0)}), {"x": noise(8, 8)}


def looping(turns=50):
    body = helper.make_graph(
        [node("Add", ["v", "one"], ["v2"], name="body/add"), node("Identity", ["k"], ["k2"], name="body/keep")],
        "body",
        [value("i", [], TensorProto.INT64), value("k", [], TensorProto.BOOL), value("v", [4, 4])],
        [value("k2", [], TensorProto.BOOL), value("v2", [4, 4])],
    )
    nodes = [node("Loop", ["turns", "", "x"], ["o"], name="loop", body=body), node("Exp", ["o"], ["y"], name="exp")]
    weights = {"turns": np.int64(turns), "one": np.float32(1)}
    return model(nodes, [value("x", [4, 4])], [value("y", [4, 4])], weights), {"x": noise(4, 4)}


def half_precision():
    nodes = [node("MatMul", ["x", "w"], ["m"], name="matmul"), node("Relu", ["m"], ["y"], name="relu")]
    weights = {"w": noise(32, 32).astype(np.float16)}
    graph = model(nodes, [value("x", [4, 32], FLOAT16)], [value("y", [4, 32], FLOAT16)], weights)
    return graph, {"x": noise(4, 32).astype(np.float16)}


def channels_last():
    """Transposes that cancel around an activation between two convolutions."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv1", pads=[1] * 4),
        node("Transpose", ["c"], ["t"], name="to_last", perm=[0, 2, 3, 1]),
        node("Sigmoid", ["t"], ["s"], name="sigmoid"),
        node("Transpose", ["s"], ["u"], name="to_first", perm=[0, 3, 1, 2]),
        node("Conv", ["u", "w"], ["y"], name="conv2", pads=[1] * 4),
    ]
    graph = model(nodes, [value("x", [1, 8, 8, 8])], [value("y", [1, 8, 8, 8])], {"w": noise(8, 8, 3, 3)})
    return graph, {"x": noise(1, 8, 8, 8)}


def twins():
    """The same computation twice."""
    nodes = [
        node("Exp", ["x"], ["e1"], name="exp1"),
        node("Exp", ["x"], ["e2"], name="exp2"),
        node("Sub", ["e1", "e2"], ["y"], name="sub"),
    ]
    return model(nodes, [value("x", [4, 4])], [value("y", [4, 4])]), {"x": noise(4, 4)}


def quantized():
    weights = {"s": np.float32(0.1), "z": np.int8(0), "w": (noise(16, 16) * 9).astype(np.int8)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dq"),
        node("DequantizeLinear", ["w", "s", "z"], ["dw"], name="dq_weight"),
        node("MatMul", ["d", "dw"], ["m"], name="matmul"),
        node("QuantizeLinear", ["m", "s", "z"], ["q2"], name="q_out"),
        node("DequantizeLinear", ["q2", "s", "z"], ["y"], name="dq_out"),
    ]
    return model(nodes, [value("x", [4, 16])], [value("y", [4, 16])], weights), {"x": noise(4, 16)}


def explicit_casts():
    """The rounding pair of an emulation: it must stay, and be timed as the user's own layers."""
    nodes = [
        node("Cast", ["x"], ["c1"], name="down", to=FLOAT16),
        node("Cast", ["c1"], ["c2"], name="up", to=FLOAT),
        node("Relu", ["c2"], ["y"], name="relu"),
    ]
    return model(nodes, [value("x", [4, 16])], [value("y", [4, 16])]), {"x": noise(4, 16)}


def deep(blocks=40):
    """Many small residual blocks: enough layers to see that none is lost."""
    weights = {f"w{index}": noise(16, 16, 3, 3, seed=index) * 0.05 for index in range(blocks)}
    nodes, last = [], "x"
    for index in range(blocks):
        nodes += [
            node("Conv", [last, f"w{index}"], [f"c{index}"], name=f"b{index}/conv", pads=[1] * 4),
            node("Relu", [f"c{index}"], [f"r{index}"], name=f"b{index}/relu"),
            node("Add", [f"r{index}", last], [f"a{index}"], name=f"b{index}/add"),
        ]
        last = f"a{index}"
    nodes.append(node("GlobalAveragePool", [last], ["y"], name="pool"))
    return model(nodes, [value("x", [1, 16, 8, 8])], [value("y", [1, 16, 1, 1])], weights), {"x": noise(1, 16, 8, 8)}


def picked():
    """A row of a table, by a scalar index, before another: it runs with that rank alone."""
    weights = {"table": noise(10, 4)}
    nodes = [
        node("Gather", ["table", "at"], ["row"], name="gather"),
        node("Concat", ["row", "x"], ["y"], name="concat", axis=0),
    ]
    inputs = [value("x", [4]), value("at", [], TensorProto.INT64)]
    return model(nodes, inputs, [value("y", [8])], weights), {"x": noise(4), "at": np.array(3, np.int64)}


ALL = {
    maker.__name__: maker
    for maker in (
        cnn,
        transformer_block,
        branching,
        looping,
        half_precision,
        channels_last,
        twins,
        quantized,
        explicit_casts,
        deep,
        picked,
    )
}


def serialized(maker) -> tuple[bytes, dict]:
    graph, feeds = maker()
    onnx.checker.check_model(graph)
    return graph.SerializeToString(), feeds
