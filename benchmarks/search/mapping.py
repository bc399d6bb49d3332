"""Which layers of the source model run in fp16 in a model that another tool converted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.model import Layer

__all__ = ["Mapped", "map_back", "with_weights"]

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
MADE_ENDINGS = ("_pre_cast", "__io_cast_src")  # AutoCast's names for what goes into the casts of the outputs
LARGE_ELEMENTS = 64  # of a weight whose data type inference does not need
TOLD_CHANGE = 1e-4  # of a weight's largest value: smaller changes, such as of single tiny elements, do not count


@dataclass(frozen=True)
class Mapped:
    """A converted model as a choice of layers.

    Attributes:
        low: ids of the layers that run in fp16 there.
        merged: ids of layers that are no longer there, each counted as what took it up.
        lost: ids of layers of which nothing can be told; they are counted as fp32.
        weights: by layer and place among its inputs, weights whose values there are not the source's, rounded.
    """

    low: frozenset[str]
    merged: tuple[str, ...]
    lost: tuple[str, ...]
    weights: Mapping[tuple[str, int], npt.NDArray[np.float32]]


def map_back(converted: onnx.ModelProto, typing: Typing) -> Mapped:
    """Return which layers run in fp16 in a converted model.

    A layer is looked for by its name, then by the tensor that it makes. It runs in fp16 when the float32 tensors that
    it would make in fp16 are fp16 there (or, where it makes none, those that it takes).

    Args:
        converted: what the tool made; it is not changed.
        typing: what each layer of the source model may be.
    """
    types = _types(converted)
    named = {node.name: node for node in converted.graph.node if node.name}
    makers = {name: node for node in converted.graph.node for name in node.output if name}
    layers = [layer for layer in typing.model.layers if layer.container is None]
    nodes = {layer.id: _node_of(layer, named, makers) for layer in layers}
    found = {
        layer.id: None if (node := nodes[layer.id]) is None else _runs_half(layer, node, types, typing)
        for layer in layers
    }
    merged, lost = [], []
    for layer in layers:
        if not typing.layers[layer.id].switchable or found[layer.id] is not None:
            continue
        taken = _what_took_it_up(layer, layers, found)
        (lost if taken is None else merged).append(layer.id)
        found[layer.id] = bool(taken)
    low = frozenset(layer.id for layer in layers if found[layer.id] and typing.layers[layer.id].switchable)
    pairs = [(layer, node) for layer in layers if layer.id in low and (node := nodes[layer.id]) is not None]
    return Mapped(low, tuple(merged), tuple(lost), _changed_weights(pairs, converted, typing))


def _types(converted: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of each tensor; told types, which tools leave behind wrong, only where none follows."""
    bare = onnx.ModelProto()
    bare.CopyFrom(converted)
    for tensor in bare.graph.initializer:
        if np.prod(tensor.dims) > LARGE_ELEMENTS:
            for field in ("raw_data", "float_data", "int32_data"):
                tensor.ClearField(field)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare)
    found = {info.name: info.type.tensor_type.elem_type for info in converted.graph.value_info}
    for infos in (inferred.graph.value_info, inferred.graph.input, inferred.graph.output):
        found |= {info.name: info.type.tensor_type.elem_type for info in infos}
    found |= {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}
    return found


def _node_of(
    layer: Layer, named: Mapping[str, onnx.NodeProto], makers: Mapping[str, onnx.NodeProto]
) -> onnx.NodeProto | None:
    for name in (layer.name, layer.id):
        if name in named and named[name].op_type == layer.op:
            return named[name]
    for output in layer.outputs:
        for name in (*(f"{output}{ending}" for ending in MADE_ENDINGS), output):
            if name in makers and makers[name].op_type == layer.op:
                return makers[name]
    return None


def _runs_half(layer: Layer, node: onnx.NodeProto, types: Mapping[str, int], typing: Typing) -> bool | None:
    may = typing.layers[layer.id]
    for names, low in ((node.output, may.low_outputs), (node.input, may.low_inputs)):
        seen = {types.get(name, 0) for name, takes in zip(names, low, strict=False) if name and takes}
        if seen & {HALF, FLOAT}:
            return HALF in seen and FLOAT not in seen
    return None


def _changed_weights(
    pairs: Iterable[tuple[Layer, onnx.NodeProto]], converted: onnx.ModelProto, typing: Typing
) -> dict[tuple[str, int], npt.NDArray[np.float32]]:
    """Return the weights of low layers that were clamped, or replaced, on the way to fp16."""
    theirs = {tensor.name: tensor for tensor in converted.graph.initializer if tensor.data_type == HALF}
    initializers = typing.model.ir.graph.initializers
    found = {}
    for layer, node in pairs:
        for place, (name, other) in enumerate(zip(layer.inputs, node.input, strict=False)):
            tensor = initializers[name].const_value if name in initializers else None
            if tensor is None or other not in theirs:
                continue
            source, changed = tensor.numpy(), to_array(theirs[other])
            if source.dtype != np.float32 or source.shape != changed.shape or not source.size:
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                gap = np.abs(changed.astype(np.float32) - source.astype(np.float16).astype(np.float32))
            # Infinite where one is: the difference of two that are is none, and counts for none.
            if np.nanmax(gap, initial=0.0) > TOLD_CHANGE * np.abs(source).max():
                found[layer.id, place] = changed.astype(np.float32)
    return found


def with_weights(
    source: onnx.ModelProto, weights: Mapping[tuple[str, int], npt.NDArray[np.float32]]
) -> onnx.ModelProto:
    """Return a model whose layers take other weights: `Mapped.weights`, by name of the layer and place.

    Args:
        source: the model; it is not changed.
        weights: what to put there.
    """
    made = onnx.ModelProto()
    made.CopyFrom(source)
    nodes = {node.name: node for node in made.graph.node}
    for index, ((layer, place), values) in enumerate(weights.items()):
        name = f"weight of another tool {index}"
        made.graph.initializer.append(from_array(values, name))
        nodes[layer].input[place] = name
    return made


def _what_took_it_up(layer: Layer, layers: Iterable[Layer], found: Mapping[str, bool | None]) -> bool | None:
    """Return what the nearest layer behind it that is there runs in: it was removed, or fused into another."""
    consumers: dict[str, list[Layer]] = {}
    for each in layers:
        for name in each.inputs:
            consumers.setdefault(name, []).append(each)
    queue, seen = deque([layer]), {layer.id}
    while queue:
        here = queue.popleft()
        for name in here.outputs:
            for behind in consumers.get(name, ()):
                if found[behind.id] is not None:
                    return found[behind.id]
                if behind.id not in seen:
                    seen.add(behind.id)
                    queue.append(behind)
    return None
