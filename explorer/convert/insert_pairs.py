"""Decisions -> graph, for quantised formats: a pair of QuantizeLinear and DequantizeLinear around each tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from explorer.convert.insert import InsertedCast
from explorer.convert.quantise import Quantisation, bias_input, quantisation_of, quantised_bias, weight_axis
from explorer.convert.quantised_typing import check_opset
from explorer.convert.weights import WeightReport
from explorer.formats import cast_array, census
from explorer.formats.quantise import quantised, weight_scales
from explorer.model.weights import Weight

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

    from explorer.convert.typing import Typing
    from explorer.model import Layer

__all__ = ["insert_pairs"]

_FLOAT = ir.DataType.FLOAT
_SIGNED_ONLY: Final = "tensorrt"  # its QuantizeLinear makes int8 with a zero point of 0, and nothing else
_HALF: Final = 128  # zero point of a signed tensor that is stored without a sign
_FIRST_AXIS_OPSET = 13


def insert_pairs(
    model: ir.Model, typing: Typing, layers: Collection[str]
) -> tuple[tuple[InsertedCast, ...], tuple[WeightReport, ...]]:
    """Rewrite ``model`` in place so that these layers run in a quantised format, the others as they are.

    Args:
        model: a clone of the typed model, in which casts to other formats stand already.
        typing: of int8, with its calibration, or of fp8.
        layers: ids of the layers.

    Returns:
        The pairs that were inserted, and what quantisation did to each weight.

    Raises:
        ConversionError: there is no calibration, or the model's opset has no such operators.
        InputError: a weight that is to be int8 has a NaN.
    """
    check_opset(typing.model, typing.format)
    pairs = _Pairs(model.graph, typing)
    for node in list(model.graph):
        if node.name in layers:
            pairs.quantise(node)
    pairs.drop_unused_weights()
    return tuple(pairs.made), tuple(pairs.reports)


@dataclass
class _Pairs:
    """One graph being rewritten; values are known by identity."""

    graph: ir.Graph
    typing: Typing
    made: list[InsertedCast] = field(default_factory=list)
    reports: list[WeightReport] = field(default_factory=list)
    paired: dict[ir.Value, ir.Value] = field(default_factory=dict)
    stored: set[ir.Value] = field(default_factory=set)
    replaced: dict[ir.Value, None] = field(default_factory=dict)
    weights: dict[tuple[ir.Value, int | None], tuple[ir.Value, npt.NDArray[np.float32]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.typing.model
        self.constants = set(model.weights) - {spec.name for spec in model.inputs}
        nodes = list(self.graph.all_nodes())
        self.names = {str(value.name) for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}
        self.names |= set(self.graph.initializers)
        self.node_names = {str(node.name) for node in nodes}

    def quantise(self, node: ir.Node) -> None:
        """Put pairs around what the layer reads and stores low."""
        layer = self.typing.model.layer(str(node.name))
        may = self.typing.layers[layer.id]
        scales: npt.NDArray[np.float32] | None = None
        for index, low in enumerate(may.low_inputs):
            value = node.inputs[index]
            if not low or value is None:
                continue
            if layer.inputs[index] in self.constants:
                read, scales = self._weight(value, layer, index)
            else:
                read = self._pair(value, layer.inputs[index])
            node.replace_input_with(index, read)
        self._bias(node, layer, scales)
        for value, low in zip(node.outputs, may.low_outputs, strict=True):
            if low:
                self._store(value, str(value.name))

    def _pair(self, value: ir.Value, tensor: str) -> ir.Value:
        """Return ``value`` as a quantised layer reads it."""
        if value in self.stored:
            return value
        if value not in self.paired:
            result, pair = self._nodes(value, quantisation_of(self.typing, tensor))
            producer = value.producer()
            if producer is not None:
                producer.append(pair)
            else:
                self.graph.insert_before(self.graph[0], pair)
            self.paired[value] = result
        return self.paired[value]

    def _store(self, value: ir.Value, tensor: str) -> None:
        """Let everyone who reads ``value`` read what is left of it in storage."""
        readers = [(use.node, use.idx) for use in value.uses()]
        result, pair = self._nodes(value, quantisation_of(self.typing, tensor))
        for node, index in readers:
            node.replace_input_with(index, result)
        producer = value.producer()
        assert producer is not None
        producer.append(pair)
        self.stored.add(result)

    def _nodes(self, value: ir.Value, how: Quantisation) -> tuple[ir.Value, list[ir.Node]]:
        name = str(value.name)
        zero_point = np.zeros((), how.dtype)
        if how.dtype == np.int8 and self.typing.backend != _SIGNED_ONLY:
            # The same values: ONNX Runtime has integer kernels for activations without a sign in more places.
            zero_point = np.asarray(_HALF, np.uint8)
        dtype = ir.DataType.from_numpy(zero_point.dtype)
        scale = self._constant(f"{name}_scale", np.asarray(how.scale, np.float32), _FLOAT)
        zero = self._constant(f"{name}_zero", zero_point, dtype)
        codes, result = (
            ir.Value(name=self._fresh(f"{name}_{suffix}", self.names), type=ir.TensorType(kind), shape=value.shape)
            for suffix, kind in (("codes", dtype), (self.typing.format, _FLOAT))
        )
        quantize, dequantize = (
            self._node(op, [source, scale, zero], [target], name)
            for op, source, target in (("QuantizeLinear", value, codes), ("DequantizeLinear", codes, result))
        )
        self.made.append(InsertedCast(str(quantize.name), name, self.typing.format))
        return result, [quantize, dequantize]

    def _weight(self, value: ir.Value, layer: Layer, index: int) -> tuple[ir.Value, npt.NDArray[np.float32]]:
        """Return a weight as the layer reads it, and its scales; once for each way to read it."""
        axis = weight_axis(self.typing.model, layer, index) if self.typing.format == "int8" else None
        if (value, axis) not in self.weights:
            tensor = value.const_value
            assert tensor is not None
            exact = np.asarray(tensor.numpy(), np.float32)
            codes, scales = self._codes(exact, axis, f"The weight '{value.name}' of the layer '{layer.id}'")
            shaped = (
                scales if axis is None else scales.reshape([-1 if each == axis else 1 for each in range(exact.ndim)])
            )
            self.reports.append(WeightReport(str(value.name), census(exact / shaped, self.typing.format)))
            self.weights[value, axis] = self._dequantised(str(value.name), codes, scales, axis), scales
            self.replaced[value] = None
        return self.weights[value, axis]

    def _codes(
        self, exact: npt.NDArray[np.float32], axis: int | None, name: str
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        if self.typing.format == "int8":
            scales = weight_scales(exact, axis)
            return quantised(exact, scales, axis, least=-127, name=name), scales
        return cast_array(exact, self.typing.format), np.ones((), np.float32)

    def _bias(self, node: ir.Node, layer: Layer, w_scales: npt.NDArray[np.float32] | None) -> None:
        """Store the bias in int32, in units of the product's own step."""
        index = bias_input(self.typing, layer)
        if index is None or w_scales is None:
            return
        value = node.inputs[index]
        assert value is not None
        assert value.const_value is not None
        x_scale = quantisation_of(self.typing, layer.inputs[0]).scale
        found = quantised_bias(np.asarray(value.const_value.numpy(), np.float32), x_scale, w_scales)
        if found is not None:
            node.replace_input_with(index, self._dequantised(str(value.name), *found, axis=0))
            self.replaced[value] = None

    def _dequantised(
        self, name: str, codes: npt.NDArray[Any], scales: npt.NDArray[np.float32], axis: int | None
    ) -> ir.Value:
        """Return the value of stored codes, read through a DequantizeLinear at the top of the graph."""
        dtype = ir.DataType.from_numpy(codes.dtype)
        inputs = [
            self._constant(f"{name}_codes", codes, dtype),
            self._constant(f"{name}_scale", scales, _FLOAT),
            self._constant(f"{name}_zero", np.zeros(scales.shape, codes.dtype), dtype),
        ]
        result = ir.Value(
            name=self._fresh(f"{name}_{self.typing.format}", self.names),
            type=ir.TensorType(_FLOAT),
            shape=ir.Shape(codes.shape),
        )
        attributes = [] if axis is None or self.typing.model.opset < _FIRST_AXIS_OPSET else [ir.AttrInt64("axis", axis)]
        self.graph.insert_before(self.graph[0], self._node("DequantizeLinear", inputs, [result], name, attributes))
        return result

    def _node(
        self,
        op: str,
        inputs: list[ir.Value],
        outputs: list[ir.Value],
        name: str,
        attributes: list[ir.Attr] | None = None,
    ) -> ir.Node:
        node_name = self._fresh(f"{name}_{op}", self.node_names)
        return ir.Node("", op, inputs, attributes or [], outputs=outputs, name=node_name)

    def _constant(self, name: str, array: npt.NDArray[Any], dtype: ir.DataType) -> ir.Value:
        own = self._fresh(name, self.names)
        value = ir.Value(
            name=own,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
            const_value=Weight(array, dtype, own),
        )
        self.graph.register_initializer(value)
        return value

    def drop_unused_weights(self) -> None:
        """Remove the fp32 weights that only quantised layers read."""
        returned = {id(value) for value in self.graph.outputs}
        for value in self.replaced:
            if not value.uses() and id(value) not in returned:
                del self.graph.initializers[str(value.name)]

    @staticmethod
    def _fresh(base: str, taken: set[str]) -> str:
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        return name
