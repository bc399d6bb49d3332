"""Other ways to hold what breaks: another format, or values scaled into the range; predicted from exact ranges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.advise.finding import Finding, Fix
from explorer.advise.words import names, plural, quantity
from explorer.formats import get_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from explorer.advise.causes import Cause
    from explorer.advise.evidence import Evidence
    from explorer.formats import Format

__all__ = ["other_format", "scaled"]

_SCALABLE: Final = frozenset(("norm", "range", "input"))
_FIXED: Final = frozenset(("Cast", "Exp"))  # integers cannot be scaled, and exponents do not pass a factor on
_DIVIDES: Final = frozenset(("Div", "Reciprocal", "LpNormalization"))  # what makes a norm's result free of its scale
_SPARE: Final = 2.0  # room above the largest value seen: other samples may be larger
_NEAR: Final = 4  # layers from the last that overflows to the division, at most


def other_format(ev: Evidence, causes: Sequence[Cause]) -> Iterator[Finding]:
    """Tell that bf16 would hold what overflows, or vanishes, in fp16."""
    other = get_format("bf16")
    harmful = [cause for cause in causes if cause.harmful]
    if ev.format.name != "fp16" or not harmful:
        return
    held = [cause for cause in harmful if _holds(ev, cause, other)]
    if not held:
        return
    every = len(held) == len(harmful)
    small = [value for cause in harmful if cause.kind == "epsilon" for value in _epsilons(ev, [cause]) if value]
    bits = f"{other.mantissa_bits + 1} bits of precision instead of {ev.format.mantissa_bits + 1}"
    what = "nothing here would break there" if every else "a part of this would not break there"
    largest = quantity(max(_largest(ev, cause) for cause in harmful))
    yield Finding(
        id="bf16", tone="note", title=f"bf16 would hold {'these' if every else 'some of these'} values",
        text=f"bf16 has the range of fp32 (up to {quantity(other.max)}) with {bits}: {what}, at about eight times the "
        "rounding error, and the hardware must have it (NVIDIA: Ampere and later).",
        evidence=f"Largest number where {ev.format.name} breaks: {largest}"
        f"{f'; epsilon {quantity(min(small))}' if small else ''}. Predicted from ranges; the errors in bf16 are not "
        "measured yet.",
        layers=ev.ids({row for cause in held for row in cause.rows}),
        fix=Fix(label="Change the plan to bf16, nothing blocked", format="bf16") if every else None,
    )  # fmt: skip


def _holds(ev: Evidence, cause: Cause, other: Format) -> bool:
    """Return whether another format holds what breaks; of numbers inside a layer nothing is known."""
    if cause.kind == "inside":
        return False
    small = _epsilons(ev, [cause]) if cause.kind == "epsilon" else []
    return _largest(ev, cause) < other.overflow_threshold and all(
        value > other.flush_threshold for value in small if value
    )


def _largest(ev: Evidence, cause: Cause) -> float:
    constants = [abs(value) for row in cause.rows for value in ev.constants(row) if np.isfinite(value)]
    weights = [ev.beyond[row].census.max_abs for row in cause.rows if row in ev.beyond]
    return max([float(np.nan_to_num(ev.max_abs[row])) for row in cause.rows] + constants + weights)


def scaled(ev: Evidence, causes: Sequence[Cause]) -> Iterator[Finding]:
    """Tell by which power of two the values would have to shrink to fit, and which would then be too small."""
    able = [
        cause for cause in causes
        if cause.harmful and cause.kind in _SCALABLE and not any(ev.layers[row].op in _FIXED for row in cause.rows)
    ]  # fmt: skip
    norms = [cause for cause in able if cause.kind == "norm" and _is_divided(ev, cause)]
    rest = [cause for cause in able if cause not in norms]
    if norms:
        yield _scaled(ev, norms, squared=True)
    if rest:
        yield _scaled(ev, rest, squared=False)


def _scaled(ev: Evidence, causes: Sequence[Cause], *, squared: bool) -> Finding:
    low = ev.format
    rows = {row for cause in causes for row in cause.rows if ev.overflow[row] > 0} or {each.shown for each in causes}
    worst = max(rows, key=lambda row: np.nan_to_num(ev.max_abs[row]))
    largest = max(_largest(ev, cause) for cause in causes)
    bits = max(1, math.ceil(math.log2(_SPARE * largest / low.max)))
    power = math.ceil(bits / 2) if squared else bits
    shrink = 2.0 ** (2 * power if squared else power)
    factor = f"{2**power:,}"
    if squared:
        text = f"Divide what is squared by {factor}, and its epsilon by {2 ** (2 * power):,}: powers of two are exact, "
        text += "and the division at the end takes the factor out again."
        if any(0 < epsilon / shrink <= low.flush_threshold for epsilon in _epsilons(ev, causes)):
            text += f" That epsilon is zero in {low.name}, so no row may be constant."
    else:
        text = f"Divide what leads to these values by {factor} (weights and biases, or the input), and multiply behind "
        text += "them, where the format is fp32 again. Only linear layers pass the factor on."
    rms = float(ev.column("rms", "ranges")[worst])
    return Finding(
        id="scaled-norm" if squared else "scaled", tone="note",
        title=f"Scaled by 1/{factor}, {plural(len(causes), 'place')} would fit in {low.name}", text=text,
        evidence=f"{names([ev.layers[worst].id])} reaches {quantity(largest)} and would reach "
        f"{quantity(largest / shrink)}. Its values below {quantity(low.min_normal * shrink)} would lose digits; their "
        f"RMS is {quantity(rms)}. Predicted from exact ranges; the scaled model was not run.",
        layers=ev.ids({row for cause in causes for row in cause.rows}),
    )  # fmt: skip


def _epsilons(ev: Evidence, causes: Sequence[Cause]) -> list[float]:
    """Return the constants that are added inside norms."""
    rows = (row for cause in causes for row in cause.rows if ev.layers[row].op == "Add")
    return [abs(value) for row in rows for value in ev.constants(row)]


def _is_divided(ev: Evidence, cause: Cause) -> bool:
    """Return whether a division follows soon: then what is squared may be scaled without a trace."""
    seen, rows = set(cause.rows), set(cause.rows)
    for _ in range(_NEAR):
        if any(ev.layers[row].op in _DIVIDES for row in seen):
            return True
        rows = {reader for row in rows for reader in ev.consumers[row]} - seen
        seen |= rows
    return False
