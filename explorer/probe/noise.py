"""Runs of a model in which single tensors are rounded: what that does to its outputs."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.backends.runtime import Cancel, create_session, default_threads
from explorer.probe.noise_graph import SWITCHES, NoiseGraph, noisy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from explorer.backends.runtime import Session
    from explorer.convert import Typing
    from explorer.model import Samples
    from explorer.probe.noise_graph import Part
    from explorer.probe.sources import Sources

__all__ = ["NoiseRuns"]

_SWEEP_S: Final = 20.0  # that measuring every source may take before fewer samples are run
_ROWS: Final = 16
_PARTS: Final = 4  # the prefix of a run is not run again: with so many parts, a run is 5/8 of the whole on average
_WORTH_S: Final = 4.0  # of running everything, from which on compiling more parts is paid back


class NoiseRuns:
    """Measures what rounding tensors does to the model's float32 outputs.

    Runs go side by side, one thread each. A tensor that is made late is rounded in a graph that begins shortly before
    it, and is fed the exact values.

    Args:
        typing: what each layer may be; its format is rounded to.
        sources: the tensors.
        samples: the first rows run, at most about 16, fewer where the model is slow.
        threads: that run side by side.
        cancel: stops it from another thread.
        batches: of the samples that run; None chooses.

    Attributes:
        starts: positions in the graph from which it may be run, 0 among them.
    """

    def __init__(
        self,
        typing: Typing,
        sources: Sources,
        samples: Samples,
        *,
        threads: int | None = None,
        cancel: Cancel | None = None,
        batches: int | None = None,
    ) -> None:
        self.typing, self.sources = typing, sources
        self.cancel = cancel or Cancel()
        self._threads = threads or default_threads()
        self._lock = threading.Lock()
        self._graph = NoiseGraph(typing, sources)
        self.outputs = self._graph.outputs
        self.possible_starts = starts = self._graph.starts(_PARTS)
        self._border = tuple(dict.fromkeys(value for start in starts for value in self._graph.border(start)))
        whole = self._graph.part(0, self._border)
        self._parts: dict[int, tuple[Part, Session]] = {0: (whole, self._compiled(whole))}
        self._wanted = [noisy(name) for name in self.outputs]
        self._exact: list[tuple[dict[str, Any], list[npt.NDArray[np.float64]]]] = []
        self._choose(samples, batches)

    def _choose(self, samples: Samples, batches: int | None) -> None:
        """Run the exact model, and choose by its time how many batches and parts there shall be."""
        rows = max(1, samples.batch)
        self._add(samples.feeds[0])  # the first run is slower
        self._exact.clear()
        begin = time.perf_counter()
        self._add(samples.feeds[0])
        everything = (time.perf_counter() - begin) * len(self.sources) / self._threads
        most = min(len(samples.feeds), -(-_ROWS // rows))
        self.batches = batches or min(most, max(1, int(_SWEEP_S / max(everything, 1e-9))))
        self.rows = min(samples.rows, self.batches * rows)
        for feed in samples.feeds[1 : self.batches]:
            self._add(feed)
        self.starts = self.possible_starts if everything * self.batches > _WORTH_S else [0]

    def _add(self, feed: Mapping[str, npt.NDArray[Any]]) -> None:
        """Run one batch exactly, and keep what later parts are fed and what outputs are compared with."""
        part, session = self._parts[0]
        given = self._given(session, feed, part, ())
        found = session.run(given, [*self._wanted, *self._border], cancel=self.cancel)
        outputs = [np.asarray(found[name], np.float64) for name in self._wanted]
        self._exact.append(({**feed, **{name: found[name] for name in self._border}}, outputs))

    def _compiled(self, part: Part) -> Session:
        # No graph optimization: it would fold the switches of weights, and fuse a layer in one part and not in another.
        return create_session(
            part.model, optimize="none", threads=1, initializers=part.arrays, plan_memory=False, cancel=self.cancel
        )

    def _from(self, start: int) -> tuple[Part, Session]:
        with self._lock:
            if start not in self._parts:
                part = self._graph.part(start)
                self._parts[start] = (part, self._compiled(part))
            return self._parts[start]

    @staticmethod
    def _given(session: Session, feed: Mapping[str, Any], part: Part, group: Sequence[int]) -> dict[str, Any]:
        switches = np.isin(part.switches, list(group))
        given = {**feed, SWITCHES: switches}
        return {name: value for name, value in given.items() if name in session.input_names}

    @property
    def exact_squares(self) -> npt.NDArray[np.float64]:
        """Sum of squares of each output where it is finite."""
        sums = [[float(np.square(each[np.isfinite(each)]).sum()) for each in outputs] for _, outputs in self._exact]
        found: npt.NDArray[np.float64] = np.array(sums, np.float64).reshape(-1, len(self.outputs)).sum(axis=0)
        return found

    def measure(self, groups: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Return the squared error of each output for each group of sources that is rounded alone.

        inf where an output is not finite that is finite exactly.

        Raises:
            RunCancelled: the token was cancelled.
        """
        return np.array(list(self.each(groups)), np.float64).reshape(len(groups), len(self.outputs))

    def each(self, groups: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the same one by one, in order."""
        with ThreadPoolExecutor(self._threads) as pool:
            rest = iter(groups)
            waiting = [pool.submit(self._squares, group) for group in itertools.islice(rest, 2 * self._threads)]
            while waiting:
                done = waiting.pop(0).result()
                waiting += [pool.submit(self._squares, group) for group in itertools.islice(rest, 1)]
                yield done

    def _squares(self, group: Sequence[int]) -> npt.NDArray[np.float64]:
        first = min((self._graph.place[source] for source in group), default=0)
        part, session = self._from(max(start for start in self.starts if start <= first))
        total = np.zeros(len(self.outputs))
        for feed, exact in self._exact:
            self.cancel.check()
            found = session.run(self._given(session, feed, part, group), self._wanted, cancel=self.cancel)
            for index, (name, high) in enumerate(zip(self._wanted, exact, strict=True)):
                total[index] += _squared(np.asarray(found[name], np.float64), high)
        return total


def _squared(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> float:
    """Return the squared error where the exact values are finite; inf where the others are not."""
    finite = np.isfinite(high)
    if low.shape != high.shape or not np.isfinite(low[finite]).all():
        return float("inf")
    return float(np.square(low[finite] - high[finite]).sum())
