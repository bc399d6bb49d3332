"""A layer as true low-precision operators compute it: what a GPU runs, not an emulation of it.

The inputs are cast to the format, the operator takes them as they are, weights are stored in the format, and the result
is cast back to float32 so that the rest of the graph need not know. It is what conversion makes of a single layer, and
like conversion it follows `Typing`. The interface is that of :class:`explorer.probe.low.LowLayers`.

Such a graph means something on CUDA only: ONNX Runtime's CPU provider has no low-precision arithmetic, computes most of
it in float32 and drops casts (docs/emulation.md). *Not run on a GPU so far*: the graph's structure and validity are
tested, and that it computes the fp32 model where no layer runs low.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from explorer.convert.traits import DTYPE_ATTRIBUTE
from explorer.convert.weights import low_weight
from explorer.errors import PlanError
from explorer.formats import cast_array, get_format
from explorer.probe.weave import EmulationGraph, Nodes, Rename, renamed

if TYPE_CHECKING:
    from explorer.convert import Typing
    from explorer.model import Layer

__all__ = ["NATIVE", "NativeLayers"]

NATIVE: Final = ("fp16", "bf16")  # formats that ONNX operators compute in
_FLOAT: Final = onnx.TensorProto.FLOAT


@dataclass
class NativeLayers:
    """Makes true low-precision copies of layers inside one graph.

    Attributes:
        graph: where weights are added.
        typing: what each layer may be.

    Raises:
        PlanError: no operator computes in the format.
    """

    graph: EmulationGraph
    typing: Typing
    _weights: dict[str, str] = field(default_factory=dict)
    _shared: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.typing.format not in NATIVE:
            raise PlanError(
                f"No ONNX operator computes in {self.typing.format}.",
                why="Its real errors are those of a converted model, or of an engine.",
                fix=f"Measure real errors of {' or '.join(NATIVE)}; emulate {self.typing.format}.",
            )
        self._low = int(onnx.TensorProto.DataType.Value(get_format(self.typing.format).onnx_dtype))
        fed = {value.name for value in self.typing.model.ir.graph.inputs}
        self.constants = set(self.typing.model.weights) - fed

    def weight(self, layer: Layer, index: int) -> str:
        """Return the name of a weight stored in the low format.

        Args:
            layer: which reads it.
            index: which of the layer's inputs it is.
        """
        name = layer.inputs[index]
        if name not in self._weights:
            tensor = self.typing.model.ir.graph.initializers[name].const_value
            assert tensor is not None
            low = low_weight(tensor.numpy(), self.typing.format)
            self._weights[name] = self.graph.weight(f"{name}::native", low)
        return self._weights[name]

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
            outputs: from the layer's outputs to the wanted names; float32, whatever the operator makes.
            shared: given where layers may read one another's casts; emulation's rounded tensors in it are float32 and
                of no use here.
        """
        may, layer = self.typing.layers[node.name], self.typing.model.layer(node.name)
        cast = {} if shared is None else self._shared
        copy = renamed(node, f"{node.name}::{tag}", inputs, outputs)
        before, after = Nodes(), Nodes()
        for index, takes_low in enumerate(may.low_inputs):
            value = node.input[index]
            if not (value and takes_low):
                continue
            here = copy.input[index]
            if here == value and value in self.constants:
                copy.input[index] = self.weight(layer, index)
                continue
            if here not in cast:
                cast[here] = f"{here}::native" if shared is not None else f"{here}::native::{node.name}::{tag}"
                before.add("Cast", [here], cast[here], to=self._low)
            copy.input[index] = cast[here]
        for index, gives_low in enumerate(may.low_outputs):
            if not (node.output[index] and gives_low):
                continue
            wanted = copy.output[index]
            copy.output[index] = f"{wanted}::native"
            after.add("Cast", [copy.output[index]], wanted, to=_FLOAT)
        if any(may.low_outputs):
            self._patch_dtype(copy)
        return Nodes([*before, copy, *after])

    def _patch_dtype(self, node: onnx.NodeProto) -> None:
        """Set the attribute that names the type of the result, where the operator has one."""
        if node.op_type == "ConstantOfShape":
            given = next((item for item in node.attribute if item.name == "value"), None)
            filled = np.zeros(1, np.float32) if given is None else onnx.numpy_helper.to_array(given.t)
            low = onnx.numpy_helper.from_array(cast_array(filled.astype(np.float32), self.typing.format), "value")
            _set(node, onnx.helper.make_attribute("value", low))
        elif node.op_type in DTYPE_ATTRIBUTE:
            _set(node, onnx.helper.make_attribute(DTYPE_ATTRIBUTE[node.op_type], self._low))


def _set(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    kept = [item for item in node.attribute if item.name != attribute.name]
    del node.attribute[:]
    node.attribute.extend([*kept, attribute])
