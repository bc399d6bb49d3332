"""What rounding each tensor adds to the error of the outputs: measured, the largest first, better with time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.convert.typing import HIGH
from explorer.errors import InputError
from explorer.formats import get_format
from explorer.probe.noise import NoiseRuns
from explorer.probe.sources import Sources, rounding_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Cancel
    from explorer.convert import Typing
    from explorer.measure.tables import LayerSums
    from explorer.model import Samples
    from explorer.search.store import Store

__all__ = ["NoiseModel", "sweep"]

PRIOR, SHARED, ALONE = 0, 1, 2
_GROUP: Final = 8  # sources that are first measured together
_REST: Final = 0.02  # of all noise: what is left in groups below that is not taken apart
_HARMLESS: Final = 1e-6  # squared relative error up to which a tensor that overflows is let be: a mask, mostly
_BROKEN: Final = 0.1  # squared relative local error from which on a layer counts as broken
_APART: Final = 30.0  # members of a group get at most so many times the share of its middle one
_SHOW_EVERY_S: Final = 1.0


@dataclass(frozen=True)
class NoiseModel:
    """Noise by source: the squared relative error that rounding it adds to each output.

    The error of a plan is predicted as the root of the sum over the sources that its layers round.

    Attributes:
        typing: what each layer may be.
        sources: the tensors.
        outputs: the model's float32 outputs.
        noise: sources x outputs, squared error over the energy of the exact output; inf where the rounding breaks the
            model.
        basis: by source, how its noise is known: 0 guessed from local errors, 1 its share of a group that was measured
            together, 2 measured alone.
        runs: measurements that were made or remembered.
        rows: of the samples that ran.
        complete: whether measuring more would no longer pay.
        pinned: layers that cannot run low for it, with the reason.
    """

    typing: Typing
    sources: Sources
    outputs: tuple[str, ...]
    noise: npt.NDArray[np.float64]
    basis: npt.NDArray[np.uint8]
    runs: int
    rows: int
    complete: bool
    pinned: Mapping[str, str] = field(default_factory=dict)

    def predict(self, low: npt.NDArray[np.bool_], *, keep_io: bool = True) -> npt.NDArray[np.float64]:
        """Return the squared relative error of each output.

        Args:
            low: by layer of the model, whether it runs low.
            keep_io: whether the model's inputs and outputs stay in fp32.
        """
        paid = np.zeros(len(self.sources), np.bool_)
        for layer, is_low in zip(self.typing.model.layers, low, strict=True):
            if is_low and layer.id in self.sources.touched:
                paid[self.sources.touched[layer.id]] = True
        if not keep_io:
            paid[self.sources.outputs] = True
        return np.asarray(self.noise[paid].sum(axis=0))

    def sensitivity(self) -> npt.NDArray[np.float64]:
        """Return by layer the squared relative error of the worst output when it alone runs low; NaN: it cannot."""
        found = np.full(len(self.typing.model.layers), np.nan)
        for index, layer in enumerate(self.typing.model.layers):
            sources = self.sources.touched.get(layer.id)
            if sources is not None:
                found[index] = self.noise[sources].sum(axis=0).max(initial=0.0)
        return found

    @property
    def summary(self) -> str:
        """How the noise is known, in words."""
        count = len(self.sources)
        alone, shared, guessed = (int((self.basis == basis).sum()) for basis in (ALONE, SHARED, PRIOR))
        parts = [f"{alone:,} of {count:,} tensors measured alone"]
        parts += [f"{shared:,} in groups"] if shared else []
        parts += [f"{guessed:,} guessed from local errors"] if guessed else []
        return f"{', '.join(parts)}, on {self.rows} {'row' if self.rows == 1 else 'rows'} of the samples"


def sweep(
    typing: Typing,
    samples: Samples,
    local: Callable[[], LayerSums],
    ranges: Callable[[], LayerSums],
    *,
    seconds: float | None = None,
    store: Store | None = None,
    threads: int | None = None,
    cancel: Cancel | None = None,
    progress: Callable[[int, int, float | None], None] | None = None,
) -> Iterator[NoiseModel]:
    """Yield noise models, each better than the one before; every one can be used.

    Tensors that overflow are measured first and alone, then groups of neighbours, then the members of groups, those
    with the most noise first, until what is left in groups no longer matters.

    Args:
        typing: what each layer may be.
        samples: what runs through the model.
        local: gives the local errors by layer, for the first guess.
        ranges: gives the ranges of the exact values by layer.
        seconds: after which nothing more is measured; None goes on until that no longer pays.
        store: what was measured before, and what is measured now.
        threads: that run side by side.
        cancel: stops it from another thread.
        progress: called with runs done, runs in all as far as known, and seconds left.

    Raises:
        InputError: no layer has a format to choose, or the model has no float32 output.
        RunCancelled: `cancel` was called; what was measured is in the store.
    """
    sources = rounding_sources(typing)
    if not any(spec.dtype == HIGH for spec in typing.model.outputs):
        raise _nothing_to_search(sources)
    known = None if store is None else store.batches
    runs = NoiseRuns(typing, sources, samples, threads=threads, cancel=cancel, batches=known)
    if store is not None:
        store.batches = runs.batches
    made = _Sweep(typing, sources, runs, store=store, seconds=seconds, progress=progress or (lambda *_: None))
    try:
        yield from made.models(local, ranges)
    finally:  # also when it is cancelled
        if store is not None:
            store.save()


def _nothing_to_search(sources: Sources) -> InputError:
    """Return why a model without float32 outputs cannot be searched."""
    if not len(sources):
        return InputError(
            "No layer of the model has a format to choose, so there is nothing to search.",
            why="Only layers that read or make float32 values can run in another format.",
            fix="Give a model in float32.",
        )
    return InputError(
        "The model has no float32 output, so plans have no error to search by.",
        why="The search minimises latency for a given error of the outputs.",
        fix="Cut the model before its last ArgMax or Cast, so that it returns float32 scores.",
    )


class _Sweep:
    def __init__(
        self,
        typing: Typing,
        sources: Sources,
        runs: NoiseRuns,
        *,
        store: Store | None,
        seconds: float | None,
        progress: Callable[[int, int, float | None], None],
    ) -> None:
        self.typing, self.sources, self.runs, self.store = typing, sources, runs, store
        self.progress = progress
        self.energy = np.maximum(runs.exact_squares, np.finfo(np.float64).tiny)
        self.noise = np.zeros((len(sources), len(runs.outputs)))
        self.basis = np.zeros(len(sources), np.uint8)
        self.done = 0
        self.start = time.monotonic()
        self.until = np.inf if seconds is None else self.start + seconds
        self.prior = np.ones(len(sources))
        self.overflowing = np.zeros(len(sources), np.bool_)

    def models(self, local: Callable[[], LayerSums], ranges: Callable[[], LayerSums]) -> Iterator[NoiseModel]:
        self._guess(local())
        self.overflowing = self._overflows(ranges())
        self.noise[:] = np.inf  # until it is measured: what is not known to be harmless must not look so
        kept = np.flatnonzero(~self.overflowing).tolist()
        if kept:
            whole = next(self._each([kept]))  # however little time there is
            if np.isfinite(whole).all():
                self._share(kept, whole, PRIOR)
                yield self._model()
        yield from self._alone(np.flatnonzero(self.overflowing).tolist(), len(self.sources))
        groups = [kept[start : start + _GROUP] for start in range(0, len(kept), _GROUP)]
        total = len(groups) + len(kept)
        shown = time.monotonic()
        for group, noise in zip(groups, self._each(groups), strict=False):
            self._share(group, noise, SHARED if len(group) > 1 else ALONE)
            self._tell(total)
            if time.monotonic() - shown > _SHOW_EVERY_S:
                shown = time.monotonic()
                yield self._model()
        yield self._model()  # the first that can be used where everything together breaks
        if self._late():
            return
        yield from self._take_apart(groups, total)

    def _take_apart(self, groups: Sequence[Sequence[int]], total: int) -> Iterator[NoiseModel]:
        """Measure the members of groups alone, those with the most noise first, until the rest no longer matters."""
        weight = [float(self.noise[list(group)].max(axis=1).sum()) for group in groups]
        order = [groups[index] for index in np.argsort([-each for each in weight], kind="stable")]
        left = sorted((each for each in weight), reverse=True)
        finite = [each for each in left if np.isfinite(each)]
        enough = _REST * sum(finite)
        rest = np.cumsum(left[::-1])[::-1]  # of this group and those behind it
        wanted = [group for group, after in zip(order, rest, strict=True) if after > enough or not np.isfinite(after)]
        singles = [source for group in wanted for source in group if self.basis[source] != ALONE]
        yield from self._alone(singles, total - sum(map(len, order[len(wanted) :])))
        yield self._model(complete=not self._late())

    def _alone(self, singles: Sequence[int], total: int) -> Iterator[NoiseModel]:
        shown = time.monotonic()
        for source, noise in zip(singles, self._each([[source] for source in singles]), strict=False):
            self.noise[source], self.basis[source] = noise, ALONE
            self._tell(total)
            if time.monotonic() - shown > _SHOW_EVERY_S:
                shown = time.monotonic()
                yield self._model()

    def _late(self) -> bool:
        return time.monotonic() > self.until

    def _each(self, groups: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the noise of each group in order, from the store where it is known; ends early when time is up."""
        names = [[self.sources.names[source] for source in group] for group in groups]
        known = [None if self.store is None else self.store.get(each) for each in names]
        fresh = iter(self.runs.each([group for group, found in zip(groups, known, strict=True) if found is None]))
        for each, found in zip(names, known, strict=True):
            if found is None and self._late() and self.done:
                return
            squares = next(fresh) if found is None else np.array(found)
            if found is None and self.store is not None:
                self.store.put(each, squares)
            self.done += 1
            yield squares / self.energy

    def _share(self, group: Sequence[int], noise: npt.NDArray[np.float64], basis: int) -> None:
        """Divide the noise of a group among its members, in proportion to what local errors let one expect."""
        members = list(group)
        expected = self.prior[members]
        middle = float(np.median(expected))
        expected = np.clip(expected, middle / _APART, middle * _APART)  # a guess is not that sure
        part = expected / expected.sum()
        with np.errstate(invalid="ignore"):
            self.noise[members] = np.where(np.isfinite(noise), np.outer(part, noise), np.inf)
        self.basis[members] = basis

    def _guess(self, local: LayerSums) -> None:
        """Expect of a tensor what the layers that touch it lose by themselves."""
        squares = np.nan_to_num(local.column(local.sums.rel_l2) ** 2, nan=0.0, posinf=1.0)  # type: ignore[union-attr]
        expected = np.zeros(len(self.sources))
        for index, layer in enumerate(self.typing.model.layers):
            touched = self.sources.touched.get(layer.id)
            # One that breaks tells nothing of the tensors that are not to blame.
            if touched is not None and len(touched) and squares[index] < _BROKEN:
                expected[touched] = np.maximum(expected[touched], squares[index] / len(touched))
        self.prior = np.maximum(expected, 1e-12)

    def _overflows(self, ranges: LayerSums) -> npt.NDArray[np.bool_]:
        """Return which sources hold values that the format turns into infinities; none where it saturates."""
        fmt = get_format(self.typing.format)
        if fmt.saturates:
            return np.zeros(len(self.sources), np.bool_)
        limit = fmt.overflow_threshold
        largest = dict[str, float]()
        model = self.typing.model
        for layer, most in zip(model.layers, ranges.column(ranges.sums.max_abs), strict=True):  # type: ignore[union-attr]
            largest |= dict.fromkeys(layer.outputs, float(most))
        found = np.zeros(len(self.sources), np.bool_)
        for index, kind in enumerate(self.sources.kinds):
            name = self.sources.tensor(index)
            if kind == "weight":
                tensor = model.ir.graph.initializers[name].const_value
                values = None if tensor is None else tensor.numpy()
                found[index] = values is not None and values.size > 0 and float(np.abs(values).max()) >= limit
            else:
                found[index] = largest.get(name, 0.0) >= limit
        return found

    def _tell(self, total: int) -> None:
        seconds = time.monotonic() - self.start
        left = seconds / self.done * (total - self.done) if self.done else None
        self.progress(min(self.done, total), total, left if left is None else max(0.0, left))

    def _model(self, *, complete: bool = False) -> NoiseModel:
        noise = self.noise.copy()
        harmful = self.overflowing & (noise.max(axis=1) > _HARMLESS)
        noise[harmful] = np.inf
        return NoiseModel(
            self.typing, self.sources, self.runs.outputs, noise, self.basis.copy(), self.done, self.runs.rows, complete,
            self._pins(noise, harmful),
        )  # fmt: skip

    def _pins(self, noise: npt.NDArray[np.float64], harmful: npt.NDArray[np.bool_]) -> dict[str, str]:
        low, found = self.typing.format, {}
        for layer_id, touched in self.sources.touched.items():
            breaking = touched[~np.isfinite(noise[touched]).all(axis=1)]
            if not breaking.size:
                continue
            first = int(breaking[0])
            name = self.sources.tensor(first)
            if harmful[first]:
                found[layer_id] = f"'{name}' holds values beyond the range of {low}"
            elif self.basis[first] == ALONE:
                found[layer_id] = f"'{name}' rounded to {low} makes an output inf or NaN"
            else:
                found[layer_id] = f"'{name}' is of a group that makes an output inf or NaN when rounded to {low}"
        return found
