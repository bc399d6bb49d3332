"""What `explore` and `measure` share: everything computed stage by stage, the table of all layers, the worst ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.cli.advice import findings_document
from explorer.cli.document import conversion_document, model_document
from explorer.formats import get_format
from explorer.report import ReportData, text
from explorer.report.layers import Layers, saturating
from explorer.reporting import report_data

if TYPE_CHECKING:
    import pandas as pd

    from explorer.cli.progress import Stages
    from explorer.session import Exploration

__all__ = ["COMPUTING", "Analysis", "WorstLayer", "analyse"]

LOAD, RANGES, LOCAL = "load the model and the inputs", "ranges of the exact values", "local errors"
PLANNED, LATENCY, CONVERT = "errors of the plan", "latency on the CPU", "convert and check"
COMPUTING = (LOAD, RANGES, LOCAL, PLANNED, LATENCY, CONVERT)  # the session reports its progress under these names

_IDENTITY = ("id", "name", "op", "scope", "format")


@dataclass(frozen=True, slots=True)
class WorstLayer:
    """One of the layers that lose most by themselves, and why."""

    id: str
    op: str
    format: str
    local_sqnr_db: float
    acc_sqnr_db: float
    finite_alone: bool
    finite: bool
    why: str


@dataclass(frozen=True)
class Analysis:
    """Everything that was found out.

    Attributes:
        exploration: with its plan.
        data: what the report shows.
        rows: the report's join of all tables.
        table: one row a layer: errors, ranges, measured and predicted latency.
        clamp: whether weights are clamped.
    """

    exploration: Exploration
    data: ReportData
    rows: Layers
    table: pd.DataFrame
    clamp: bool

    def worst(self, count: int) -> list[WorstLayer]:
        """Return the layers that run low and lose most by themselves, those that break first."""
        rows = self.rows
        local, planned = rows.column("local_sqnr_db"), rows.column("acc_sqnr_db")
        alone = rows.broken_alone
        key = np.where(alone, -np.inf, local)
        order = [int(row) for row in np.argsort(key, kind="stable") if rows.low[row] and key[row] < np.inf]
        ids, ops, formats = (rows.words(column) for column in ("id", "op", "format"))
        return [
            WorstLayer(
                ids[row],
                ops[row],
                formats[row],
                float(local[row]),
                float(planned[row]),
                not alone[row],
                not rows.broken[row],
                self._why(row),
            )
            for row in order[:count]
        ]

    def _why(self, row: int) -> str:
        """Return what a layer's values lose in the low format."""
        rows, low = self.rows, get_format(self.data.plan.format)
        elements = rows.column("elements")[row]

        def part(column: str, words: str) -> str:
            number = rows.column(column)[row]
            return f"{text.share(number / elements)} {words}" if elements and number else ""

        saturates = saturating([rows.words("format")[row]])[0]
        if reads := rows.saturates_on_reading(row):
            return f"reads values beyond the range: {text.share(reads)}"
        if overflow := part("overflow", "saturate" if saturates else "overflow"):
            return f"{overflow}, to {text.quantity(rows.column('range_max_abs')[row], 2)}"
        if lost := part("nan", "become NaN"):
            return lost
        if rows.broken_alone[row]:
            return f"reads values beyond {text.quantity(low.max, 5)}"
        if rows.broken[row]:
            return "passes on what it is given"
        return part("flushed", "flush to zero") or part("subnormal", "go subnormal") or "rounding"

    @property
    def breaking(self) -> list[WorstLayer]:
        """The layers that run low and give inf or NaN by themselves, in execution order."""
        return [layer for layer in self.worst(len(self.table)) if not layer.finite_alone]

    def document(self) -> dict[str, Any]:
        """Return everything as plain values under the keys that docs/cli.md states."""
        x, data = self.exploration, self.data
        conversion = x.convert(clamp=self.clamp)
        return {
            "shell": x.command,
            "model": model_document(x.model),
            "samples": {
                "rows": x.samples.rows,
                "origin": x.samples.origin,
                "labels": x.samples.labels is not None,
                "description": data.samples.description,
            },
            "backend": x.target,
            "plan": x.plan.to_dict(),
            "output_error": data.output_error,
            "accuracy": x.accuracy(),
            "first_nonfinite": x.first_nonfinite(),
            "breaking_alone": [layer.id for layer in self.breaking],
            "findings": findings_document(data.findings),
            "latency": data.model_latency,
            "conversion": conversion_document(conversion),
            "layers": self.table,
            "warnings": data.warnings,
            "versions": data.versions,
        }


def analyse(
    exploration: Exploration, stages: Stages, *, gpu_model: str | None, runs: int, clamp: bool = False
) -> Analysis:
    """Return everything that can be found out about the plan of an exploration."""
    with stages.stage(RANGES):
        exploration.ranges()
    with stages.stage(LOCAL):  # and the errors of the plan, as the session reports
        errors = exploration.errors()
        exploration.accuracy()
    with stages.stage(LATENCY):
        exploration.latency(runs=runs)
    with stages.stage(CONVERT):
        exploration.convert(clamp=clamp)
        data = report_data(exploration, gpu_model=gpu_model, runs=runs, clamp=clamp)
    table = _table(exploration, errors, gpu_model=gpu_model, runs=runs)
    return Analysis(exploration, data, Layers.of(data), table, clamp)


def _table(exploration: Exploration, errors: pd.DataFrame, *, gpu_model: str | None, runs: int) -> pd.DataFrame:
    """Return one row a layer; measured and predicted times keep apart under the prefixes ``cpu_`` and ``gpu_``."""
    ranges = exploration.ranges()
    joined = errors.rename(columns={"provenance": "error_provenance"})
    joined["max_abs"], joined["rms"] = ranges["max_abs"], ranges["rms"]
    joined["range_provenance"] = ranges["provenance"]
    devices = {"cpu": exploration.latency(runs=runs)}
    if gpu_model is not None:
        devices["gpu"] = exploration.latency(gpu_model=gpu_model)
    for device, times in devices.items():
        for column in times.columns.difference(list(_IDENTITY), sort=False):
            joined[f"{device}_{column}"] = times[column]
    return joined
