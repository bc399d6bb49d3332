"""Calibrate: run samples through a model once, and choose a range for each of its float32 tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from explorer.backends.runtime import Cancel, default_threads
from explorer.calibrate.activations import Activations, float_values
from explorer.calibrate.cache import Cache
from explorer.calibrate.calibration import Calibration
from explorer.calibrate.histogram import BINS, StreamedHistogram
from explorer.calibrate.methods import amax_of, check_method
from explorer.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from explorer.model import Model, Samples
    from explorer.model.samples import Feeds

__all__ = ["MOST_ROWS", "calibrate"]

MOST_ROWS: Final = 500  # NVIDIA's documentation of TensorRT: about 500 images are enough for ImageNet classifiers
_FLOAT: Final = "float32"
_NAMED: Final = 5  # tensors that a warning names; of the others it tells the number
GROUP_BYTES: Final = 1 << 29  # activations that are alive at once: a row of ResNet-50 or BERT-base has 106 to 281 MB
_HISTOGRAM_BYTES: Final = BINS * 8

Progress = Callable[[str, int, int], None]  # what is being done, batches done, batches in all


def calibrate(
    model: Model,
    samples: Samples,
    *,
    method: str = "percentile",
    percentile: float = 99.99,
    most: int = MOST_ROWS,
    cache: bool | Path = True,
    threads: int | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Calibration:
    """Return the range of every float32 input of a model and of every float32 result of its layers.

    Samples stream through batch by batch, and only so many activations are looked at in one pass that memory stays
    bounded, whatever the model; a larger model takes more passes. What is in the bodies of If, Loop and Scan has no
    range.

    Args:
        model: the model; it is not changed.
        samples: what runs through it: they should be like what the model will see, and none that it is judged by.
        method: ``minmax``, ``percentile`` or ``entropy``.
        percentile: share of each tensor's values that is represented, in percent; of that method only.
        most: rows of the samples that are used at most, in whole batches that are spread evenly over all of them.
        cache: True looks in the file beside the model for a calibration of the same model, samples and method, and
            keeps a new one there (in the user's cache folder where the model's cannot be written, or the model has no
            file). A path names that file. False calibrates and keeps nothing.
        threads: of the runtime; None takes what this process may use.
        progress: called after each batch with what is being done, batches done, and batches in all.
        cancel: stops it from another thread.

    Returns:
        The calibration. Its ``warnings`` tell of values that were not finite, which are left out, and of random
        samples; its ``notes`` whether it came from a file, and where it is kept.

    Raises:
        CalibrationError: there is no such method or percentile, or a file named by ``cache`` is something else.
        ExportError: a file named by ``cache`` cannot be written.
        BackendError: the model fails while it runs.
        RunCancelled: ``cancel`` was called.
    """
    check_method(method, percentile)
    if most < 1:
        raise CalibrationError(f"Calibration over {most} samples was asked for.", fix="Give at least 1; 500 is usual.")
    progress = progress or (lambda *_: None)
    feeds, rows = _spread(samples, most)
    blank = Calibration(
        {}, method, rows, model.digest, _hash_rows(feeds), percentile=percentile, random=samples.origin == "random"
    )
    store = Cache.beside(model, cache) if cache is not False else None
    if store is not None and (known := store.find(blank)) is not None:
        progress(f"calibration taken from {known.found_in}", 1, 1)
        return known
    passes = _Passes(model, feeds, threads, progress, cancel or Cancel())
    seen = {name: _Seen.of(each, method, percentile) for name, each in passes.histograms()}
    ranges = {name: each.amax for name, each in seen.items()}
    found = replace(blank, amax=ranges, warnings=tuple(_warnings(seen, random=blank.random)))
    return found if store is None else store.keep(found)


def _spread(samples: Samples, most: int) -> tuple[list[Feeds], int]:
    """Return whole batches, spread evenly over all, of ``most`` rows in all or less, but at least one; and their rows.

    A file of samples is often sorted, by class or by time: its first rows are not like the others.
    """
    rows = [samples.batch] * len(samples)
    rows[-1] = max(1, samples.rows - samples.batch * (len(samples) - 1))  # the last batch may be short
    count = len(samples) if sum(rows) <= most else max(1, most // samples.batch)
    chosen = np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int)).tolist()
    return [samples.feeds[index] for index in chosen], sum(rows[index] for index in chosen)


def _hash_rows(feeds: Sequence[Feeds]) -> str:
    """Return a hash of names, types, shapes and values of what is fed, the same in batches of any size."""
    sha = hashlib.sha256()
    for name in sorted(feeds[0]):
        first = feeds[0][name]
        sha.update(f"{name} {first.dtype} {first.ndim} {first.shape[1:]}".encode())
        # An input without a batch axis is one and the same array in every batch.
        for array in {id(feed[name]): feed[name] for feed in feeds}.values():
            text = array.dtype == object
            sha.update(repr(array.tolist()).encode() if text else np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is left of a histogram when the range is chosen."""

    amax: float
    nonfinite: int
    empty: bool

    @classmethod
    def of(cls, histogram: StreamedHistogram, method: str, percentile: float) -> _Seen:
        return cls(amax_of(histogram, method, percentile), histogram.nonfinite, not histogram.total)


@dataclass(frozen=True)
class _Passes:
    """Passes of the samples through the model."""

    model: Model
    feeds: Sequence[Feeds]
    threads: int | None
    progress: Progress
    cancel: Cancel

    def histograms(self) -> Iterator[tuple[str, StreamedHistogram]]:
        """Yield every float32 input and result of a layer, and its histogram, when the pass that sees it is over."""
        for spec in self.model.inputs:
            if spec.dtype == _FLOAT:
                histogram = StreamedHistogram()
                for feed in self.feeds:
                    histogram.add(feed[spec.name])
                yield spec.name, histogram
        if values := float_values(self.model):
            yield from self._of_layers(values)

    def _of_layers(self, values: Sequence[str]) -> Iterator[tuple[str, StreamedHistogram]]:
        threads = self.threads or default_threads()
        workers = max(1, min(threads, len(self.feeds)))  # batches side by side beat one on all threads
        runner = Activations(
            self.model, self.feeds, workers=workers, threads=max(1, threads // workers), cancel=self.cancel
        )
        groups = runner.groups(values, GROUP_BYTES, extra_bytes=_HISTOGRAM_BYTES)
        for done, group in enumerate(groups):
            seen = {name: StreamedHistogram() for name in group}
            for batches, _ in enumerate(runner.run(group, _adder(seen)), 1):
                self.progress("calibration", done * len(self.feeds) + batches, len(groups) * len(self.feeds))
            yield from seen.items()


def _adder(seen: Mapping[str, StreamedHistogram]) -> Callable[[str, npt.NDArray[np.float32]], None]:
    return lambda name, array: seen[name].add(array)


def _warnings(seen: Mapping[str, _Seen], *, random: bool) -> Iterable[str]:
    """Yield what was odd, in words."""
    if random:
        yield "The samples are random: ranges from them are not to be trusted."
    if odd := [f"{each.nonfinite} in '{name}'" for name, each in seen.items() if each.nonfinite]:
        yield f"Values that are infinite or NaN were left out: {_listed(odd)}."
    if empty := [f"'{name}'" for name, each in seen.items() if each.empty]:
        yield f"No finite value was seen, so the scale is 1: {_listed(empty)}."


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")
