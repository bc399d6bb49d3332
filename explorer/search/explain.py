"""What each layer's format saves and costs, the rest of the plan as it is: the reasons behind a plan, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.convert.traits import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from explorer.convert import Typing
    from explorer.search.costs import CostModel
    from explorer.search.noise import NoiseModel

__all__ = ["Explanation", "explain"]

_SAME: Final = 1e-6  # of the error: a smaller change is none, since sums and their differences are rounded
_SHOWN_US: Final = 0.05  # less is shown as no time at all
_EITHER_WAY: Final = "other layers make an output inf or NaN, with it or without"


@dataclass(frozen=True)
class Explanation:
    """For each layer, what running it low saves and costs, the other layers as they are; nothing was run.

    Attributes:
        typing: what each layer may be.
        low: by layer, whether it runs low.
        saves_us: by layer, latency when it runs in fp32 less latency when it runs low, casts and split kernels
            included; below zero where running it low takes longer; NaN where it cannot run low, and where no latency
            is known.
        costs: by layer, relative L2 error of the worst output when it runs low less when it runs in fp32; inf where it
            makes an output inf or NaN; NaN where it cannot run low, and where other layers break an output anyway.
        error: relative L2 error of the worst output under the plan.
        other_error: by layer, the same when this one changes its format; NaN where it cannot.
        pinned: layers that stay in fp32 since they break the model, with the reason.
        latency_basis: how latencies came to be and of what device, such as ``predicted, H100-SXM``; empty where none
            is known.
    """

    typing: Typing
    low: npt.NDArray[np.bool_]
    saves_us: npt.NDArray[np.float64]
    costs: npt.NDArray[np.float64]
    error: float
    other_error: npt.NDArray[np.float64]
    pinned: Mapping[str, str]
    latency_basis: str

    def sentence(self, index: int) -> str:
        """Return in words why a layer has its format, and what the other one would change.

        Args:
            index: position of the layer in the model.
        """
        layer = self.typing.model.layers[index]
        may = self.typing.layers[layer.id]
        if not may.switchable:
            formatless = may.kind in (Kind.INERT, Kind.OBSERVE)
            return f"{'has no format to choose' if formatless else 'stays in fp32'}: {may.blocked}"
        if np.isnan(self.other_error[index]):
            return "not searched: layers inside of control flow keep fp32"
        if self.low[index]:
            return f"runs in {self.typing.format}: {self._low(index)}"
        if layer.id in self.pinned:
            return f"pinned in fp32: {self.pinned[layer.id]}"
        return f"kept in fp32: running it in {self.typing.format} would {self._high(index)}"

    def _low(self, index: int) -> str:
        """In words, what a layer's running low does."""
        time = self._time(index, ("saves", "costs"), "changes no latency")
        without, error = self.other_error[index], self.error
        if np.isnan(self.costs[index]):
            return _joined("; ", time, _EITHER_WAY)
        if np.isinf(error):
            return _joined(", but ", time, "makes an output inf or NaN")
        if self._same(index):
            return f"free, {_joined(' and ', 'adds no error', time)}"
        rise = _rise(without, error, self.costs[index])
        return _joined(" and ", time, f"raises the predicted output error {rise}")

    def _high(self, index: int) -> str:
        """In words, what a layer's running low would do."""
        time = self._time(index, ("save", "cost"), "change no latency")
        if np.isnan(self.costs[index]):
            return f"{time or 'change nothing that shows'}; {_EITHER_WAY}"
        if np.isinf(self.other_error[index]):
            return _joined(", and ", "make an output inf or NaN", time)
        if self._same(index):
            return _joined(" and ", "add no error", time)
        rise = _rise(self.error, self.other_error[index], self.costs[index])
        return _joined(" and ", f"raise the predicted output error {rise}", time)

    def _same(self, index: int) -> bool:
        return bool(abs(self.costs[index]) <= _SAME * max(self.error, self.other_error[index]))

    def _time(self, index: int, verbs: tuple[str, str], none: str) -> str:
        """In words, what running it low does to the latency; empty where none is known."""
        if not self.latency_basis:
            return ""
        us = float(self.saves_us[index])
        words = none if abs(us) < _SHOWN_US else f"{verbs[us < 0]} {abs(us):,.1f} us"
        return f"{words} ({self.latency_basis})"


def _joined(between: str, *parts: str) -> str:
    return between.join(part for part in parts if part)


def _rise(lower: float, higher: float, cost: float) -> str:
    """In words, how an error rises; where both ends read alike, by how much."""
    ends = f"{lower:.1e}", f"{higher:.1e}"
    return f"by {cost:.1e} to {ends[1]}" if ends[0] == ends[1] else f"from {ends[0]} to {ends[1]}"


def explain(
    typing: Typing,
    noise: NoiseModel,
    costs: CostModel,
    low: npt.NDArray[np.bool_],
    *,
    pinned: Mapping[str, str] | None = None,
    keep_io: bool = True,
) -> Explanation:
    """Return for each layer what running it low saves and costs when the others stay as they are.

    Both figures are those of the models that the search adds up: they equal what the plan with this one layer changed
    is predicted to give, less what this plan is.

    Args:
        typing: what each layer may be.
        noise: squared error that rounding each tensor adds.
        costs: latency as a sum.
        low: by layer of the model, whether it runs low.
        pinned: layers that stay in fp32 since they break the model, with the reason; those of ``noise`` are known.
        keep_io: whether the model's inputs and outputs stay in fp32.
    """
    fixed = np.isnan(costs.low_us)
    unknown = fixed if costs.device else np.ones_like(fixed)  # what is counted is no time
    saves_us = np.where(unknown, np.nan, _saved(costs, low, keep_io=keep_io))
    error, other = _errors(typing, noise, low, keep_io=keep_io)
    other[fixed] = np.nan
    with np.errstate(invalid="ignore"):  # inf - inf: broken either way
        added = np.where(low, error - other, other - error)
    basis = f"{costs.provenance.partition(' ')[0]}, {costs.device}" if costs.device else ""
    return Explanation(typing, low, saves_us, added, error, other, {**noise.pinned, **(pinned or {})}, basis)


def _saved(costs: CostModel, low: npt.NDArray[np.bool_], *, keep_io: bool) -> npt.NDArray[np.float64]:
    """Return by layer the latency when it runs in fp32 less the latency when it runs low."""
    saved = np.where(np.isnan(costs.low_us), 0.0, costs.high_us - costs.low_us)
    first, second, split_us = costs.bond_columns
    count = len(low)
    for one, other in ((first, second), (second, first)):
        # Low, it agrees with a neighbour that runs low; in fp32, with one that does not.
        saved += np.bincount(one, np.where(low[other], split_us, -split_us), count)
    return saved + _saved_casts(costs, low, keep_io=keep_io)


def _saved_casts(costs: CostModel, low: npt.NDArray[np.bool_], *, keep_io: bool) -> npt.NDArray[np.float64]:
    """Return the same of the casts alone: those of what a layer makes, and those of what it takes."""
    places, count = costs.places, len(low)
    down_us, up_us = costs.cast_columns
    tensors = len(places.names)
    runs_low = np.concatenate([low, [not keep_io, False]])
    takes_low = places.taken_low & runs_low[places.taker]
    wanted_low = np.bincount(places.value[takes_low], minlength=tensors)
    wanted_high = np.bincount(places.value[~takes_low], minlength=tensors)

    made = places.made_low & (places.maker >= 0)
    made_saves = down_us * (wanted_low > 0) - up_us * (wanted_high > 0)
    of_made = np.bincount(places.maker[made], made_saves[made], count)

    follows = places.taken_low & (places.taker >= 0)
    pairs, times = np.unique(places.taker[follows] * tensors + places.value[follows], return_counts=True)
    taker, value = np.divmod(pairs, max(1, tensors))
    stored_low = (places.made_low & runs_low[places.maker])[value]
    others_low = wanted_low[value] - times * low[taker] > 0
    others_high = wanted_high[value] - times * ~low[taker] > 0
    # Its cast is saved, or paid, where no other place needs the same one.
    taken_saves = np.where(stored_low, up_us[value] * ~others_high, -down_us[value] * ~others_low)
    return np.asarray(of_made + np.bincount(taker, taken_saves, count), np.float64)


def _errors(
    typing: Typing, noise: NoiseModel, low: npt.NDArray[np.bool_], *, keep_io: bool
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the error of the worst output under the plan, and by layer when that one changes its format."""
    layer, source = _touches(typing, noise)
    sources, outputs = noise.noise.shape
    rounded = np.bincount(source[low[layer]], minlength=sources)
    if not keep_io:
        rounded[np.unique(noise.sources.outputs)] += 1
    changes = rounded[source] == np.where(low[layer], 1, 0)  # it alone rounds the source, or nobody does yet
    sign = np.where(low[layer], -1.0, 1.0)[changes]
    where, which = layer[changes], source[changes]
    squares = np.empty((outputs, 1 + len(low)))  # the plan, then each layer changed
    for output in range(outputs):
        finite = np.isfinite(noise.noise[:, output])
        parts = np.where(finite, noise.noise[:, output], 0.0)
        total, breaks = parts[rounded > 0].sum(), (rounded[~finite] > 0).sum()
        changed = total + np.bincount(where, sign * parts[which], len(low))
        broken = breaks + np.bincount(where, sign * ~finite[which], len(low))
        squares[output] = np.concatenate([[np.inf if breaks else total], np.where(broken > 0, np.inf, changed)])
    errors = np.sqrt(np.maximum(squares.max(axis=0, initial=0.0), 0.0))
    return float(errors[0]), errors[1:]


def _touches(typing: Typing, noise: NoiseModel) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return every pair of a layer, by position, and a source that it rounds, each pair once."""
    touched, sources = noise.sources.touched, len(noise.noise)
    none = np.zeros(0, np.intp)
    by_layer = [touched.get(layer.id, none) for layer in typing.model.layers]
    layers = np.repeat(np.arange(len(by_layer)), [len(each) for each in by_layer])
    pairs = np.unique(layers * sources + np.concatenate([none, *by_layer]))
    layer, source = np.divmod(pairs.astype(np.intp), max(1, sources))
    return layer, source
