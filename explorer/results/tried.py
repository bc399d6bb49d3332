"""Plans that were tried: what each gave, kept for as long as the exploration lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.convert import Decisions
    from explorer.plan import Plan

__all__ = ["TriedPlan", "label_of"]

_LOW, _HIGH = "fp16", "fp32"


@dataclass(frozen=True, slots=True)
class TriedPlan:
    """One plan whose errors were measured.

    Attributes:
        plan: the plan.
        target: the backend whose kernels decided what may run low.
        label: the plan in a few words.
        sqnr_db: error of the worst output in dB; NaN where no output could be measured.
        accuracy: under the plan, 0 to 1; None without labels.
        low_share: share of the layers with float32 tensors that run low.
        error_provenance: how the errors came to be.
        gpu_model: the GPU that the latency is of; empty when none is known.
        latency_us: of the whole model under the plan, in microseconds; None when not known.
        latency_provenance: how the latency came to be.
    """

    plan: Plan
    target: str | None
    label: str
    sqnr_db: float
    accuracy: float | None
    low_share: float
    error_provenance: str
    gpu_model: str = ""
    latency_us: float | None = None
    latency_provenance: str = ""


def label_of(decisions: Decisions) -> str:
    """Return a plan in a few words: its preset, or how many layers it runs in the format that fewer of them have."""
    plan = decisions.plan
    preset = plan.preset_name
    more = "" if plan.keep_io else f", I/O in {plan.format}"
    if preset:
        return (_HIGH if preset == _HIGH else f"{preset} {plan.format}") + more
    switchable = [key for key, may in decisions.typing.layers.items() if may.switchable]
    low = len(decisions.low_layers)
    high = len(switchable) - low
    if plan.format != _LOW:
        more = f", {plan.format} elsewhere{more}" if high <= low else more
    count, name = (high, _HIGH) if high <= low else (low, plan.format)
    return f"{count} {'layer' if count == 1 else 'layers'} in {name}{more}"
