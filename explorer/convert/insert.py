"""Decisions -> graph: give tensors their types, insert casts where two meet, convert weights once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from explorer.backends.runtime import default_threads
from explorer.convert.traits import DTYPE_ATTRIBUTE, Kind
from explorer.convert.typing import HIGH, LayerTyping
from explorer.convert.weights import WeightReport, convert_weight
from explorer.formats import cast_array, get_format
from explorer.model.weights import Weight, own

if TYPE_CHECKING:
    from explorer.convert.decide import Decisions

__all__ = ["InsertedCast", "insert_casts"]

_FLOAT = ir.DataType.FLOAT
_LARGE_BYTES = 1 << 17  # a smaller weight is converted faster than it is handed to another thread (measured, 2 cores)


@dataclass(frozen=True, slots=True)
class InsertedCast:
    """A Cast node that conversion inserted: its name, the value that it casts, and the format that it casts to."""

    name: str
    value: str
    to: str


def insert_casts(
    model: ir.Model, decisions: Decisions, *, clamp: bool
) -> tuple[tuple[InsertedCast, ...], tuple[WeightReport, ...]]:
    """Rewrite ``model`` in place so that every layer runs in its decided format.

    Args:
        model: a clone of the decided model.
        decisions: what becomes of each layer.
        clamp: weights beyond the range of the low format become its largest value instead of infinity.

    Returns:
        The casts that were inserted, and what the conversion of each weight did to it.
    """
    weaver = _Weaver(model.graph, decisions, clamp)
    nodes = list(model.graph.all_nodes())
    weaver.convert_large_weights(nodes)
    # Outputs first: a cast that must carry an output's name is then found by every consumer that needs the same type.
    weaver.keep_outputs(model.graph, low=not decisions.plan.keep_io)
    for body in model.graph.subgraphs():
        if body is not model.graph:
            weaver.keep_outputs(body, low=False)
    for node in nodes:
        weaver.retype(node, decisions.typing.layers[str(node.name)], is_low=str(node.name) in decisions.low_layers)
    for value in model.graph.inputs:
        if value in weaver.low_values:
            value.type = ir.TensorType(weaver.low)
    weaver.drop_unused_weights()
    return tuple(weaver.casts), tuple(weaver.reports)


@dataclass
class _Weaver:
    """One graph being rewritten. Values are known by identity: names change when an output needs one."""

    graph: ir.Graph
    decisions: Decisions
    clamp: bool
    casts: list[InsertedCast] = field(default_factory=list)
    reports: list[WeightReport] = field(default_factory=list)
    as_type: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    converted: dict[ir.Value, tuple[Weight, WeightReport]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.format = self.decisions.plan.format
        self.low = ir.DataType[get_format(self.format).onnx_dtype]
        nodes = list(self.graph.all_nodes())
        fed = set(self.graph.inputs)
        values = [*fed, *self.graph.initializers.values(), *(out for node in nodes for out in node.outputs)]
        values += [value for body in self.graph.subgraphs() for value in (*body.inputs, *body.initializers.values())]
        types = self.decisions.typing.types
        self.float_values = {v for v in values if v.name in types and types[v.name].dtype == HIGH}
        self.low_values = {v for v in values if v.name in self.decisions.low_values}
        self.weights = {v for v in self.graph.initializers.values() if v not in fed} & self.float_values
        self.names = {str(value.name) for value in values}
        self.node_names = {str(node.name) for node in nodes}

    def retype(self, node: ir.Node, may: LayerTyping, *, is_low: bool) -> None:
        """Feed the layer what its format takes, and give its results their types."""
        for index, value in enumerate(node.inputs):
            if value is None or value not in self.float_values or may.kind is Kind.OBSERVE:
                continue
            wanted = self.fitting(value, low=is_low and may.low_inputs[index])
            if wanted is not value:
                node.replace_input_with(index, wanted)
        if not is_low:
            return
        for value, low in zip(node.outputs, may.low_outputs, strict=True):
            if low:
                value.type = ir.TensorType(self.low)
        if any(may.low_outputs):
            self._patch_dtype(node)

    def fitting(self, value: ir.Value, *, low: bool) -> ir.Value:
        """Return ``value`` in the format that a consumer takes."""
        if value in self.weights:
            return self._low_twin(value) if low else value
        if (value in self.low_values) == low:
            return value
        return self._cast(value, self.low if low else _FLOAT)

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str = "") -> ir.Value:
        """Return ``value`` as ``dtype``: one Cast per (tensor, dtype), right behind the tensor's producer."""
        if (value, dtype) in self.as_type:
            return self.as_type[value, dtype]
        suffix = self._word(dtype)
        out = ir.Value(name=name or self._fresh(f"{value.name}_{suffix}", self.names), type=ir.TensorType(dtype))
        out.shape = value.shape
        node_name = self._fresh(f"{value.name}_cast_{suffix}", self.node_names)
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[out], name=node_name)
        producer = value.producer()
        if producer is not None:
            producer.append(node)
        else:  # an input of a graph, or a weight: cast before the first node of the graph that owns it
            home = value.graph if isinstance(value.graph, ir.Graph) else self.graph
            if len(home):
                home.insert_before(home[0], node)
            else:
                home.append(node)
        self.casts.append(InsertedCast(node_name, str(value.name), suffix))
        self.as_type[value, dtype] = out
        return out

    def _low_twin(self, weight: ir.Value) -> ir.Value:
        """Return the weight in the low format, converted at its first use."""
        if (weight, self.low) not in self.as_type:
            name = self._fresh(f"{weight.name}_{self.format}", self.names)
            converted, report = self.converted.pop(weight) if weight in self.converted else self._convert(weight)
            converted.name = name
            twin = ir.Value(name=name, type=ir.TensorType(self.low), const_value=converted)
            twin.shape = weight.shape
            self.graph.register_initializer(twin)
            self.reports.append(report)
            self.as_type[weight, self.low] = twin
        return self.as_type[weight, self.low]

    def convert_large_weights(self, nodes: list[ir.Node]) -> None:
        """Convert the large weights that low layers use, side by side: most of a conversion's time goes there."""
        layers, lows = self.decisions.typing.layers, self.decisions.low_layers
        large: dict[ir.Value, None] = {}
        for node in nodes:
            if node.name in lows:
                for value, low in zip(node.inputs, layers[str(node.name)].low_inputs, strict=True):
                    if low and value in self.weights and _is_large(value.const_value):
                        large[value] = None
        with ThreadPoolExecutor(default_threads()) as workers:
            self.converted = dict(zip(large, workers.map(self._convert, large), strict=True))

    def _convert(self, weight: ir.Value) -> tuple[Weight, WeightReport]:
        tensor = weight.const_value
        assert tensor is not None
        return convert_weight(tensor, str(weight.name), str(weight.name), self.format, clamp=self.clamp)

    def keep_outputs(self, graph: ir.Graph, *, low: bool) -> None:
        """Give every float32 output of ``graph`` the promised type, under the name that it has."""
        dtype = self.low if low else _FLOAT
        for index, value in enumerate(list(graph.outputs)):
            if value not in self.float_values or (value in self.low_values) == low:
                continue
            if (value, dtype) not in self.as_type:
                name = str(value.name)
                if value.const_value is not None:  # its tensor, and the tensor's name, are the source model's too
                    value.const_value = own(value.const_value, name, anew=True)
                value.name = self._fresh(f"{name}_{self._word(_FLOAT if low else self.low)}", self.names)
                self._cast(value, dtype, name=name)
            graph.outputs[index] = self.as_type[value, dtype]

    def _patch_dtype(self, node: ir.Node) -> None:
        """Set the attribute that names the type of the result, where the operator has one."""
        if node.op_type == "ConstantOfShape":
            given = node.attributes.get("value")
            value = given.as_tensor().numpy() if given is not None else np.zeros(1, np.float32)
            tensor = ir.Tensor(cast_array(value.astype(np.float32), self.format), dtype=self.low)
            node.attributes["value"] = ir.AttrTensor("value", tensor)
        elif node.op_type in DTYPE_ATTRIBUTE:
            node.attributes[DTYPE_ATTRIBUTE[node.op_type]] = ir.AttrInt64(DTYPE_ATTRIBUTE[node.op_type], int(self.low))

    def drop_unused_weights(self) -> None:
        """Remove fp32 weights that only low layers used; their twins take over the names."""
        outputs = {id(value) for graph in (self.graph, *self.graph.subgraphs()) for value in graph.outputs}
        for weight in list(self.graph.initializers.values()):  # in order, so that the same plan writes the same file
            if weight not in self.weights:
                continue
            if weight.uses() or id(weight) in outputs or (weight, self.low) not in self.as_type:
                continue
            name = str(weight.name)
            del self.graph.initializers[name]
            twin = self.as_type[weight, self.low]
            twin.name = name

    def _word(self, dtype: ir.DataType) -> str:
        return "fp32" if dtype == _FLOAT else self.format

    @staticmethod
    def _fresh(base: str, taken: set[str]) -> str:
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        return name


def _is_large(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.nbytes >= _LARGE_BYTES
