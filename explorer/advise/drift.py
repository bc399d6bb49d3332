"""Outputs that rounding alone spoils: where the error comes in at once, and what to do where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.evidence import POOR_DB
from explorer.advise.finding import Finding
from explorer.advise.fixes import keep
from explorer.advise.words import decibels, named, names, plural, quantity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from explorer.advise.evidence import Evidence

__all__ = ["far_off"]

_JUMP: Final = 4.0  # times the error of all that a layer reads, from which its result stands out
_PART: Final = 0.25  # share of the error of the worst output that a layer has to bring to count
_SEARCH: Final = (
    'x.search(gpu_model="").best(max_error=0.01) finds a plan whose error stays below 1 % and runs it (on the command '
    "line: precision-explorer search MODEL --format {low} --count-layers --max-error 0.01)."
)


def far_off(ev: Evidence) -> Finding | None:
    """Return the finding that leads where outputs are finite and wrong, or the accuracy is lost; else None."""
    if ev.broken_outputs or not ev.lost:
        return None
    low, (output, worst) = ev.format.name, ev.worst_output
    text = "Rounding errors add up to more than a tenth of the output." if worst < POOR_DB else (
        "The outputs stay finite, and the predictions change all the same: rounding errors add up."
    )  # fmt: skip
    figure = f"Output {named(output)}: {decibels(worst)}." if output else ""
    jumps = _jumps(ev)
    rows = _large(ev, jumps)
    if rows:
        text += f" Most of them come in at {names(ev.ids(jumps))}: small errors of what is read become large ones of "
        text += "what is made, as when nearly equal values are subtracted. Keep that in fp32, with what leads to it. "
        text += "Else "
        top = max(jumps, key=lambda row: _relative(ev)[row])
        figure += f" {named(ev.layers[top].id)} ({ev.layers[top].op}) reads results with a relative error of at most "
        figure += f"{quantity(_read(ev, top))} and gives one with {quantity(float(_relative(ev)[top]))}."
    else:
        text += " They come in little by little: no single layer stands out. "
    return Finding(
        id="accuracy" if ev.accuracy_lost else "far-off",
        tone="stop" if ev.accuracy_lost else "warn",
        title=f"{low} costs this model its accuracy" if ev.accuracy_lost else f"{low} leaves the outputs far off",
        text=text + _SEARCH.format(low=low),
        evidence=" ".join(filter(None, (ev.accuracy_lost, figure, ev.provenance))),
        layers=ev.ids(rows),
        fix=keep(ev, rows, f"Try: keep {plural(len(rows), 'layer')} in fp32, where the error comes in")
        if rows
        else None,
    )


def _relative(ev: Evidence) -> NDArray[np.float64]:
    """Return the relative error of each layer's result under the plan; 0 where none was measured."""
    return np.nan_to_num(ev.column("acc_rel_l2"), nan=0.0, posinf=0.0)


def _read(ev: Evidence, row: int) -> float:
    """Return the largest relative error of what a layer reads."""
    return max((float(_relative(ev)[source]) for source in ev.producers[row]), default=0.0)


def _jumps(ev: Evidence) -> list[int]:
    """Return the layers whose error is far above that of all they read, and reaches an output about as large."""
    error = _relative(ev)
    large = error >= _PART * 10 ** (-ev.worst_output[1] / 20) if np.isfinite(ev.worst_output[1]) else error > 0
    alone = ev.column("local_rel_l2")[ev.lowered]
    usual = float(np.median(alone[np.isfinite(alone)])) if np.isfinite(alone).any() else 0.0
    reaches = np.zeros(len(ev.layers), dtype=bool)
    for row in reversed(range(len(ev.layers))):
        reaches[row] = large[row] and (ev.feeds_output[row] or any(reaches[reader] for reader in ev.consumers[row]))
    return [row for row in np.flatnonzero(reaches).tolist() if error[row] >= _JUMP * max(usual, _read(ev, row))]


def _large(ev: Evidence, jumps: list[int]) -> list[int]:
    """Return the low layers among the jumps and those before them whose own error, in absolute terms, is as large."""
    absolute = _relative(ev) * np.nan_to_num(ev.column("rms", "ranges"))
    found: set[int] = set()
    for jump in jumps:
        todo = [jump]
        while todo:
            row = todo.pop()
            if row in found:
                continue
            found.add(row)
            todo += [source for source in ev.producers[row] if absolute[source] >= _PART * absolute[jump]]
    return sorted(row for row in found if ev.lowered[row])
