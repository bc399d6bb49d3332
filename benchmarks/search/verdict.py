"""What the record's figures mean: whose plans are beaten, and which targets are met; nothing is measured here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "AUTO_CONVERT",
    "FACTOR",
    "SAME",
    "altered",
    "alters",
    "at_budget",
    "dominated",
    "margins",
    "our_plans",
    "pareto",
    "peer_plans",
    "targets",
    "within",
]

Row = dict[str, Any]
SAME = 1e-6  # latencies and errors that differ by less are the same
LOST = 1.0  # relative L2 error that outputs of nothing but zeros have: what has more is no plan
FACTOR = 1.5  # between predicted and measured error
WANTED_SHARE = 0.95  # of random plans within that factor
SEARCHED = 3  # attempts: all in fp16, and that again as the result, are no search
WANTED_SPEED = 10.0  # times faster than auto_convert_mixed_precision
AUTO_CONVERT = "onnxconverter-common auto_convert_mixed_precision"


def _usable(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("error") is not None and row["error"] < LOST]


def peer_plans(model: Row) -> list[Row]:
    """Return the plans of all other searches whose outputs are finite, and nearer to the truth than zeros are."""
    return _usable([*model["peers"], *model["rules"]])


def our_plans(model: Row) -> list[Row]:
    """Return every plan that our front gave: its points, and its answers to budgets."""
    ours = model["ours"]
    return _usable([*ours.get("points", ()), *ours.get("rows", ()), *ours.get("at_errors", ())])


def _no_more(one: float, other: float) -> bool:
    return one <= other * (1 + SAME)


def _as_good(one: Row, other: Row) -> bool:
    return _no_more(one["error"], other["error"]) and _no_more(one["latency_us"], other["latency_us"])


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Return the plans that no other of them beats, from the most exact to the fastest; one of each kind."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda each: (each["error"], each["latency_us"])):
        if not kept or row["latency_us"] < kept[-1]["latency_us"] * (1 - SAME):
            kept.append(row)
    return kept


def at_budget(rows: Iterable[Row], budget: float) -> Row | None:
    """Return the fastest plan that keeps an error."""
    held = (row for row in _usable(rows) if _no_more(row["error"], budget))
    return min(held, key=lambda row: row["latency_us"], default=None)


def margins(model: Row) -> list[Row]:
    """Return for each plan that is best among the other searches' what the fastest of ours within its error takes."""
    ours = our_plans(model)
    found = []
    for row in pareto(peer_plans(model)):
        best = at_budget(ours, row["error"])
        found.append({**row, "ours_us": None if best is None else best["latency_us"]})
    return found


def alters(row: Row) -> bool:
    """Return whether a plan owes its error to weights of the model that the tool changed."""
    if not row.get("weights_changed"):
        return False
    alone = row.get("error_of_plan")
    return alone is None or not _no_more(alone, row["error"])


def dominated(model: Row) -> list[str]:
    """Return in words where another search beats ours.

    That is: it has a plan such that none of ours is at least as good in both error and latency; or within one budget
    its plan has no more error than our answer, and less latency. Plans that need other weights than the model has are
    told apart: see :func:`altered`.
    """
    same_model = [row for row in peer_plans(model) if not alters(row)]
    found = _unmatched(model, same_model)
    for answer in _usable(model["ours"].get("rows", ())):
        for row in same_model:
            same = row.get("budget") in (None, answer["budget"])
            less = row["latency_us"] < answer["latency_us"] * (1 - SAME)
            if same and less and _no_more(row["error"], answer["error"]):
                found.append(f"{row['tool']} within {answer['budget']:g}: {row['latency_us']:.1f} us")
    return found


def altered(model: Row) -> list[str]:
    """Return in words which plans that none of ours matches need other weights than the model has."""
    return _unmatched(model, [row for row in peer_plans(model) if alters(row)])


def _unmatched(model: Row, rows: Iterable[Row]) -> list[str]:
    ours = our_plans(model)
    return [
        f"{row['tool']}: error {row['error']:.2e} in {row['latency_us']:.1f} us"
        for row in rows
        if not any(_as_good(each, row) for each in ours)
    ]


def within(pairs: Iterable[Sequence[float]]) -> float | None:
    """Return the share of (predicted, measured) errors that differ by no more than `FACTOR`; None of none.

    Plans whose outputs are not finite do not count, nor do those without error.
    """
    ratios = [one / other for one, other in pairs if one and other and math.isfinite(one) and math.isfinite(other)]
    return sum(1 / FACTOR <= ratio <= FACTOR for ratio in ratios) / len(ratios) if ratios else None


def _target(what: str, wanted: str, value: str, *, met: bool) -> Row:
    return {"what": what, "target": wanted, "value": value, "met": met}


def targets(record: Row) -> list[Row]:
    """Return the targets, the figures that stand for them, and whether they are met."""
    found = []
    for name, model in record["models"].items():
        if "points" not in model["ours"]:
            found.append(_target(f"{name}: our search", "a front", model["ours"]["failure"], met=False))
            continue
        beaten = dominated(model)
        value = "; ".join(beaten[:2]) or f"none of {len(peer_plans(model))}"
        if other := altered(model):
            value += f"; with changed weights: {other[0]}"
        found.append(_target(f"{name}: plans of other searches that beat ours", "none", value, met=not beaten))
        found += _speed(name, model)
        share = within(model["ours"].get("fidelity", {}).get("pairs", ()))
        if share is not None:
            what = f"{name}: predicted error of random plans within a factor {FACTOR:g} of measured"
            met = share >= WANTED_SHARE
            found.append(_target(what, f">= {WANTED_SHARE:.0%}", f"{share:.0%}", met=met))
    return found


def _speed(name: str, model: Row) -> list[Row]:
    """Judge our time against every search of auto_convert_mixed_precision that had to look further than all in fp16."""
    ours = model["time"].get("seconds")
    found = []
    for row in model["peers"]:
        if row["tool"] != AUTO_CONVERT or ours is None or row.get("attempts", 0) < SEARCHED:
            continue
        ratio = row["seconds"]["median"] / ours["median"]
        end = "stopped" if row["stopped"] else "then it fails" if row["failure"] else "then it has a plan"
        more = ">= " if row["stopped"] else ""
        value = f"{more}{ratio:.1f} times (its {row['attempts']} attempts, {end})"
        what = f"{name}: our whole front, faster than {AUTO_CONVERT.partition(' ')[2]} for {row['budget']:g} alone"
        found.append(_target(what, f">= {WANTED_SPEED:g} times", value, met=ratio >= WANTED_SPEED))
    return found
