"""What breaks first under a plan, how it reaches the outputs, and the one edit that stops it all."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.finding import Finding
from explorer.advise.fixes import keep
from explorer.advise.words import decibels, join, named, names, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.advise.causes import Cause
    from explorer.advise.evidence import Evidence

__all__ = ["first_broken", "path_told"]

_PATH: Final = 5  # layers of a path that a sentence spells out
_WAY: Final = 3  # layers from which a path is worth a finding of its own: a shorter one the lead tells whole


def first_broken(ev: Evidence, causes: Sequence[Cause]) -> Finding | None:
    """Return the finding that leads: what breaks first, how it reaches the outputs, and the edit that stops it all.

    It is a ``stop`` only where it reaches the outputs: rounding alone may have spoilt them.
    """
    rows = np.flatnonzero(ev.broken).tolist()
    if not rows:
        return None
    low, first = ev.format.name, ev.layers[rows[0]]
    path = _spread(ev, rows[0])
    harmful = [cause for cause in causes if cause.harmful]
    lost = bool(ev.broken_outputs) or (ev.lost and bool(harmful or path))
    place = f"{first.op}, layer {rows[0] + 1:,} of {len(ev.layers):,}"
    parts = [f"The first layer whose result is not finite is {named(first.id)} ({place})."]
    if len(path) > 1:
        parts.append(f"It spreads to the outputs by way of {join(_shortened(ev, path[1:]))}.")
    parts.append(_outputs(ev, lost=lost))
    stopping = harmful or [cause for cause in causes if cause.kind == "weight"]
    concerned, fix = sorted({row for cause in stopping for row in cause.rows}), None
    if concerned:
        count = plural(len(concerned), "layer has", "layers have")
        parts.append(f"{count} to stay in fp32 to stop it.")
        fix = keep(ev, concerned, f"Keep {plural(len(concerned), 'layer')} in fp32: all that break")
    elif lost:
        concerned = [row for row in (rows[0], *ev.producers[rows[0]]) if ev.low[row]]
        fix = keep(ev, concerned, "Try: keep where it begins in fp32") if concerned else None
        parts.append("None of the known causes fits: begin where it begins.")
    elif not ev.lost:
        parts.append("Nothing has to change for values like these.")
    figures = f"{plural(len(rows), 'layer')} of {len(ev.layers):,} not finite under this plan."
    return Finding(
        id="breaks", tone="stop" if lost else "warn",
        title=f"{low} breaks this model" if lost else f"Layers overflow in {low}",
        text=" ".join(parts), evidence=" ".join(filter(None, (figures, ev.accuracy_lost, ev.provenance))),
        layers=ev.ids(concerned or rows[:1]), fix=fix,
    )  # fmt: skip


def _outputs(ev: Evidence, *, lost: bool) -> str:
    if ev.broken_outputs:
        verb = "holds" if len(ev.broken_outputs) == 1 else "hold"
        return f"Output {names(ev.broken_outputs)} {verb} inf or NaN."
    output, worst = ev.worst_output
    known = "" if np.isnan(worst) else f"; the worst, {named(output)}, has {decibels(worst)}"
    return f"The outputs stay finite{', and are wrong all the same' if lost else ''}{known}."


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
        f"{f', {rest:,} finite and far off' if rest else ''}. {ev.provenance}",
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
