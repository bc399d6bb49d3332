"""What a plan loses without breaking: weights, digits of small values, long sums."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.evidence import POOR_DB
from explorer.advise.finding import Finding
from explorer.advise.fixes import keep
from explorer.advise.words import join, names, plural, quantity, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from explorer.advise.causes import Cause
    from explorer.advise.evidence import Evidence

__all__ = ["beyond_and_kept", "digits", "long_sums", "weights_lost"]

_SUMS: Final = frozenset(
    ("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "CumSum", "GlobalAveragePool")
)
_STEPS: Final = 4  # of the smallest number, up to which an error is one of values that are too small
_LITTLE: Final = 0.05  # share of values below the normal range that is worth a word


def weights_lost(ev: Evidence, causes: Sequence[Cause]) -> Iterator[Finding]:
    """Tell of weights that the low format cannot hold; those beyond its range only where no cause has told of them."""
    if ev.weights is None:
        return
    total = ev.weights.total
    rows = sorted(set(ev.beyond) - {row for cause in causes for row in cause.rows})
    beyond = {ev.beyond[row].name: ev.beyond[row].census.overflow for row in rows}
    low, max_, min_ = ev.format.name, quantity(ev.format.max), f"{ev.format.min_normal:.1e}"
    counts = (
        (sum(beyond.values()), "overflows", "overflow",
         f"those above {max_} become {max_ + ', as asked' if ev.clamped else 'infinite'}"),
        (total.subnormal, "goes subnormal", "go subnormal", f"those below {min_} keep fewer digits"),
        (total.flushed, "flushes to zero", "flush to zero", f"those below {ev.format.flush_threshold:.1e} become zero"),
    )  # fmt: skip
    lost = [(plural(number, one, many), what) for number, one, many, what in counts if number]
    if not lost:
        return
    calm = (
        "No layer is known to suffer from it with these samples."
        if rows
        else "The errors shown include what this costs."
    )
    yield Finding(
        id="weights", tone="warn" if rows and not ev.clamped else "note", title=f"Weights at the edge of {low}",
        text=f"Some weights do not fit {low}: {join([what for _, what in lost])}. {calm}",
        evidence=f"Of {total.elements:,} weight values stored in {low}, {join([count for count, _ in lost])}; the "
        f"largest is {quantity(total.max_abs)}. Counted on the weights themselves.",
        layers=ev.ids(rows), fix=keep(ev, rows) if rows and not ev.clamped else None,
    )  # fmt: skip


def digits(ev: Evidence, causes: Sequence[Cause]) -> Iterator[Finding]:
    """Tell of low layers, of no cause, that lose most of their result although nothing overflows."""
    elements = np.maximum(np.nan_to_num(ev.column("elements")), 1)
    small = (np.nan_to_num(ev.column("subnormal")) + ev.flushed) / elements
    sqnr = ev.column("local_sqnr_db")
    told = np.isin(np.arange(len(ev.layers)), [row for cause in causes for row in cause.rows])
    calm = ev.low & ~told & ~ev.local_broken & (ev.overflow == 0)
    step = _STEPS * ev.format.min_subnormal  # an error above it is not of small values: their inputs were rounded
    by_step = ev.column("local_rel_l2") * np.nan_to_num(ev.column("rms", "ranges")) < step
    poor = calm & (sqnr < POOR_DB) & (small > 0) & by_step
    if poor.any():
        rows = np.flatnonzero(poor).tolist()
        worst = min(rows, key=lambda row: sqnr[row])
        yield Finding(
            id="vanish", tone="warn", title=f"Small values vanish in {plural(len(rows), 'layer')}",
            text=f"Values below {ev.format.min_normal:.1e} keep fewer digits in {ev.format.name}, and those below "
            f"{ev.format.flush_threshold:.1e} become zero. These layers lose most of their result that way.",
            evidence=f"Worst: {names([ev.layers[worst].id])}, local SQNR {sqnr[worst]:.1f} dB, "
            f"{share(float(small[worst]), 1)} of its values below the normal range (emulated).",
            layers=ev.ids(rows), fix=keep(ev, rows),
        )  # fmt: skip
    many = calm & (small > _LITTLE) & (sqnr >= POOR_DB)
    if many.any():
        rows = np.flatnonzero(many).tolist()
        worst = max(rows, key=lambda row: small[row])
        yield Finding(
            id="subnormal", tone="note", title=f"Many small values in {plural(len(rows), 'layer')}",
            text=f"A part of their values lies below the normal range of {ev.format.name} and keeps fewer digits, "
            "or becomes zero. They are small beside the rest, so little is lost; hardware without subnormals makes "
            "them all zero.",
            evidence=f"Most: {names([ev.layers[worst].id])}, {share(float(small[worst]), 1)} of its values, local SQNR "
            f"{sqnr[worst]:.1f} dB (emulated).",
            layers=ev.ids(rows),
        )  # fmt: skip


def long_sums(ev: Evidence) -> Iterator[Finding]:
    """Tell of low reductions so long that a sum kept in the low format stops growing."""
    limit = 2 ** (ev.format.mantissa_bits + 1)
    long = {
        row: count
        for row in np.flatnonzero(ev.low).tolist()
        if ev.layers[row].op in _SUMS and (count := _terms(ev, row)) >= limit
    }
    if not long:
        return
    worst = max(long, key=lambda row: long[row])
    yield Finding(
        id="long-sums", tone="note", title=f"{plural(len(long), 'long sum')} in {ev.format.name}",
        text=f"A running sum in {ev.format.name} holds {ev.format.mantissa_bits + 1} bits: after {limit:,} terms of "
        "one size the next is too small to change it. The emulation sums in fp32, as tensor cores do; a kernel that "
        f"sums in {ev.format.name} itself would lose more than is shown here.",
        evidence=f"Longest: {names([ev.layers[worst].id])} over {long[worst]:,} terms (from shapes).",
        layers=ev.ids(long), fix=keep(ev, long),
    )  # fmt: skip


def _terms(ev: Evidence, row: int) -> int:
    """Return how many terms a layer sums for one result; 0 where shapes do not tell."""
    layer, types = ev.layers[row], ev.decisions.typing.types
    before, after = (types.get(name) for name in (layer.inputs[0], layer.outputs[0]))
    if before is None or after is None or before.shape is None or after.shape is None:
        return 0
    if layer.op == "CumSum":
        return max((dim for dim in before.shape if isinstance(dim, int)), default=0)
    left = list(after.shape)
    summed = []
    for dim in before.shape:
        if dim in left:
            left.remove(dim)
        else:
            summed.append(dim)
    return prod(dim for dim in summed if isinstance(dim, int)) if summed else 0


def beyond_and_kept(ev: Evidence) -> Iterator[Finding]:
    """Tell of layers beyond the range that the plan keeps out of the low format."""
    kept = np.flatnonzero((ev.overflow > 0) & ~ev.low).tolist()
    if not kept:
        return
    worst = max(kept, key=lambda row: np.nan_to_num(ev.max_abs[row]))
    yield Finding(
        id="kept", tone="good", title=f"{plural(len(kept), 'layer')} beyond the range, kept in fp32",
        text=f"Their exact values do not fit {ev.format.name}, and the plan keeps them out of it.",
        evidence=f"Largest: {names([ev.layers[worst].id])} reaches {quantity(float(ev.max_abs[worst]))}; "
        f"{ev.format.name} ends at {quantity(ev.format.max)}.",
        layers=ev.ids(kept),
    )  # fmt: skip
