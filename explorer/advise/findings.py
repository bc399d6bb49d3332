"""All findings about one plan, most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.breaks import first_broken, path_told
from explorer.advise.causes import overflows, vanishing
from explorer.advise.drift import far_off
from explorer.advise.evidence import Evidence
from explorer.advise.finding import Finding
from explorer.advise.losses import beyond_and_kept, digits, long_sums, weights_lost
from explorer.advise.quantised import came_quantised, in_int8
from explorer.advise.told import causes_told
from explorer.advise.variants import other_format, scaled
from explorer.advise.words import decibels, join, plural
from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from explorer.convert import Decisions, WeightSummary
    from explorer.model import Model

__all__ = ["findings"]

_ACCUMULATED: Final = ("fp16", "bf16")  # formats that kernels may keep running sums in
_INSIDE: Final = "every finite value that {they} stays inside the range"
_SATURATES: Final = "what leaves its range saturates"
_ORDER: Final = {"stop": 0, "warn": 1, "note": 2, "good": 3}


def findings(
    model: Model,
    decisions: Decisions,
    errors: pd.DataFrame,
    ranges: pd.DataFrame,
    output_error: pd.DataFrame,
    *,
    accuracy: tuple[float, float] | None = None,
    weights: WeightSummary | None = None,
    clamped: bool = False,
    slow: Sequence[Finding] = (),
) -> list[Finding]:
    """Return what breaks under a plan, why, and what to do; most important first, never empty.

    Args:
        model: the model.
        decisions: what became of the plan.
        errors: ``Exploration.errors()`` under the plan.
        ranges: ``Exploration.ranges()``.
        output_error: ``Exploration.output_error()`` under the plan.
        accuracy: of the fp32 model and under the plan, 0 to 1; None without labels.
        weights: what the conversion did to the weights that it stores low; None where nothing was converted.
        clamped: whether the user asked for weights to be clamped.
        slow: why the plan is not faster, as :func:`slow_findings` tells it; it comes after what breaks.
    """
    ev = Evidence(model, decisions, errors, ranges, output_error, accuracy, weights, clamped)
    causes = [*overflows(ev), *vanishing(ev)]
    found = [
        *causes_told(ev, causes),
        *(weights_lost(ev, causes) if ev.format.is_float else ()),
        *(digits(ev, causes) if ev.format.is_float else ()),
        *in_int8(ev),
        *other_format(ev, causes),
        *scaled(ev, causes),
        *(long_sums(ev) if ev.format.name in _ACCUMULATED else ()),
        *_unmeasured(ev),
        *beyond_and_kept(ev),
    ]
    broken = first_broken(ev, causes)
    spoilt = far_off(ev) if broken is None or broken.tone != "stop" else None
    lead = [each for each in (spoilt, broken, path_told(ev)) if each is not None]
    rest = sorted(found, key=lambda each: _ORDER[each.tone])
    if lead or any(each.tone in ("stop", "warn") for each in rest):
        return [*lead, *rest, *slow]
    return [_well(ev), *rest, *slow]


def _well(ev: Evidence) -> Finding:
    if not ev.lowered.any():
        return _nothing_low(ev)
    _, worst = ev.worst_output
    if np.isnan(worst):
        return Finding(
            id="unknown", tone="note", title="The output error was not measured",
            text="No layer is known to break, and nothing is known of the outputs.",
        )  # fmt: skip
    used = join([name for name in dict.fromkeys((ev.format.name, "int8")) if ev.runs_in(name).any()])
    count = int(ev.lowered.sum())
    inside = _INSIDE.format(they="it gives" if count == 1 else "they give")
    return Finding(
        id="holds", tone="good", title=f"Nothing breaks in {used}",
        text=f"{plural(count, 'layer runs', 'layers run')} in {used}, and "
        f"{_SATURATES if ev.format.saturates else inside}.",
        evidence=f"Worst output: {decibels(worst)}. "
        f"{ev.errors['provenance'].max()}.",
    )  # fmt: skip


def _nothing_low(ev: Evidence) -> Finding:
    """Tell why nothing can break; a model that came quantised is not one of fp32 layers."""
    given, able = came_quantised(ev), sum(bool(each.format != NO_FORMAT) for each in ev.decisions)
    if given:
        text = plural(len(given), "layer comes quantised and stays", "layers come quantised and stay")
        text += " as given; no other runs low. So the outputs are those of the model as it was given: what its "
        text += (
            "quantisation has cost is not known here. To choose formats for such layers, take the model from before."
        )
    elif able:
        text = "All layers with float32 tensors keep fp32, so there is nothing that could break."
    else:
        text = "No layer has float32 tensors, so there is no format to choose, and nothing that could break."
    return Finding(id="nothing-low", tone="note", title=f"Nothing runs in {ev.format.name} under this plan", text=text)


def _unmeasured(ev: Evidence) -> list[Finding]:
    """Tell of layers of which nothing is known."""
    unknown = np.isnan(ev.column("local_sqnr_db")) & np.isnan(ev.column("acc_sqnr_db")) & ev.low & ~ev.broken
    count = int(unknown.sum())
    if not count:
        return []
    return [
        Finding(
            id="unmeasured", tone="note", title=f"{plural(count, 'layer')} not measured",
            text=f"Nothing is known of {'its' if count == 1 else 'their'} error; the table says why.",
            layers=ev.ids(np.flatnonzero(unknown).tolist()),
        )
    ]  # fmt: skip
