"""The chart of values: where each layer's values lie against what the low format can hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import plotly.graph_objects as go

from explorer.formats import Format, get_format
from explorer.report import palette, text
from explorer.report.chart import MARKS_APART, POINTS_WITH_MARKERS, Chart, labels, layer_axis, layout, narrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from explorer.report.layers import Layers

__all__ = ["value_ranges"]

WIDEST_SCALE: Final = 40.0  # octaves from 1 to which the axis still stretches to show where a format ends
MARGIN: Final = 4.0  # octaves above and below the values
MOST_TICKS: Final = 12


def value_ranges(layers: Layers, low: Format | str) -> Chart | None:
    """Return the range of each layer's exact values against the range of the low format; None when not measured."""
    fmt = get_format(low)
    largest, typical = (_log2(layers.column(name)) for name in ("range_max_abs", "range_rms"))
    seen = np.concatenate([values[np.isfinite(values)] for values in (largest, typical)])
    if not seen.size or not fmt.is_float:
        return None
    limits = [math.log2(limit) for limit in (fmt.flush_threshold, fmt.min_normal, fmt.overflow_threshold)]
    shown = [*seen, *(limit for limit in limits if abs(limit) <= WIDEST_SCALE)]
    bottom, top = min(shown) - MARGIN, max(shown) + MARGIN
    figure = go.Figure([labels(layers, (top + bottom) / 2, _facts(layers))])
    small = len(largest) <= POINTS_WITH_MARKERS
    for name, values, colour in (
        ("typical |x| (rms)", typical, palette.LOCAL),
        ("largest |x|", largest, palette.ACCUMULATED),
    ):
        figure.add_scatter(
            x0=1, dx=1, y=narrow(values), name=name, mode="lines+markers" if small else "markers",
            line={"color": colour, "width": 1.4}, marker={"color": colour, "size": 4 if small else 2.5},
            hoverinfo="skip",
        )  # fmt: skip
    over = layers.column("range_max_abs") >= fmt.overflow_threshold
    _overflowing(figure, fmt, np.flatnonzero(over), np.where(np.isfinite(largest), largest, top - 1))
    layout(figure, height=440)
    _bands(figure, fmt, bottom, top)
    step = max(1, 2 ** math.ceil(math.log2((top - bottom) / MOST_TICKS)))
    ticks = list(range(math.ceil(bottom / step) * step, math.floor(top) + 1, step))
    figure.update_layout(xaxis=layer_axis(len(largest)))
    figure.update_yaxes(
        title={"text": "|x|, powers of two"}, range=[bottom, top], showgrid=False, tickvals=ticks,
        ticktext=[f"2<sup>{tick}</sup>".replace("-", text.MINUS) for tick in ticks],
    )  # fmt: skip
    return Chart(
        key="ranges", title=f"Range of values against {fmt.name}", figure=figure, summary=_summary(layers, fmt, over),
        provenance=layers.sources("range_provenance"),
    )  # fmt: skip


def _facts(layers: Layers) -> list[str]:
    """Return what the pointer shows of each layer."""
    rows = zip(layers.column("range_max_abs"), layers.column("range_rms"), strict=True)
    return [f"largest |x| {text.quantity(largest, 4)}<br>rms {text.quantity(rms)}" for largest, rms in rows]


def _overflowing(figure: go.Figure, fmt: Format, rows: NDArray[np.intp], heights: NDArray[np.float64]) -> None:
    """Mark the layers whose largest value the format cannot hold."""
    if not rows.size:
        return
    few = rows.size <= MARKS_APART
    figure.add_scatter(
        x=rows + 1, y=narrow(heights[rows]), mode="markers", name=f"overflows in {fmt.name}",
        hoverinfo="skip",
        marker={
            "color": palette.BROKEN, "size": 10 if few else 5, "line": {"width": 2 if few else 0},
            "symbol": "triangle-up-open" if few else "triangle-up",
        },
    )  # fmt: skip


def _bands(figure: go.Figure, fmt: Format, bottom: float, top: float) -> None:
    """Draw where a value overflows, is normal, is subnormal or is flushed to zero in the format."""
    flush, normal, over = (math.log2(x) for x in (fmt.flush_threshold, fmt.min_normal, fmt.overflow_threshold))
    smallest, tiny = text.quantity(fmt.min_normal, 2), text.quantity(fmt.flush_threshold, 2)
    for name, words, start, end in (
        ("overflow", f"overflows in {fmt.name}, beyond {text.quantity(fmt.max, 5)}", over, math.inf),
        ("normal", f"normal in {fmt.name}", normal, over),
        ("subnormal", f"subnormal, fewer bits: below {smallest}", flush, normal),
        ("flushed", f"flushed to zero, below {tiny}", -math.inf, flush),
    ):
        lower, upper = max(start, bottom), min(end, top)
        if lower >= upper:
            continue
        figure.add_hrect(y0=lower, y1=upper, fillcolor=palette.BAND[name], line_width=0, layer="below")
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=upper, yanchor="top", text=words, showarrow=False, yshift=-1,
            xshift=4, font={"size": 11, "color": palette.MUTED},
            bgcolor=palette.BAND[name], borderpad=1,
        )  # fmt: skip


def _summary(layers: Layers, fmt: Format, over: NDArray[np.bool_]) -> str:
    largest, typical = layers.column("range_max_abs"), layers.column("range_rms")
    top = int(np.nanargmax(largest))
    where = f"layer {top + 1:,} ({layers.words('op')[top]})"
    beyond = f"{text.plural(int(over.sum()), 'layer goes', 'layers go')} beyond it."
    words = (
        f"The largest value is {text.quantity(largest[top], 4)}, at {where}; {fmt.name} ends at "
        f"{text.quantity(fmt.max, 5)}. {beyond if over.any() else 'No layer goes beyond it.'}"
    )
    tiny = int(((typical < fmt.min_normal) & (typical > 0)).sum())
    if not tiny:
        return words
    return f"{words} The typical values of {text.plural(tiny, 'layer')} are subnormal in {fmt.name} or vanish."


def _log2(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log2, NaN for zero, infinity and what was not measured."""
    positive = np.isfinite(values) & (values > 0)
    return np.asarray(np.log2(values, where=positive, out=np.full(values.shape, np.nan)), dtype=np.float64)
