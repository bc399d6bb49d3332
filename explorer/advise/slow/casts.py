"""Causes in the plan: layers that stay in fp32, the casts around them, and what all casts cost together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from explorer.advise.finding import Fix
from explorer.advise.slow.case import HIGH, NOTABLE, WORTH, told
from explorer.advise.words import duration, join, names, plural, share, times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.advise.finding import Verdict
    from explorer.advise.slow.case import Case, Kernel, Tested
    from explorer.backends.roofline import PredictedCast
    from explorer.plan import Decision

__all__ = ["cast_share", "fallbacks", "held_back", "inserted_share"]

_REASONS: Final = 2  # reasons that a sentence spells out


def _kept(case: Case) -> list[Decision]:
    """Return the decisions of the layers that carry floats and stay in fp32."""
    return [case.decisions[layer.id] for layer in case.layers if case.decisions[layer.id].format == HIGH]


def fallbacks(case: Case) -> Tested:
    """Test what layers in fp32, and the casts around them, cost."""
    kept, low = _kept(case), case.low
    if not kept:
        return told("fallback", "ruled out", "Layers that fell back to fp32", f"All that carry floats run in {low}.")
    layers = tuple(each.layer_id for each in kept)
    alone = sum(kernel.here_us for kernel in case.kernels if kernel.layer.id in layers)
    around = sum(cast.us for cast in _between(case))
    gain = case.plan_us - case.result.uniform_us[low]
    part = (alone + around) / case.plan_us
    figures = (
        f"{plural(len(kept), 'layer')}: {duration(alone)}, and {duration(around)} of casts inside the model, "
        f"{share(part, 1)} of the latency. All in {low}: {duration(case.result.uniform_us[low])} instead of "
        f"{duration(case.plan_us)}. {case.source}"
    )
    if part < NOTABLE and gain < WORTH * case.plan_us:
        return told(
            "fallback", "ruled out", "Layers that fell back to fp32", f"They cost little. {_reasons(kept)}", figures,
            layers=layers,
        )  # fmt: skip
    text = f"{_reasons(kept)} "
    text += (
        f"All in {low}, the model is predicted {times(case.plan_us / case.result.uniform_us[low])} as fast."
        if gain >= WORTH * case.plan_us
        else f"All in {low}, the model would be no faster by prediction."
    )
    return told(
        "fallback", "confirmed" if gain >= WORTH * case.plan_us else "ruled out",
        f"{plural(len(kept), 'layer')} in fp32, and casts around {'it' if len(kept) == 1 else 'them'}",
        text, figures, layers=layers, share=gain / case.plan_us,
    )  # fmt: skip


def _reasons(kept: Iterable[Decision]) -> str:
    """Return why layers stay in fp32, the most frequent reasons first."""
    counted = Counter(_reason(each) for each in kept).most_common()
    named = [f"{reason} ({number:,})" for reason, number in counted[:_REASONS]]
    rest = sum(number for _, number in counted[_REASONS:])
    return f"Why: {'; '.join([*named, *([f'other reasons ({rest:,})'] if rest else [])])}."


def _reason(decision: Decision) -> str:
    if decision.asked == HIGH and not decision.overruled:
        return "the plan asks for it"
    if decision.reason.startswith(("moves data", "joins streams")):
        return "they follow layers in fp32"
    return decision.reason


def _between(case: Case) -> list[PredictedCast]:
    """Return the casts inside the model, without those of its inputs and outputs."""
    border = _border(case)
    return [cast for cast in case.casts if cast.value not in border]


def _border(case: Case) -> frozenset[str]:
    return frozenset(spec.name for spec in (*case.model.inputs, *case.model.outputs))


def held_back(case: Case) -> Tested:
    """Test for layers limited by memory that stay in fp32 between casts: their traffic grows instead of shrinking."""
    casts = {cast.value: cast.us for cast in _between(case)}
    held = {kernel.layer.id: values for kernel in case.kernels if (values := _cast_values(case, kernel, casts))}
    if not held:
        return told("memory", "ruled out", "Memory-bound layers in fp32 between casts", "There are none.")
    kernels = [kernel for kernel in case.kernels if kernel.layer.id in held]
    saved = sum(kernel.us[HIGH] - kernel.us[case.low] for kernel in kernels)
    around = sum(casts[value] for value in set().union(*held.values()))
    part = (saved + around) / case.plan_us
    worst = max(kernels, key=lambda kernel: kernel.us[HIGH])
    figures = (
        f"Largest: {names([worst.layer.id])}, {duration(worst.us[HIGH])} in fp32 and {duration(worst.us[case.low])} in "
        f"{case.low}. Together they lose {duration(saved)}, and their casts take {duration(around)}: "
        f"{share(part, 1)} of the latency. {case.source}"
    )
    verdict: Verdict = "confirmed" if part >= WORTH else "ruled out"
    return told(
        "memory", verdict, f"{plural(len(held), 'memory-bound layer')} in fp32 between casts",
        f"Memory limits them: in {case.low} they would move half the bytes. In fp32 they move all, and the casts move "
        "more. Let them run low with their neighbours where the error allows it.",
        figures, layers=tuple(held), share=part,
    )  # fmt: skip


def _cast_values(case: Case, kernel: Kernel, casts: dict[str, float]) -> frozenset[str]:
    """Return the cast values around a kernel in fp32 that memory limits; none for other kernels."""
    if kernel.format != HIGH or kernel.bound[HIGH] != "memory":
        return frozenset()
    inside = (kernel.layer.id, *case.result.layers[kernel.layer.id].fused_with)
    layers = [case.model.layer(layer_id) for layer_id in inside]
    return frozenset(name for layer in layers for name in (*layer.inputs, *layer.outputs) if name in casts)


def cast_share(case: Case) -> Tested:
    """Test what part of the predicted latency casts are, and what those of inputs and outputs are of it."""
    casts, border = case.casts, _border(case)
    total = sum(cast.us for cast in casts)
    part = total / case.plan_us if case.plan_us else 0.0
    if not casts:
        return told("casts", "ruled out", "Casts", "The plan needs none.", case.source)
    outside = [cast for cast in casts if cast.value in border]
    figures = f"{plural(len(casts), 'cast')}, {duration(total)}: {share(part, 1)} of the latency. {case.source}"
    note = "An engine may fold casts into their neighbours; then they take less."
    if part < NOTABLE:
        return told("casts", "ruled out", "Casts", f"They take little time. {note}", figures)
    text, fix = "", None
    if len(outside) < len(casts):
        text = f"{len(casts) - len(outside):,} of them stand around layers in fp32. "
    if outside and case.decisions.plan.keep_io and case.low in ("fp16", "bf16"):
        us = case.low_io.plan_us
        if case.plan_us - us >= WORTH * case.plan_us:
            text += (
                f"{plural(len(outside), 'cast serves', 'casts serve')} inputs and outputs, which keep fp32; with those "
            )
            text += f"in {case.low}, {duration(us)} are predicted instead of {duration(case.plan_us)}. "
            fix = Fix(label=f"Let inputs and outputs be {case.low}", keep_io=False)
    return told(
        "casts", "confirmed", f"Casts take {share(part, 1)} of the time", f"{text}{note}", figures, fix=fix, share=part
    )  # fmt: skip


def inserted_share(case: Case) -> Tested:
    """Test what part of a measured run goes into nodes that the runtime inserted: reorders, casts, transposes."""
    measured = case.measured
    assert measured is not None
    whole = measured.profiled_us or 0.0
    if not whole:
        return told("casts", "untested", "Reformats", "The runtime gave no times by layer.")
    kinds: Counter[str] = Counter()
    for each in measured.inserted:
        kinds[each.kind] += 1
    total = sum(each.median_us for each in measured.inserted)
    part = total / whole
    listed = join([f"{plural(number, kind)}" for kind, number in kinds.most_common()]) or "none"
    figures = f"Inserted: {listed}; {duration(total)} of {duration(whole)} profiled. {measured.provenance}."
    if part < NOTABLE:
        return told("casts", "ruled out", "Reformats", "They take little time.", figures)
    return told(
        "casts", "confirmed", f"Reformats take {share(part, 1)} of the time",
        "ONNX Runtime inserted them into the fp32 model to change memory layout or type.", figures, share=part,
    )  # fmt: skip
