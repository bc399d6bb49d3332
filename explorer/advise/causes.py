"""Where a plan breaks: stretches of layers through which values leave the range, or small ones vanish.

Names and operators explain a cause; figures of this model decide whether there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.advise.evidence import Evidence

__all__ = ["Cause", "overflows", "vanishing"]

_SQUARE_SUMS: Final = frozenset(("ReduceL2", "ReduceSumSquare", "LpNormalization"))
_SUMS: Final = frozenset(("ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool", "MatMul"))
_MASKING: Final = frozenset(("Where", "Add", "Sub", "Mul", "Constant", "ConstantOfShape", "Expand", "Pad"))
_SOFTMAX: Final = frozenset(("Softmax", "LogSoftmax"))
_DIVISORS: Final = {"Div": 1, "Reciprocal": 0, "Log": 0}  # input of which a zero gives inf or NaN
_GUARDS: Final = frozenset(("Add", "Max", "Clip", "Where"))  # where an epsilon keeps a divisor from zero
_STEPS: Final = 8  # layers between an epsilon and the division that it protects, at most


@dataclass(frozen=True, slots=True)
class Cause:
    """A stretch of layers that must leave the low format together.

    Attributes:
        kind: ``norm``, ``softmax``, ``mask``, ``weight``, ``range``, ``input``, ``inside`` or ``epsilon``.
        rows: the layers that run low and must not, in execution order.
        shown: the row whose figures tell it best.
        harmful: whether what comes out of the stretch is wrong; a mask that goes to -infinity may be just as good.
    """

    kind: str
    rows: tuple[int, ...]
    shown: int
    harmful: bool


def overflows(ev: Evidence) -> list[Cause]:
    """Return the stretches of low layers that make, or cannot read, values beyond the range."""
    makes = ev.low & (ev.overflow > 0)
    reads = ev.low & ev.local_bad & np.array(
        [any(ev.overflow[source] > 0 for source in sources) for sources in ev.producers], dtype=bool
    )  # fmt: skip
    holds = ev.local_bad & np.isin(np.arange(len(ev.layers)), list(ev.beyond))  # a divisor of infinity: all zeros
    member = makes | reads | holds | (ev.low & ev.local_broken)
    return [_overflow(ev, rows, member) for rows in _stretches(ev, member)]


def _stretches(ev: Evidence, member: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[list[int]]:
    """Return the members in groups that edges join."""
    group: dict[int, int] = {}

    def root(row: int) -> int:
        while group[row] != row:
            group[row] = row = group[group[row]]
        return row

    for row in np.flatnonzero(member).tolist():
        group[row] = row
        for source in ev.producers[row]:
            if source in group:
                group[root(source)] = root(row)
    found: dict[int, list[int]] = {}
    for row in group:
        found.setdefault(root(row), []).append(row)
    return sorted(map(sorted, found.values()))


def _overflow(ev: Evidence, rows: list[int], member: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Cause:
    exits = [row for row in rows if ev.overflow[row] == 0 and ev.local_bad[row]]
    made = [row for row in rows if ev.overflow[row] > 0]
    spoiled = any(
        ev.feeds_output[row] or any(not member[reader] and not ev.low[reader] and ev.bad[reader]
                                    for reader in ev.consumers[row])
        for row in made
    )  # fmt: skip
    shown = max(made or rows, key=lambda row: np.nan_to_num(ev.max_abs[row], posinf=np.inf))
    harmful = bool(exits) or spoiled
    if _masks(ev, rows, made, harmful=harmful):
        return Cause("mask", tuple(rows), shown, harmful=harmful)
    if read := [row for row in rows if row in ev.beyond]:
        largest = max(read, key=lambda row: ev.beyond[row].census.max_abs)
        return Cause("weight", tuple(rows), largest, harmful=harmful)
    if (kind := _kind(ev, rows, made)) in ("input", "inside"):
        rows = sorted({*rows, *_zeroed(ev, rows)})
    return Cause(kind, tuple(rows), shown, harmful=harmful)


def _zeroed(ev: Evidence, rows: Iterable[int]) -> set[int]:
    """Return the low layers that lead to these with values that become zero: kept, they hand on the exact ones."""
    found: set[int] = set()
    todo = list(rows)
    while todo:
        sources = {source for source in ev.producers[todo.pop()] if ev.low[source] and ev.flushed[source] > 0}
        todo += sources - found
        found |= sources
    return found


def _masks(ev: Evidence, rows: list[int], made: list[int], *, harmful: bool) -> bool:
    """Return whether a stretch hides positions: by a hugely negative constant, or by what it adds before a softmax."""
    limit = ev.format.overflow_threshold
    if any(value <= -limit for row in rows for value in ev.constants(row) if ev.layers[row].op in _MASKING):
        return True
    adds = [
        row for row in made
        if ev.layers[row].op in _MASKING and any(ev.layers[reader].op in _SOFTMAX for reader in ev.consumers[row])
    ]  # fmt: skip
    # A softmax of positive infinity is NaN, so where no harm is done the values are negative.
    return bool(adds) and (not harmful or _reads_input(ev, adds) or any(row in ev.beyond for row in rows))


def _kind(ev: Evidence, rows: list[int], made: list[int]) -> str:
    """Return what the layers of a stretch, and those around it, compute together."""
    first = made[0] if made else rows[0]
    if not made and not any(ev.overflow[source] for row in rows for source in ev.producers[row]):
        return "input" if _reads_input(ev, rows) else "inside"
    around = {ev.layers[row].op for row in {*rows, *(s for r in rows for s in ev.producers[r])}}
    behind = {ev.layers[reader].op for row in rows for reader in ev.consumers[row]}
    if "Exp" in around and "ReduceSum" in around | behind:
        return "softmax"
    squares = any(_squares(ev, row) for row in {*rows, *ev.producers[first]})
    if around & _SQUARE_SUMS or (squares and around & (_SUMS | {"Sqrt"})):
        return "norm"
    return "range"


def _reads_input(ev: Evidence, rows: Iterable[int]) -> bool:
    given = {spec.name for spec in ev.model.inputs}
    return any(given & set(ev.layers[row].inputs) for row in rows)


def _squares(ev: Evidence, row: int) -> bool:
    layer = ev.layers[row]
    if layer.op == "Mul":
        return len(set(layer.inputs)) == 1
    return layer.op == "Pow" and ev.constants(row) == [2.0]


def vanishing(ev: Evidence) -> list[Cause]:
    """Return the divisors that become zero: an epsilon below the smallest number of the format, and what follows it."""
    found: dict[int, Cause] = {}
    for row, layer in enumerate(ev.layers):
        if layer.domain or layer.op not in _DIVISORS or len(layer.inputs) <= _DIVISORS[layer.op]:
            continue
        source = ev.maker.get(layer.inputs[_DIVISORS[layer.op]])
        chain = _vanished(ev, source) if source is not None else []
        if ev.low[row] and source is not None and ev.flushed[source] > 0 and _is_guarded(ev, chain):
            chain.append(row)  # it rounds its divisor to zero itself
        low = tuple(sorted(each for each in set(chain) if ev.low[each]))
        if low and _is_guarded(ev, chain):
            guard = next(each for each in chain if _guards(ev, each))
            before = found.get(guard)
            rows = tuple(sorted({*low, *(before.rows if before else ())}))
            harmful = bool(ev.broken[row]) or bool(before and before.harmful)
            found[guard] = Cause("epsilon", rows, guard, harmful=harmful)
    return list(found.values())


def _vanished(ev: Evidence, row: int) -> list[int]:
    """Return the layers from a divisor's maker up to the epsilon that make, or read, values that become zero."""
    chain: list[int] = []
    for _ in range(_STEPS):
        sources = ev.producers[row]
        lost = ev.flushed[row] > 0
        if lost or any(ev.flushed[source] > 0 for source in sources):
            chain.append(row)
        if _guards(ev, row) and lost:
            return chain
        nexts = [source for source in sources if not ev.model.weights.get(ev.layers[source].outputs[0])]
        if len(nexts) != 1:
            return chain
        row = nexts[0]
    return chain


def _guards(ev: Evidence, row: int) -> bool:
    """Return whether a layer adds, or holds its input above, a constant that the format flushes to zero."""
    small = ev.format.flush_threshold
    return ev.layers[row].op in _GUARDS and any(0 < abs(value) <= small for value in ev.constants(row))


def _is_guarded(ev: Evidence, chain: Iterable[int]) -> bool:
    return any(_guards(ev, row) and ev.flushed[row] > 0 for row in chain)
