"""The latency of a whole model on a GPU, completed with times by layer: recorded ones, or isolated ones that say so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from explorer.backends.cuda_rows import OUTSIDE
from explorer.backends.graph_view import Runnable, shown_layers
from explorer.backends.latency import LatencyResult, LayerTime, median_and_spread

if TYPE_CHECKING:
    from explorer.backends.cuda_isolated import Isolated
    from explorer.backends.cuda_placement import Placement
    from explorer.backends.cuda_rows import Rows

__all__ = ["ISOLATED", "with_isolated", "with_rows"]

ISOLATED: Final = "isolated"
_LOST: Final = 0.1  # share of the GPU's work: copies of inputs apart, all of it belongs to nodes


def with_rows(result: LatencyResult, rows: Rows, placed: Placement) -> LatencyResult:
    """Return the result with times by layer from CUPTI; the rest of the whole is its overhead."""
    rest = result.whole_us - rows.sum_us
    told = (
        f"The GPU works {rows.sum_us:.0f} of the {result.whole_us:.0f} us of the whole model. The rest, {rest:.0f} us, "
        "is in no layer: launches that the GPU waits for, and the executor."
    )
    if rest < 0:
        told = (
            f"The layers add up to {rows.sum_us:.0f} us and the whole model takes {result.whole_us:.0f} us: layers ran "
            "beside each other, or recording slowed copies and nodes on the CPU down."
        )
    return replace(
        result,
        provenance=f"{result.provenance}; layers: device time of their kernels, recorded by CUPTI",
        layers=rows.layers,
        inserted=rows.inserted,
        kernels=rows.kernels,
        overhead_us=rest,
        notes=(*result.notes, told, *_lost(rows), *placed.notes()),
    )


def _lost(rows: Rows) -> tuple[str, ...]:
    """Return a warning where much of the GPU's work could not be given to any node."""
    outside = sum(row.median_us for row in rows.inserted if row.name == OUTSIDE and row.kind == "other")
    if outside <= _LOST * rows.sum_us:
        return ()
    return (
        f"{outside:.0f} us of the GPU's work belong to no node of the graph: times of layers are too small by as much.",
    )


def with_isolated(result: LatencyResult, model: Runnable, found: Isolated, why: str) -> LatencyResult:
    """Return the result with times of layers that were run alone, and a note that says so and why."""
    layers = []
    for layer in shown_layers(model):
        times = found.times_us.get(layer.id)
        if times is None:
            note = found.failures.get(layer.id) or "Not timed alone: it is part of another layer, or was removed."
            layers.append(LayerTime(layer.id, 0.0, 0.0, note=note))
        else:
            layers.append(LayerTime(layer.id, *median_and_spread(times), note=f"{ISOLATED}: timed alone, unfused"))
    total = sum(row.median_us for row in layers)
    told = (
        f"Times of layers are {ISOLATED}: each was run alone, unfused, its launch included. They add up to {total:.0f} "
        f"us, the whole model takes {result.whole_us:.0f} us. {why}"
    )
    return replace(
        result,
        provenance=f"{result.provenance}; layers: {ISOLATED}, each run alone, timed by {found.how}",
        layers=tuple(layers),
        notes=(*result.notes, told),
    )
