"""Causes in the size of the work: kernels shorter than their launch, and models with too little to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import LARGER, NOTABLE, WORTH, told
from explorer.advise.words import duration, plural, quantity, share, times

if TYPE_CHECKING:
    from explorer.advise.slow.case import Case, Tested

__all__ = ["launch_bound", "small_measured", "too_small"]

_FLOOR: Final = 0.5  # share of the fp32 latency that launches take, from which no format can double the speed
_SMALL_US: Final = 1000.0  # on a CPU: below a millisecond the executor counts as much as the arithmetic


def launch_bound(case: Case) -> Tested:
    """Test whether kernels are too short for their format to matter, and whether a larger batch helps."""
    assert case.gpu is not None
    bound = [kernel for kernel in case.kernels if kernel.bound[kernel.format] == "launch"]
    part = len(bound) * case.gpu.launch_us / case.plan_us if case.plan_us else 0.0
    counted = (
        f"{len(bound):,} of {plural(len(case.kernels), 'kernel')} work for less than the {quantity(case.gpu.launch_us)}"
        f" us of a launch (assumed); their launches are {share(part, 1)} of the latency"
    )
    if part < NOTABLE:
        return told(
            "launch", "ruled out", "A batch too small for the GPU", "Kernels work for longer than their launch takes.",
            f"{counted}. {case.source}",
        )  # fmt: skip
    larger = case.larger
    helps = larger is not None and larger.faster > case.faster * (1 + WORTH)
    title = f"Batch {case.batch:,} is too small" if helps else "Kernels work for less than their launch"
    return told(
        "launch", "confirmed", title,
        f"A launch takes as long in {case.low} as in fp32, and here it is the larger part. {_larger(case)}",
        f"{counted}. {case.source}", layers=tuple(kernel.layer.id for kernel in bound), share=part,
    )  # fmt: skip


def _larger(case: Case) -> str:
    larger = case.larger
    if larger is None:
        return "Whether a larger batch helps was not predicted: the batch of this model is fixed."
    rows = f"{case.batch * LARGER:,}"
    if larger.faster > case.faster * (1 + WORTH):
        return (
            f"With {rows} rows at once, {case.low} is predicted {times(larger.faster)} as fast as fp32, instead of "
            f"{times(case.faster)}."
        )
    return f"By prediction a batch of {rows} would not change that ({times(larger.faster)})."


def too_small(case: Case) -> Tested:
    """Test how much of the fp32 latency is launches, which no format can save."""
    assert case.gpu is not None
    count, launch = len(case.kernels), case.gpu.launch_us
    floor = count * launch
    operations = sum(cost.flops for cost in case.costs.values() if cost.is_known)
    figures = (
        f"{plural(count, 'kernel')} of {quantity(launch)} us launch (assumed) make {duration(floor)}; fp32 takes "
        f"{duration(case.fp32_us)} for {quantity(operations / 1e9)} GFLOP. {case.source}"
    )
    if floor < _FLOOR * case.fp32_us:
        return told("small", "ruled out", "A model too small for the GPU", "It has enough to do.", figures)
    return told(
        "small", "confirmed", f"The model is too small for {case.gpu.name}",
        f"If arithmetic and memory cost nothing, launches would remain: this plan cannot be more than "
        f"{times(case.fp32_us / floor)} as fast as fp32. An engine that fuses more would help; a format cannot.",
        figures, share=floor / case.fp32_us,
    )  # fmt: skip


def small_measured(case: Case) -> Tested:
    """Test by its measured time whether the model is small."""
    measured = case.measured
    assert measured is not None
    figures = f"{duration(measured.whole_us)} in fp32, {measured.provenance}."
    if measured.whole_us >= _SMALL_US:
        return told("small", "ruled out", "A model too small", "It has enough to do.", figures)
    return told(
        "small", "confirmed", "The model is small",
        "It takes less than a millisecond in fp32: there is little for any format to save.", figures,
    )  # fmt: skip
