"""What breaks under a plan, told in words: one finding for each kind of cause, and one that mends them all."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.finding import Finding, Fix
from explorer.advise.naming import patterns
from explorer.advise.words import join, named, names, plural, quantity, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from explorer.advise.causes import Cause
    from explorer.advise.evidence import Evidence
    from explorer.advise.finding import Tone

__all__ = ["causes_told", "first_broken", "keep", "path_told"]

_HIGH: Final = "fp32"
_PATH: Final = 5  # layers of a path that a sentence spells out
_WAY: Final = 3  # layers from which a path is worth a finding of its own: a shorter one the lead tells whole
_TITLES: Final = {
    "norm": "Squares inside {places} leave the range of {low}",
    "softmax": "Exponentials in {places} leave the range of {low}",
    "mask": "A mask constant is beyond the range of {low}",
    "range": "Values in {places} leave the range of {low}",
    "input": "Inputs of the model leave the range of {low}",
    "weight": "Layers in {places} give inf or NaN in {low}",
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
    "-infinity, and a row that is masked throughout gives NaN in the softmax. Keep these layers in fp32, or export the "
    "model with a mask of -10,000.",
    "range": "The exact values of these layers are beyond {max}, where {low} ends, so they become infinite. They, and "
    "the layers that read them, must stay in fp32.",
    "input": "A value that the model is given is beyond {max}, where {low} ends: the first to read it in {low} "
    "gets infinity. Scale the inputs, or keep these layers in fp32.",
    "weight": "These layers give inf or NaN on exact inputs, though no result that they read is beyond the range: a "
    "weight is, or a number that they compute with becomes infinite or zero in {low}.",
    "epsilon": "A small constant keeps a divisor from being zero. Anything below {half} is zero in {low}, it too, "
    "so where the rest is zero the division gives infinity or NaN. The layers that hold the small value must stay "
    "in fp32, or the epsilon must grow (1e-5 is usual).",
}  # fmt: skip
_HARMLESS: Final = (
    " Here it does no harm: every layer that reads the infinite values gives the right result (softmax of -infinity "
    "is 0), so nothing has to change."
)


def keep(ev: Evidence, rows: Iterable[int], what: str = "") -> Fix:
    """Return the edit that keeps these layers, and no other that runs low, in fp32."""
    ids = ev.ids(set(rows))
    found, single = patterns(ids, ev.layers, ev.ids(np.flatnonzero(ev.low).tolist()))
    # An override that asks for the low format wins over any pattern.
    asked = [each for each in ids if each in ev.decisions.plan.overrides and each not in single]
    label = what or f"Keep {'this layer' if len(ids) == 1 else f'these {len(ids):,} layers'} in fp32"
    return Fix(label=label, block=tuple(found), formats=dict.fromkeys([*single, *asked], _HIGH))


def causes_told(ev: Evidence, causes: Sequence[Cause]) -> list[Finding]:
    """Return one finding for each kind of cause, harmful ones apart from the others."""
    grouped: dict[tuple[str, bool], list[Cause]] = {}
    for cause in causes:
        grouped.setdefault((cause.kind, cause.harmful), []).append(cause)
    return [_told(ev, kind, found, harmful=harmful) for (kind, harmful), found in grouped.items()]


def _told(ev: Evidence, kind: str, found: Sequence[Cause], *, harmful: bool) -> Finding:
    rows = sorted({row for cause in found for row in cause.rows})
    fmt, low = ev.format, ev.format.name
    places = plural(len(found), _PLACES.get(kind, "place"))
    words = {
        "low": low, "max": quantity(fmt.max), "root": quantity(float(np.floor(np.sqrt(fmt.max)))),
        "log": f"{np.log(fmt.max):.1f}", "half": f"{fmt.flush_threshold:.1e}", "places": places,
    }  # fmt: skip
    harmless_epsilon = kind == "epsilon" and not harmful
    text = _TEXTS[kind].format(**words)
    if not harmful:
        text += " No result is lost by it under this plan with these samples." if harmless_epsilon else _HARMLESS
    tone: Tone = "stop" if harmful else "warn" if harmless_epsilon else "note"
    return Finding(
        id=f"{kind}{'' if harmful else '-harmless'}",
        tone=tone,
        title=_TITLES[kind].format(**words),
        text=text,
        evidence=_figures(ev, kind, found, rows),
        layers=ev.ids(rows),
        fix=keep(ev, rows) if harmful or harmless_epsilon else None,
    )


def _figures(ev: Evidence, kind: str, found: Sequence[Cause], rows: Sequence[int]) -> str:
    worst = max(found, key=lambda cause: np.nan_to_num(ev.max_abs[cause.shown]))
    row = worst.shown
    elements = float(np.nan_to_num(ev.column("elements")[row]))
    layer = named(ev.layers[row].id)
    if kind == "epsilon":
        small = min((abs(value) for value in ev.constants(row) if value), default=0.0)
        count = int(ev.flushed[row])
        told = f"{layer} adds {quantity(small)}; {plural(count, 'of its values', 'of its values')} become zero"
        told += f" ({share(count, elements)})"
    elif ev.overflow[row]:
        beyond = share(float(ev.overflow[row]), elements)
        told = f"{layer} reaches {quantity(float(ev.max_abs[row]))}: {beyond} of its values"
        told += f" are beyond {quantity(ev.format.max)}"
    else:
        told = f"{layer} gives inf or NaN by itself, on exact inputs"
    broken = int(ev.local_broken[list(rows)].sum())
    counted = f"{plural(len(rows), 'layer')} in {plural(len(found), 'place')}"
    return f"{told}. {counted}, {broken:,} of them not finite on exact inputs. {_provenance(ev)}"


def _provenance(ev: Evidence) -> str:
    known = [str(word) for word in ev.errors["provenance"] if word]
    ranged = [str(word) for word in ev.ranges["provenance"] if word]
    return f"Errors {known[0] if known else 'not known'}; ranges {ranged[0] if ranged else 'not known'}."


def first_broken(ev: Evidence, accuracy: str, causes: Sequence[Cause]) -> Finding | None:
    """Return the finding that leads: what breaks first, how it reaches the outputs, and the edit that stops it all."""
    rows = np.flatnonzero(ev.broken).tolist()
    if not rows:
        return None
    low, harmful = ev.format.name, [cause for cause in causes if cause.harmful]
    first = ev.layers[rows[0]]
    lost = bool(ev.broken_outputs) or bool(accuracy)
    place = f"{first.op}, layer {rows[0] + 1:,} of {len(ev.layers):,}"
    parts = [f"The first layer whose result is not finite is {named(first.id)} ({place})."]
    path = _spread(ev, rows[0])
    if len(path) > 1:
        parts.append(f"It spreads to the outputs by way of {join(_shortened(ev, path[1:]))}.")
    if ev.broken_outputs:
        parts.append(
            f"Output {names(ev.broken_outputs)} {'holds' if len(ev.broken_outputs) == 1 else 'hold'} inf or NaN."
        )
    elif lost:
        parts.append("The outputs stay finite, and are wrong all the same.")
    else:
        parts.append("The outputs stay finite.")
    concerned = sorted({row for cause in harmful for row in cause.rows})
    fix = None
    if concerned:
        count = plural(len(concerned), "layer has", "layers have")
        parts.append(f"{count} to stay in fp32 to stop it.")
        fix = keep(ev, concerned, f"Keep {plural(len(concerned), 'layer')} in fp32: all that break")
    elif lost:
        concerned = [rows[0], *ev.producers[rows[0]]]
        concerned = [row for row in concerned if ev.low[row]]
        fix = keep(ev, concerned, "Try: keep where it begins in fp32") if concerned else None
        parts.append("None of the known causes fits: begin where it begins.")
    figures = f"{plural(len(rows), 'layer')} of {len(ev.layers):,} not finite under this plan"
    return Finding(
        id="breaks", tone="stop" if lost else "warn",
        title=f"{low} breaks this model" if lost else f"Layers overflow in {low}",
        text=" ".join(parts), evidence=f"{figures}. {accuracy}{' ' if accuracy else ''}{_provenance(ev)}",
        layers=ev.ids(concerned or rows[:1]), fix=fix,
    )  # fmt: skip


def path_told(ev: Evidence) -> Finding | None:
    """Return the finding whose layers are the way from the first broken layer to an output, or None without one."""
    rows = np.flatnonzero(ev.broken).tolist()
    path = _spread(ev, rows[0]) if rows else []
    if len(path) < _WAY:
        return None
    lost, outputs = [row for row in path if ev.broken[row]], {spec.name for spec in ev.model.outputs}
    output = next(name for name in ev.layers[path[-1]].outputs if name in outputs)
    rest = len(path) - len(lost)
    return Finding(
        id="path", tone="note", title=f"How it reaches output {named(output)}: {len(path):,} layers",
        text=f"The shortest way from {named(ev.layers[path[0]].id)}, layer by layer. Each of them is not finite under "
        "the plan, or has an error above a tenth of its signal.",
        evidence=f"{plural(len(lost), 'layer')} on the way not finite"
        f"{f', {rest:,} finite and far off' if rest else ''}. {_provenance(ev)}",
        layers=tuple(ev.layers[row].id for row in path),
    )  # fmt: skip


def _spread(ev: Evidence, start: int) -> list[int]:
    """Return a shortest path of broken, or mostly lost, results from ``start`` to an output; empty without one."""
    before: dict[int, int] = {start: start}
    queue, end = deque([start]), -1
    while queue and end < 0:
        row = queue.popleft()
        if ev.feeds_output[row]:
            end = row
        for reader in ev.consumers[row]:
            if reader not in before and ev.bad[reader]:
                before[reader] = row
                queue.append(reader)
    if end < 0:
        return []
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def _shortened(ev: Evidence, path: Sequence[int]) -> list[str]:
    """Return the layers of a path in quotes, those in its middle counted where they are many."""
    shown = [named(ev.layers[row].id) for row in path]
    if len(shown) <= _PATH:
        return shown
    return [*shown[: _PATH - 1], f"{len(shown) - _PATH:,} more to {shown[-1]}"]
