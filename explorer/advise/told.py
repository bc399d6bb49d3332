"""The causes of a break in words: one finding for each kind, what does harm apart from what does none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.finding import Finding
from explorer.advise.fixes import keep
from explorer.advise.words import join, named, plural, quantity, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.advise.causes import Cause
    from explorer.advise.evidence import Evidence
    from explorer.advise.finding import Tone

__all__ = ["causes_told"]

_TITLES: Final = {
    "norm": "Squares inside {places} leave the range of {low}",
    "softmax": "Exponentials in {places} leave the range of {low}",
    "mask": "A mask is beyond the range of {low}",
    "weight": "Weights in {places} are beyond the range of {low}",
    "range": "Values in {places} leave the range of {low}",
    "input": "Inputs of the model do not fit {low}",
    "inside": "Layers in {places} give inf or NaN in {low}",
    "epsilon": "An epsilon is too small for {low}, and a divisor becomes zero",
}
_PLACES: Final = {"norm": "normalization", "softmax": "softmax"}
_TEXTS: Final = {
    "norm": "A normalization written out in parts squares its values before it takes their mean. {low} ends at {max}, "
    "so the square of anything above {root} is infinite. Everything from the square to the layer that makes the number "
    "small again (usually the root) must stay in fp32 together: a layer in {low} behind it would round its input to "
    "infinity all the same. Dividing by infinity then gives 0, so the output can look healthy and carry nothing.",
    "softmax": "A softmax written out in parts takes exponentials: in {low} that of anything above {log} is infinite, "
    "and so are their sums. Subtracting the largest value first (as the operator Softmax does) avoids it; else these "
    "layers must stay in fp32.",
    "mask": "Masks hide positions by adding a hugely negative number. {low} ends at {max}, so this one becomes "
    "-infinity, and a row that is masked throughout gives NaN in the softmax. Keep these layers in fp32, or make the "
    "mask -10,000.",
    "weight": "{low} ends at {max}: a weight beyond it becomes infinite, and what is computed with it infinite, NaN or "
    "zero. Keep these layers in fp32. Clamping such weights to {max} (clamp=True, --clamp) changes the model.",
    "range": "The exact values of these layers are beyond {max}, where {low} ends, so they become infinite. They, and "
    "the layers that read them, must stay in fp32.",
    "input": "These layers give inf or NaN of exact inputs of the model: a number beyond {max} becomes infinite in "
    "{low}, one below {half} zero. Scale the inputs, or keep these layers in fp32.",
    "inside": "These layers give inf or NaN on exact inputs, though neither a weight nor a result that they read is "
    "beyond the range: a number that they compute with becomes infinite or zero in {low}. Keep them in fp32.",
    "epsilon": "A small constant keeps a divisor from being zero. Anything below {half} is zero in {low}, it too, "
    "so where the rest is zero the division gives infinity or NaN. The layers that hold the small value must stay "
    "in fp32, or the epsilon must grow (1e-5 is usual).",
}  # fmt: skip
_HARMLESS: Final = {
    "mask": "Masks hide positions by adding a hugely negative number. {low} ends at {max}, so this one becomes "
    "-infinity. Here that does no harm: {readers}. A softmax of a row that is masked throughout would give NaN; none "
    "is in these samples.",
    "weight": "{low} ends at {max}: a weight beyond it becomes infinite, and what is computed with it too. Here that "
    "does no harm: {readers}. Other samples may fare worse, as 0 times infinity is NaN; in fp32 nothing can happen.",
    "epsilon": _TEXTS["epsilon"] + " No result is lost by it under this plan with these samples.",
}
_HARMLESS_ELSE: Final = (
    "Exact values of these layers are beyond {max}, where {low} ends, so they become infinite. Here that does no harm: "
    "{readers}. Nothing has to change for values like these."
)
_SPARED: Final = " No output is lost by it with these samples."
_CLAMPED: Final = (
    " The converted model has such weights clamped, as asked; in the errors shown here they count as infinite."
)
_READERS: Final = 2  # layers that a sentence names with their operators
_RISKY: Final = ("weight", "epsilon")  # kinds that other samples make harmful, whatever these show


def causes_told(ev: Evidence, causes: Sequence[Cause]) -> list[Finding]:
    """Return one finding for each kind of cause, harmful ones apart from the others."""
    grouped: dict[tuple[str, bool], list[Cause]] = {}
    for cause in causes:
        grouped.setdefault((cause.kind, cause.harmful), []).append(cause)
    return [_told(ev, kind, found, harmful=harmful) for (kind, harmful), found in grouped.items()]


def _told(ev: Evidence, kind: str, found: Sequence[Cause], *, harmful: bool) -> Finding:
    rows = sorted({row for cause in found for row in cause.rows})
    fmt, clamped = ev.format, kind == "weight" and ev.clamped
    words = {
        "low": fmt.name, "max": quantity(fmt.max), "root": quantity(float(np.floor(np.sqrt(fmt.max)))),
        "log": f"{np.log(fmt.max):.1f}", "half": f"{fmt.flush_threshold:.1e}", "readers": _readers(ev, rows),
        "places": plural(len(found), _PLACES.get(kind, "place")),
    }  # fmt: skip
    text = _TEXTS[kind] if harmful else _HARMLESS.get(kind, _HARMLESS_ELSE)
    if harmful and not ev.lost:
        text += _SPARED
    grave: Tone = "stop" if ev.lost and not clamped else "warn"
    return Finding(
        id=f"{kind}{'' if harmful else '-harmless'}",
        tone=grave if harmful else "warn" if kind in _RISKY else "note",
        title=_TITLES[kind].format(**words),
        text=text.format(**words) + (_CLAMPED if clamped else ""),
        evidence=_figures(ev, kind, found, rows),
        layers=ev.ids(rows),
        fix=keep(ev, rows) if harmful or kind in _RISKY else None,
    )


def _readers(ev: Evidence, rows: Sequence[int]) -> str:
    """Return in words that the layers behind a stretch give the right result of what comes out of it."""
    behind = sorted({reader for row in rows for reader in ev.consumers[row]} - set(rows))
    if not behind:
        return "nothing reads these values"
    shown = [f"{named(ev.layers[row].id)} ({ev.layers[row].op})" for row in behind[:_READERS]]
    if more := len(behind) - len(shown):
        shown.append(f"{more:,} more")
    return f"what reads these values, {join(shown)}, gives the right result of them"


def _figures(ev: Evidence, kind: str, found: Sequence[Cause], rows: Sequence[int]) -> str:
    worst = max(found, key=lambda cause: np.nan_to_num(ev.max_abs[cause.shown]))
    row = worst.shown
    elements = float(np.nan_to_num(ev.column("elements")[row]))
    layer = named(ev.layers[row].id)
    if kind == "epsilon":
        small = min((abs(value) for value in ev.constants(row) if value), default=0.0)
        count = int(ev.flushed[row])
        told = f"{layer} adds {quantity(small)}; {plural(count, 'of its values becomes', 'of its values become')} zero"
        told += f" ({share(count, elements)})"
    elif kind == "weight":
        weight = ev.beyond[row]
        verb = "is" if weight.census.overflow == 1 else "are"
        told = f"{layer} reads {named(weight.name)}, of whose {plural(weight.census.elements, 'value')} "
        told += f"{weight.census.overflow:,} {verb} beyond {quantity(ev.format.max)}, the largest "
        told += quantity(weight.census.max_abs)
    elif ev.overflow[row]:
        beyond = share(float(ev.overflow[row]), elements)
        told = f"{layer} reaches {quantity(float(ev.max_abs[row]))}: {beyond} of its values"
        told += f" are beyond {quantity(ev.format.max)}"
    else:
        told = f"{layer} gives inf or NaN by itself, on exact inputs"
    broken = int(ev.local_broken[list(rows)].sum())
    counted = f"{plural(len(rows), 'layer')} in {plural(len(found), 'place')}"
    return f"{told}. {counted}, {broken:,} of them not finite on exact inputs. {ev.provenance}"
