"""Plan -> mixed-precision model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from explorer.convert.check import check_converted
from explorer.convert.decide import Decisions, decide
from explorer.convert.insert import InsertedCast, insert_casts
from explorer.convert.insert_pairs import insert_pairs
from explorer.convert.quantised_typing import FIRST_OPSET
from explorer.convert.typing import type_layers
from explorer.convert.weights import WeightReport, WeightSummary
from explorer.model.pause import no_collection

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from explorer.calibrate.calibration import Calibration
    from explorer.model import Model
    from explorer.plan import Plan

__all__ = ["Conversion", "convert"]

_INT8: Final = "int8"
_STORED: Final = ("fp16", "bf16")  # formats that operators compute in, between casts
_PAIRED: Final = (_INT8, "fp8e4m3", "fp8e5m2")  # formats that stand between QuantizeLinear and DequantizeLinear
_TF32_NOTE: Final = (
    "the file is the fp32 model: tf32 is a mode that is switched on where it runs (TensorRT: BuilderFlag.TF32; ONNX "
    "Runtime CUDA: provider option use_tf32)"
)


@dataclass(frozen=True, repr=False)
class Conversion:
    """A converted model and how it came to be.

    Attributes:
        ir: the converted graph, checked; `explorer.export.save_onnx` writes it.
        decisions: what became of each layer, with reasons.
        casts: the Cast nodes that were inserted.
        weights: what the conversion of the weights did to their values.
        notes: what could not be checked here, or was asked for in vain, in words.
        refusal: why no ONNX file can hold the plan; the graph is then as it was. Empty where one can.
    """

    ir: ir.Model
    decisions: Decisions
    casts: tuple[InsertedCast, ...]
    weights: WeightSummary
    notes: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def proto(self) -> onnx.ModelProto:
        """The converted model as a proto (under 2 GB only)."""
        return ir.to_proto(self.ir)

    @property
    def low_share(self) -> float:
        """Share of the layers with float32 tensors that the plan runs low; 0 where there are none."""
        return self.decisions.low_share

    def __repr__(self) -> str:
        name, decisions = self.decisions.typing.model.name, self.decisions
        if self.refusal:
            return f"Conversion of {name}, refused: {self.refusal}"
        low, total = len(decisions.low_layers | decisions.int8_layers), self.weights.total
        lost = f"{total.overflow:,} overflow, {total.flushed:,} flush to zero, {total.subnormal:,} go subnormal"
        lines = [
            f"Conversion of {name}: {low:,} of {len(decisions):,} layers in {' and '.join(decisions.formats)}, checked",
            f"  casts    {len(self.casts):,} inserted",
            f"  weights  {total.elements:,} values stored low: {lost}, {self.weights.clamped:,} clamped",
            *(f"  note     {note}" for note in self.notes),
            "  next     .decisions[layer_id]  .weights.worst()  .proto",
        ]
        return "\n".join(lines)


def convert(
    model: Model,
    plan: Plan,
    *,
    backend: str | None = None,
    clamp: bool = False,
    decisions: Decisions | None = None,
    calibration: Calibration | None = None,
) -> Conversion:
    """Return ``model`` under ``plan``: a checked mixed-precision model; the given one is not modified.

    Args:
        model: the model.
        plan: which layers shall run low.
        backend: where it shall run: layers without a low kernel there stay in fp32, with that reason. None asks for
            what ONNX itself allows.
        clamp: weights beyond the range of the low format become its largest value instead of infinity.
        decisions: decisions already made for this model and plan, to save making them again.
        calibration: the scales of int8, for plans that have layers in it.

    Raises:
        PlanError: the plan names something that the model does not have.
        ConversionError: the model's opset has no such format, the backend takes it not, there is no calibration, or
            the result is not valid.
    """
    plan.check(model)
    with no_collection():
        if decisions is None or decisions.plan != plan:
            int8 = type_layers(model, _INT8, backend) if _INT8 in plan.formats[1:] else None
            decisions = decide(plan, type_layers(model, plan.format, backend), int8)
        clone, refusal = model.clone(), _refusal(decisions)
        casts, weights = ((), ()) if refusal else _rewrite(clone, decisions, calibration, clamp=clamp)
        notes = (*check_converted(clone, model, keep_io=plan.keep_io), *_in_vain(decisions))
    if plan.format == "tf32" and not refusal:
        notes = (*notes, _TF32_NOTE)
    return Conversion(clone, decisions, casts, WeightSummary(weights), notes, refusal)


def _rewrite(
    clone: ir.Model, decisions: Decisions, calibration: Calibration | None, *, clamp: bool
) -> tuple[tuple[InsertedCast, ...], tuple[WeightReport, ...]]:
    """Rewrite a clone of the model in place: first the types of tensors, then the pairs of quantised layers."""
    casts: tuple[InsertedCast, ...] = ()
    weights: tuple[WeightReport, ...] = ()
    if decisions.plan.format in _STORED:
        casts, weights = insert_casts(clone, decisions, clamp=clamp)
    pure = decisions.plan.format in _PAIRED
    typing, layers = (decisions.typing, decisions.low_layers) if pure else (decisions.int8, decisions.int8_layers)
    if typing is not None and layers:
        pairs, quantised = insert_pairs(clone, replace(typing, calibration=calibration), layers)
        casts, weights = (*casts, *pairs), (*weights, *quantised)
    return casts, weights


def _in_vain(decisions: Decisions) -> Iterator[str]:
    """Yield the rules by which no layer has the int8 that they ask for beside the plan's format, with why."""
    model, plan = decisions.typing.model, decisions.plan
    for rule in plan.rules if decisions.int8 is not None else ():
        if rule.format == _INT8:
            named = [decisions[layer.id] for layer in filter(rule.matcher(model), model.layers)]
            if all(each.format != _INT8 for each in named):
                yield f"the rule '{rule}' gives no layer int8; {named[0].layer_id}: {named[0].reason}"


def _refusal(decisions: Decisions) -> str:
    """Return why no file can hold the plan; empty where one can."""
    if decisions.plan.format == "tf32":
        kept = [layer_id for layer_id, may in decisions.typing.layers.items() if may.switchable]
        if any(layer_id not in decisions.low_layers for layer_id in kept) and decisions.low_layers:
            return "tf32 is a mode of the whole model: a file cannot ask for it in some layers and not in others"
    opset, first = decisions.typing.model.opset, FIRST_OPSET.get(decisions.plan.format, 0)
    if decisions.low_layers and opset < first:
        return f"the model uses opset {opset}, and QuantizeLinear makes {decisions.plan.format} from opset {first} on"
    if decisions.plan.format == "fp8e5m2" and decisions.typing.backend == "tensorrt" and decisions.low_layers:
        return "TensorRT takes no fp8e5m2, only fp8e4m3"
    return ""
