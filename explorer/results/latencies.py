"""Latency of a model under its plans: measured here, on another machine, or predicted; each once, and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS
from explorer.backends.tensorrt.imported import imported_latency
from explorer.measure.latency import CpuLatency, GpuPredictions, MeasuredLatency, PredictedLatency, measure_cpu
from explorer.results.measuring import measure_plan
from explorer.results.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from explorer.backends.runtime import Cancel
    from explorer.plan import Plan
    from explorer.results.results import Results

__all__ = ["IMPORTED", "Latencies"]

IMPORTED: Final = "imported profile"  # measured on another machine, and read from a file

_KEPT = 8  # predictions; a measurement costs more, and more of them are kept
_MEASURED = 64


class Latencies:
    """Latencies by plan and target; any thread may ask.

    Args:
        results: of the model; its turns and its lock are used.

    Attributes:
        predictions: what predicts for GPUs.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self.predictions = GpuPredictions(results.model, results.samples.shapes)
        self._cpu: tuple[int, CpuLatency] | None = None
        self._predicted: Recent[PredictedLatency] = Recent(_KEPT)
        self._measured: Recent[MeasuredLatency] = Recent(_MEASURED)
        self._watchers: list[Callable[[], None]] = []

    def known_cpu(self) -> CpuLatency | None:
        """Return the latency of the fp32 model on this machine's CPU if it was measured."""
        return self._cpu[1] if self._cpu else None

    def cpu(self, *, runs: int = DEFAULT_RUNS) -> CpuLatency:
        """Return the latency of the fp32 model on this machine's CPU, measured while nothing else runs here."""
        results = self._results
        with results.running() as (_, tell):
            if self._cpu is None or self._cpu[0] != runs:
                measured = measure_cpu(
                    results.model,
                    results.samples.feeds[0],
                    runs=runs,
                    threads=results.threads,
                    progress=lambda share: tell("latency on the CPU", round(100 * share), 100),
                )
                self._cpu = (runs, measured.described(results.samples.batch_note))
            return self._cpu[1]

    def known_prediction(self, plan: Plan, target: str | None, gpu_model: str) -> PredictedLatency | None:
        """Return the predicted latency of a plan if it is kept."""
        with self._results.light():
            return self._predicted.get((plan, target, gpu_model))

    def predict(self, plan: Plan, target: str | None, gpu_model: str) -> PredictedLatency:
        """Return the latency on a GPU that need not be here, predicted by the roofline."""
        known = self.known_prediction(plan, target, gpu_model)
        if known is not None:
            return known
        results = self._results
        predicted = self.predictions.predict(results.decisions(plan, target), gpu_model)
        made = predicted.described(results.samples.batch_note)
        with results.light():
            self._predicted[plan, target, gpu_model] = made
            for index, each in enumerate(results.tried):
                if each.plan == plan and each.target == target:
                    results.tried[index] = replace(
                        each,
                        gpu_model=gpu_model,
                        latency_us=made.result.plan_us,
                        latency_provenance=made.result.provenance,
                    )
        return made

    def known_measured(
        self, plan: Plan, target: str | None, backend: str, *, device: int = 0
    ) -> MeasuredLatency | None:
        """Return the latency of a plan on a backend, and its GPU, if it was measured, here or elsewhere."""
        with self._results.light():
            return self._measured.get((plan, target, backend, device))

    def measure(
        self,
        plan: Plan,
        target: str | None,
        backend: str,
        *,
        device: int = 0,
        runs: int = DEFAULT_RUNS,
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> MeasuredLatency:
        """Return the latency of a plan as it runs on a backend here; measured once.

        It takes the turns that it needs; its caller holds none, so that a GPU is never waited for inside one.

        Args:
            plan: the plan.
            target: the backend whose kernels decide what may run low.
            backend: where to run it.
            device: index of the GPU.
            runs: that medians are taken of.
            cancel: stops it from another thread.
            progress: called instead of the session's own.

        Raises:
            BackendError: the backend is not ready here, or what it would measure is no latency of the plan's formats.
            RunCancelled: `cancel` was called.
        """
        known = self.known_measured(plan, target, backend, device=device)
        if known is not None and known.result.runs >= runs:
            return known
        results = self._results
        result = measure_plan(
            results, plan, target, backend,
            device=device, runs=runs, cancel=cancel, progress=progress or results.progress,
        )  # fmt: skip
        return self.take(plan, target, backend, MeasuredLatency(result, plan.format), device=device)

    def from_profile(
        self,
        plan: Plan,
        target: str | None,
        layers: str | Path,
        profile: str | Path,
        *,
        times: str | Path | None = None,
        device: str = "",
    ) -> MeasuredLatency:
        """Return the latency of a plan from the files of ``trtexec``, which ran it on another machine.

        Raises:
            InputError: a file cannot be read or is another one, or they are of another engine or another model.
        """
        results = self._results
        asked = {each.layer_id: each.format for each in results.decisions(plan, target)}
        conversion = results.conversion(plan, target, clamp=False)
        result = imported_latency(
            results.model,
            asked,
            layers,
            profile,
            device=device,
            times_path=times,
            inserted={cast.name: cast.value for cast in conversion.casts},
        )
        return self.take(plan, target, IMPORTED, MeasuredLatency(result, plan.format))

    def take(
        self, plan: Plan, target: str | None, backend: str, latency: MeasuredLatency, *, device: int = 0
    ) -> MeasuredLatency:
        """Keep a latency that was measured, wherever it was, and tell those who watch."""
        with self._results.light():
            self._measured[plan, target, backend, device] = latency
        for watcher in tuple(self._watchers):
            watcher()
        return latency

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` when a latency was measured or read, in the thread that did it; return what ends that."""
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed) if changed in self._watchers else None
