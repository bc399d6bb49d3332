"""The headline figures of the report, each with how it came to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.report import text
from explorer.report.layers import broken_outputs, tells_speed

if TYPE_CHECKING:
    from explorer.report.data import ModelLatency, ReportData
    from explorer.report.layers import Layers

__all__ = ["Tile", "tiles"]

LATENCIES_SHOWN: Final = 2  # devices in the headline
OUTPUT_WIDTH: Final = 40  # characters of an output's name in a tile


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One headline figure.

    Args:
        key: stable name of the tile.
        label: what it is.
        value: the figure in words.
        before: the figure that it is to be compared with, shown before an arrow; may be empty.
        detail: one line that explains it.
        provenance: how it came to be; empty for a plain count.
        icon: ``stop``, ``warn``, ``good`` or empty.
        fraction: from 0 to 1 when the figure is a share, drawn as a bar.
    """

    key: str
    label: str
    value: str
    before: str = ""
    detail: str = ""
    provenance: str = ""
    icon: str = ""
    fraction: float | None = None


def tiles(data: ReportData, layers: Layers) -> list[Tile]:
    """Return the headline figures in reading order."""
    row = [_output_error(data), _share(data, layers), _casts(data)]
    row += [_latency(latency, data.plan.format) for latency in data.model_latency[:LATENCIES_SHOWN]]
    if data.accuracy is not None:
        row.append(_accuracy(data))
    return row


def _output_error(data: ReportData) -> Tile:
    table = data.output_error
    label = "Output error"
    if table.empty:
        return Tile(key="output-error", label=label, value="not measured")
    bad = broken_outputs(table)
    ratios = table["sqnr_db"].to_numpy(dtype=np.float64, na_value=np.nan)
    row = int(np.argmax(bad)) if bad.any() else 0 if np.isnan(ratios).all() else int(np.nanargmin(ratios))
    name = text.shorten(str(table["output"].iloc[row]), OUTPUT_WIDTH)
    provenance = str(table["provenance"].iloc[row])
    reading = text.sqnr(float(ratios[row]), finite=not bad[row])
    if reading.icon == "stop":
        lost = [
            text.plural(float(table[column].iloc[row]), noun, noun)
            for column, noun in (("overflow", "overflow"), ("nan", "NaN"))
            if table[column].iloc[row] > 0
        ]
        detail = f"{name}: {text.join(lost) or 'inf or NaN'}"
    else:
        worst_of = f", worst of {len(table)} outputs" if len(table) > 1 else ""
        measured = math.isfinite(ratios[row])
        detail = f"{f'{text.relative(ratios[row])} relative error, ' if measured else ''}{name}{worst_of}"
    return Tile(
        key="output-error", label=f"{label} (SQNR)", value=reading.text, icon=reading.icon, detail=detail,
        provenance=provenance,
    )  # fmt: skip


def _share(data: ReportData, layers: Layers) -> Tile:
    low, total, rows = int(layers.low.sum()), int(layers.floats.sum()), len(layers.frame)
    fraction = low / total if total else 0.0
    return Tile(
        key="share", label=f"Layers in {text.join(layers.low_formats(data.plan.format))}", value=text.share(fraction),
        fraction=fraction,
        detail=f"{low:,} of {text.plural(total, 'layer')}{' with float tensors' if total < rows else ''}",
    )  # fmt: skip


def _casts(data: ReportData) -> Tile:
    if data.plan.casts is None:
        return Tile(key="casts", label="Casts", value="none", detail="nothing was converted")
    kept = "inputs and outputs keep their types" if data.plan.keep_io else f"inputs and outputs turn {data.plan.format}"
    return Tile(key="casts", label="Casts inserted", value=text.count(data.plan.casts), detail=kept)


def _latency(latency: ModelLatency, low: str) -> Tile:
    spread = f", spread {text.duration(latency.spread_us)}" if latency.spread_us is not None else ""
    if latency.fp32_us is None:
        value = text.ABSENT if latency.plan_us is None else text.duration(latency.plan_us)
        return Tile(
            key="latency", label="Latency", value=value, detail=f"under the plan{spread}; fp32 was not measured",
            provenance=latency.provenance,
        )  # fmt: skip
    # On ONNX Runtime's CPU provider a converted model still computes in fp32: a pair would pass for a speed-up.
    if latency.plan_us is None or not tells_speed(latency.provenance, low):
        return Tile(
            key="latency", label="Latency", value=text.duration(latency.fp32_us), provenance=latency.provenance,
            detail=f"all in fp32{spread}; this device tells nothing of {low}",
        )  # fmt: skip
    ratio = f"{latency.fp32_us / latency.plan_us:.2f} times as fast" if latency.plan_us > 0 else ""
    return Tile(
        key="latency", label="Latency", before=text.duration(latency.fp32_us), value=text.duration(latency.plan_us),
        detail=f"{ratio}{spread}", provenance=latency.provenance,
    )  # fmt: skip


def _accuracy(data: ReportData) -> Tile:
    accuracy = data.accuracy
    assert accuracy is not None
    points = (accuracy.after - accuracy.before) * 100
    change = "unchanged" if points == 0 else f"{points:+.1f} points".replace("-", text.MINUS)
    return Tile(
        key="accuracy", label=accuracy.metric.capitalize(), before=text.percent(accuracy.before),
        value=text.percent(accuracy.after), detail=f"{change}, {text.plural(accuracy.samples, 'labelled sample')}",
        provenance=accuracy.provenance, icon="stop" if points < -0.5 else "good" if points >= 0 else "",
    )  # fmt: skip
