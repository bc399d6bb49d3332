"""Causes in the layout: a first convolution of few channels, and transposes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import HIGH, NOTABLE, WORTH, told
from explorer.advise.slow.extents import Extents
from explorer.advise.words import duration, join, named, plural, share, times
from explorer.backends.kernel_model import STEM_CHANNELS

if TYPE_CHECKING:
    from explorer.advise.slow.case import Case, Tested
    from explorer.model import Layer

__all__ = ["first_convolution", "is_stem", "transposes"]

_NAMED: Final = 3  # layers that a sentence spells out
_STEM_GAIN: Final = 1.5  # times as fast as in fp32: a stem that gains less is held back by something
_STEM_SIZES: Final = (4, 8)  # channels that are tried for a stem: what convolutions pad to, and the fp16 granule
_FOLD: Final = 2  # pixels a side that become channels ("space to depth")


def is_stem(case: Case, layer: Layer) -> bool:
    """Return whether a layer is a convolution that reads few channels, such as the colours of an image."""
    cost = case.costs[layer.id]
    few = cost.gemm is not None and cost.gemm.aligned_extent <= STEM_CHANNELS and cost.gemm.batch == 1
    return cost.kind == "conv" and few


def first_convolution(case: Case) -> Tested:
    """Test whether convolutions over the few channels of an image hold the model back."""
    stems = [kernel for kernel in case.kernels if is_stem(case, kernel.layer) and kernel.format == case.low]
    if not stems:
        return told(
            "stem", "ruled out", "A first convolution of few channels",
            f"No convolution in {case.low} reads {STEM_CHANNELS} channels or fewer.",
        )  # fmt: skip
    us = sum(kernel.here_us for kernel in stems)
    high = sum(kernel.us[HIGH] for kernel in stems)
    channels = min(case.costs[kernel.layer.id].gemm.aligned_extent for kernel in stems)  # type: ignore[union-attr]
    part = us / case.plan_us
    figures = (
        f"{join([named(kernel.layer.id) for kernel in stems[:_NAMED]])}: {duration(us)} in {case.low}, "
        f"{duration(high)} in fp32, {share(part, 1)} of the latency"
    )
    layers = tuple(kernel.layer.id for kernel in stems)
    title = f"The first convolution reads {plural(channels, 'channel')}"
    if part < WORTH:  # padding could not gain more than all of it
        return told("stem", "ruled out", title, "It takes little time.", f"{figures}. {case.source}", layers=layers)
    extents = Extents(case)
    roots = [extents.root((kernel.layer.inputs[0], 1)) for kernel in stems]
    tried = {size: extents.padded(dict.fromkeys(roots, size)).plan_us for size in _STEM_SIZES}
    best = min(tried, key=lambda size: tried[size])
    gain = case.plan_us - tried[best]
    worth = gain >= WORTH * case.plan_us
    took = f"takes {duration(tried[best])} instead of {duration(case.plan_us)}" if worth else "is no faster"
    figures += f"; with {best} channels the model {took}"
    works = any(kernel.bound[case.low] != "launch" for kernel in stems)
    slow = works and part >= NOTABLE and high / us < _STEM_GAIN
    if not worth and not slow:
        text = "More would gain nothing, and it is not what holds the model back."
        return told("stem", "ruled out", title, text, f"{figures}. {case.source}", layers=layers)
    text = f"Convolutions pad so few channels to {STEM_CHANNELS}, and tensor cores idle. "
    text += (
        f"Padding the input to {best} channels is predicted to make the model {times(case.plan_us / tried[best])} as "
        "fast."
        if worth
        else f"More channels would gain nothing by prediction; {_FOLD} x {_FOLD} pixels as channels may (not tried)."
    )
    return told(
        "stem", "confirmed", title, text, f"{figures}. {case.source}", layers=layers, share=max(gain, 0) / case.plan_us
    )


def transposes(case: Case) -> Tested:
    """Test what part of the latency transposes take that the model itself holds."""
    moving = [kernel for kernel in case.kernels if kernel.layer.op == "Transpose"]
    us = sum(kernel.here_us for kernel in moving)
    part = us / case.plan_us if case.plan_us else 0.0
    work = {
        kind: sum(cost.flops for cost in case.costs.values() if cost.is_known and cost.kind == kind)
        for kind in ("conv", "matmul")
    }
    convolves = work["conv"] > work["matmul"]
    note = (
        "Convolutions in fp16 want channels last; an engine turns NCHW over at the border of the model, which is not "
        "in the graph and not predicted: a profile shows it."
        if convolves
        else ""
    )
    figures = f"{plural(len(moving), 'transpose')}, {duration(us)}: {share(part, 1)} of the latency. {case.source}"
    if not moving:
        return told("layout", "ruled out", "Transposes", f"The model has none. {note}".strip())
    layers = tuple(kernel.layer.id for kernel in moving)
    if part < NOTABLE:
        return told(
            "layout", "ruled out", "Transposes", f"They take little time. {note}".strip(), figures, layers=layers
        )
    return told(
        "layout", "confirmed", f"Transposes take {share(part, 1)} of the time",
        "They only move data. An engine may join some with the product beside them, which is not predicted.",
        figures, layers=layers, share=part,
    )  # fmt: skip
