"""What each other format would save and cost in each layer, under a plan of several formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_array

from explorer.convert.traits import Kind
from explorer.search.explain import Explanation
from explorer.search.labels import movable, moves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from explorer.search.labels import Choice, Labels
    from explorer.search.noise import NoiseModel

__all__ = ["LabelExplanation", "explain_labels", "label_noise"]

_SAME: Final = 1e-6  # of the error: a smaller change is none, since sums and their differences are rounded
_SHOWN_US: Final = 0.05  # less is shown as no time at all


@dataclass(frozen=True, kw_only=True)
class LabelExplanation(Explanation):
    """For each layer, what each other format would save and cost, the other layers as they are; nothing was run.

    ``saves_us`` and ``costs`` compare with fp32 the format that the layer has, or where it runs in fp32 the first one
    that it may have. Layers that can change only together (a convolution and the activation in its int8 kernel) are
    changed together.

    Attributes:
        formats: by label, the format.
        labels: by layer, its label.
        us: labels x layers, what latency changes by when the layer takes the label (where none is known, what is
            counted in its place); 0 where it has it, NaN where it cannot have it.
        errors: labels x layers, the error then.
        reasons: by format, layers that cannot have it, with the reason.
    """

    formats: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    us: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64]
    reasons: tuple[Mapping[str, str], ...]

    def sentence(self, index: int) -> str:
        """Return in words why a layer has its format, and what each other one would change.

        Args:
            index: position of the layer in the model.
        """
        layer = self.typing.model.layers[index]
        here = int(self.labels[index])
        others = [self._other(index, label) for label in range(len(self.formats)) if label != here]
        if here == 0 and np.isnan(self.us[1:, index]).all():
            formatless = self.typing.layers[layer.id].kind in (Kind.INERT, Kind.OBSERVE)
            return f"{'has no format to choose' if formatless else 'stays in fp32'}: {self._reason(layer.id, 1)}"
        return f"runs in {self.formats[here]}: {'; '.join(others)}"

    def _other(self, index: int, label: int) -> str:
        name, us = self.formats[label], float(self.us[label, index])
        if np.isnan(us):
            return f"not in {name}: {self._reason(self.typing.model.layers[index].id, label)}"
        error = float(self.errors[label, index])
        parts = [f"be {self._step(us)} ({self.latency_basis})"] if self.latency_basis else []
        if abs(error - self.error) <= _SAME * max(error, self.error):
            return f"{name} would {' and '.join([*parts, 'keep the error'])}"
        verb = "raise" if error > self.error else "lower"
        return f"{name} would {' and '.join([*parts, f'{verb} the predicted output error to {error:.1e}'])}"

    @staticmethod
    def _step(us: float) -> str:
        if abs(us) < _SHOWN_US:
            return "as fast"
        return f"{abs(us):,.1f} us {'slower' if us > 0 else 'faster'}"

    def _reason(self, layer_id: str, label: int) -> str:
        return self.reasons[label].get(layer_id, "the rules, or layers that it has to agree with, forbid it")


def label_noise(
    noises: Sequence[NoiseModel | None], labels: Labels, *, keep_io: bool = True
) -> npt.NDArray[np.float64]:
    """Return the predicted squared relative error of each output: the sum over the formats.

    Args:
        noises: by label, the noise of its format; None for fp32.
        labels: by layer, its label.
        keep_io: whether the model's inputs and outputs stay in fp32; else they are in the format of label 1.
    """
    parts = [
        noise.predict(labels == label, keep_io=keep_io or label > 1)
        for label, noise in enumerate(noises)
        if noise is not None
    ]
    return np.asarray(np.sum(parts, axis=0))


def explain_labels(
    choice: Choice,
    noises: Sequence[NoiseModel | None],
    labels: Labels,
    reasons: Sequence[Mapping[str, str]],
    *,
    basis: str,
    keep_io: bool = True,
) -> LabelExplanation:
    """Return for each layer what each other format would change; arguments as above.

    Args:
        choice: what is decided.
        noises: by label, the noise of its format; None for fp32.
        labels: by layer, its label.
        reasons: by label, layers that cannot have it, with the reason.
        basis: how latencies came to be, and of what device; empty where none is known.
        keep_io: whether the model's inputs and outputs stay in fp32.
    """
    count, formats = labels.size, len(choice.parts)
    us, squares = np.full((formats, count), np.nan), np.full((formats, count), np.nan)
    now = label_noise(noises, labels, keep_io=keep_io)
    found = moves(choice, labels)
    us[labels, np.arange(count)], squares[labels, np.arange(count)] = 0.0, now.max(initial=0.0)
    for target in range(formats):
        place, units = movable(choice, labels, target)
        if not units:
            continue
        added = sum(
            _changed(noise, labels, (label, target), (place, units), outputs=keep_io or label > 1)
            for label, noise in enumerate(noises)
            if noise is not None
        )
        free = place >= 0
        us[target, free] = found.us[found.target == target][place[free]]
        squares[target, free] = (now + added).max(axis=1, initial=0.0)[place[free]]
    errors = np.sqrt(np.maximum(squares, 0.0))
    first = next(noise for noise in noises if noise is not None)
    low = np.where(labels > 0, labels, np.where(choice.allowed[1], 1, formats - 1))
    pick = (low, np.arange(count))
    error = float(np.sqrt(now.max(initial=0.0)))
    saves_us = us[0] - us[pick] if basis else np.full(count, np.nan)  # what is counted is no time
    return LabelExplanation(
        first.typing, labels > 0, saves_us, errors[pick] - errors[0], error,
        np.where(labels > 0, errors[0], errors[pick]), reasons[1], basis,
        formats=choice.formats, labels=labels, us=us, errors=errors, reasons=tuple(reasons),
    )  # fmt: skip


def _changed(
    noise: NoiseModel,
    labels: Labels,
    step: tuple[int, int],
    movable_units: tuple[npt.NDArray[np.intp], int],
    *,
    outputs: bool,
) -> npt.NDArray[np.float64]:
    """Return by unit and output what the noise of one format changes by when the unit takes another label.

    Args:
        noise: of the format.
        labels: by layer, its label.
        step: the label of the format, and the label that is taken.
        movable_units: as :func:`explorer.search.labels.movable` returns them.
        outputs: whether the model's inputs and outputs are not rounded to the format.
    """
    (label, target), (place, units) = step, movable_units
    touches = _touches(noise)
    rounded = np.asarray((labels == label).astype(np.float64) @ touches)
    if not outputs:
        rounded[noise.sources.outputs] += 1
    free = np.flatnonzero((place >= 0) & ((labels == label) != (label == target)))
    rows = csr_array((np.ones(free.size), (place[free], free)), shape=(units, labels.size))
    by_unit = (rows @ touches).tocoo()
    unit, source = by_unit.coords
    alone = rounded[source] == (0 if label == target else by_unit.data)
    finite = np.where(np.isfinite(noise.noise), noise.noise, 0.0)
    sign = 1.0 if label == target else -1.0
    change = np.zeros((units, finite.shape[1]))
    np.add.at(change, unit[alone], sign * finite[source[alone]])
    return change


def _touches(noise: NoiseModel) -> csr_array:
    """Return layers x sources: whether the layer rounds the source."""
    index = {layer.id: number for number, layer in enumerate(noise.typing.model.layers)}
    pairs = {(index[layer_id], each) for layer_id, found in noise.sources.touched.items() for each in found.tolist()}
    layer, source = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
    return csr_array((np.ones(layer.size), (layer, source)), shape=(len(index), len(noise.sources)))
