"""The tables of a report joined to one row a layer, with the questions that every part of the page asks of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.formats import FORMATS
from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from explorer.report.data import ReportData

__all__ = ["Layers", "broken_outputs", "latency_groups", "low_column", "saturating", "tells_speed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """One row a layer in the order of execution.

    Args:
        frame: errors joined with range (``range_max_abs``, ``range_rms``) and latency (``fp32_us``, ``low_us``,
            ``fused_with``); what was not measured is NaN or an empty string.
        low: whether the layer runs in a low format.
        floats: whether it carries float tensors at all; no other layer can run low.
        broken: whether its output under the plan holds inf or NaN.
        timing: provenance of the latency columns; empty when there are none.
    """

    frame: pd.DataFrame
    low: NDArray[np.bool_]
    floats: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    timing: str = ""

    @classmethod
    def of(cls, data: ReportData) -> Layers:
        """Return the layers of a report."""
        frame = data.errors.reset_index(drop=True).copy()
        ids = frame["id"]
        if data.ranges is not None:
            by_id = data.ranges.drop_duplicates("id").set_index("id")
            frame["range_max_abs"] = ids.map(by_id["max_abs"]).astype("float64")
            frame["range_rms"] = ids.map(by_id["rms"]).astype("float64")
            frame["range_provenance"] = ids.map(by_id["provenance"])
        else:
            frame["range_max_abs"], frame["range_rms"], frame["range_provenance"] = np.nan, np.nan, ""
        timing, groups = "", latency_groups(data.latency)
        frame["fp32_us"], frame["low_us"], frame["fused_with"] = np.nan, np.nan, ""
        if groups:  # a row has room for one device: the one that also timed the low format, else the first
            timing, rows = next(
                (pair for pair in groups.items() if low_column(pair[1], data.plan.format)), next(iter(groups.items()))
            )
            by_id = rows.drop_duplicates("id").set_index("id")
            frame["fp32_us"] = ids.map(by_id["fp32_us"]).astype("float64")
            column = low_column(rows, data.plan.format)
            if column is not None and tells_speed(timing, data.plan.format):
                frame["low_us"] = ids.map(by_id[column]).astype("float64")
            if "fused_with" in by_id:
                frame["fused_with"] = ids.map(by_id["fused_with"].map(_names)).fillna("")
        if "note" not in frame:
            frame["note"] = ""
        fmt = frame["format"].astype(str)
        low = (~fmt.isin((NO_FORMAT, "fp32"))).to_numpy(dtype=bool)
        return cls(
            frame=frame, low=low, floats=(fmt != NO_FORMAT).to_numpy(dtype=bool), broken=_broken(frame, low),
            timing=timing,
        )  # fmt: skip

    def low_formats(self, own: str) -> list[str]:
        """Return the low formats that layers run in, the plan's own first; that one too where none does."""
        used = dict.fromkeys(name for name, low in zip(self.words("format"), self.low, strict=True) if low)
        return list(dict.fromkeys((own, *used))) if own in used or not used else list(used)

    @property
    def broken_alone(self) -> NDArray[np.bool_]:
        """Whether a layer breaks on exact inputs: it makes inf or NaN itself and does not merely pass it on."""
        local, largest = self.column("local_sqnr_db"), self.column("local_max_abs")
        makes_nan = np.isnan(local) & self.low & _counted(self.frame)  # a NaN is no number: neither is its SQNR
        return np.asarray(np.isneginf(local) | np.isposinf(largest) | makes_nan, dtype=bool)

    @property
    def unmeasured(self) -> NDArray[np.bool_]:
        """Whether nothing is known of the error of a layer that carries floats."""
        unknown = np.isnan(self.column("local_sqnr_db")) & np.isnan(self.column("acc_sqnr_db"))
        return np.asarray(unknown & self.floats & ~self.broken & ~self.broken_alone, dtype=bool)

    def saturates_on_reading(self, row: int) -> float:
        """Return the share of what a layer reads that saturates, where that is more than of what it makes; else 0."""
        if "reads_beyond" not in self.frame or not saturating([self.words("format")[row]])[0]:
            return 0.0
        reads, elements = self.column("reads_beyond")[row], self.column("elements")[row]
        return float(reads) if reads * elements > self.column("overflow")[row] else 0.0

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column of figures, NaN where a layer has none."""
        return np.asarray(self.frame[name].to_numpy(dtype=np.float64, na_value=np.nan))

    def words(self, name: str) -> list[str]:
        """Return a column of words, empty where a layer has none."""
        return [word if isinstance(word, str) else "" for word in self.frame[name]]

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the distinct words of a column, in the order in which they first appear."""
        return tuple(dict.fromkeys(word for word in self.words(name) if word))


def broken_outputs(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which model outputs hold inf or NaN under the plan."""
    return np.asarray(_counted(table) | _infinite(table, "sqnr_db", "max_abs"), dtype=bool)


def _broken(frame: pd.DataFrame, low: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which layers hold inf or NaN under the plan.

    By their counts where the layer runs low (elsewhere they tell what it would lose), by an error that is itself
    infinite, or by an accumulated SQNR that is NaN although the local one is a number: both are measured in one run.
    Where both are NaN the layer was not measured.
    """
    local, accumulated = (
        frame[column].to_numpy(dtype=np.float64, na_value=np.nan) for column in ("local_sqnr_db", "acc_sqnr_db")
    )
    poisoned = np.isnan(accumulated) & ~np.isnan(local)
    return np.asarray((_counted(frame) & low) | poisoned | _infinite(frame, "acc_sqnr_db", "acc_max_abs"), dtype=bool)


def _counted(frame: pd.DataFrame) -> NDArray[np.bool_]:
    counts = frame[["overflow", "nan"]].fillna(0).to_numpy(dtype=np.float64, copy=True)
    if "format" in frame:  # of layers; the values that the model returns are infinite if they are counted
        counts[saturating(frame["format"]), 0] = 0
    return np.asarray((counts > 0).any(axis=1), dtype=bool)


def saturating(formats: Iterable[object]) -> NDArray[np.bool_]:
    """Return by layer whether its format keeps its largest value for what lies beyond, instead of infinity."""
    return np.array([name in FORMATS and FORMATS[str(name)].saturates for name in formats], dtype=bool)


def _infinite(frame: pd.DataFrame, sqnr: str, max_abs: str) -> NDArray[np.bool_]:
    ratio = frame[sqnr].to_numpy(dtype=np.float64, na_value=np.nan)
    largest = frame[max_abs].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(np.isneginf(ratio) | np.isposinf(largest), dtype=bool)


def low_column(rows: pd.DataFrame, low: str) -> str | None:
    """Return the name of the column that holds the low format's times, or None when there are none."""
    name = f"{low}_us"
    return name if name in rows.columns and bool(rows[name].notna().any()) else None


def tells_speed(provenance: str, low: str) -> bool:
    """Return whether times of this provenance tell how fast a low format is.

    ONNX Runtime's CPU provider computes fp16 in fp32: what it measures is no speed-up, and none is ever shown. Its
    kernels of int8 are real.
    """
    return low == "int8" or "cpu" not in provenance.casefold()


def latency_groups(latency: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """Return the timed rows by their provenance, in the order in which it first appears."""
    if latency is None or latency.empty:
        return {}
    times = latency.columns.intersection(["fp32_us", "plan_us"])  # fp32 is unknown where only the plan was measured
    timed = latency[latency[times].notna().any(axis=1)]
    return {str(provenance): rows for provenance, rows in timed.groupby("provenance", sort=False)}


def _names(value: object) -> str:
    """Return the names of fused layers as one line: the column holds a string or a collection of strings."""
    if isinstance(value, str):
        return value
    return ", ".join(str(item) for item in value) if isinstance(value, list | tuple | set | frozenset) else ""
