"""What each layer may be in the formats that ONNX operators do not compute in: int8, fp8 and tf32.

There a layer takes fp32 and gives fp32, and what makes it low stands around it: a pair of QuantizeLinear and
DequantizeLinear on what it reads and, for some, on what it makes (int8, fp8), or the mode of the GPU's matrix units
(tf32). Runtimes that have integer kernels find the pairs and run the layer between them in integers.

The rules of int8 are what ONNX Runtime's CPU kernels and TensorRT's builder both recognise:

- products (Conv, Gemm, MatMul) read both operands quantised. A convolution's result is quantised too, since ONNX
  Runtime runs it in integers only then; that of a matrix product is not, and whoever needs it in int8 quantises it;
- an activation behind a convolution belongs to its kernel: only what the activation makes is quantised;
- sums, pools and joins run in int8 between quantised tensors: on their own they would gain nothing;
- what only moves data keeps the scale of what it moves.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from explorer.convert.layer_typing import HIGH, LayerTyping, always_high
from explorer.convert.traits import KIND, Kind
from explorer.errors import ConversionError
from explorer.formats import get_format

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from explorer.model import Layer, Model

__all__ = ["FIRST_OPSET", "PRODUCTS", "check_opset", "type_int8", "type_products"]

PRODUCTS: Final = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_CONVOLUTIONS: Final = frozenset(("Conv", "ConvTranspose"))
_BETWEEN: Final = frozenset(("Add", "AveragePool", "GlobalAveragePool"))
_ACTIVATIONS: Final = frozenset(("Clip", "LeakyRelu", "Relu"))
_MOVES: Final = frozenset((
    "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
))  # fmt: skip
_NEVER_NEGATIVE: Final = frozenset(("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Sqrt", "Abs"))

FIRST_OPSET: Final = {"int8": 10, "fp8e4m3": 19, "fp8e5m2": 19}  # of QuantizeLinear for these codes (ONNX operators)
_IN_BODY = "inside a control-flow body, whose values have no calibrated range"


def check_opset(model: Model, low_format: str) -> None:
    """Check that a model's opset has QuantizeLinear for a format.

    Raises:
        ConversionError: it is too old.
    """
    first = FIRST_OPSET[low_format]
    if model.opset < first:
        raise ConversionError(
            f"The model uses opset {model.opset}, and {low_format} needs opset {first} or newer.",
            why="QuantizeLinear does not make it before.",
            fix=f"Raise the opset: onnx.version_converter.convert_version(model, {first}).",
        )


def type_products(
    model: Model, low_format: str, refused: Callable[[Layer], LayerTyping | None]
) -> dict[str, LayerTyping]:
    """Return what each layer may be in a format of matrix units: the operands of products are rounded, nothing else.

    Args:
        model: the model.
        low_format: ``tf32``, ``fp8e4m3`` or ``fp8e5m2``.
        refused: returns why a layer stays as it is in any low format.
    """
    name = get_format(low_format).name
    found = {}
    for layer in model.layers:
        kept = refused(layer)
        if kept is None and layer.op not in PRODUCTS:
            kept = always_high(layer, Kind.COMPUTE, f"{name} is a format of products (Conv, Gemm, MatMul) alone")
        if kept is None and low_format != "tf32" and layer.container is not None:
            kept = always_high(layer, Kind.COMPUTE, f"inside a control-flow body, where no {name} is stored")
        found[layer.id] = kept or _product(layer, stored=False)
    return found


def type_int8(
    model: Model, refused: Callable[[Layer], LayerTyping | None], *, signed: bool
) -> tuple[dict[str, LayerTyping], frozenset[str], dict[str, str]]:
    """Return what each layer may be in int8, the values stored without a sign, and whose scale each value shares.

    Args:
        model: the model.
        refused: returns why a layer stays as it is in any low format.
        signed: store every value with a sign, as TensorRT wants it.
    """
    reader = _Int8(model, refused)
    layers = {layer.id: reader.typed(layer) for layer in model.layers}
    return layers, frozenset() if signed else frozenset(reader.unsigned), reader.roots


class _Int8:
    """Reads layer after layer, in execution order."""

    def __init__(self, model: Model, refused: Callable[[Layer], LayerTyping | None]) -> None:
        self.model, self.refused = model, refused
        self.types = model.types
        self.returned = {spec.name for spec in model.outputs}
        self.fed = {spec.name for spec in model.inputs}
        self.weights = model.weights.keys() - self.fed
        self.readers: Mapping[str, list[Layer]] = defaultdict(list)
        for layer in model.layers:
            for name in set(layer.inputs):
                self.readers[name].append(layer)
        self.held: dict[str, str] = {}  # value that a convolution or a sum leaves to the activation behind it -> layer
        self.stored: set[str] = set()  # values that are int8 where the layers that make them are
        self.unsigned: set[str] = set()
        self.roots: dict[str, str] = {}

    def typed(self, layer: Layer) -> LayerTyping:
        """Return what the layer may be, and note what its results are."""
        may = self._typed(layer)
        outputs = [name for name in layer.outputs if self._is_float(name)]
        data = layer.inputs[0] if layer.inputs else ""
        if not layer.domain and layer.op in _MOVES and self._is_float(data) and data not in self.weights:
            self.roots |= dict.fromkeys(outputs, self.roots.get(data, data))
            if data in self.unsigned:
                self.unsigned.update(outputs)
        elif not layer.domain and (layer.op in _NEVER_NEGATIVE or self._clips_at_zero(layer)):
            self.unsigned.update(outputs)
        if may.switchable:
            pairs = zip(layer.outputs, may.low_outputs, strict=True)
            self.stored.update(name for name, low in pairs if low)
        return may

    def _typed(self, layer: Layer) -> LayerTyping:
        kept = self.refused(layer)
        if kept is None and layer.container is not None:
            kept = always_high(layer, Kind.COMPUTE, _IN_BODY)
        if kept is not None:
            return kept
        if layer.op in PRODUCTS:
            return _product(layer, stored=layer.op in _CONVOLUTIONS and self._stores(layer))
        if layer.op in _ACTIVATIONS and layer.inputs[0] in self.held:
            inside = (False,) * len(layer.inputs)
            return LayerTyping(Kind.COMPUTE, inside, (self._free(layer),), after=self.held[layer.inputs[0]])
        if KIND.get(layer.op) is Kind.MOVEMENT or layer.op in _MOVES:
            return self._movement(layer)
        return self._between(layer)

    def _between(self, layer: Layer) -> LayerTyping:
        if layer.op not in _BETWEEN and layer.op != "Concat":
            return always_high(layer, Kind.COMPUTE, f"{layer.op} has no int8 kernel")
        if not any(name in self.stored for name in layer.inputs):
            return always_high(layer, Kind.COMPUTE, f"{layer.op} gains from int8 only behind layers that store it")
        takes = tuple(self._is_float(name) for name in layer.inputs)
        if layer.op == "Concat":
            return LayerTyping(Kind.PROMOTE, takes, (self._free(layer),))
        return LayerTyping(Kind.COMPUTE, takes, (self._stores(layer),))

    def _movement(self, layer: Layer) -> LayerTyping:
        data = layer.inputs[0]
        if layer.op not in _MOVES or not self._is_float(data):
            return always_high(layer, Kind.COMPUTE, f"{layer.op} has no int8 kernel")
        if data not in self.stored:
            return always_high(layer, Kind.COMPUTE, f"{layer.op} moves data, and its data is never stored in int8")
        outputs = tuple(self._is_float(name) and name not in self.returned for name in layer.outputs)
        return LayerTyping(Kind.MOVEMENT, (True, *(False,) * (len(layer.inputs) - 1)), outputs)

    def _stores(self, layer: Layer) -> bool:
        """Return whether the layer's result is quantised where it is made, and not behind its activation."""
        (name,) = layer.outputs
        readers = self.readers[name]
        reader = readers[0] if len(readers) == 1 and self._free(layer) else None
        if reader and reader.op in _ACTIVATIONS and reader.inputs[0] == name and reader.container is None:
            self.held[name] = layer.id
            return False
        return self._free(layer)

    def _free(self, layer: Layer) -> bool:
        """Return whether the first result is no output of the model: those are never quantised."""
        return layer.outputs[0] not in self.returned

    def _is_float(self, name: str) -> bool:
        return bool(name) and name in self.types and self.types[name].dtype == HIGH

    def _clips_at_zero(self, layer: Layer) -> bool:
        if layer.op != "Clip":
            return False
        attributes = self.model.attributes(layer.id)
        if "min" in attributes:
            return float(attributes["min"]) >= 0
        bound = layer.inputs[1] if len(layer.inputs) > 1 else ""
        if bound not in self.weights:
            return False
        tensor = self.model.ir.graph.initializers[bound].const_value
        return tensor is not None and tensor.numpy().size == 1 and float(tensor.numpy().reshape(-1)[0]) >= 0


def _product(layer: Layer, *, stored: bool) -> LayerTyping:
    inputs = tuple(index < 2 for index in range(len(layer.inputs)))  # the two operands; then comes the bias
    return LayerTyping(Kind.COMPUTE, inputs, (stored,))
