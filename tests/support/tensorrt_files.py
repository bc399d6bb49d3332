"""The model that the files in data/tensorrt are of, and where they lie."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FILES = Path(__file__).resolve().parents[1] / "backends" / "data" / "tensorrt"
IDS = ("conv1", "relu1", "pool", "flat", "fc", "soft")


def convnet(names=IDS, *, suffix="_out"):
    """Returns Conv, Relu, MaxPool, Flatten, Gemm, Softmax from `x` to `y`; each value is its layer's name + suffix."""
    conv, relu, pool, flat, fc, soft = names
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("conv1.w", (4, 1, 3, 3)), ("fc.w", (64, 3)), ("fc.b", (3,)))
    ]
    values = [f"{name}{suffix}" for name in IDS[:-1]]
    nodes = [
        helper.make_node("Conv", ["x", "conv1.w"], values[:1], name=conv, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", values[:1], values[1:2], name=relu),
        helper.make_node("MaxPool", values[1:2], values[2:3], name=pool, kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", values[2:3], values[3:4], name=flat),
        helper.make_node("Gemm", [values[3], "fc.w", "fc.b"], values[4:5], name=fc),
        helper.make_node("Softmax", values[4:5], ["y"], name=soft),
    ]
    graph = helper.make_graph(
        nodes,
        "convnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
