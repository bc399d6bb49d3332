"""What a measurement of latency returns, on every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["InsertedTime", "KernelTime", "LatencyResult", "LayerTime", "median_and_spread", "medians_and_spreads"]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The time of one layer.

    Attributes:
        layer_id: id of the layer.
        median_us: median over the runs, in microseconds. When layers are fused the time of all of them stands once,
            at the one that does most of the work; the others have 0.
        spread_us: interquartile range over the runs.
        fused_with: ids of the other layers that the same kernel computes; the same set at each of them.
        note: what became of the layer, where that is not plain: fused into which one, folded, removed.
    """

    layer_id: str
    median_us: float
    spread_us: float
    fused_with: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class InsertedTime:
    """The time of a node that the backend inserted and that is no layer of the model.

    Attributes:
        name: the node's name in the optimized graph.
        op: its operator type.
        kind: ``reorder`` (memory layout), ``cast``, ``transpose``, ``reshape``, ``copy`` (between devices), ``other``.
        serves: the layer whose value it moves, where known.
        median_us: median over the runs, in microseconds.
        spread_us: interquartile range over the runs.
    """

    name: str
    op: str
    kind: str
    serves: str | None
    median_us: float
    spread_us: float


@dataclass(frozen=True, slots=True)
class KernelTime:
    """The time of one kernel, or of one layer of an engine: it may compute several layers, and a layer several of it.

    Attributes:
        name: as the backend tells it.
        layer_ids: the layers of the model that it computes; empty for what the backend added.
        median_us: median over the runs, in microseconds.
        spread_us: interquartile range over the runs.
        kind: ``layer``, ``reformat``, ``cast``, ``copy`` or ``other``.
        format: what it really computed in: fp32, tf32, fp16, int8 ...; empty where that is not told.
        note: what else a reader must know.
    """

    name: str
    layer_ids: tuple[str, ...]
    median_us: float
    spread_us: float
    kind: str
    format: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """Latency of a model on one backend: as a whole, and where the backend tells, by layer.

    Attributes:
        backend: ``onnxruntime-cpu``, ``onnxruntime-cuda`` or ``tensorrt``.
        device: name of the processor or GPU.
        provenance: how the numbers came to be, as one sentence that every view shows.
        formats: what the model's tensors are stored in, and what this backend computes them in.
        threads: threads inside one operator; 0 where that means nothing.
        runs: how many runs the medians are of; 0 where an imported profile does not tell.
        warmup_runs: how many runs came before, uncounted.
        whole_us: median of the whole run, unprofiled: the figure to quote. Layers do not add up to it, because
            profiling itself costs some microseconds a node.
        whole_spread_us: its interquartile range; NaN where an imported profile does not tell.
        layers: one row for every layer of the model; empty when the backend gives no times by layer.
        inserted: nodes that the backend added.
        profiled_us: median of the whole run while profiled: the sum of the medians of ``layers`` and ``inserted``, of
            ``overhead_us`` and of ``interference_us``.
        overhead_us: median of the part of a run that is in no node: the executor, copying inputs and outputs, and
            the profiler's own work. On a GPU: ``whole_us`` without the time of all nodes, what the GPU waits.
        interference_us: what the median run took beyond the medians of its parts. A program beside this one slows
            another layer down in each run, so that no layer's median shows it; about 0 on an idle machine.
        notes: what a reader must know.
        kernels: kernels of a GPU or layers of an engine, and the layers that each computes; empty where not told.
    """

    backend: str
    device: str
    provenance: str
    formats: str
    threads: int
    runs: int
    warmup_runs: int
    whole_us: float
    whole_spread_us: float
    layers: tuple[LayerTime, ...] = ()
    inserted: tuple[InsertedTime, ...] = ()
    profiled_us: float | None = None
    overhead_us: float | None = None
    interference_us: float | None = None
    notes: tuple[str, ...] = ()
    kernels: tuple[KernelTime, ...] = ()

    def layer(self, layer_id: str) -> LayerTime | None:
        """Return the row of one layer, or None."""
        return next((row for row in self.layers if row.layer_id == layer_id), None)


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the interquartile range.

    >>> median_and_spread([1.0, 2.0, 3.0, 4.0, 100.0])
    (3.0, 2.0)
    """
    ((median, spread),) = medians_and_spreads([values])
    return median, spread


def medians_and_spreads(rows: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return the median and the interquartile range of each row; all rows have the same length."""
    if not rows:
        return []
    low, middle, high = np.percentile(np.asarray(rows, dtype=np.float64), [25, 50, 75], axis=1)
    return list(zip(middle.tolist(), (high - low).tolist(), strict=True))
