"""From what every node did in every run to rows of a table: layers, kernels, what was inserted. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from explorer.backends.cuda_match import format_of_kernel, short_name
from explorer.backends.cuda_placement import Placement
from explorer.backends.latency import InsertedTime, KernelTime, LayerTime, medians_and_spreads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from explorer.backends.cuda_match import RunWork
    from explorer.backends.cupti import Work
    from explorer.backends.fusion import FusionMap, Group

__all__ = ["OUTSIDE", "Rows", "formats_run", "rows_of"]

OUTSIDE: Final = "(work of no node)"
_KINDS: Final = {"reorder": "reformat", "transpose": "reformat", "reshape": "reformat", "cast": "cast", "copy": "copy"}
_GONE: Final = "Not in the graph that runs: conversion or the optimizer removed it."


@dataclass(frozen=True)
class Rows:
    """What a measurement tells by layer, by kernel, and of what the backend and conversion added."""

    layers: tuple[LayerTime, ...]
    kernels: tuple[KernelTime, ...]
    inserted: tuple[InsertedTime, ...]

    @property
    def sum_us(self) -> float:
        """Sum of the medians of layers and inserted nodes, in microseconds."""
        return sum(row.median_us for row in self.layers) + sum(row.median_us for row in self.inserted)


@dataclass(frozen=True)
class _Table:
    """What the rows are made of."""

    runs: Sequence[RunWork]
    fusion: FusionMap
    shown: Sequence[str]
    placed: Placement = field(default_factory=Placement)
    served: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("there is no run to make rows of")


def rows_of(
    runs: Sequence[RunWork],
    fusion: FusionMap,
    shown: Sequence[str],
    placed: Placement | None = None,
    served: Mapping[str, str] | None = None,
) -> Rows:
    """Return the medians over the runs.

    Args:
        runs: from `explorer.backends.cuda_match.match`; at least one.
        fusion: which layers each node of the optimized graph computes.
        shown: ids of the layers that get a row, in order. Other layers of the graph (casts that conversion inserted)
            are told among what was inserted, unless they are fused with a shown one.
        placed: what ran on the CPU.
        served: from a node that conversion inserted to the layer that it serves.
    """
    table = _Table(runs, fusion, shown, placed or Placement(), served or {})
    layers, inserted = _layer_rows(table)
    outside = [[sum(item.us for item in run.outside)] for run in runs]
    if any(value for (value,) in outside):
        ((median, spread),) = medians_and_spreads([[value for (value,) in outside]])
        inserted.append(InsertedTime(OUTSIDE, "", "copy" if _only_copies(runs) else "other", None, median, spread))
    return Rows(layers, tuple(_kernel_rows(table)), tuple(inserted))


def _only_copies(runs: Iterable[RunWork]) -> bool:
    return all(item.kind != "kernel" for run in runs for item in run.outside)


def _layer_rows(table: _Table) -> tuple[tuple[LayerTime, ...], list[InsertedTime]]:
    rows: dict[str, LayerTime] = {}
    inserted: list[InsertedTime] = []
    times = medians_and_spreads(
        [[run.nodes[group.node].us if group.node in run.nodes else 0.0 for run in table.runs]
         for group in table.fusion.groups]
    )  # fmt: skip
    known = frozenset(table.shown)
    for group, (median, spread) in zip(table.fusion.groups, times, strict=True):
        layers = tuple(layer for layer in group.layers if layer in known)
        if not layers:
            inserted.append(_inserted(group, table, median, spread))
            continue
        main = group.main if group.main in known else layers[0]
        for layer in layers:
            here = layer == main
            others = tuple(item for item in layers if item != layer)
            note = _fused_note(group, main, here=here, alone=not others)
            told = " ".join(part for part in (note, table.placed.reason(layer)) if part)
            rows[layer] = LayerTime(layer, median if here else 0.0, spread if here else 0.0, others, told)
    for layer, fate in table.fusion.fates.items():
        rows.setdefault(layer, LayerTime(layer, 0.0, 0.0, note=fate))
    shown = tuple(rows.get(layer) or LayerTime(layer, 0.0, 0.0, note=_GONE) for layer in table.shown)
    return shown, inserted


def _inserted(group: Group, table: _Table, median: float, spread: float) -> InsertedTime:
    """Return the row of a node that computes no shown layer: the backend's own, or one that conversion inserted."""
    kind = group.kind
    if kind == "layer":
        kind = "cast" if group.op in {"Cast", "QuantizeLinear", "DequantizeLinear"} else "other"
    serves = table.served.get(group.serves or group.main or "", group.serves)
    serves = serves if serves in frozenset(table.shown) else None
    return InsertedTime(group.node, group.op, kind, serves, median, spread)


def _fused_note(group: Group, main: str | None, *, here: bool, alone: bool) -> str:
    if alone:
        return ""
    return (
        f"Runs as one {group.op} with the layers it is fused with." if here else f"Fused: its time stands at '{main}'."
    )


def _kernel_rows(table: _Table) -> list[KernelTime]:
    """Return one row for each kernel of each node, its launches in one run added up; in the order of the nodes."""
    rows = []
    known = frozenset(table.shown)
    for group in table.fusion.groups:
        layers = tuple(layer for layer in group.layers if layer in known)
        kind = "layer" if layers else _KINDS.get(group.kind, "cast" if group.op == "Cast" else "other")
        works = [run.nodes[group.node].work if group.node in run.nodes else () for run in table.runs]
        rows += _named_rows(works, layers, kind, group.node)
    rows += _named_rows([run.outside for run in table.runs], (), "other", "")
    return rows


def _named_rows(works: Sequence[Sequence[Work]], layers: tuple[str, ...], kind: str, node: str) -> list[KernelTime]:
    sums: dict[str, list[float]] = {}
    counts: dict[str, int] = defaultdict(int)
    kinds: dict[str, str] = {}
    for number, run in enumerate(works):
        for item in run:
            sums.setdefault(item.name, [0.0] * len(works))[number] += item.us
            counts[item.name] += 1
            kinds[item.name] = item.kind
    found = []
    for name, (median, spread) in zip(sums, medians_and_spreads(list(sums.values())), strict=True):
        launches = round(counts[name] / len(works))
        told = [f"of the node '{node}'"] if node else ["asked for by no node"]
        told += [f"{launches} launches in each run"] if launches > 1 else []
        here = "copy" if kinds[name] == "copy" else kind
        row = KernelTime(short_name(name), layers, median, spread, here, format_of_kernel(name), note="; ".join(told))
        found.append(row)
    return found


def formats_run(kernels: Iterable[KernelTime]) -> Mapping[str, float]:
    """Return how many microseconds the kernels of layers spent in each format that their names tell."""
    spent: dict[str, float] = defaultdict(float)
    for row in kernels:
        if row.format and row.layer_ids:
            spent[row.format] += row.median_us
    return dict(spent)
