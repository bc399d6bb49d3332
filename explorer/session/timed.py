"""Latency under a plan: measured here or elsewhere, or predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from explorer.measure.latency import CpuLatency, MeasuredLatency, PredictedLatency
from explorer.session.planned import Planned

__all__ = ["Timed"]


class Timed(Planned):
    """How long a plan takes; attributes as of :class:`explorer.Exploration`."""

    def cpu_latency(self, *, runs: int = DEFAULT_RUNS) -> CpuLatency:
        """Return the latency of the fp32 model on this machine's CPU, measured once for each number of runs.

        Args:
            runs: how many runs to take medians of.
        """
        return self.results.latencies.cpu(runs=runs)

    def measure(
        self, backend: str = "onnxruntime-cpu", *, device: int = 0, runs: int = DEFAULT_RUNS
    ) -> MeasuredLatency:
        """Return the latency of the model under the plan, converted, built and run on a backend of this machine.

        Args:
            backend: ``onnxruntime-cpu`` (plans of fp32 and int8 alone: it computes fp16 in fp32), ``onnxruntime-cuda``
                or ``tensorrt``.
            device: index of the GPU.
            runs: that medians are taken of.

        Raises:
            BackendError: the backend is not ready here, cannot run the plan, or does not compute in its format.
        """
        return self.results.latencies.measure(self._plan, self._target, backend, device=device, runs=runs)

    def import_profile(
        self, layers: str | Path, profile: str | Path, *, times: str | Path | None = None, device: str = ""
    ) -> MeasuredLatency:
        """Return the latency of the plan's engine, which ``trtexec`` built and timed on another machine.

        Args:
            layers: what ``--exportLayerInfo`` wrote.
            profile: what ``--exportProfile`` wrote.
            times: what ``--exportTimes`` wrote: the engine's own time, which the layers do not add up to.
            device: name of that machine's GPU; the files do not tell it.

        Raises:
            InputError: a file cannot be read or is another one, or they are of another engine or another model.
        """
        return self.results.latencies.from_profile(
            self._plan, self._target, layers, profile, times=times, device=device
        )

    def predicted_latency(self, gpu_model: str) -> PredictedLatency:
        """Return the latency on a GPU that need not be here, predicted by the roofline."""
        return self.results.latencies.predict(self._plan, self._target, gpu_model)

    def latency(self, *, gpu_model: str | None = None, runs: int = DEFAULT_RUNS) -> pd.DataFrame:
        """Return one row a layer: its time in each format that was measured or predicted.

        Without ``gpu_model`` it is the fp32 model, measured on this machine's CPU, and a plan of int8 beside it: ONNX
        Runtime has integer kernels there. It has no fp16 arithmetic, so no fp16 time is shown. With a GPU, fp32 and low
        format are predicted for it.

        Args:
            gpu_model: name of a GPU, such as ``H100``.
            runs: that medians of measured times are taken of.
        """
        if gpu_model is not None:
            return self.predicted_latency(gpu_model).table(self.model.layers, self.decisions())
        layers, decisions = self.model.layers, self.decisions()
        table = self.cpu_latency(runs=runs).table(layers, decisions)
        if self.timed_here:
            table[f"{self._plan.format}_us"] = self.measure(runs=runs).table(layers, decisions)["plan_us"]
        return table

    @property
    def timed_here(self) -> bool:
        """Whether this machine's CPU computes in the plan's low format, so that its time tells the plan's speed."""
        return self._plan.format == "int8" and bool(self.decisions().low_layers)
