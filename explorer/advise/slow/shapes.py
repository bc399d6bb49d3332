"""Cause in the shapes: extents that tensor cores do not take whole, and what padding them would gain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from explorer.advise.slow.case import WORTH, told
from explorer.advise.slow.extents import Extents
from explorer.advise.slow.layout import is_stem
from explorer.advise.words import duration, join, named, plural, times

if TYPE_CHECKING:
    from explorer.advise.slow.case import Case, Tested
    from explorer.advise.slow.extents import Axis

__all__ = ["alignment"]

_NAMED: Final = 3  # layers, or extents, that a sentence spells out
_SEEN_US: Final = 0.05  # a gain below it reads as no gain
_MIXING: Final = frozenset(("normalization", "softmax", "reduction"))


@dataclass(frozen=True)
class _Padding:
    """The model with every extent of its low products padded to a multiple.

    Attributes:
        case: the model.
        granule: the multiple.
    """

    case: Case
    granule: int

    @cached_property
    def extents(self) -> Extents:
        return Extents(self.case)

    @cached_property
    def odd(self) -> dict[str, list[tuple[Axis, int]]]:
        """Axes of low products that are no multiples, by layer; the few channels of a stem are another cause."""
        case, extents = self.case, self.extents
        found: dict[str, list[tuple[Axis, int]]] = {}
        for layer in case.layers:
            gemm = case.costs[layer.id].gemm
            axes = extents.product_axes(layer) if gemm is not None and case.plan[layer.id] == case.low else None
            if axes is None:
                continue
            wanted = axes[1:] if is_stem(case, layer) else axes
            sized = [(axis, extents.shape(axis[0])[axis[1]]) for axis in wanted if extents.shape(axis[0])]
            # One row or one column is a sum or a scaling, which padding would only multiply.
            if bad := [(axis, size) for axis, size in sized if size % self.granule and size > 1]:
                found[layer.id] = bad
        return found

    def wide(self, size: int) -> int:
        """Return the next multiple."""
        return math.ceil(size / self.granule) * self.granule

    @cached_property
    def sizes(self) -> dict[Axis, int]:
        """New size of each padded extent, by the axis that stands for it."""
        return {self.extents.root(axis): self.wide(size) for axes in self.odd.values() for axis, size in axes}

    @cached_property
    def padded(self) -> Case:
        """The model with these extents padded."""
        return self.extents.padded(self.sizes)

    @property
    def shown(self) -> str:
        """The sizes before and after, in words."""
        listed = sorted({(size, self.wide(size)) for axes in self.odd.values() for _, size in axes})
        more = len(listed) - _NAMED
        return join([f"{size} to {wide}" for size, wide in listed[:_NAMED]] + ([f"{more} more"] if more > 0 else []))


def alignment(case: Case) -> Tested:
    """Test whether extents are multiples of what tensor cores take at once, and what padding them would gain."""
    assert case.gpu is not None
    granule = case.gpu.granule(case.low_bytes)
    padding = _Padding(case, granule)
    if not padding.odd:
        return told(
            "dims", "ruled out", f"Dimensions that are no multiples of {granule}",
            f"There are none: every product that runs in {case.low} has extents that tensor cores take whole.",
        )  # fmt: skip
    layers, after = tuple(padding.odd), padding.padded.plan_us
    gain = case.plan_us - after
    title = f"{plural(len(layers), 'product')} with dimensions that are no multiples of {granule}"
    figures = (
        f"{case.low}: {duration(case.plan_us)} as it is, {duration(after)} with every such extent padded"
        f"{_by_layer(padding)}.{_larger(case, granule)} {case.source}"
    )
    text = f"Tensor cores take {granule} elements of {case.low} at once. Padding {padding.shown} is predicted to "
    if gain >= WORTH * case.plan_us:
        text += f"make the model {times(case.plan_us / after)} as fast. Pad channels and features in training, or "
        text += f"weights with zeros.{_caution(padding)}"
        return told("dims", "confirmed", title, text, figures, layers=layers, share=gain / case.plan_us)
    text += "gain nothing here."
    bare = _without_tensor_cores(case, layers)
    if bare < WORTH * case.plan_us:
        return told("dims", "ruled out", title, text, figures, layers=layers)
    text += " That takes for granted that the library pads channels itself. Where it takes kernels without tensor "
    text += f"cores instead, the model is predicted {duration(bare)} slower; only a profile tells."
    return told("dims", "untested", title, text, figures, layers=layers)


def _without_tensor_cores(case: Case, ids: tuple[str, ...]) -> float:
    """Return how much longer these layers are predicted to take where no tensor core serves them, in microseconds."""
    assert case.gpu is not None
    bare = case.on(replace(case.gpu, tensor_tflops={})).result.layers
    served = case.result.layers
    return sum(max(0.0, bare[each].us[case.low] - served[each].us[case.low]) for each in ids)


def _by_layer(padding: _Padding) -> str:
    """Return the largest gains of single layers, in words."""
    low = padding.case.low
    before, after = (
        {each: case.result.layers[each].us[low] for each in padding.odd} for case in (padding.case, padding.padded)
    )
    ranked = sorted(padding.odd, key=lambda each: after[each] - before[each])
    best = [each for each in ranked[:_NAMED] if before[each] - after[each] > _SEEN_US]
    words = [f"{named(each)} {duration(before[each])} to {duration(after[each])}" for each in best]
    return f" ({join(words)})" if words else ""


def _larger(case: Case, granule: int) -> str:
    """Return what padding would gain with a larger batch, where launches do not hide it; empty where not known."""
    if case.larger is None:
        return ""
    us = _Padding(case.larger, granule).padded.plan_us
    return f" With a batch of {case.larger.batch:,}: {duration(case.larger.plan_us)} and {duration(us)}."


def _caution(padding: _Padding) -> str:
    """Return what to beware of when these extents are padded."""
    case, extents = padding.case, padding.extents
    mixing = {
        name
        for layer in case.layers
        if case.costs[layer.id].kind in _MIXING and layer.op != "BatchNormalization"
        for name in layer.inputs
    }
    outside = {spec.name for spec in (*case.model.inputs, *case.model.outputs)}
    words = ""
    if any(extents.touches(root, mixing) for root in padding.sizes):
        words += " Where a mean or a softmax runs over a padded extent, leave the padding out of it."
    if any(extents.touches(root, outside) for root in padding.sizes):
        words += " Some of these extents are the inputs' or outputs' own: those must be padded, or cut, outside."
    return words
