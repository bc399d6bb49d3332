"""What a model brings of its own quantisation: scales of its tensors, and the layers that run in integers already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from explorer.model.graph import Layer, Model

__all__ = ["SourceLayers", "SourceScale", "source_layers", "source_quantisation"]

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_FORMATS: Final = {  # of the plan, by the type of the codes; others (int4, int16) have none
    "int8": "int8",
    "uint8": "int8",
    "float8e4m3fn": "fp8e4m3",
    "float8_e4m3fn": "fp8e4m3",
    "float8e5m2": "fp8e5m2",
    "float8_e5m2": "fp8e5m2",
}
_PRODUCTS: Final = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_ACTIVATIONS: Final = frozenset(("Clip", "LeakyRelu", "Relu"))  # part of the kernel of the product before them
_BETWEEN: Final = frozenset((  # run in integers between quantised tensors (ONNX Runtime's QDQ rules, TensorRT's guide)
    "Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Relu", "Sigmoid",
    "Softmax",
))  # fmt: skip
_MOVES: Final = frozenset((
    "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze",
))  # fmt: skip
_AXIS, _AXIS_OPSET = 1, 13  # the default axis of both operators, and the first opset where they have one

# Where integer operators keep scale and zero point: triples of inputs (value, scale, zero point), and the pair of the
# result. Source: ONNX operators QLinearConv and QLinearMatMul; ONNX Runtime's ContribOperators.md for the others.
_CONV = (((0, 1, 2), (3, 4, 5)), (6, 7))
_SUM = (((0, 1, 2), (3, 4, 5)), (6, 7))
_UNARY = (((0, 1, 2),), (3, 4))
_INTEGER: Final[dict[str, tuple[tuple[tuple[int, int, int], ...], tuple[int, int]]]] = {
    "QLinearConv": _CONV,
    "QLinearMatMul": _CONV,
    "QGemm": (((0, 1, 2), (3, 4, 5)), (7, 8)),
    "QLinearAdd": _SUM,
    "QLinearMul": _SUM,
    "QLinearAveragePool": _UNARY,
    "QLinearGlobalAveragePool": _UNARY,
    "QLinearLeakyRelu": _UNARY,
    "QLinearSigmoid": _UNARY,
    "QLinearSoftmax": _UNARY,
}
_UNSCALED: Final = frozenset((  # compute in integers, and hold scales elsewhere or make them while they run
    "ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QLinearConcat",
    "QLinearReduceMean", "QLinearWhere", "QEmbedLayerNormalization",
))  # fmt: skip
_DOMAINS: Final = ("", "ai.onnx", "com.microsoft")


@dataclass(frozen=True, slots=True, eq=False)
class SourceScale:
    """How the source model stores a tensor in low precision: ``(code - zero_point) * scale``.

    Attributes:
        scale: float32: a scalar, a vector with one for each channel along ``axis``, or one for each block.
        zero_point: of the same shape, of the type of the codes; None where the model leaves it out: 0.
        axis: along which the scales differ; None where there is one for the whole tensor.
        dtype: of the codes, as numpy or ml_dtypes names it.
        block: how many elements along ``axis`` share a scale; 0 where all of one channel do.
    """

    scale: npt.NDArray[np.floating[Any]]
    zero_point: npt.NDArray[Any] | None
    axis: int | None
    dtype: str
    block: int = 0

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is 0."""
        return self.zero_point is None or not self.zero_point.astype(float).any()


@dataclass(frozen=True)
class SourceLayers:
    """The layers that a model's own quantisation concerns.

    Attributes:
        formats: id of each layer that runs in low precision already, to its format; empty where a plan has none like
            it (int4, int16).
        reasons: the same ids, to how that is known, in words.
        stored: values that are dequantised weights, and what only moves them, to the type of the codes.
    """

    formats: Mapping[str, str]
    reasons: Mapping[str, str]
    stored: Mapping[str, str]


def source_quantisation(model: Model) -> dict[str, SourceScale]:
    """Return how the model itself quantises tensors: by the value's name, that of the codes and that of the numbers.

    Scales that are no weights, but computed while the model runs, are not known and left out. Where a value is
    quantised several times in different ways, its first scale is told.
    """
    reader = _Scales(model)
    found: dict[str, SourceScale] = {}
    for layer in model.layers:
        for name, scale in reader.of(layer):
            found.setdefault(name, scale)
    return found


class _Scales:
    """Reads scales from one layer after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model
        fed = {spec.name for spec in model.inputs}
        self.weights = {
            name: value.const_value for name, value in model.ir.graph.initializers.items() if name not in fed
        }

    def of(self, layer: Layer) -> Iterator[tuple[str, SourceScale]]:
        """Yield the values that the layer reads or makes quantised, and how."""
        if layer.domain not in _DOMAINS:
            return
        if layer.op in (_QUANTIZE, _DEQUANTIZE):
            codes = layer.outputs[0] if layer.op == _QUANTIZE else layer.inputs[0]
            scale = self._scale(layer, 1, 2, codes, self._axis(layer))
            if scale is not None:
                yield layer.inputs[0], scale
                yield layer.outputs[0], scale
        elif layer.op in _INTEGER:
            triples, made = _INTEGER[layer.op]
            for value, scale_at, zero_at in triples:
                if (found := self._scale(layer, scale_at, zero_at, self._name(layer, value), None)) is not None:
                    yield layer.inputs[value], found
            if (found := self._scale(layer, *made, layer.outputs[0], None)) is not None:
                yield layer.outputs[0], found

    def _axis(self, layer: Layer) -> int:
        return int(self.model.attributes(layer.id).get("axis", _AXIS))

    @staticmethod
    def _name(layer: Layer, index: int) -> str:
        return layer.inputs[index] if index < len(layer.inputs) else ""

    def _array(self, layer: Layer, index: int) -> npt.NDArray[Any] | None:
        tensor = self.weights.get(self._name(layer, index))
        return None if tensor is None else tensor.numpy()

    def _scale(self, layer: Layer, scale_at: int, zero_at: int, codes: str, axis: int | None) -> SourceScale | None:
        scale, zero = self._array(layer, scale_at), self._array(layer, zero_at)
        if scale is None:
            return None
        dtype = self._dtype(layer, codes, zero_at)
        attributes = self.model.attributes(layer.id)
        if axis is None and scale.size > 1:  # a weight: of a convolution by output channel, of a product by column
            axis = 0 if "Conv" in layer.op or attributes.get("transB") else 1
        block = int(attributes.get("block_size", 0))
        plain = scale.size == 1 and not block
        return SourceScale(scale, zero, None if plain else axis, dtype, block)

    def _dtype(self, layer: Layer, codes: str, zero_at: int) -> str:
        for name in (self._name(layer, zero_at), codes):
            found = self.model.weights.get(name) or self.model.types.get(name)
            if found is not None and found.dtype:
                return found.dtype
        made = int(self.model.attributes(layer.id).get("output_dtype", 0))
        return ir.DataType(made).name.lower() if made else "uint8"  # ONNX: without a zero point the codes are uint8


def source_layers(model: Model) -> SourceLayers:
    """Return which layers run in low precision as the model stands: between DequantizeLinear and QuantizeLinear."""
    return _Layers(model).found()


class _Layers:
    """Follows dequantised values to the layers that read them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        # Weights, and what is moved or quantised of them: training with quantisation leaves them in fp32 in the file.
        self.constants = set(model.weights) - {spec.name for spec in model.inputs}
        self.returned = {spec.name for spec in model.outputs}
        self.readers: dict[str, list[Layer]] = {}
        for layer in model.layers:
            for name in dict.fromkeys(layer.inputs):
                self.readers.setdefault(name, []).append(layer)
        self.data: dict[str, str] = {}  # dequantised activation -> type of its codes
        self.stored: dict[str, str] = {}  # dequantised weight -> type of its codes
        self.formats: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.held: dict[str, str] = {}  # result of a quantised product that its only reader may take into its kernel

    def found(self) -> SourceLayers:
        """Return what all layers are."""
        pairs = any(layer.op == _DEQUANTIZE for layer in self.model.layers)
        for layer in self.model.layers:
            if layer.domain in _DOMAINS and (layer.op in _INTEGER or layer.op in _UNSCALED):
                self._mark(layer, "int8", f"{layer.op} computes in integers")
            elif pairs and layer.domain in ("", "ai.onnx"):
                self._read(layer)
        return SourceLayers(self.formats, self.reasons, self.stored)

    def _mark(self, layer: Layer, dtype: str, why: str) -> None:
        self.formats[layer.id] = _FORMATS.get(dtype, "")
        self.reasons[layer.id] = f"quantised in the source model: {why}"

    def _read(self, layer: Layer) -> None:
        first = layer.inputs[0] if layer.inputs else ""
        if layer.op == _DEQUANTIZE:
            held = self.stored if first in self.constants else self.data
            held[layer.outputs[0]] = self._codes(first)
        elif layer.op in (_QUANTIZE, *_MOVES) and self.constants.issuperset(filter(None, layer.inputs)):
            self.constants.update(layer.outputs)
        elif layer.op in _MOVES:
            for held in (self.data, self.stored):
                if first in held:
                    held.update(dict.fromkeys(layer.outputs, held[first]))
        elif layer.op in _PRODUCTS:
            self._product(layer)
        elif layer.op in _ACTIVATIONS and first in self.held:
            if self._quantised_later(layer.outputs[0]):
                self._mark(layer, self.held[first], "it runs in the kernel of the product before it")
        elif layer.op in _BETWEEN:
            self._between(layer)

    def _codes(self, name: str) -> str:
        known = self.model.weights.get(name) or self.model.types.get(name)
        return known.dtype if known is not None else ""

    def _product(self, layer: Layer) -> None:
        dtypes = [self.data.get(name) or self.stored.get(name) for name in layer.inputs[:2]]
        if not all(dtypes) or not any(name in self.data for name in layer.inputs[:2]):
            return
        dtype = next(self.data[name] for name in layer.inputs[:2] if name in self.data)
        narrow = all(_FORMATS.get(str(each)) == _FORMATS.get(dtype) for each in dtypes)
        self._mark(layer, dtype if narrow else "", f"both operands come from DequantizeLinear ({_joined(dtypes)})")
        if len(self.readers.get(layer.outputs[0], ())) == 1 and layer.outputs[0] not in self.returned:
            self.held[layer.outputs[0]] = dtype if narrow else ""

    def _between(self, layer: Layer) -> None:
        floats = [name for name in layer.inputs if name in self.model.types and name]
        takes = [name for name in floats if name in self.data]
        constant = all(name in self.data or name in self.stored or self._is_bound(layer, name) for name in floats)
        if takes and constant and all(self._quantised_later(name) for name in layer.outputs if name):
            self._mark(layer, self.data[takes[0]], "it stands between DequantizeLinear and QuantizeLinear")

    def _is_bound(self, layer: Layer, name: str) -> bool:
        return layer.op == "Clip" and name in layer.inputs[1:]

    def _quantised_later(self, name: str) -> bool:
        """Return whether all that read a value quantise it, some after moving it."""
        pending, seen = [name], False
        while pending:
            each = pending.pop()
            if each in self.returned:
                return False
            for reader in self.readers.get(each, ()):
                if reader.op == _QUANTIZE and reader.inputs[0] == each:
                    seen = True
                elif reader.op in _MOVES and reader.inputs[0] == each:
                    pending.extend(reader.outputs)
                else:
                    return False
        return seen


def _joined(dtypes: list[str | None]) -> str:
    return " and ".join(dict.fromkeys(str(each) for each in dtypes))
