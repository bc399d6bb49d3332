"""The chart of errors: local and accumulated, of every layer along the network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import plotly.graph_objects as go

from explorer.report import palette, text
from explorer.report.chart import MARKS_APART, POINTS_WITH_MARKERS, Chart, labels, layer_axis, layout, narrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from explorer.report.layers import Layers

__all__ = ["error_along_network"]

SHELF_DB: Final = 6.0  # dB, at least, between the finite values and the row of those that are exact, or not finite
SHELF_SHARE: Final = 0.16  # the same as a share of the span of the finite values
SMALLEST_DB_SPAN: Final = 10.0  # dB: a flat line is not blown up into noise
MOST_TICKS: Final = 8


def error_along_network(layers: Layers) -> Chart:
    """Return the local and the accumulated error of every layer, in the order of execution.

    A layer without any error stands on a shelf above the scale, one with inf or NaN on a shelf below it, with a cross
    where it breaks by itself; a layer that was not measured is a gap. An open mark is a layer that does not run low.
    """
    local = np.where(layers.broken_alone, np.nan, layers.column("local_sqnr_db"))
    accumulated = np.where(layers.broken, np.nan, layers.column("acc_sqnr_db"))
    finite = np.concatenate([values[np.isfinite(values)] for values in (local, accumulated)])
    bottom, top = (float(finite.min()), float(finite.max())) if finite.size else (0.0, SMALLEST_DB_SPAN)
    top = max(top, bottom + SMALLEST_DB_SPAN)
    shelf = max(SHELF_DB, (top - bottom) * SHELF_SHARE)
    figure = go.Figure([labels(layers, (top + bottom) / 2, _facts(layers, local, accumulated))])
    small = len(local) <= POINTS_WITH_MARKERS
    symbols = np.where(layers.low, "circle", "circle-open") if small else None
    for name, values, colour, width in (
        ("local", local, palette.LOCAL, 6),
        ("accumulated", accumulated, palette.ACCUMULATED, 2),
    ):
        line = "lines+markers" if small else "lines"
        figure.add_scatter(
            x0=1, dx=1, y=narrow(np.where(np.isfinite(values), values, np.nan)), name=name, legendgroup=name,
            mode="markers" if name == "local" else line, line={"color": colour, "width": 1.6},
            marker={"color": colour, "size": 5 if small else 2.5, "symbol": symbols},
            hoverinfo="skip",
        )  # fmt: skip
        _shelf(figure, np.isposinf(values), top + shelf, name=name, colour=colour, width=width)
    _broken(figure, layers, bottom - shelf)
    layout(figure, height=420)
    figure.update_layout(xaxis=layer_axis(len(local)))
    exact = bool((np.isposinf(local) | np.isposinf(accumulated)).any())
    _scale(figure, bottom, top, shelf, broken=bool((layers.broken | layers.broken_alone).any()), exact=exact)
    return Chart(
        key="errors", title="Error along the network", figure=figure, summary=_summary(layers, local, accumulated),
        provenance=layers.sources("provenance"),
    )  # fmt: skip


def _facts(layers: Layers, local: NDArray[np.float64], accumulated: NDArray[np.float64]) -> list[str]:
    """Return what the pointer shows of each layer."""
    rows = zip(local, ~layers.broken_alone, accumulated, ~layers.broken, strict=True)
    return [
        f"local {text.sqnr(alone, finite=whole).text}<br>accumulated {text.sqnr(all_low, finite=sound).text}"
        for alone, whole, all_low, sound in rows
    ]


def _shelf(figure: go.Figure, where: NDArray[np.bool_], height: float, *, name: str, colour: str, width: int) -> None:
    """Draw the layers of ``where`` as runs on one height, outside the scale: values that no scale can hold."""
    if not where.any():
        return
    own = name not in {"local", "accumulated"}  # the shelf of a line goes with that line in the legend
    figure.add_scatter(
        x0=1, dx=1, y=narrow(np.where(where, height, np.nan)), name=name, legendgroup=name, showlegend=own,
        mode="lines+markers" if where.sum() <= POINTS_WITH_MARKERS else "lines", connectgaps=False,
        line={"color": colour, "width": width}, marker={"color": colour, "size": width, "symbol": "square"},
        hoverinfo="skip",
    )  # fmt: skip


def _broken(figure: go.Figure, layers: Layers, height: float) -> None:
    """Draw the layers that are not finite, with a cross at each that breaks by itself."""
    _shelf(
        figure, layers.broken, height, name="not finite (inf or NaN)",
        colour=palette.BROKEN, width=4,
    )  # fmt: skip
    alone = np.flatnonzero(layers.broken_alone)
    if not alone.size:
        return
    few = alone.size <= MARKS_APART
    figure.add_scatter(
        x=alone + 1, y=narrow(np.full(alone.size, height)), mode="markers", name="breaks by itself",
        hoverinfo="skip",
        marker={
            "color": palette.INK, "size": 9, "symbol": "x-thin" if few else "line-ns",
            "line": {"width": 2 if few else 1, "color": palette.INK},
        },
    )  # fmt: skip


def _scale(figure: go.Figure, bottom: float, top: float, shelf: float, *, broken: bool, exact: bool) -> None:
    """Give the vertical axis round ticks, and words at the shelves that are used."""
    step = next(size for size in (5, 10, 20, 25, 50, 100, 200, 500, 10_000) if (top - bottom) / size <= MOST_TICKS)
    ticks = [float(tick) for tick in range(math.ceil(bottom / step) * step, math.floor(top) + 1, step)]
    figure.update_yaxes(
        title={"text": "SQNR, dB (higher is better)"},
        tickvals=[bottom - shelf] * broken + ticks + [top + shelf] * exact,
        ticktext=["not finite"] * broken
        + [f"{tick:.0f}".replace("-", text.MINUS) for tick in ticks]
        + ["exact"] * exact,
        range=[bottom - shelf * (1.5 if broken else 0.5), top + shelf * (1.5 if exact else 0.5)],
    )


def _summary(layers: Layers, local: NDArray[np.float64], accumulated: NDArray[np.float64]) -> str:
    parts = [
        f"{text.plural(len(local), 'layer')} in the order of execution, {text.count(layers.low.sum())} of them low. "
    ]
    for name, values in (("Local", local), ("Accumulated", accumulated)):
        finite = np.isfinite(values)
        if not finite.any():
            continue
        worst = int(np.nanargmin(np.where(finite, values, np.nan)))
        parts.append(
            f"{name} error: median {text.decibel(float(np.median(values[finite])))}, worst finite value "
            f"{text.decibel(values[worst])} at layer {worst + 1:,} ({layers.words('op')[worst]}). "
        )
    if layers.broken.any():
        number = text.plural(int(layers.broken.sum()), "layer is", "layers are")
        parts.append(f"{number} not finite, the first is layer {int(np.argmax(layers.broken)) + 1:,}.")
    elif not layers.broken_alone.any():
        parts.append("No layer holds inf or NaN.")
    if unknown := int(layers.unmeasured.sum()):
        parts.append(f" {text.plural(unknown, 'layer was', 'layers were')} not measured.")
    return "".join(parts)
