"""What a model and its samples give under a plan and a target: each result once, kept, safe to ask from any thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from explorer.backends.lend import lend_weights
from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS
from explorer.backends.ort_errors import RunCancelled
from explorer.backends.runtime import Cancel, create_session
from explorer.convert import Conversion, Decisions, Typing, convert, decide, type_layers
from explorer.errors import BackendError, InputError, ModelError
from explorer.measure.latency import CpuLatency, GpuPredictions, PredictedLatency, measure_cpu
from explorer.measure.tables import LayerSums, by_layer
from explorer.plan import NO_FORMAT
from explorer.probe import AccumulatedError, Emulator
from explorer.results.accuracy import Accuracy, accuracy_of
from explorer.results.recent import Recent
from explorer.results.tried import TriedPlan, label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from explorer.measure import Histogram
    from explorer.model import Model, Samples
    from explorer.plan import Plan
    from explorer.probe import LayerValues
    from explorer.search.front import Front

__all__ = ["PlanErrors", "Results", "provenance_of"]

T = TypeVar("T")

_SUM_BYTES = 64  # of one layer in ErrorSums: eight columns of 8 bytes
_PLANS_BYTES = 64 << 20  # errors of plans are kept up to here: any step back is instant then
_PLANS = (8, 512)  # at least and at most so many plans
_OUTPUT_BYTES = 64 << 20  # outputs that are smaller come with every run, so that none is repeated to look at them
_FLOAT_BYTES = 4
_EMULATORS = 3  # each holds a compiled graph and up to 2 GiB of exact values
_DECISIONS = 16
_PREDICTIONS = 8


@dataclass(frozen=True)
class PlanErrors:
    """Errors of one plan.

    Attributes:
        layers: sums by layer.
        found: as the emulator measured them, without the outputs themselves.
        overflow: infinities that the plan makes, by output; None until they were counted on the outputs.
        nan: likewise.
        accuracy: None without labels, or where none can be told.
    """

    layers: LayerSums
    found: AccumulatedError
    overflow: npt.NDArray[np.int64]
    nan: npt.NDArray[np.int64]
    accuracy: Accuracy | InputError | None

    @property
    def worst_db(self) -> float:
        """SQNR of the worst output in dB: -inf where one is not finite, NaN where there is none."""
        sums = self.found.output_sums
        if not len(sums.sqnr_db):
            return float("nan")
        return float(np.where(sums.finite, sums.sqnr_db, -np.inf).min())


class Results:
    """Computes and keeps results by (plan, target).

    Short questions (what becomes of a plan) take a light lock; runs of the model take turns. What is known is answered
    at once, also while another thread runs the model.

    Args:
        model: the model.
        samples: what runs through it.
        threads: of the runtime.
        progress: called with what is being done, batches done, and batches in all.
    """

    def __init__(
        self, model: Model, samples: Samples, *, threads: int | None, progress: Callable[[str, int, int], None]
    ) -> None:
        self.model, self.samples, self.threads = model, samples, threads
        self.tried: list[TriedPlan] = []
        self._progress = progress
        self._light = threading.RLock()
        self._turn = threading.RLock()
        self._converting = threading.RLock()
        self._run: tuple[Cancel, Callable[[str, int, int], None] | None] | None = None
        self._typings: dict[tuple[str, str | None], Typing] = {}
        self._decisions: Recent[Decisions] = Recent(_DECISIONS)
        self._conversion: tuple[object, Conversion] | None = None
        self._emulators: Recent[Emulator] = Recent(_EMULATORS)
        self._ranges: dict[object, LayerSums] = {}
        self._local: dict[object, LayerSums] = {}
        most = _PLANS_BYTES // (_SUM_BYTES * max(1, len(model.layers)))
        self._errors: Recent[PlanErrors] = Recent(min(max(most, _PLANS[0]), _PLANS[1]))
        self._outputs: tuple[object, AccumulatedError] | None = None
        self._cpu: tuple[int, CpuLatency] | None = None
        self.gpu_predictions = GpuPredictions(model, samples.shapes)
        self._predicted: Recent[PredictedLatency] = Recent(_PREDICTIONS)
        self._front: Front | None = None
        self._front_watchers: list[Callable[[Front], None]] = []

    # -- what becomes of a plan ------------------------------------------------------------------------------------

    def typing(self, low_format: str, target: str | None) -> Typing:
        """Return what each layer may be."""
        with self._light:
            key = (low_format, target)
            if key not in self._typings:
                self._typings[key] = type_layers(self.model, low_format, target)
            return self._typings[key]

    def decisions(self, plan: Plan, target: str | None) -> Decisions:
        """Return what becomes of each layer."""
        with self._light:
            found = self._decisions.get((plan, target))
            if found is None:
                found = self._decisions[plan, target] = decide(plan, self.typing(plan.format, target))
            return found

    def low_share(self, plan: Plan, target: str | None) -> float:
        """Return the share of the layers with float32 tensors that run low."""
        floats = [decision for decision in self.decisions(plan, target) if decision.format != NO_FORMAT]
        return sum(decision.format == plan.format for decision in floats) / len(floats) if floats else 0.0

    def conversion(self, plan: Plan, target: str | None, *, clamp: bool) -> Conversion:
        """Return the converted, checked model."""
        key = (plan, target, clamp)
        with self._converting:
            if self._conversion is None or self._conversion[0] != key:
                made = convert(self.model, plan, backend=target, clamp=clamp, decisions=self.decisions(plan, target))
                self._conversion = (key, made)
            return self._conversion[1]

    # -- errors ----------------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, cancel: Cancel, progress: Callable[[str, int, int], None] | None = None) -> Iterator[None]:
        """Run what the block asks for with this token, one thread at a time.

        Args:
            cancel: stops it from another thread, and nothing else.
            progress: called instead of the session's own.
        """
        with self._turn:
            cancel.check()
            outer, self._run = self._run, (cancel, progress)
            try:
                yield
            finally:
                self._run = outer

    def _tell(self, stage: str, done: int, count: int) -> None:
        own = self._run[1] if self._run else None
        (own or self._progress)(stage, done, count)

    def _emulator(self, low_format: str, target: str | None) -> Emulator:
        """Return the emulator, to be used by the thread whose turn it is."""
        found = self._emulators.get((low_format, target))
        if found is None:
            typing = self.typing(low_format, target)
            found = Emulator(typing, self.samples, threads=self.threads, progress=self._tell)
            self._emulators[low_format, target] = found
        found.cancel = self._run[0] if self._run else Cancel()
        found.cancel.check()
        return found

    def _once(self, known: dict[object, LayerSums], key: tuple[str, str | None], run: Callable[[], T]) -> LayerSums:
        if key not in known:
            with self._turn:
                if key not in known:
                    found: Any = run()
                    known[key] = by_layer(self.model.layers, found.values, found.sums)
        return known[key]

    def ranges(self, low_format: str, target: str | None) -> LayerSums:
        """Return where the exact values lie; the first run of the model, so what it cannot do shows here."""
        return self._once(self._ranges, (low_format, target), lambda: self._exact_ranges(low_format, target))

    def _exact_ranges(self, low_format: str, target: str | None) -> Any:
        try:
            return self._emulator(low_format, target).ranges()
        except RunCancelled:
            raise
        except (ModelError, BackendError, InputError):
            self._check_runs()
            raise

    def _check_runs(self) -> None:
        """Check that the model as it is runs, where its emulation did not."""
        source, weights = lend_weights(self.model.ir)
        try:
            session = create_session(source, optimize="none", threads=self.threads, initializers=weights)
            for feed in self.samples:
                session.run(feed)
        except (ModelError, BackendError, InputError) as error:
            raise ModelError(
                f"The model does not run in fp32: {error.what}",
                why="Errors are measured against the fp32 model, so it has to run with these inputs.",
                fix="Run it in ONNX Runtime on the CPU first; converting it, without measuring, works all the same.",
            ) from error

    def local(self, low_format: str, target: str | None) -> LayerSums:
        """Return the local errors."""
        self.ranges(low_format, target)
        return self._once(self._local, (low_format, target), lambda: self._emulator(low_format, target).local())

    def errors(self, plan: Plan, target: str | None, *, tried: bool = True) -> PlanErrors:
        """Return the errors under a plan.

        Args:
            plan: the plan.
            target: the backend whose kernels decide what may run low.
            tried: list the plan among those that the user tried; a search runs many that nobody asked for.
        """
        made = self.known_errors(plan, target)
        if made is None:
            with self._turn:
                made = self.known_errors(plan, target) or self._measured(plan, target)
        if tried:
            with self._light:
                self._note_tried(plan, target, made)
        return made

    def _measured(self, plan: Plan, target: str | None) -> PlanErrors:
        keep = self.samples.labels is not None or self._small_outputs(self.ranges(plan.format, target))
        found = self._accumulated(plan, target, keep=keep)
        if not found.output_sums.finite.all() and not found.exact_outputs:
            # What is lost is counted on the outputs themselves: the sums tell only that something is.
            found = self._accumulated(plan, target, keep=True)
        made = self._summed(found, plan)
        with self._light:
            self._errors[plan, target] = made
        return made

    def _small_outputs(self, ranges: LayerSums) -> bool:
        made = {spec.name for spec in self.model.outputs}
        makers = [bool(made & set(layer.outputs)) for layer in self.model.layers]
        return 2 * _FLOAT_BYTES * int(ranges.sums.elements[makers].sum()) <= _OUTPUT_BYTES  # exact, and under the plan

    def _accumulated(self, plan: Plan, target: str | None, *, keep: bool) -> AccumulatedError:
        self.ranges(plan.format, target)
        emulator = self._emulator(plan.format, target)
        found = emulator.accumulated(self.decisions(plan, target), keep_outputs=keep)
        if keep:
            self._outputs = ((plan, target), found)
        return found

    def _summed(self, found: AccumulatedError, plan: Plan) -> PlanErrors:
        pairs = [(found.exact_outputs.get(name), found.plan_outputs.get(name)) for name in found.outputs]
        broken = not found.output_sums.finite.all()
        counts = {
            what: np.array([_made(what, *pair) if broken else 0 for pair in pairs], dtype=np.int64)
            for what in (np.isinf, np.isnan)
        }
        accuracy: Accuracy | InputError | None = None
        if self.samples.labels is not None:
            try:
                accuracy = accuracy_of(
                    self.samples.labels, found.exact_outputs, found.plan_outputs, provenance=provenance_of(plan.format)
                )
            except InputError as error:
                accuracy = error
        layers = by_layer(self.model.layers, found.values, found.sums)
        light = replace(found, exact_outputs={}, plan_outputs={})
        return PlanErrors(layers, light, counts[np.isinf], counts[np.isnan], accuracy)

    def outputs(
        self, plan: Plan, target: str | None
    ) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
        """Return the model's outputs for all samples: exact, and under the plan; those of the last plan are kept."""
        with self._turn:
            if self._outputs is None or self._outputs[0] != (plan, target):
                self._accumulated(plan, target, keep=True)
            assert self._outputs is not None
            return self._outputs[1].exact_outputs, self._outputs[1].plan_outputs

    # -- values ----------------------------------------------------------------------------------------------------

    def values(self, plan: Plan, target: str | None, layer_id: str, output: int) -> LayerValues:
        """Return the values of one float32 result of a layer, exact and under a plan: one run."""
        with self._turn:
            self.ranges(plan.format, target)
            return self._emulator(plan.format, target).values(self.decisions(plan, target), layer_id, output)

    def histograms(self, low_format: str, target: str | None) -> dict[str, Histogram]:
        """Return the histogram of the exact values by name of the tensor, of all that layers make."""
        with self._turn:
            self.ranges(low_format, target)
            return self._emulator(low_format, target).histograms()

    # -- what is known already, without waiting ----------------------------------------------------------------------

    def known_ranges(self, low_format: str, target: str | None) -> LayerSums | None:
        """Return the ranges if they were measured."""
        return self._ranges.get((low_format, target))

    def known_local(self, low_format: str, target: str | None) -> LayerSums | None:
        """Return the local errors if they were measured."""
        return self._local.get((low_format, target))

    def known_errors(self, plan: Plan, target: str | None) -> PlanErrors | None:
        """Return the errors of a plan if they were measured and are still kept."""
        with self._light:
            return self._errors.get((plan, target))

    def known_prediction(self, plan: Plan, target: str | None, gpu_model: str) -> PredictedLatency | None:
        """Return the predicted latency of a plan if it is kept."""
        with self._light:
            return self._predicted.get((plan, target, gpu_model))

    def _note_tried(self, plan: Plan, target: str | None, made: PlanErrors) -> None:
        if any(each.plan == plan and each.target == target for each in self.tried):
            return
        self.tried.append(
            TriedPlan(
                plan=plan,
                target=target,
                label=label_of(self.decisions(plan, target)),
                sqnr_db=made.worst_db,
                accuracy=made.accuracy.plan if isinstance(made.accuracy, Accuracy) else None,
                low_share=self.low_share(plan, target),
                error_provenance=provenance_of(plan.format),
            )
        )

    # -- the search ------------------------------------------------------------------------------------------------

    @property
    def front(self) -> Front | None:
        """The front that was found last, or None; set it to tell those who watch."""
        return self._front

    @front.setter
    def front(self, front: Front) -> None:
        self._front = front
        for watcher in tuple(self._front_watchers):
            watcher(front)

    def watch_front(self, changed: Callable[[Front], None]) -> Callable[[], None]:
        """Call ``changed`` with each front that is found, in the thread that finds it; return what ends that."""
        self._front_watchers.append(changed)
        return lambda: self._front_watchers.remove(changed) if changed in self._front_watchers else None

    # -- latency ---------------------------------------------------------------------------------------------------

    def known_cpu_latency(self) -> CpuLatency | None:
        """Return the latency on this machine's CPU if it was measured."""
        return self._cpu[1] if self._cpu else None

    def cpu_latency(self, *, runs: int = DEFAULT_RUNS) -> CpuLatency:
        """Return the latency of the fp32 model on this machine's CPU, measured while nothing else runs here."""
        with self._turn:
            if self._cpu is None or self._cpu[0] != runs:
                measured = measure_cpu(
                    self.model,
                    self.samples.feeds[0],
                    runs=runs,
                    threads=self.threads,
                    progress=lambda share: self._tell("latency on the CPU", round(100 * share), 100),
                )
                self._cpu = (runs, measured.described(self.samples.batch_note))
            return self._cpu[1]

    def predicted_latency(self, plan: Plan, target: str | None, gpu_model: str) -> PredictedLatency:
        """Return the latency on a GPU that need not be here, predicted by the roofline."""
        known = self.known_prediction(plan, target, gpu_model)
        if known is not None:
            return known
        predicted = self.gpu_predictions.predict(self.decisions(plan, target), gpu_model)
        made = predicted.described(self.samples.batch_note)
        with self._light:
            self._predicted[plan, target, gpu_model] = made
            for index, each in enumerate(self.tried):
                if each.plan == plan and each.target == target:
                    self.tried[index] = replace(
                        each,
                        gpu_model=gpu_model,
                        latency_us=made.result.plan_us,
                        latency_provenance=made.result.provenance,
                    )
        return made


def provenance_of(low_format: str) -> str:
    """Return how errors come to be.

    >>> provenance_of("fp16")
    'emulated: fp16 storage rounding, fp32 accumulation'
    """
    return f"emulated: {low_format} storage rounding, fp32 accumulation"


def _made(what: Any, exact: npt.NDArray[Any] | None, planned: npt.NDArray[Any] | None) -> int:
    """Return how many elements are ``what`` (inf, NaN) under the plan, and finite in the exact output."""
    if exact is None or planned is None:
        return 0
    found = what(planned)
    return int((found & np.isfinite(exact)).sum() if exact.shape == planned.shape else found.sum())
