"""One node of every sort that a large graph holds, as a small graph that a runtime can load in no time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["specimen"]


def specimen(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with one node for each distinct combination of operator, attributes and tensor types.

    ONNX Runtime's CPU provider needs quadratic time to load a half-precision graph: 4,000 nodes take 2 s, 10,000 take
    minutes (measured, ONNX Runtime 1.31.1). What it would refuse in the whole graph, beyond what onnx's full check
    finds, is a node whose types it does not take; each sort of node is here.

    Args:
        model: after shape inference, so that every value has a type; values have unique names.
    """
    graph = model.graph
    infos = {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kinds = {name: _kind(info) for name, info in infos.items()}
    kinds.update((name, f"{tensor.data_type}/{len(tensor.dims)}") for name, tensor in weights.items())
    chosen: dict[object, onnx.NodeProto] = {}
    for node in graph.node:
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        types = tuple(kinds.get(name, "") for name in (*node.input, "->", *node.output))
        chosen.setdefault((node.domain, node.op_type, attributes, types), node)
    made = {name for node in chosen.values() for name in node.output if name}
    used = dict.fromkeys(name for node in chosen.values() for name in _reads(node))
    result = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "opset_import":
            result.opset_import.extend(value)
        elif field.name == "ir_version":
            result.ir_version = value
    target = result.graph
    target.name = "specimen"
    target.node.extend(chosen.values())
    target.initializer.extend(weights[name] for name in used if name in weights)
    target.input.extend(infos[name] for name in used if name in infos and name not in made and name not in weights)
    target.output.extend(infos[name] for name in made if name in infos and name not in used)
    return result


def _kind(info: onnx.ValueInfoProto) -> str:
    if info.type.HasField("tensor_type"):
        tensor = info.type.tensor_type
        return f"{tensor.elem_type}/{len(tensor.shape.dim) if tensor.HasField('shape') else '?'}"
    return str(info.type.SerializeToString())


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that a node reads, those that its bodies take from outside among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            own = {item.name for item in (*body.input, *body.initializer)}
            own.update(name for inner in body.node for name in inner.output)
            yield from (name for inner in body.node for name in _reads(inner) if name not in own)
