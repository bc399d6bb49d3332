"""The charts of latency: the time of each op type, all in fp32 and under the plan, one chart a device."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

import numpy as np
import plotly.graph_objects as go

from explorer.report import palette, text
from explorer.report.chart import Chart, layout, plain
from explorer.report.layers import latency_groups, low_column, tells_speed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["latency_by_op"]

SHOWN_OPS: Final = 12  # op types with a bar of their own; the rest is summed
OP_WIDTH: Final = 28  # characters of an op type beside its bar
HATCH: Final = "rgba(255,255,255,0.55)"  # predicted bars are hatched, on light paper and on dark


def latency_by_op(latency: pd.DataFrame | None, low: str) -> list[Chart]:
    """Return, for each device that was timed, the time of each op type: all in fp32, and under the plan.

    Predicted times are hatched. Times of ONNX Runtime's CPU provider show fp32 only: it has no fp16 arithmetic, so a
    bar for the plan would be taken for a speed-up.
    """
    return [
        _chart(rows, low, provenance, f"latency-{number}")
        for number, (provenance, rows) in enumerate(latency_groups(latency).items())
    ]


def _chart(rows: pd.DataFrame, low: str, provenance: str, key: str) -> Chart:
    column = low_column(rows, low) if tells_speed(provenance, low) else None
    names, bars = _sums(rows, low, column)
    tag = ", predicted" if provenance.startswith("predicted") else ""
    hatch = {"shape": "/" if tag else "", "size": 7, "solidity": 0.22, "fillmode": "overlay", "fgcolor": HATCH}
    figure = go.Figure()
    plan_low, plan_wide, wide = bars[:, 2], bars[:, 1], bars[:, 0]
    series: list[tuple[str, str, NDArray[np.float64], str, NDArray[np.float64] | None]] = []
    if column:
        colour = palette.FORMAT.get(low, palette.ACCUMULATED)
        series.append(("plan", f"this plan: {low}{tag}", plan_low, colour, plan_wide))
        series.append(("plan", f"this plan: fp32{tag}", plan_wide, palette.MUTED, None))
    if not np.isnan(wide).all():
        series.append(("wide", f"all in fp32{tag}", wide, palette.WIDE, None))
    for group, name, values, colour, base in series:
        figure.add_bar(
            y=names, x=values, base=base, orientation="h", name=name, offsetgroup=group,
            customdata=[text.duration(value) for value in values],
            hovertemplate=f"%{{y}}: %{{customdata}}<br>{html.escape(name)}<extra></extra>",
            marker={"color": colour, "line": {"width": 0}, "pattern": hatch},
        )  # fmt: skip
    layout(figure, height=120 + 34 * len(names))
    figure.update_layout(
        barmode="group", bargap=0.28, bargroupgap=0.08, hovermode="closest", legend={"traceorder": "reversed"},
        xaxis={"title": {"text": f"microseconds{tag}"}, "rangemode": "tozero", "tickformat": ","},
        yaxis={"autorange": "reversed", "showgrid": False},
    )  # fmt: skip
    return Chart(
        key=key, title=f"Latency by op type{tag}", figure=figure, by_layer=False, provenance=(provenance,),
        summary=_summary(names, bars, low if column else "", provenance),
    )  # fmt: skip


def _sums(rows: pd.DataFrame, low: str, column: str | None) -> tuple[list[str], NDArray[np.float64]]:
    """Return op types and, for each, microseconds all in fp32, and of the plan's fp32 and low layers."""
    wide = rows["fp32_us"].to_numpy(dtype=np.float64)
    times = np.full(len(rows), np.nan) if column is None else rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
    is_low = (rows["format"].astype(str) == low).to_numpy(dtype=bool) & ~np.isnan(times)
    # A plan that was measured has a time of its own for each layer; a prediction takes the others as in fp32.
    measured = column is not None and str(rows["provenance"].iloc[0]).startswith("measured")
    rest = times if measured else wide
    table = rows.assign(wide=wide, plan_wide=np.where(is_low, 0.0, rest), plan_low=np.where(is_low, times, 0.0))
    sums = table.groupby("op")[["wide", "plan_wide", "plan_low"]].sum(min_count=1)
    most = sums["wide"].fillna(sums["plan_wide"].fillna(0) + sums["plan_low"].fillna(0))
    by_op = sums.fillna({"plan_wide": 0.0, "plan_low": 0.0}).loc[most.sort_values(ascending=False).index]
    names = [plain(str(op), OP_WIDTH) for op in by_op.index[:SHOWN_OPS]]
    bars = by_op.to_numpy(dtype=np.float64)
    if len(by_op) > SHOWN_OPS:
        names.append(f"{len(by_op) - SHOWN_OPS} other op types")
        bars = np.vstack([bars[:SHOWN_OPS], bars[SHOWN_OPS:].sum(axis=0)])
    return names, bars


def _summary(names: list[str], bars: NDArray[np.float64], low: str, provenance: str) -> str:
    wide, plan = float(bars[:, 0].sum()), float(bars[:, 1:].sum())
    measured_wide = not np.isnan(wide)
    sums = [(wide, "in fp32")] * measured_wide + [(plan, f"under the plan with {low}")] * bool(low)
    words = f"Sum over the layers, {provenance}: {', '.join(f'{text.duration(us)} {what}' for us, what in sums)}."
    # A sum of zero, which has no shares, is none to divide by.
    shares = bars[:, 0] / (wide or 1.0) if measured_wide else bars[:, 1:].sum(axis=1) / (plan or 1.0)
    if wide > 0 or (not measured_wide and plan > 0):
        most = [f"{html.unescape(name)} ({text.share(shares[row])})" for row, name in enumerate(names[:3])]
        words += f" Most of the {'fp32 ' if measured_wide else ''}time goes to {text.join(most)}."
    return words if low else f"{words} No time under the plan is shown: this device has none that would mean anything."
