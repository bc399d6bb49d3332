"""Bring a graph into the one form that every other room relies on; what the user gave is not touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from explorer.errors import ModelError
from explorer.model.weights import Weight, own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CONTROL_FLOW", "bodies", "dense", "normalise", "own_weights"]

CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))  # ONNX's operators whose bodies see what is around them
_FIRST_IR_WITH_FREE_INITIALIZERS = 4  # ONNX IR 4: an initializer need not be a graph input
_OPSET_OF_OUR_NODES = 17  # for the Casts that conversion inserts where the model itself imports no standard operators
_FIRST_OPSET_OF_LAYERS = 7  # broadcasting became implicit; before it ONNX Runtime runs few models


def dense(proto: onnx.ModelProto, *, owned: bool) -> onnx.ModelProto:
    """Return ``proto`` with sparse weights as ordinary ones, which hold the same values.

    Args:
        proto: the model.
        owned: whether it may be changed; else a copy is, where there is anything to change.
    """
    if not _has_sparse(proto):
        return proto
    if not owned:
        given, proto = proto, onnx.ModelProto()
        proto.CopyFrom(given)
    for graph in _graphs(proto.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense_tensor(sparse))
        del graph.sparse_initializer[:]
    for node in _constants(proto):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                tensor = _dense_tensor(attribute.sparse_tensor)
                attribute.Clear()
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(tensor)
    return proto


def _has_sparse(proto: onnx.ModelProto) -> bool:
    return any(graph.sparse_initializer for graph in _graphs(proto.graph)) or any(
        attribute.type == onnx.AttributeProto.SPARSE_TENSOR
        for node in _constants(proto)
        for attribute in node.attribute
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    yield from _bodies(graph.node)


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for body in attribute.graphs:
                    yield from _graphs(body)


def _constants(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    lists = [graph.node for graph in _graphs(proto.graph)]
    for function in proto.functions:
        lists += [function.node, *(graph.node for graph in _bodies(function.node))]
    for nodes in lists:
        yield from (node for node in nodes if node.op_type == "Constant")


def _dense_tensor(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return onnx.numpy_helper.from_array(array, sparse.values.name)


def own_weights(graph_model: ir.Model, what: str) -> None:
    """Give every initializer a tensor of its own: renaming one must not rename it in the proto that the user gave.

    Raises:
        ModelError: the data of a weight does not fill its shape.
    """
    for graph in (graph_model.graph, *graph_model.graph.subgraphs()):
        for name, value in graph.initializers.items():
            if value.const_value is None:
                continue
            try:
                value.const_value = own(value.const_value, name)
            except (ValueError, AssertionError) as error:
                raise ModelError(
                    f"{what} is corrupt: the data of weight '{name}' does not fit its shape and type: {error}.",
                    fix="Export the model again.",
                ) from error


def normalise(graph_model: ir.Model) -> tuple[str, ...]:
    """Inline functions, lift constants, name everything uniquely; return what had to change, in words.

    Raises:
        ModelError: a local function cannot be inlined.
    """
    notes: list[str] = []
    imports = graph_model.opset_imports
    if "" not in imports:  # ONNX's own domain may also be written out; a model of custom operators imports none
        imports[""] = imports.pop("ai.onnx", _OPSET_OF_OUR_NODES)
    if graph_model.functions:
        notes.append(f"{len(graph_model.functions)} local functions were inlined")
        _inline(graph_model)
    if graph_model.ir_version < _FIRST_IR_WITH_FREE_INITIALIZERS:
        # Every initializer had to be an input then; they are weights, not inputs that a user feeds.
        passes.RemoveInitializersFromInputsPass()(graph_model)
        notes.append(f"IR version {graph_model.ir_version} raised to {_FIRST_IR_WITH_FREE_INITIALIZERS}")
        graph_model.ir_version = _FIRST_IR_WITH_FREE_INITIALIZERS
    if graph_model.opset_imports.get("", _FIRST_OPSET_OF_LAYERS) < _FIRST_OPSET_OF_LAYERS:
        notes.append(f"opset {graph_model.opset_imports['']} is older than {_FIRST_OPSET_OF_LAYERS}")
    _unique_value_names(graph_model.graph)
    _lift(graph_model.graph)
    _unique_node_names(graph_model.graph)
    return tuple(notes)


def _inline(graph_model: ir.Model) -> None:
    for function in graph_model.functions.values():
        _separate(function)
    try:
        passes.InlinePass()(graph_model)
        passes.RemoveUnusedFunctionsPass()(graph_model)  # type: ignore[no-untyped-call]  # of onnx-ir 1.1
    except (ir.passes.PassError, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error
        raise ModelError(
            f"A local function of the model cannot be inlined: {cause}.",
            why="Layers are chosen inside functions, so they must become part of the graph.",
            fix="Inline them first: onnx.inliner.inline_local_functions(model, convert_version=True).",
        ) from error


def _separate(function: ir.Function) -> None:
    """Let every output of a function be a value of its own, made inside: inlining renames them after the call's."""
    seen = set(function.inputs)
    for index, output in enumerate(list(function.outputs)):
        if output in seen:
            same = ir.Node("", "Identity", [output], num_outputs=1)
            function.append(same)
            function.outputs[index] = same.outputs[0]
        seen.add(function.outputs[index])


def _lift(main: ir.Graph) -> None:
    """Make every Constant node an initializer, and every initializer one of the main graph.

    Two sorts stay in their body: what the body returns, since it may not return a value of an outer graph, and all of
    a body that belongs to no operator of ONNX's own control flow, since only that sees the values around it.
    """
    _lift_from(main, main)


def _lift_from(graph: ir.Graph, home: ir.Graph) -> None:
    returned = set(graph.outputs)
    if graph is not home:
        for name in list(graph.initializers):
            value = graph.initializers[name]
            if value not in returned and not value.is_graph_input():
                home.initializers.add(graph.initializers.pop(name))
    for node in tuple(graph):
        if node.op_type == "Constant" and not node.domain:
            old = node.outputs[0]
            tensor = _constant(node, str(old.name))
            value = ir.Value(
                name=old.name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            old.replace_all_uses_with(value, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            (graph if old in returned else home).initializers.add(value)
        for body in bodies(node):
            sees_outside = node.op_type in CONTROL_FLOW and not node.domain
            _lift_from(body, home if sees_outside else body)


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that a node holds as attributes."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _constant(node: ir.Node, name: str) -> ir.TensorProtocol:
    attribute = next(iter(node.attributes.values()), None)
    if attribute is None or len(node.attributes) != 1:
        raise ModelError(
            f"The Constant that makes '{name}' has {len(node.attributes)} values instead of one.",
            fix="Export the model again.",
        )
    if attribute.name == "value":
        return own(attribute.as_tensor(), name)
    given = attribute.value
    if attribute.name in ("value_string", "value_strings"):
        strings = [given] if attribute.name == "value_string" else list(given)
        encoded = [text.encode() if isinstance(text, str) else text for text in strings]
        shape = ir.Shape(() if attribute.name == "value_string" else (len(encoded),))
        return ir.StringTensor(encoded, shape=shape, name=name)
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    array = np.array(given, dtype)
    return Weight(array, ir.DataType.from_numpy(array.dtype), name)


def _unique_value_names(graph: ir.Graph) -> None:
    """Give every value a name of its own; inputs and outputs of the main graph keep theirs."""
    values: list[ir.Value] = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    for each in (graph, *graph.subgraphs()):
        values += [*each.inputs, *each.initializers.values()]
        values += [output for node in each for output in node.outputs]
    names = _Names(str(value.name) for value in values)
    for value in dict.fromkeys(values):
        if value.name == "":
            continue  # an output that the node leaves out
        name = names.take(value.name or "value")
        if name != value.name:
            value.name = name


def _unique_node_names(graph: ir.Graph) -> None:
    nodes = list(graph.all_nodes())
    names = _Names(str(node.name) for node in nodes if node.name)
    for node in nodes:
        node.meta["name"] = node.name or ""
        node.name = names.take(node.name) if node.name else names.number(node.op_type)


class _Names:
    """Hands out names that are free; amortised O(1), also where thousands share one name."""

    def __init__(self, given: Iterable[str]) -> None:
        self._given = set(given)
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def take(self, name: str) -> str:
        """Return ``name`` to the first who asks, then ``name_2``, ``name_3`` ... that nobody has."""
        if name not in self._taken:
            self._taken.add(name)
            return name
        self._counts.setdefault(name, 1)
        return self.number(name)

    def number(self, base: str) -> str:
        """Return ``base`` with the next number behind it that nobody has."""
        while True:
            count = self._counts.get(base, 0) + 1
            self._counts[base] = count
            name = f"{base}_{count}"
            if name not in self._taken and name not in self._given:
                self._taken.add(name)
                return name
