"""A layer as it computes when it runs low: rounded inputs, float32 arithmetic, rounded result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from explorer.convert.traits import Kind
from explorer.probe.rounding import reads_rounded, rounded_weight, rounding_nodes, way_of_reading
from explorer.probe.weave import EmulationGraph, Nodes, Rename, bodies, renamed

if TYPE_CHECKING:
    from collections.abc import Hashable

    import onnx

    from explorer.convert import Typing
    from explorer.model import Layer
    from explorer.probe.native import NativeLayers

__all__ = ["LowLayers", "adds_value", "lower_bodies"]

_PAD_TAKES_VALUE = 11  # Pad: what it fills with is an input, rounded like any other, from this opset on


def adds_value(op: str, opset: int) -> bool:
    """Return whether an operator that moves values also brings one of its own, an attribute."""
    return op == "Pad" and opset < _PAD_TAKES_VALUE


@dataclass
class LowLayers:
    """Makes low copies of layers inside one emulation graph.

    Attributes:
        graph: where weights are added.
        typing: what each layer may be.
    """

    graph: EmulationGraph
    typing: Typing
    _weights: dict[tuple[str, Hashable], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fed = {value.name for value in self.typing.model.ir.graph.inputs}
        self.constants = set(self.typing.model.weights) - fed

    def weight(self, layer: Layer, index: int) -> str:
        """Return the name of a weight as a low layer reads it; the weight itself where rounding changes nothing.

        Args:
            layer: which reads it.
            index: which of the layer's inputs it is.
        """
        name, way = layer.inputs[index], way_of_reading(self.typing, layer, index)
        if (name, way) not in self._weights:
            tensor = self.typing.model.ir.graph.initializers[name].const_value
            assert tensor is not None
            exact = tensor.numpy()
            rounded = rounded_weight(exact, self.typing, layer, index)
            made = f"{name}::{self.typing.format}" + ("" if way is None else f"::{way}")
            self._weights[name, way] = name if (rounded == exact).all() else self.graph.weight(made, rounded)
        return self._weights[name, way]

    def nodes(
        self,
        node: onnx.NodeProto,
        tag: str,
        inputs: Rename,
        outputs: Rename,
        *,
        shared: dict[str, str] | None = None,
    ) -> Nodes:
        """Return the nodes of ``node`` running low.

        Args:
            node: the layer; its name is the layer's id.
            tag: goes behind the names of what is made on the way; the same node is copied several times.
            inputs: from the layer's inputs to the names that they have here.
            outputs: from the layer's outputs to the wanted names.
            shared: tensors of this graph that are rounded already, to be read and added to; None shares nothing.
        """
        may, layer = self.typing.layers[node.name], self.typing.model.layer(node.name)
        rounded = {} if shared is None else shared
        copy = renamed(node, f"{node.name}::{tag}", inputs, outputs)
        before, after = Nodes(), Nodes()
        for index, takes_low in enumerate(reads_rounded(self.typing, layer)):
            value = node.input[index]
            if not (value and takes_low):
                continue
            here = copy.input[index]
            if here == value and value in self.constants:
                copy.input[index] = self.weight(layer, index)
                continue
            if here not in rounded:
                # Layers of one body may take the same value, and bodies see the names around them: the layer's id tells
                # their copies apart.
                rounded[here] = f"{here}::low" if shared is not None else f"{here}::low::{node.name}::{tag}"
                before += rounding_nodes(here, rounded[here], self.typing, value)
            copy.input[index] = rounded[here]
        for index, gives_low in enumerate(may.low_outputs):
            if not (node.output[index] and gives_low) or (
                may.kind is Kind.MOVEMENT and not adds_value(node.op_type, self.typing.model.opset)
            ):
                continue  # moving rounded values rounds nothing further
            wanted = copy.output[index]
            copy.output[index] = f"{wanted}::raw"
            after += rounding_nodes(copy.output[index], wanted, self.typing, node.output[index])
        return Nodes([*before, copy, *after])


def lower_bodies(layers: LowLayers | NativeLayers, node: onnx.NodeProto) -> bool:
    """Make every layer inside the bodies of ``node`` run low that may; return whether there was any.

    Args:
        layers: what makes the low copies.
        node: a copy of a control-flow layer; changed in place.
    """
    found = False
    for body in bodies(node):
        lowered = Nodes()
        for inner in list(body.node):
            may = layers.typing.layers.get(inner.name)
            found |= lower_bodies(layers, inner)
            if may is not None and may.switchable:
                lowered += layers.nodes(inner, "low", str, str)
                found = True
            else:
                lowered.append(inner)
        del body.node[:]
        body.node.extend(lowered)
    return found
