"""All findings about one plan, most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.breaks import causes_told, first_broken, path_told
from explorer.advise.causes import overflows, vanishing
from explorer.advise.evidence import POOR_DB, Evidence
from explorer.advise.finding import Finding
from explorer.advise.losses import beyond_and_kept, digits, long_sums, weights_lost
from explorer.advise.quantised import in_int8
from explorer.advise.variants import other_format, scaled
from explorer.advise.words import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from explorer.convert import Decisions
    from explorer.formats import Census
    from explorer.model import Model

__all__ = ["findings"]

ACCURACY_LOST: Final = 0.005  # half a point, more than a handful of samples in a thousand
_ACCUMULATED: Final = ("fp16", "bf16")  # formats that kernels may keep running sums in
_INSIDE: Final = "every measured value stays inside its range"
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
    weights: Census | None = None,
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
        weights: census of the weights that the conversion stores low; None where nothing was converted.
        clamped: whether the user asked for weights to be clamped.
        slow: why the plan is not faster, as :func:`slow_findings` tells it; it comes after what breaks.
    """
    ev = Evidence(model, decisions, errors, ranges, output_error)
    causes = [*overflows(ev), *vanishing(ev)]
    words = ""
    if accuracy is not None and accuracy[0] - accuracy[1] > ACCURACY_LOST:
        words = f"Accuracy falls from {100 * accuracy[0]:.1f} % to {100 * accuracy[1]:.1f} %."
    lead = first_broken(ev, words, causes)
    found = [
        *causes_told(ev, causes),
        *(weights_lost(ev, weights, clamped=clamped) if ev.format.is_float else ()),
        *(digits(ev) if ev.format.is_float else ()),
        *in_int8(ev),
        *other_format(ev, causes),
        *scaled(ev, causes),
        *(long_sums(ev) if ev.format.name in _ACCUMULATED else ()),
        *_unmeasured(ev),
        *beyond_and_kept(ev),
    ]
    if lead is None and words:
        lead = Finding(
            id="accuracy", tone="stop", title=f"{ev.format.name} costs this model its accuracy",
            text="Every layer stays finite, and the predictions change all the same: rounding adds up.", evidence=words,
        )  # fmt: skip
    rest = sorted(found, key=lambda each: _ORDER[each.tone])
    path = path_told(ev) if lead is not None else None
    if path is not None:
        rest = [path, *rest]
    if lead is not None:
        return [lead, *rest, *slow]
    if any(each.tone in ("stop", "warn") for each in rest):
        return [*rest, *slow]
    return [_well(ev), *rest, *slow]


def _well(ev: Evidence) -> Finding:
    low = ev.format.name
    if not ev.low.any():
        return Finding(
            id="nothing-low", tone="note", title=f"Nothing runs in {low} under this plan",
            text="All layers keep fp32, so there is nothing that could break.",
        )  # fmt: skip
    sqnr = ev.output_error["sqnr_db"].to_numpy(dtype=np.float64, na_value=np.nan)
    known = sqnr[~np.isnan(sqnr)]
    if not known.size:
        return Finding(
            id="unknown", tone="note", title="The output error was not measured",
            text="No layer is known to break, and nothing is known of the outputs.",
        )  # fmt: skip
    worst = float(known.min())
    figure = f"Worst output: {'exact' if np.isinf(worst) else f'{worst:.1f} dB SQNR'}. {ev.errors['provenance'].max()}."
    if worst < POOR_DB:
        return Finding(
            id="far-off", tone="warn", title=f"{low} leaves the outputs far off", evidence=figure,
            text="Every layer stays finite, but the errors add up to more than a tenth of the output.",
        )  # fmt: skip
    held = plural(int(ev.low.sum()), "layer runs", "layers run")
    return Finding(
        id="holds", tone="good", title=f"Nothing breaks in {low}", evidence=figure,
        text=f"{held} in {low}, and {_SATURATES if ev.format.saturates else _INSIDE}.",
    )  # fmt: skip


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
