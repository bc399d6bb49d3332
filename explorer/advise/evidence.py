"""The figures of one plan beside the graph: what every detector asks of a layer and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from explorer.formats import FORMATS, get_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from explorer.convert import Decisions, WeightReport, WeightSummary
    from explorer.formats import Format
    from explorer.model import Layer, Model

__all__ = ["ACCURACY_LOST", "POOR_DB", "Evidence"]

ACCURACY_LOST: Final = 0.005  # half a point, more than a handful of samples in a thousand
POOR_DB: Final = 20.0  # dB: an error of a tenth of the signal, 10 ** (-20 / 20)
_FEW: Final = 64  # elements of a weight that is a constant of the computation, not something learned


@dataclass(frozen=True)
class Evidence:
    """One row a layer, in execution order.

    Attributes:
        model: the model.
        decisions: of the plan.
        errors: ``Exploration.errors()``.
        ranges: ``Exploration.ranges()``.
        output_error: ``Exploration.output_error()``.
        accuracy: of the fp32 model and under the plan, 0 to 1; None without labels.
        weights: what the conversion did to the weights that it stores low; None where nothing was converted.
        clamped: whether the converted model has weights clamped into the range; the errors here do not.
    """

    model: Model
    decisions: Decisions
    errors: pd.DataFrame
    ranges: pd.DataFrame
    output_error: pd.DataFrame
    accuracy: tuple[float, float] | None = None
    weights: WeightSummary | None = None
    clamped: bool = False

    @property
    def format(self) -> Format:
        """The low format of the plan."""
        return get_format(self.decisions.plan.format)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers."""
        return self.model.layers

    def column(self, name: str, table: str = "errors") -> npt.NDArray[np.float64]:
        """Return a column of figures, NaN where a layer has none."""
        frame: pd.DataFrame = getattr(self, table)
        return np.asarray(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))

    @cached_property
    def low(self) -> npt.NDArray[np.bool_]:
        """Whether the layer runs in the plan's low format."""
        return self.runs_in(self.decisions.plan.format)

    @cached_property
    def lowered(self) -> npt.NDArray[np.bool_]:
        """Whether the plan runs the layer in any low format."""
        return self.low | self.runs_in("int8")

    def runs_in(self, name: str) -> npt.NDArray[np.bool_]:
        """Return whether the plan runs each layer in a format; what the source model quantised by itself is not."""
        made = self.decisions
        chosen = made.low_layers if name == made.plan.format else made.int8_layers
        return np.array([layer.id in chosen and made[layer.id].format == name for layer in self.layers], dtype=bool)

    @cached_property
    def overflow(self) -> npt.NDArray[np.float64]:
        """How many exact values leave the range and become infinite."""
        return np.where(self.saturating, 0.0, np.nan_to_num(self.column("overflow")))

    @cached_property
    def clipped(self) -> npt.NDArray[np.float64]:
        """How many exact values leave the range and become its largest."""
        return np.where(self.saturating, np.nan_to_num(self.column("overflow")), 0.0)

    @cached_property
    def saturating(self) -> npt.NDArray[np.bool_]:
        """Whether what leaves the range of the layer's format, of the plan's where it is high, stays finite."""
        formats = (self.decisions[layer.id].format for layer in self.layers)
        low = self.decisions.plan.format
        return np.array([FORMATS[name if name in FORMATS and name != "fp32" else low].saturates for name in formats])

    @cached_property
    def flushed(self) -> npt.NDArray[np.float64]:
        """How many exact values become zero."""
        return np.nan_to_num(self.column("flushed"))

    @cached_property
    def max_abs(self) -> npt.NDArray[np.float64]:
        """Largest exact magnitude."""
        return self.column("max_abs", "ranges")

    @cached_property
    def local_broken(self) -> npt.NDArray[np.bool_]:
        """Whether a layer makes inf or NaN of exact inputs when it runs low."""
        sqnr, nan = self.column("local_sqnr_db"), np.nan_to_num(self.column("nan"))
        return np.asarray(np.isneginf(sqnr) | np.isposinf(self.column("local_max_abs")) | (nan > 0), dtype=bool)

    @cached_property
    def local_bad(self) -> npt.NDArray[np.bool_]:
        """Whether a layer that runs low loses most of its result on exact inputs."""
        return np.asarray(self.local_broken | (self.column("local_sqnr_db") < POOR_DB), dtype=bool)

    @cached_property
    def broken(self) -> npt.NDArray[np.bool_]:
        """Whether a layer's result holds inf or NaN under the plan, and the exact one does not."""
        sqnr, local = self.column("acc_sqnr_db"), self.column("local_sqnr_db")
        lost = np.isneginf(sqnr) | np.isposinf(self.column("acc_max_abs"))
        return np.asarray(lost | (np.isnan(sqnr) & (~np.isnan(local) | self.local_broken)), dtype=bool)

    @cached_property
    def bad(self) -> npt.NDArray[np.bool_]:
        """Whether a layer's result is broken under the plan, or loses most of its signal."""
        return np.asarray(self.broken | (self.column("acc_sqnr_db") < POOR_DB), dtype=bool)

    @cached_property
    def maker(self) -> Mapping[str, int]:
        """Row of the layer that makes a value."""
        return {name: row for row, layer in enumerate(self.layers) for name in layer.outputs if name}

    @cached_property
    def producers(self) -> list[list[int]]:
        """Rows of the layers whose results a layer reads."""
        return [
            list(dict.fromkeys(self.maker[name] for name in layer.inputs if name in self.maker))
            for layer in self.layers
        ]

    @cached_property
    def consumers(self) -> list[list[int]]:
        """Rows of the layers that read a layer's results."""
        found: list[list[int]] = [[] for _ in self.layers]
        for row, sources in enumerate(self.producers):
            for source in sources:
                found[source].append(row)
        return found

    @cached_property
    def feeds_output(self) -> npt.NDArray[np.bool_]:
        """Whether a layer makes an output of the model."""
        outputs = {spec.name for spec in self.model.outputs}
        return np.array([bool(outputs & set(layer.outputs)) for layer in self.layers], dtype=bool)

    @cached_property
    def broken_outputs(self) -> list[str]:
        """Names of outputs that hold inf or NaN under the plan."""
        table = self.output_error
        counts = table[["overflow", "nan"]].fillna(0).to_numpy(dtype=np.float64)
        sqnr = table["sqnr_db"].to_numpy(dtype=np.float64, na_value=np.nan)
        lost = (counts > 0).any(axis=1) | np.isneginf(sqnr)
        return [str(name) for name, bad in zip(table["output"], lost, strict=True) if bad]

    @cached_property
    def accuracy_lost(self) -> str:
        """What became of the accuracy, in words; empty where it holds or is not known."""
        if self.accuracy is None or self.accuracy[0] - self.accuracy[1] <= ACCURACY_LOST:
            return ""
        before, after = self.accuracy
        return f"Accuracy falls from {100 * before:.1f} % to {100 * after:.1f} %."

    @cached_property
    def worst_output(self) -> tuple[str, float]:
        """Name and SQNR of the output with the least SQNR; NaN where none was measured."""
        sqnr = self.output_error["sqnr_db"].to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isnan(sqnr).all():
            return "", np.nan
        row = int(np.nanargmin(sqnr))
        return str(self.output_error["output"].iloc[row]), float(sqnr[row])

    @cached_property
    def lost(self) -> bool:
        """Whether an output, or the accuracy, is lost under the plan."""
        return bool(self.broken_outputs) or bool(self.accuracy_lost) or self.worst_output[1] < POOR_DB

    @cached_property
    def provenance(self) -> str:
        """How the errors and the ranges came to be, as a sentence."""
        errors = [str(word) for word in self.errors["provenance"] if word]
        ranges = [str(word) for word in self.ranges["provenance"] if word]
        return f"Errors {errors[0] if errors else 'not known'}; ranges {ranges[0] if ranges else 'not known'}."

    @cached_property
    def beyond(self) -> Mapping[int, WeightReport]:
        """By row of a low layer: the weight beyond the range that it reads, the largest where it reads several."""
        reports = self.weights.weights if self.weights is not None else ()
        large = {report.name: report for report in reports if report.census.overflow}
        found = {
            row: [large[name] for name in layer.inputs if name in large]
            for row, layer in enumerate(self.layers if large else ())
            if self.low[row]
        }
        return {row: max(read, key=lambda report: report.census.max_abs) for row, read in found.items() if read}

    def constants(self, row: int) -> list[float]:
        """Return the small constants that a layer reads: an epsilon, an exponent, a mask."""
        return [value for name in self.layers[row].inputs for value in self._constant(name)]

    def _constant(self, name: str) -> list[float]:
        weight = self.model.weights.get(name)
        if weight is None or weight.dtype != "float32" or weight.elements > _FEW:
            return []
        tensor = self.model.ir.graph.initializers[name].const_value
        return [] if tensor is None else [float(value) for value in tensor.numpy().reshape(-1)]

    def ids(self, rows: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of some rows, in execution order."""
        return tuple(self.layers[row].id for row in sorted(rows))
