"""Evaluates a model layer by layer as low storage demands: one small graph for each, rounding by numpy in between.

It shares no code with the emulator: which tensors are rounded is read from what layers may be, how they are rounded is
written here again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper
from support.graphs import graph, node, run, value, weight
from support.graphs import model as model_of

from explorer.calibrate.calibration import Calibration
from explorer.convert import Decisions, Typing, decide, type_layers
from explorer.model import Model, load_model, load_samples
from explorer.plan import Plan
from explorer.probe import Emulator

if TYPE_CHECKING:
    from collections.abc import Mapping

STORAGE = {
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "fp8e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
CHANNELS_SINCE = 13  # opset from which on a weight may have a scale for each channel
_LIMIT = {"fp8e4m3": 448.0, "fp8e5m2": 57344.0}


def stored(x, low_format: str) -> np.ndarray:
    """``x`` stored in a format without scales, and read as float32; fp8 saturates."""
    x = np.asarray(x, np.float32)
    if low_format == "tf32":
        return _tf32(x)
    limit = _LIMIT.get(low_format, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.clip(x, -limit, limit).astype(STORAGE[low_format]).astype(np.float32)


def _tf32(x: np.ndarray) -> np.ndarray:
    """To nearest, ties to even, 10 bits of mantissa, all in float64, which holds every step exactly."""
    wide = x.astype(np.float64)
    exponent = np.maximum(np.frexp(np.where(np.isfinite(wide), wide, 1.0))[1] - 1, -126)
    step = np.ldexp(1.0, exponent - 10)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(wide), np.rint(wide / step) * step, wide).astype(np.float32)


def stepped(x: np.ndarray, scale, *, least: int = -128, most: int = 127) -> np.ndarray:
    """``x`` in whole steps of ``scale``: divided, rounded half to even, saturated, multiplied."""
    scale = np.asarray(scale, np.float32)
    return (np.clip(np.rint(np.asarray(x, np.float32) / scale), least, most).astype(np.float32) * scale) + np.float32(0)


def channel_steps(w: np.ndarray, axis: int | None) -> np.ndarray:
    """The step of each channel of a weight, in a shape that broadcasts."""
    if axis is None:
        return np.float32(np.abs(w).max() / np.float32(127)) or np.float32(1)
    others = tuple(each for each in range(w.ndim) if each != axis)
    steps = (np.abs(w).max(axis=others, keepdims=True) / np.float32(127)).astype(np.float32)
    return np.where(steps > 0, steps, np.float32(1))


@dataclass
class Twin:
    """A model, its samples, what its layers may be, and its emulator."""

    proto: onnx.ModelProto
    model: Model
    feeds: dict[str, np.ndarray]
    emulator: Emulator

    @classmethod
    def of(
        cls,
        proto: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray],
        low_format: str = "int8",
        *,
        int8: bool = False,
        backend: str | None = None,
        amax: Mapping[str, float] | None = None,
    ) -> Twin:
        """``int8`` lets plans ask for int8 beside the format; ``amax`` are ranges, min-max where none are given."""
        loaded = load_model(proto)
        scales = Calibration(dict(amax or ranges_of(proto, feeds)), "minmax", rows=1)
        typing = replace(type_layers(loaded, low_format, backend), calibration=scales if low_format == "int8" else None)
        more = replace(type_layers(loaded, "int8", backend), calibration=scales) if int8 else None
        samples = load_samples(loaded, dict(feeds))
        return cls(proto, loaded, dict(feeds), Emulator(typing, samples, int8=more, threads=1))

    @property
    def typing(self) -> Typing:
        return self.emulator.typing

    @property
    def scales(self) -> Calibration:
        found = self.emulator.int8.calibration if self.emulator.int8 else self.typing.calibration
        assert found is not None
        return found

    @property
    def layers(self) -> list[str]:
        """Ids of the layers that may run low in any way."""
        ways = [each for each in (self.typing, self.emulator.int8) if each is not None]
        return [layer.id for layer in self.model.layers if any(way.layers[layer.id].switchable for way in ways)]

    def plan(self, **formats: str) -> Plan:
        return Plan(format=self.typing.format, base="fp32").set(formats)

    def decisions(self, plan: Plan) -> Decisions:
        return decide(plan, self.typing, self.emulator.int8)

    def emulated(self, plan: Plan):
        return self.emulator.accumulated(self.decisions(plan), keep_outputs=True)

    def values(self, plan: Plan) -> dict[str, np.ndarray]:
        """Every tensor under the plan, by this module's own account."""
        return evaluate(self, self.decisions(plan))


def ranges_of(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest |value| of every float32 tensor that is fed or made."""
    loaded = load_model(proto)
    exact = dict(feeds)
    for layer in loaded.layers:
        exact |= _run_layer(proto, layer, exact)
    return {name: float(np.abs(array).max()) for name, array in exact.items() if array.dtype == np.float32}


def evaluate(twin: Twin, decisions: Decisions) -> dict[str, np.ndarray]:
    """Every tensor when layers run as decided."""
    found = dict(twin.feeds)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in twin.proto.graph.initializer}
    for layer in twin.model.layers:
        chosen = decisions[layer.id].format
        way = {twin.typing.format: twin.typing, "int8": twin.emulator.int8 or twin.typing}.get(chosen)
        may = way.layers[layer.id] if way is not None else None
        if may is None or may.blocked:
            found |= _run_layer(twin.proto, layer, found)
            continue
        read, opset = {}, twin.model.opset
        for index, (name, low) in enumerate(zip(layer.inputs, may.low_inputs, strict=True)):
            if low and name in weights:
                read[name] = _weight(layer, weights[name], index, way)
            elif low:
                read[name] = _tensor(way, name, found[name])
        biased = layer.op in ("Conv", "Gemm") and len(layer.inputs) > 2 and layer.inputs[1] in weights
        if chosen == "int8" and biased and opset >= CHANNELS_SINCE and way.backend != "tensorrt":
            read[layer.inputs[2]] = _bias(layer, weights, way)
        made = _run_layer(twin.proto, layer, found, read)
        for name, low in zip(layer.outputs, may.low_outputs, strict=True):
            if low:
                made[name] = _tensor(way, name, made[name])
        found |= made
    return found


def _step(way: Typing, name: str) -> tuple[np.float32, int, int]:
    amax = way.calibration.amax[way.roots.get(name, name)]
    least, most = (0, 255) if name in way.unsigned else (-128, 127)
    return np.float32(amax / most) or np.float32(1), least, most


def _tensor(way: Typing, name: str, array: np.ndarray) -> np.ndarray:
    if way.format != "int8":
        return stored(array, way.format)
    scale, least, most = _step(way, name)
    return stepped(array, scale, least=least, most=most)


def _axis(layer, array: np.ndarray, index: int, way: Typing) -> int | None:
    if index != 1 or array.ndim < 2 or way.model.opset < CHANNELS_SINCE:
        return None
    turned = way.model.attributes(layer.id).get("transB", 0)
    return {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if turned else 1, "MatMul": 1 if array.ndim == 2 else None}.get(
        layer.op
    )


def _weight(layer, array: np.ndarray, index: int, way: Typing) -> np.ndarray:
    if way.format != "int8":
        return stored(array, way.format)
    return stepped(array, channel_steps(array, _axis(layer, array, index, way)), least=-127)


def _bias(layer, weights: Mapping[str, np.ndarray], way: Typing) -> np.ndarray:
    w, bias = weights[layer.inputs[1]], weights[layer.inputs[2]]
    steps = np.broadcast_to(channel_steps(w, _axis(layer, w, 1, way)).reshape(-1), bias.shape)
    steps = steps * _step(way, layer.inputs[0])[0]
    return (np.rint(bias.astype(np.float64) / steps).astype(np.int32).astype(np.float32) * steps).astype(np.float32)


def _run_layer(proto, layer, found, read: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """The layer alone in a graph: weights as weights, so that the runtime takes the kernels that it always takes."""
    source = _nodes(proto.SerializeToString())[layer.id]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    named = {name: (read or {}).get(name, weights.get(name, found.get(name))) for name in source.input if name}
    fed = {name: array for name, array in named.items() if name not in weights}
    alone = model_of(
        [source],
        [value(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in fed.items()],
        [onnx.ValueInfoProto(name=name) for name in source.output],
        [weight(name, array) for name, array in named.items() if name in weights],
        opset=proto.opset_import[0].version,
    )
    return dict(zip(source.output, run(alone, fed), strict=True))


@lru_cache(maxsize=64)
def _nodes(proto: bytes) -> dict[str, onnx.NodeProto]:
    """Nodes by name; every node of these tests has one, which is its layer's id."""
    return {each.name: each for each in onnx.ModelProto.FromString(proto).graph.node}


__all__ = ["Twin", "channel_steps", "evaluate", "graph", "node", "ranges_of", "stepped", "stored"]
