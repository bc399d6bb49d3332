"""Plan -> mixed-precision model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from explorer.convert.check import check_converted
from explorer.convert.decide import Decisions, decide
from explorer.convert.insert import InsertedCast, insert_casts
from explorer.convert.typing import type_layers
from explorer.convert.weights import WeightSummary
from explorer.model.pause import no_collection
from explorer.plan import NO_FORMAT, Plan

if TYPE_CHECKING:
    import onnx

    from explorer.model import Model

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True)
class Conversion:
    """A converted model and how it came to be.

    Attributes:
        ir: the converted graph, checked; `explorer.export.save_onnx` writes it.
        decisions: what became of each layer, with reasons.
        casts: the Cast nodes that were inserted.
        weights: what the conversion of the weights did to their values.
        notes: what could not be checked here, in words.
    """

    ir: ir.Model
    decisions: Decisions
    casts: tuple[InsertedCast, ...]
    weights: WeightSummary
    notes: tuple[str, ...] = ()

    @property
    def proto(self) -> onnx.ModelProto:
        """The converted model as a proto (under 2 GB only)."""
        return ir.to_proto(self.ir)

    @property
    def low_share(self) -> float:
        """Share of the layers with float32 tensors that run low; 0 where there are none."""
        floats = [decision for decision in self.decisions if decision.format != NO_FORMAT]
        low = sum(decision.format == self.decisions.plan.format for decision in floats)
        return low / len(floats) if floats else 0.0


def convert(
    model: Model,
    plan: Plan,
    *,
    backend: str | None = None,
    clamp: bool = False,
    decisions: Decisions | None = None,
) -> Conversion:
    """Return ``model`` under ``plan``: a checked mixed-precision model; the given one is not modified.

    Args:
        model: the model.
        plan: which layers shall run low.
        backend: where it shall run: layers without a low kernel there stay in fp32, with that reason. None asks for
            what ONNX itself allows.
        clamp: weights beyond the range of the low format become its largest value instead of infinity.
        decisions: decisions already made for this model and plan, to save making them again.

    Raises:
        PlanError: the plan names something that the model does not have.
        ConversionError: the model's opset has no such format, or the result is not valid.
    """
    plan.check(model)
    with no_collection():
        if decisions is None or decisions.plan != plan:
            decisions = decide(plan, type_layers(model, plan.format, backend))
        clone = model.clone()
        casts, weights = insert_casts(clone, decisions, clamp=clamp)
        notes = check_converted(clone, model, keep_io=plan.keep_io)
    return Conversion(clone, decisions, casts, WeightSummary(weights), notes)
