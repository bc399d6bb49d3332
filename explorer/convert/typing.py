"""What each layer *may* be, before any plan: read once from operator schemas and kernel support.

The result does not depend on a plan, so that a toggle costs only :func:`explorer.convert.decide.decide`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import onnx

from explorer.backends.kernels import KernelSupport, kernel_support
from explorer.convert.layer_typing import HIGH, LayerTyping, always_high
from explorer.convert.quantised_typing import PRODUCTS, check_opset, type_int8, type_products
from explorer.convert.traits import (
    CONTROL_FLOW,
    DTYPE_ATTRIBUTE,
    KEPT,
    KIND,
    PARAMETER_VARIABLES,
    UNDEFINED_BEFORE,
    Kind,
)
from explorer.errors import ConversionError
from explorer.formats import get_format
from explorer.model.quantised import source_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from explorer.calibrate.calibration import Calibration
    from explorer.model import Layer, Model, TensorSpec
    from explorer.model.quantised import SourceLayers

__all__ = ["DEFAULT_TARGET", "HIGH", "LayerTyping", "Typing", "type_layers"]

DEFAULT_TARGET = "onnxruntime-cuda"  # whose kernels decide what may run low, unless the user names another
_HIGH_TYPE = "tensor(float)"
_LOW_TYPES = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}  # formats that ONNX operators compute in
_PAIRED = ("int8", "fp8e4m3", "fp8e5m2")  # formats that stand between QuantizeLinear and DequantizeLinear
_FIRST_BF16_OPSET = 13  # Cast and the arithmetic operators take bfloat16 from opset 13 (onnx/docs/Changelog.md)
_EXACT_CAST_SOURCES = {
    # Integer types that reach the low format by way of float32 with the same result as directly (one rounding).
    "fp16": ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    "bf16": ("bool", "int8", "uint8", "int16", "uint16"),
}
_ATTENTION_MASK, _ATTENTION_LENGTHS = 3, 6  # inputs attn_mask and nonpad_kv_seqlen of Attention (opset 23, 24)
_KIND_REASONS = {
    Kind.CONTROL: "control flow keeps fp32 at its border; the layers inside decide on their own",
    Kind.OBSERVE: "reads the shape only, in whatever format comes",
}
_CONTAINERS = ("seq(", "optional(", "sparse(", "map")


@dataclass(frozen=True)
class Typing:
    """What every layer of a model may be, for one low format and one backend.

    Attributes:
        model: the model.
        format: the low format.
        backend: whose kernels were asked, or None for what the operators' schemas allow.
        layers: layer id to what it may be.
        types: value name to dtype and shape.
        unsigned: values that int8 stores without a sign, as they are never negative; the others are symmetric.
        roots: value to the one whose scale it shares, because it holds the same elements.
        calibration: the scales of int8; what runs or converts such a typing needs them, what decides does not.
    """

    model: Model
    format: str
    backend: str | None
    layers: dict[str, LayerTyping]
    types: dict[str, TensorSpec]
    unsigned: frozenset[str] = frozenset()
    roots: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None


def type_layers(model: Model, low_format: str, backend: str | None = None) -> Typing:
    """Return what each layer of ``model`` may be when the low format is ``low_format``.

    Args:
        model: the model.
        low_format: any format but ``fp32``.
        backend: where the converted model shall run: layers without a kernel there stay in fp32. None asks no
            backend. The formats that are not stored (tf32) or that quantization nodes make (int8, fp8) ask none:
            quantization nodes run everywhere, if not always in integers.

    Raises:
        ConversionError: the model's opset has no such format.
    """
    source = source_layers(model)
    if low_format not in _LOW_TYPES:
        typer = _Typer(model, model.opset, model.types, "", get_format(low_format).name, None, source)
        if low_format == "int8":
            check_opset(model, low_format)
            layers, unsigned, roots = type_int8(model, typer.refused, signed=backend == "tensorrt")
            return Typing(model, low_format, backend, layers, typer.types, unsigned, roots)
        layers = type_products(model, low_format, typer.refused)
        return Typing(model, low_format, backend, layers, typer.types)
    kernels = kernel_support(backend) if backend else None
    typer = _Typer(model, model.opset, model.types, _low_type(model, low_format), low_format, kernels, source)
    return Typing(model, low_format, backend, {layer.id: typer.typed(layer) for layer in model.layers}, typer.types)


def _low_type(model: Model, low_format: str) -> str:
    if low_format == "bf16" and model.opset < _FIRST_BF16_OPSET:
        raise ConversionError(
            f"The model uses opset {model.opset}, and ONNX operators take bfloat16 from opset {_FIRST_BF16_OPSET} on.",
            why="A converted model would be invalid.",
            fix=f"Use fp16, or raise the opset: onnx.version_converter.convert_version(model, {_FIRST_BF16_OPSET}).",
        )
    return _LOW_TYPES[low_format]


@dataclass(frozen=True)
class _Typer:
    """Reads what one layer after the other may be."""

    model: Model
    opset: int
    types: dict[str, TensorSpec]
    low: str
    low_format: str
    kernels: KernelSupport | None
    source: SourceLayers

    def typed(self, layer: Layer) -> LayerTyping:
        """Return what the layer may be."""
        if refused := self.refused(layer):
            return refused
        schema = _schema(layer.op, self.opset)
        if schema is None:
            return always_high(layer, Kind.COMPUTE, f"opset {self.opset} knows no operator {layer.op}")
        if reason := self._cast_keeps(layer) or self._undefined(layer):
            return always_high(layer, Kind.COMPUTE, reason)
        return self._from_schema(layer, schema, KIND.get(layer.op, Kind.COMPUTE))

    def refused(self, layer: Layer) -> LayerTyping | None:
        """Return why the layer stays as it is in any low format; None where it may not."""
        if reason := self.source.reasons.get(layer.id):
            return replace(always_high(layer, Kind.COMPUTE, reason), stored=self.source.formats[layer.id])
        if self._weight_is_stored(layer):
            reason = "its weight is quantised in the source model: rounding it again would lose more"
            return always_high(layer, Kind.COMPUTE, reason)
        dtypes = [self.types[name].dtype if name in self.types else "" for name in layer.inputs if name]
        dtypes += [self.types[name].dtype if name in self.types else "" for name in layer.outputs if name]
        kind = KIND.get(layer.op, Kind.COMPUTE) if not layer.domain else Kind.COMPUTE
        plain = all(dtypes) and not any(dtype.startswith(_CONTAINERS) for dtype in dtypes)
        if HIGH not in dtypes and plain and kind not in (Kind.CONTROL, Kind.OBSERVE):
            floats = sorted({dtype for dtype in dtypes if dtype.startswith(("float", "bfloat", "double"))})
            reason = f"computes in {floats[0]} in the source model" if floats else "carries no floating-point tensor"
            return always_high(layer, Kind.INERT, reason)
        if reason := self._outside_of_schemas(layer, kind, dtypes):
            return always_high(layer, kind if kind in (Kind.CONTROL, Kind.OBSERVE) else Kind.COMPUTE, reason)
        return always_high(layer, Kind.COMPUTE, KEPT[layer.op]) if layer.op in KEPT else None

    def _weight_is_stored(self, layer: Layer) -> bool:
        """Return whether a low format with scales of its own would meet a weight that has scales already."""
        if layer.op not in PRODUCTS or self.low_format not in _PAIRED:
            return False
        return any(name in self.source.stored for name in layer.inputs[:2])

    def _outside_of_schemas(self, layer: Layer, kind: Kind, dtypes: list[str]) -> str:
        """Return why the layer stays as it is whatever its schema says, or an empty string."""
        if outside := self._foreign_container(layer):
            return f"inside a body of the operator {outside}: the types that it takes and gives are not known"
        if kind in _KIND_REASONS:
            return _KIND_REASONS[kind]
        if any(dtype.startswith(_CONTAINERS) for dtype in dtypes):
            return "takes or makes a sequence, optional or sparse tensor, whose element type must not change"
        if layer.domain:
            return f"operator of the custom domain {layer.domain}: the types that it takes are not known"
        if not all(dtypes):
            return "the type of one of its tensors is unknown, and it must agree with the others"
        return ""

    def _foreign_container(self, layer: Layer) -> str:
        """Return the operator, other than ONNX's control flow, in whose body the layer stands; empty for none."""
        while layer.container is not None:
            layer = self.model.layer(layer.container)
            if layer.domain or layer.op not in CONTROL_FLOW:
                return layer.qualified_op
        return ""

    def _cast_keeps(self, layer: Layer) -> str:
        """Return why a Cast of the source model must stay as it is, or an empty string."""
        if layer.op != "Cast":
            return ""
        source, target = self.types[layer.inputs[0]].dtype, self.types[layer.outputs[0]].dtype
        if target == "string":
            return "a cast of the source model to text: the digits of another format would read differently"
        if target == HIGH and source != HIGH and source not in _EXACT_CAST_SOURCES[self.low_format]:
            return f"a cast of the source model from {source}: straight to {self.low_format} it could round otherwise"
        return ""

    def _undefined(self, layer: Layer) -> str:
        """Return why the operator's definition in ONNX cannot hold the format, or an empty string."""
        first, lacking = UNDEFINED_BEFORE.get((layer.op, self.low_format), (0, ""))
        if self.opset < first:
            return f"its definition in ONNX uses {lacking}, which takes no {self.low_format} at opset {self.opset}"
        if layer.op == "Attention" and self.low_format == "bf16" and len(layer.inputs) > _ATTENTION_MASK:
            mask = layer.inputs[_ATTENTION_MASK]
            other = self.model.attributes(layer.id).get("is_causal") or len(layer.inputs) > _ATTENTION_LENGTHS
            if mask and self.types[mask].dtype == HIGH and other:
                return "its definition in ONNX adds a float32 mask to the causal one, so bf16 is not valid with both"
        return ""

    def _from_schema(self, layer: Layer, schema: onnx.defs.OpSchema, kind: Kind) -> LayerTyping:
        inputs = _variables(layer.inputs, schema.inputs, self.types)
        outputs = _variables(layer.outputs, schema.outputs, self.types)
        allowed = _allowed(layer.op, self.opset)
        kept = PARAMETER_VARIABLES.get(layer.op, frozenset())
        low_vars = {v for v in (*inputs, *outputs) if v and v not in kept and self.low in allowed.get(v, ())}
        if layer.op == "Cast" and (any(inputs) or not any(outputs)):
            # To an integer or another float: it reads what is there and must not round it first; to float32 likewise.
            kind = Kind.MOVEMENT
        elif layer.op in DTYPE_ATTRIBUTE or layer.op == "ConstantOfShape":
            low_vars &= set(outputs)  # the result's type is an attribute; an input is only read for its shape
        primary = [v for v in (outputs if any(outputs) else inputs) if v and v not in kept]
        if not primary or not low_vars.issuperset(primary):
            fixed = next((v for v in primary if v not in low_vars), "all its tensors")
            return always_high(
                layer, Kind.COMPUTE, f"{layer.op} of opset {schema.since_version} takes only float32 here ({fixed})"
            )
        if self.kernels is not None:
            bound = {v: (self.low if v in low_vars else _HIGH_TYPE) for v in (*inputs, *outputs) if v and v in allowed}
            if self.kernels.supports(layer.domain, layer.op, self.opset, bound) is False:
                reason = (
                    f"{self.kernels.backend} has no {self.low} kernel for {layer.op} of opset {schema.since_version}"
                )
                return always_high(layer, Kind.COMPUTE, reason)
        return LayerTyping(kind, tuple(v in low_vars for v in inputs), tuple(v in low_vars for v in outputs))


def _variables(
    names: Iterable[str], formals: Iterable[onnx.defs.OpSchema.FormalParameter], types: dict[str, TensorSpec]
) -> tuple[str, ...]:
    """Return the type variable of every float32 tensor among ``names``; empty for the others."""
    formals = list(formals)
    found = []
    for index, name in enumerate(names):
        formal = formals[min(index, len(formals) - 1)] if formals else None
        is_high = bool(name) and name in types and types[name].dtype == HIGH
        found.append(formal.type_str if formal is not None and is_high else "")
    return tuple(found)


@lru_cache(maxsize=4096)
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


@lru_cache(maxsize=4096)
def _allowed(op: str, opset: int) -> dict[str, frozenset[str]]:
    schema = _schema(op, opset)
    if schema is None:
        return {}
    return {item.type_param_str: frozenset(item.allowed_type_strs) for item in schema.type_constraints}
