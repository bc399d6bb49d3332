"""What the panel is given in the benchmarks: real models with measured figures, and a net of 10,000 layers."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import explorer
from explorer.scene import encode, structure

__all__ = ["LARGE", "Scene", "large_scene", "scene_of"]

LARGE = "UNet-like, 10,000 layers"
LEVELS, UNITS = 4, 34  # 272 units of 37 layers, 136 skips and two layers around them: 10,202 layers
CHANNELS, SIDE = 4, 2  # what is measured is the number of layers, not the size of the tensors
SEED = 10_000
WAIT_S = 300


@dataclass(frozen=True)
class Scene:
    """A model as the notebook gets it.

    Attributes:
        name: as the tables name it.
        layers: how many.
        text: JSON with ``structure`` and ``figures`` as base64 of the bytes that the widget gets, and ``state``.
    """

    name: str
    layers: int
    text: str


def scene_of(name: str, model: Path, inputs: Path) -> Scene:
    """Return a model with the figures of a real run of the emulator."""
    x = explorer.open(model, inputs=inputs)
    controller = x.panel(gpu_model="").controller
    if not controller.wait(WAIT_S) or controller.run.state != "idle":
        raise SystemExit(f"{name}: the run did not end well: {controller.run}")
    packed = {
        "structure": base64.b64encode(encode(structure(x.model))).decode("ascii"),
        "figures": base64.b64encode(controller.figures).decode("ascii"),
        "state": controller.state,
    }
    return Scene(name, len(x.model.layers), encode(packed).decode("utf-8"))


def large_scene() -> Scene:
    """Return the net of 10,000 layers with the figures of a real run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unet_10000.onnx"
        onnx.save(large_net(), path)
        samples = path.with_suffix(".npz")
        rng = np.random.default_rng(SEED)
        np.savez(samples, x=rng.standard_normal((1, CHANNELS, SIDE, SIDE)).astype(np.float32))
        return scene_of(LARGE, path, samples)


def large_net(units: int = UNITS) -> onnx.ModelProto:
    """Return a UNet-like net: residual blocks, attention and MLPs at 4 levels, with skips from way down to way up."""
    net = _Net()
    value, skips = net.layer("stem", "Conv", ["x", "weight"]), []
    for level in range(LEVELS):
        for unit in range(units):
            value = net.unit(f"down.{level}/units.{unit}", value)
            skips.append(value)
    for level in range(LEVELS):
        for unit in range(units):
            at = f"up.{level}/units.{unit}"
            value = net.unit(at, net.layer(f"{at}/skip", "Add", [value, skips.pop()]))
    net.nodes.append(helper.make_node("Identity", [value], ["y"], name="/head/Identity"))
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        net.nodes,
        "unet_10000",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class _Net:
    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        weight = (rng.standard_normal((CHANNELS, CHANNELS, 1, 1)) / CHANNELS).astype(np.float32)
        half = np.full((), 0.5, np.float32)
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(half, "half")]

    def layer(self, scope: str, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"/{scope}/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def unit(self, scope: str, x: str) -> str:
        """Add 37 layers: a residual block, attention and a gated MLP."""
        y = x
        for part in (1, 2):
            y = self.norm(f"{scope}/residual/norm{part}", y)
            y = self.silu(f"{scope}/residual/silu{part}", y)
            y = self.layer(f"{scope}/residual/conv{part}", "Conv", [y, "weight"])
        x = self.layer(f"{scope}/residual", "Add", [x, y])
        y = self.norm(f"{scope}/attention/norm", x)
        query, key, value = (
            self.layer(f"{scope}/attention/{each}", "Conv", [y, "weight"]) for each in ("query", "key", "value")
        )
        turned = self.layer(f"{scope}/attention", "Transpose", [key], perm=[0, 1, 3, 2])
        scores = self.layer(f"{scope}/attention", "MatMul", [query, turned])
        scores = self.layer(f"{scope}/attention", "Mul", [scores, "half"])
        shares = self.layer(f"{scope}/attention", "Softmax", [scores], axis=-1)
        y = self.layer(f"{scope}/attention", "MatMul", [shares, value])
        y = self.layer(f"{scope}/attention/output", "Conv", [y, "weight"])
        x = self.layer(f"{scope}/attention", "Add", [x, y])
        y = self.norm(f"{scope}/mlp/norm", x)
        gate = self.silu(f"{scope}/mlp/gate", self.layer(f"{scope}/mlp/gate", "Conv", [y, "weight"]))
        y = self.layer(f"{scope}/mlp", "Mul", [gate, self.layer(f"{scope}/mlp/up", "Conv", [y, "weight"])])
        y = self.layer(f"{scope}/mlp/down", "Conv", [y, "weight"])
        y = self.layer(f"{scope}/mlp", "Mul", [y, "half"])
        return self.layer(f"{scope}/mlp", "Add", [x, y])

    def norm(self, scope: str, x: str) -> str:
        mean = self.layer(scope, "ReduceMean", [x], axes=[1])
        centred = self.layer(scope, "Sub", [x, mean])
        return self.layer(scope, "Tanh", [centred])

    def silu(self, scope: str, x: str) -> str:
        return self.layer(scope, "Mul", [x, self.layer(scope, "Sigmoid", [x])])
