"""What all the charts of the report share: a chart with its words, the layout, the axis of layers."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import plotly.graph_objects as go

from explorer.report import palette, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from explorer.report.layers import Layers

__all__ = ["MARKS_APART", "POINTS_WITH_MARKERS", "Chart", "labels", "layer_axis", "layout", "narrow", "plain"]

POINTS_WITH_MARKERS: Final = 1200  # layers; beyond it a line through the markers is a blot
MARKS_APART: Final = 150  # marks of their own shape that still stand apart on a screen
LABEL_WIDTH: Final = 60  # characters of a layer's name in a hover label


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure and what stands beside it.

    Args:
        key: name of the chart within the page.
        title: its headline.
        figure: the plotly figure.
        summary: what it shows, in words, for those who do not see it.
        provenance: how its figures came to be, each once.
        by_layer: whether its horizontal axis is the layer number, so that a click can lead to the table.
    """

    key: str
    title: str
    figure: go.Figure
    summary: str
    provenance: tuple[str, ...] = ()
    by_layer: bool = True


def layout(figure: go.Figure, *, height: int) -> None:
    """Give a figure the look of the page; its background is the page's."""
    axis = {
        "gridcolor": palette.GRID, "linecolor": palette.GRID, "zeroline": False, "automargin": True,
        "title": {"standoff": 10, "font": {"size": 12}},
    }  # fmt: skip
    figure.update_layout(
        template="none", height=height, margin={"l": 56, "r": 12, "t": 40, "b": 48}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", font={"color": palette.INK, "size": 12.5}, hovermode="x unified",
        hoverlabel={"font": {"size": 12}, "align": "left"}, xaxis=axis, yaxis=axis,
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12}},
    )  # fmt: skip


def layer_axis(number: int) -> dict[str, Any]:
    """Return the axis along which ``number`` layers stand in the order of execution, the first as 1."""
    return {
        "title": {"text": "layer, in the order of execution"}, "range": [0, number + 1], "tickformat": ",",
        "unifiedhovertitle": {"text": "layer %{x}"}, "showspikes": True, "spikemode": "across", "spikethickness": 1,
        "spikedash": "solid", "spikecolor": palette.MUTED,
    }  # fmt: skip


def labels(layers: Layers, height: float, facts: Sequence[str]) -> go.Scatter:
    """Return an unseen trace that tells of the layer under the pointer: who it is, and the chart's figures of it.

    The other traces tell nothing: plotly would add what it finds near the pointer, of another layer.
    """
    who = zip(layers.words("name"), layers.words("op"), layers.words("format"), facts, strict=True)
    words = [
        f"{plain(name, LABEL_WIDTH)}<br>{plain(op, 24)}, {plain(fmt, 12)}<br>{fact}" for name, op, fmt, fact in who
    ]
    return go.Scatter(
        x0=1, dx=1, y=narrow(np.full(len(words), height)), text=words, mode="lines", showlegend=False,
        line={"color": "rgba(0,0,0,0)"}, hovertemplate="%{text}<extra></extra>", name="layer",
    )  # fmt: skip


def plain(name: str, width: int) -> str:
    """Return a name that plotly, which reads a subset of HTML, shows as it is."""
    return html.escape(text.shorten(name, width), quote=False)


def narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return values in float32: half the bytes, and more digits than a screen has pixels."""
    return np.asarray(values, dtype=np.float32)
