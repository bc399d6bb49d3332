"""ResNet-18 and ResNet-50 as ONNX graphs without training: the right shapes, small random weights."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class Builder:
    def __init__(self, *, batch_norm: bool) -> None:
        self.nodes, self.weights = [], []
        self.batch_norm = batch_norm

    def add(self, op: str, inputs: list[str], **attributes) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
        return name

    def conv(self, x: str, channels: int, width: int, kernel: int, stride: int = 1) -> str:
        pad = kernel // 2
        inputs = [x, self.weight(width, channels, kernel, kernel), *([] if self.batch_norm else [self.weight(width)])]
        x = self.add("Conv", inputs, strides=[stride] * 2, pads=[pad] * 4, kernel_shape=[kernel] * 2)
        return self.add("BatchNormalization", [x, *(self.weight(width) for _ in range(4))]) if self.batch_norm else x

    def block(self, x: str, channels: int, width: int, stride: int, *, bottleneck: bool) -> str:
        out = width * 4 if bottleneck else width
        if bottleneck:
            y = self.add("Relu", [self.conv(x, channels, width, 1)])
            y = self.add("Relu", [self.conv(y, width, width, 3, stride)])
            y = self.conv(y, width, out, 1)
        else:
            y = self.add("Relu", [self.conv(x, channels, width, 3, stride)])
            y = self.conv(y, width, width, 3)
        skip = x if channels == out and stride == 1 else self.conv(x, channels, out, 1, stride)
        return self.add("Relu", [self.add("Add", [y, skip])])


def resnet(depth: int, batch: int = 1, *, batch_norm: bool = False):
    """The torchvision layout (stride in the 3x3 convolution); BatchNormalization folded unless asked for."""
    build = Builder(batch_norm=batch_norm)
    x = build.add("Relu", [build.conv("image", 3, 64, 7, 2)])
    x = build.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    bottleneck, channels = depth == 50, 64
    for stage, count in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        for index in range(count):
            stride = 2 if stage and not index else 1
            x = build.block(x, channels, width, stride, bottleneck=bottleneck)
            channels = width * 4 if bottleneck else width
    x = build.add("Flatten", [build.add("GlobalAveragePool", [x])])
    x = build.add("Gemm", [x, build.weight(1000, channels), build.weight(1000)], transB=1)
    graph = helper.make_graph(
        build.nodes,
        f"resnet{depth}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 224, 224])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, 1000])],
        build.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
