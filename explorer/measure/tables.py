"""Result tables: one row per layer, one per output; what was not measured is NaN and says why."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from explorer.measure.sums import ErrorSums, RangeSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from explorer.convert import Decisions
    from explorer.model import Layer

__all__ = ["LayerSums", "by_layer", "errors_table", "outputs_table", "ranges_table"]

_COUNTS = ("overflow", "nan", "subnormal", "flushed", "elements")


class LayerSums:
    """Sums by layer: those of all its measured outputs together.

    Args:
        layers: the model's layers.
        values: names of the entries of ``sums``.
        sums: by value.
    """

    def __init__(self, layers: Sequence[Layer], values: Sequence[str], sums: ErrorSums | RangeSums) -> None:
        maker = {name: index for index, layer in enumerate(layers) for name in layer.outputs if name}
        owners = np.array([maker[value] for value in values], dtype=np.int64)
        self.measured: npt.NDArray[np.bool_] = np.zeros(len(layers), dtype=bool)
        self.measured[owners] = True
        merged = {}
        for item in fields(sums):
            column = getattr(sums, item.name)
            total = np.zeros(len(layers), dtype=column.dtype)
            with np.errstate(invalid="ignore"):  # NaN stays NaN, and is no reason to warn
                (np.maximum if item.name in ("max_error", "max_abs") else np.add).at(total, owners, column)
            merged[item.name] = total
        self.sums = type(sums)(**merged)

    def column(self, values: npt.NDArray[np.float64], *, otherwise: float = np.nan) -> npt.NDArray[np.float64]:
        """Return ``values`` where a layer was measured, ``otherwise`` elsewhere."""
        return np.where(self.measured, values, otherwise)

    def where(self, mine: npt.ArrayLike, other: LayerSums) -> LayerSums:
        """Return these sums for the layers of the mask ``mine``, and those of ``other`` for the others."""
        mask = np.asarray(mine, np.bool_)
        made = object.__new__(LayerSums)
        made.measured = np.where(mask, self.measured, other.measured)
        columns = {
            item.name: np.where(mask, getattr(self.sums, item.name), getattr(other.sums, item.name))
            for item in fields(self.sums)
        }
        made.sums = type(self.sums)(**columns)
        return made


def by_layer(layers: Sequence[Layer], values: Sequence[str], sums: ErrorSums | RangeSums) -> LayerSums:
    """Return the sums by layer, those of a layer's outputs together."""
    return LayerSums(layers, values, sums)


def _identity(layers: Sequence[Layer]) -> dict[str, list[str]]:
    return {
        "id": [layer.id for layer in layers],
        "name": [layer.name for layer in layers],
        "op": [layer.qualified_op for layer in layers],
        "scope": [layer.scope for layer in layers],
    }


def errors_table(
    layers: Sequence[Layer],
    decisions: Decisions,
    ranges: LayerSums,
    local: LayerSums,
    accumulated: LayerSums,
    *,
    incomparable: Iterable[str],
    provenance: str,
    reads_beyond: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Return one row a layer: its decision, its local and accumulated error, and what its values lose in the format.

    What a layer makes loses nothing in a format that it runs in and does not store its result in.
    """
    assert isinstance(local.sums, ErrorSums)
    assert isinstance(accumulated.sums, ErrorSums)
    assert isinstance(ranges.sums, RangeSums)
    lost = set(incomparable)
    notes = [
        _note(layer, decisions, lost, measured=bool(seen)) for layer, seen in zip(layers, local.measured, strict=True)
    ]
    lossy = np.array([_rounds_result(layer, decisions) for layer in layers], dtype=np.int64)
    # A layer that no switch reaches computes the same under every plan: its error is zero, without measuring it.
    same = ranges.measured & ~accumulated.measured
    return pd.DataFrame(
        {
            **_identity(layers),
            "format": [decisions[layer.id].format for layer in layers],
            "reason": [decisions[layer.id].reason for layer in layers],
            "local_sqnr_db": local.column(local.sums.sqnr_db),
            "local_rel_l2": local.column(local.sums.rel_l2),
            "local_max_abs": local.column(local.sums.max_error),
            "acc_sqnr_db": np.where(same, np.inf, accumulated.column(accumulated.sums.sqnr_db)),
            "acc_rel_l2": np.where(same, 0.0, accumulated.column(accumulated.sums.rel_l2)),
            "acc_max_abs": np.where(same, 0.0, accumulated.column(accumulated.sums.max_error)),
            "overflow": ranges.sums.overflow * lossy,
            "nan": local.sums.nan,
            "subnormal": ranges.sums.subnormal * lossy,
            "flushed": ranges.sums.flushed * lossy,
            "elements": ranges.sums.elements,
            "reads_beyond": np.nan if reads_beyond is None else reads_beyond,
            "provenance": np.where(ranges.measured, provenance, ""),
            "note": notes,
        }
    )


def _rounds_result(layer: Layer, decisions: Decisions) -> bool:
    """Return whether a layer stores a result in the format that it runs in, or would, where it runs high."""
    int8 = decisions.int8 if layer.id in decisions.int8_layers else None
    chosen = layer.id in decisions.low_layers or int8 is not None
    return not chosen or any((int8 or decisions.typing).layers[layer.id].low_outputs)


def _note(layer: Layer, decisions: Decisions, incomparable: set[str], *, measured: bool) -> str:
    may = decisions.typing.layers[layer.id]
    if layer.container is not None:
        return f"inside '{layer.container}': switched with the plan, measured as part of that layer"
    if incomparable & set(layer.outputs):
        return "its shape depends on values and changed under the plan: not compared"
    if measured and may.blocked:
        return "measured as one layer, with everything inside that may run low"
    if may.blocked:
        return f"never low: {may.blocked}"
    return "" if measured else "makes no float32 tensor: nothing to compare"


def ranges_table(layers: Sequence[Layer], ranges: LayerSums, *, provenance: str) -> pd.DataFrame:
    """Return one row a layer: where its exact values lie relative to the low format."""
    sums = ranges.sums
    assert isinstance(sums, RangeSums)
    return pd.DataFrame(
        {
            **_identity(layers),
            "max_abs": ranges.column(sums.max_abs),
            "rms": ranges.column(sums.rms),
            "elements": sums.elements,
            "overflow": sums.overflow,
            "subnormal": sums.subnormal,
            "flushed": sums.flushed,
            "nonfinite": sums.nonfinite,
            "provenance": np.where(ranges.measured, provenance, ""),
        }
    )


def outputs_table(
    outputs: Sequence[str], sums: ErrorSums, overflow: Mapping[str, int], *, provenance: str
) -> pd.DataFrame:
    """Return one row a float32 output of the model: its error under the plan."""
    return pd.DataFrame(
        {
            "output": list(outputs),
            "sqnr_db": sums.sqnr_db,
            "rel_l2": sums.rel_l2,
            "max_abs": sums.max_error,
            "cosine": sums.cosine,
            "overflow": [overflow.get(name, 0) for name in outputs],
            "nan": sums.nan,
            "elements": sums.elements,
            "provenance": provenance,
        }
    )
