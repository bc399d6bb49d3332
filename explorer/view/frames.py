"""Figures of an exploration as a frame: the newest that are known, each with its provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.measure import ErrorSums
from explorer.measure.tables import by_layer, errors_table
from explorer.scene import NEVER, figures

if TYPE_CHECKING:
    import pandas as pd

    from explorer.view.controller import Controller

__all__ = ["figures_frame"]

_ACCUMULATED = ["acc_sqnr_db", "acc_rel_l2", "acc_max_abs"]


def figures_frame(c: Controller) -> bytes:
    """Return the frame of what is known now; to be called under the controller's lock. Nothing is measured for it."""
    x, shown = c.x, c.shown
    ranges = x.ranges() if x.results.known_figures(x.plan, x.target)[0] is not None else None
    return figures(
        x.model,
        x.decisions(),
        errors=_errors(c),
        ranges=ranges,
        latency=c.measuring.table(),
        measured=c.measuring.known(),
        stands_in=c.measuring.standing_in,
        first_nonfinite=shown.first_nonfinite if shown else None,
        front=c.searching.columns(),
        revision=c.revision,
        errors_revision=shown.revision if shown else NEVER,
    )


def _errors(c: Controller) -> pd.DataFrame | None:
    """Return the table of errors: those of the last plan that was measured, local ones of the format that is set."""
    x, shown = c.x, c.shown
    key = (x.plan.formats, x.target)
    if shown is not None and key == (shown.plan.formats, shown.target):
        return shown.table
    ranges, local = x.results.known_figures(x.plan, x.target)
    if ranges is None or local is None:
        return None if shown is None else shown.table
    layers = x.model.layers
    nothing = by_layer(layers, (), ErrorSums.zeros(0))
    table = errors_table(layers, x.decisions(), ranges, local, nothing, incomparable=(), provenance=x.provenance)
    if shown is None:
        return table.drop(columns=_ACCUMULATED)  # not measured yet, which is not the same as exact
    return table.assign(**{name: shown.table[name] for name in _ACCUMULATED})
