"""Columns by layer that change with plan and runs (type Figures of js/src/protocol.ts), as one binary frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from explorer.convert import type_layers
from explorer.plan import NO_FORMAT
from explorer.scene.casts import edge_casts
from explorer.scene.frame import encode_frame
from explorer.scene.fronts import FrontColumns
from explorer.scene.kernels import kernels_json, layer_times
from explorer.scene.wiring import wiring

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from explorer.backends.latency import LatencyResult
    from explorer.convert import Decisions, Typing
    from explorer.model import Model

__all__ = ["MAY_INT8", "MAY_LOW", "NEVER", "figures"]

NEVER = -1  # revision of errors that were never measured
MAY_LOW, MAY_INT8 = 1, 2  # in the column `switchable`: the plan's own low format, and int8 beside it
_FP32, _INT8 = "fp32", "int8"
_MIXED = ("fp16", "bf16")  # formats of plans that may ask for int8 too
_ERRORS = ("local_sqnr_db", "local_rel_l2", "local_max_abs", "acc_sqnr_db", "acc_rel_l2", "acc_max_abs")
_SEARCHED = ("sensitivity_db", "saves_us", "costs")
_COUNTS = ("overflow", "subnormal", "flushed", "elements")
_MOST_REASONS = 1 << 16  # what the column's uint16 can tell apart
_INCOMPARABLE = "not compared"  # in the note of an error whose layer changed its shape under the plan


def figures(
    model: Model,
    decisions: Decisions,
    *,
    errors: pd.DataFrame | None = None,
    ranges: pd.DataFrame | None = None,
    latency: pd.DataFrame | None = None,
    measured: LatencyResult | None = None,
    stands_in: bool = False,
    first_nonfinite: str | None = None,
    front: FrontColumns | None = None,
    revision: int = 0,
    errors_revision: int = NEVER,
) -> bytes:
    """Return the frame of figures; what was not measured is NaN.

    Args:
        model: the model.
        decisions: what becomes of its layers; of ``revision``.
        errors: what ``Exploration.errors()`` gave, for the plan of ``errors_revision``; without the ``acc_*`` columns
            where no plan was run yet.
        ranges: what ``Exploration.ranges()`` gave.
        latency: what ``Exploration.latency(...)`` gave, for the format of the plan.
        measured: the latency of this very plan, as it was measured; it takes the place of ``latency``, of which only
            the fp32 times stay, where they are of the same device.
        stands_in: what ``latency`` tells is shown only until the plan has been measured.
        first_nonfinite: what ``Exploration.first_nonfinite()`` gave.
        front: what a search tells of the layers under this plan.
        revision: number of the plan.
        errors_revision: number of the plan that ``errors`` belong to.
    """
    count = len(model.layers)
    formats = [NO_FORMAT, _FP32, decisions.plan.format]
    if decisions.plan.format in _MIXED:
        formats.append(_INT8)
    formats += sorted({row.format for row in decisions} - set(formats))  # what the source model quantised by itself
    reasons: dict[str, int] = {}
    number = {name: index for index, name in enumerate(formats)}
    rows = list(decisions)
    last = _MOST_REASONS - 1
    reason = [min(reasons.setdefault(row.reason, len(reasons)), last) for row in rows]
    typing = decisions.typing.layers
    columns: dict[str, npt.NDArray[Any]] = {
        "format": np.array([number[row.format] for row in rows], np.uint8),
        "asked": np.array([number[row.asked] for row in rows], np.uint8),
        "blacklisted": _blacklisted(model, decisions),
        "switchable": np.array([typing[row.layer_id].switchable for row in rows], np.uint8) * MAY_LOW
        + _may_int8(decisions) * MAY_INT8,
        "reason": np.array(reason, np.uint16),
        **_errors(count, errors),
        **_ranges(count, errors, ranges),
        **_searched(front or FrontColumns()),
        **(_latency(count, decisions, latency) if measured is None else _measured_latency(model, measured, latency)),
        "cast": edge_casts(decisions),
    }
    facts = {
        "revision": revision,
        "errorsRevision": NEVER if errors is None else errors_revision,
        "formats": formats,
        "reasons": _listed(reasons),
        "errorProvenance": _provenance(errors),
        "rangeProvenance": _provenance(ranges),
        "latencyProvenance": _provenance(latency) if measured is None else measured.provenance,
        "latencyStandsIn": stands_in and measured is None,
        "kernels": [] if measured is None else kernels_json(model, measured),
        "firstNonfinite": -1 if first_nonfinite is None else wiring(model).numbers[first_nonfinite],
    }
    return encode_frame(facts, columns)


def _may_int8(decisions: Decisions) -> npt.NDArray[np.uint8]:
    """Return by layer whether it may run in int8 beside the plan's own format; known once the plan asks for it."""
    if decisions.plan.format not in _MIXED:
        return np.zeros(len(decisions), np.uint8)
    typing = decisions.int8 or _int8_typing(decisions.typing)
    return np.array([typing.layers[row.layer_id].switchable for row in decisions], np.uint8)


_KNOWN: WeakKeyDictionary[Model, dict[str | None, Typing]] = WeakKeyDictionary()


def _int8_typing(typing: Typing) -> Typing:
    """Return what layers may be in int8; it does not depend on a plan, so it is found once."""
    known = _KNOWN.setdefault(typing.model, {})
    if typing.backend not in known:
        known[typing.backend] = type_layers(typing.model, _INT8, typing.backend)
    return known[typing.backend]


def _measured_latency(
    model: Model, measured: LatencyResult, latency: pd.DataFrame | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of :func:`_latency` where the plan itself was measured."""
    plan = layer_times(model, measured)
    return {"fp32_us": _column(len(plan), latency, "fp32_us"), "plan_us": plan, "latency_us": plan}


def _listed(reasons: dict[str, int]) -> list[str]:
    listed = list(reasons)
    if len(listed) > _MOST_REASONS:
        listed[_MOST_REASONS - 1 :] = ["one of the reasons that x.decisions() lists: there are too many to show"]
    return listed


def _blacklisted(model: Model, decisions: Decisions) -> npt.NDArray[np.uint8]:
    """Return by layer whether a rule or an override asks for fp32; the plan's base does not count."""
    plan = decisions.plan
    if plan.base != _FP32:
        return np.array([row.asked == _FP32 for row in decisions], np.uint8)
    wishes = plan.wishes(model).values()
    return np.array([wish.format == _FP32 and wish.by != "default" for wish in wishes], np.uint8)


def _column(count: int, table: pd.DataFrame | None, name: str, dtype: type = np.float32) -> npt.NDArray[Any]:
    if table is None or name not in table:
        return np.full(count, np.nan, dtype)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        return table[name].to_numpy(np.float64).astype(dtype)


def _errors(count: int, errors: pd.DataFrame | None) -> dict[str, npt.NDArray[Any]]:
    """Return the error columns; where the low version holds NaN an SQNR is -inf, and an error infinite."""
    columns = {name: _column(count, errors, name) for name in _ERRORS}
    columns["nan"] = _column(count, errors, "nan", np.float64)
    if errors is not None:
        measured = _measured(errors)
        compared = measured & ~errors["note"].str.contains(_INCOMPARABLE, regex=False).to_numpy(np.bool_)
        broken = {"local": columns["nan"] > 0, "acc": compared & ("acc_sqnr_db" in errors)}
        for name in _ERRORS:
            column, kind = columns[name], name.partition("_")[0]
            column[np.isnan(column) & broken[kind]] = -np.inf if name.endswith("_sqnr_db") else np.inf
        columns["nan"][~measured] = np.nan
    return columns


def _ranges(count: int, errors: pd.DataFrame | None, ranges: pd.DataFrame | None) -> dict[str, npt.NDArray[Any]]:
    """Return what the exact values are like; both tables hold the counts."""
    counted = errors if ranges is None else ranges
    columns = {name: _column(count, ranges, name) for name in ("max_abs", "rms")}
    columns |= {name: _column(count, counted, name, np.float64) for name in _COUNTS}
    if counted is not None:
        for name in _COUNTS:
            columns[name][~_measured(counted)] = np.nan
    return columns


def _latency(count: int, decisions: Decisions, latency: pd.DataFrame | None) -> dict[str, npt.NDArray[Any]]:
    """Return the time of each layer in fp32, and under the plan: NaN for a low layer whose low time is not known.

    ``latency_us`` is what shares are of: under the plan, or of the fp32 model where the device tells nothing else.
    """
    name = f"{decisions.plan.format}_us"
    high, low = _column(count, latency, "fp32_us"), _column(count, latency, name)
    runs_low = np.array([row.layer_id in decisions.low_layers for row in decisions], np.bool_)
    int8 = np.array([row.layer_id in decisions.int8_layers for row in decisions], np.bool_)
    plan = np.where(int8, _column(count, latency, "int8_us"), np.where(runs_low, low, high))
    return {"fp32_us": high, "plan_us": plan, "latency_us": high if latency is None or name not in latency else plan}


def _searched(front: FrontColumns) -> dict[str, npt.NDArray[Any]]:
    """Return what a search tells; empty columns where there was none."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        return {name: np.asarray(getattr(front, name)).astype(np.float32) for name in _SEARCHED}


def _measured(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return (table["provenance"] != "").to_numpy(np.bool_)


def _provenance(table: pd.DataFrame | None) -> str:
    """Return how the numbers of a table came to be; it stands at each row that has some."""
    return "" if table is None else next((str(each) for each in table["provenance"].unique() if each), "")
