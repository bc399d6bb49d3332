"""Exploration: a model, its samples, a plan and every result; the one object that CLI, widgets and report share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from explorer.backends.kernels import kernel_support
from explorer.backends.lend import lend_weights
from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS, cpu_name
from explorer.backends.ort_errors import RunCancelled
from explorer.backends.runtime import create_session
from explorer.convert import DEFAULT_TARGET, Conversion, Decisions, Typing, convert, decide, type_layers
from explorer.errors import BackendError, InputError, ModelError, PlanError
from explorer.export import save_onnx
from explorer.measure import ErrorSums
from explorer.measure.latency import CpuLatency, PredictedLatency, measure_cpu, predict_gpu
from explorer.measure.tables import LayerSums, by_layer, errors_table, outputs_table, ranges_table
from explorer.model import Model, Samples, load_model, load_samples
from explorer.plan import NO_FORMAT, Plan
from explorer.probe import AccumulatedError, Emulator, Ranges

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Accuracy", "Exploration", "open"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of samples whose largest output is the label.

    Attributes:
        exact: of the fp32 model, 0 to 1.
        plan: of the plan, emulated, 0 to 1.
        agreement: share of samples for which both predict the same.
        samples: number of labelled samples.
        output: name of the output that was compared with the labels.
        provenance: how the numbers came to be.
    """

    exact: float
    plan: float
    agreement: float
    samples: int
    output: str
    provenance: str


class Exploration:
    """A model, the samples that run through it, and a plan; results are computed when asked for, and kept.

    Make it with :func:`explorer.open`. Setting :attr:`plan` costs nothing; the next result is one run of the compiled
    emulation.

    Attributes:
        model: the model; never modified.
        samples: what runs through it.
        target: the backend whose kernels decide what may run low; None asks only what ONNX allows.
        progress: called with what is being done, batches done, and batches in all.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        plan: Plan | None = None,
        *,
        target: str | None = DEFAULT_TARGET,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.samples, self.target = model, samples, target
        self.progress: Progress = progress or (lambda *_: None)
        self.command = ""
        self._threads = threads
        self._typings: dict[str, Typing] = {}
        self._emulators: dict[str, Emulator] = {}
        self._accumulated: tuple[Plan, bool, AccumulatedError] | None = None
        self._decisions: Decisions | None = None
        self._conversion: tuple[Plan, bool, Conversion] | None = None
        self._cpu: tuple[int, CpuLatency] | None = None
        self.plan = plan or Plan()

    @property
    def plan(self) -> Plan:
        """Which layers shall run low; set a new one to change it."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        if not isinstance(plan, Plan):
            raise PlanError(
                f"A plan must be a Plan, not {type(plan).__name__}.", fix="Use x.plan.block(...) or Plan(...)."
            )
        plan.check(self.model)
        self._typing(plan.format)  # refuses a format that the model cannot have before anything runs
        self._plan = plan

    def _typing(self, low_format: str) -> Typing:
        if low_format not in self._typings:
            self._typings[low_format] = type_layers(self.model, low_format, self.target)
        return self._typings[low_format]

    def _emulator(self) -> Emulator:
        low = self.plan.format
        if low not in self._emulators:
            self._emulators[low] = Emulator(self._typing(low), self.samples, threads=self._threads, progress=self._tell)
        return self._emulators[low]

    def _tell(self, stage: str, done: int, count: int) -> None:
        self.progress(stage, done, count)  # looked up at each call: it may be set later

    # -- what becomes of the plan ----------------------------------------------------------------------------------

    def decisions(self) -> Decisions:
        """Return what becomes of each layer under the plan, with reasons."""
        if self._decisions is None or self._decisions.plan != self.plan:
            self._decisions = decide(self.plan, self._typing(self.plan.format))
        return self._decisions

    def convert(self, *, clamp: bool = False) -> Conversion:
        """Return the converted, checked model under the plan.

        Args:
            clamp: weights beyond the range of the low format become its largest value instead of infinity.
        """
        if self._conversion is None or self._conversion[:2] != (self.plan, clamp):
            made = convert(self.model, self.plan, backend=self.target, clamp=clamp, decisions=self.decisions())
            self._conversion = (self.plan, clamp, made)
        return self._conversion[2]

    def export(self, path: str | Path, *, clamp: bool = False) -> Conversion:
        """Write the converted model, checked, and return how it came to be.

        Raises:
            ConversionError: the result is not valid; nothing is written.
            ExportError: the file cannot be written; what stood there is untouched.
        """
        conversion = self.convert(clamp=clamp)
        save_onnx(conversion, self.model, path)
        return conversion

    # -- errors ----------------------------------------------------------------------------------------------------

    @property
    def provenance(self) -> str:
        """How errors come to be."""
        return f"emulated: {self.plan.format} storage rounding, fp32 accumulation"

    def _range_sums(self) -> LayerSums:
        found = self._exact_ranges()
        return by_layer(self.model.layers, found.values, found.sums)

    def _exact_ranges(self) -> Ranges:
        """Return the ranges of the exact values: the first run of the model, so what it cannot do shows here."""
        try:
            return self._emulator().ranges()
        except RunCancelled:
            raise
        except (ModelError, BackendError, InputError):
            self._check_runs()
            raise

    def _check_runs(self) -> None:
        """Check that the model as it is runs, where its emulation did not."""
        source, weights = lend_weights(self.model.ir)
        try:
            session = create_session(source, optimize="none", threads=self._threads, initializers=weights)
            for feed in self.samples:
                session.run(feed)
        except (ModelError, BackendError, InputError) as error:
            raise ModelError(
                f"The model does not run in fp32: {error.what}",
                why="Errors are measured against the fp32 model, so it has to run with these inputs.",
                fix="Run it in ONNX Runtime on the CPU first; converting it, without measuring, works all the same.",
            ) from error

    def _plan_error(self, *, keep_outputs: bool = False) -> AccumulatedError:
        known = self._accumulated
        if known is None or known[0] != self.plan or (keep_outputs and not known[1]):
            keep = keep_outputs or self.samples.labels is not None
            self._exact_ranges()
            found = self._emulator().accumulated(self.decisions(), keep_outputs=keep)
            self._accumulated = known = (self.plan, keep, found)
        return known[2]

    def errors(self) -> pd.DataFrame:
        """Return one row a layer: decision and reason, local and accumulated error, counts of what is lost.

        ``local_*`` is the error when only that layer runs low on exact inputs; ``acc_*`` when the whole plan does.
        ``overflow``, ``subnormal`` and ``flushed`` count the elements of the layer's exact result that leave the
        range of the low format, lose bits or become zero in it; ``nan`` those that its low version makes NaN.
        """
        self._exact_ranges()
        local = self._emulator().local()
        accumulated = self._plan_error()
        layers = self.model.layers
        return errors_table(
            layers,
            self.decisions(),
            self._range_sums(),
            by_layer(layers, local.values, local.sums),
            by_layer(layers, accumulated.values, accumulated.sums),
            incomparable=accumulated.incomparable,
            provenance=self.provenance,
        )

    def output_error(self) -> pd.DataFrame:
        """Return one row a float32 output of the model: its error under the plan."""
        found = self._plan_error()
        sums, infinite = found.output_sums, np.zeros(len(found.outputs), dtype=np.int64)
        if not np.isfinite(sums.error_squares).all():
            # What is lost is counted on the outputs themselves: the sums tell only that something is.
            exact, planned = self.outputs()
            pairs = [(exact[name], planned[name]) for name in found.outputs]
            infinite = np.array([_made(np.isinf, *pair) for pair in pairs])
            sums = replace(sums, nan=np.array([_made(np.isnan, *pair) for pair in pairs]))
        overflow = dict(zip(found.outputs, infinite.tolist(), strict=True))
        return outputs_table(found.outputs, sums, overflow, provenance=self.provenance)

    def ranges(self) -> pd.DataFrame:
        """Return one row a layer: where its exact fp32 values lie relative to the low format, known before any plan."""
        return ranges_table(self.model.layers, self._range_sums(), provenance=self.range_provenance)

    @property
    def range_provenance(self) -> str:
        """How ranges come to be."""
        trust = "; random inputs: not to be trusted" if self.samples.origin == "random" else ""
        return f"measured: fp32 on onnxruntime-cpu, {cpu_name()}{trust}"

    def first_nonfinite(self) -> str | None:
        """Return the id of the first layer whose result is not finite under the plan though the exact one is."""
        found = self._plan_error()
        merged = by_layer(self.model.layers, found.values, found.sums)
        assert isinstance(merged.sums, ErrorSums)
        rows = zip(self.model.layers, merged.measured, np.isfinite(merged.sums.error_squares), strict=True)
        lost = set(found.incomparable)
        return next((layer.id for layer, seen, ok in rows if seen and not ok and not lost & set(layer.outputs)), None)

    def outputs(self) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
        """Return the model's outputs for all samples: exact, and under the plan (emulated)."""
        found = self._plan_error(keep_outputs=True)
        return found.exact_outputs, found.plan_outputs

    def accuracy(self) -> Accuracy | None:
        """Return the accuracy before and after, or None where the samples have no labels.

        Raises:
            InputError: no output of the model has one row of scores per label.
        """
        labels = self.samples.labels
        if labels is None:
            return None
        exact, planned = self.outputs()
        rows = len(labels)
        name = next((key for key, value in exact.items() if np.ndim(value) == 2 and len(value) == rows), None)
        if name is None:
            raise InputError(
                f"The samples have {rows} labels, and no output of the model is a table of {rows} rows of scores.",
                fix="Leave the labels out, or give one label per row of a classifier's output.",
            )
        before, after = exact[name].argmax(axis=1), _predictions(planned[name])
        return Accuracy(
            exact=float((before == labels).mean()),
            plan=float((after == labels).mean()),
            agreement=float((before == after).mean()),
            samples=rows,
            output=name,
            provenance=self.provenance,
        )

    # -- latency ---------------------------------------------------------------------------------------------------

    def cpu_latency(self, *, runs: int = DEFAULT_RUNS) -> CpuLatency:
        """Return the latency of the fp32 model on this machine's CPU, measured once for each number of runs.

        Args:
            runs: how many runs to take medians of.
        """
        if self._cpu is None or self._cpu[0] != runs:
            measured = measure_cpu(
                self.model,
                self.samples.feeds[0],
                runs=runs,
                threads=self._threads,
                progress=lambda share: self.progress("latency on the CPU", round(100 * share), 100),
            )
            self._cpu = (runs, measured.described(self.samples.batch_note))
        return self._cpu[1]

    def predicted_latency(self, gpu_model: str) -> PredictedLatency:
        """Return the latency on a GPU that need not be here, predicted by the roofline."""
        predicted = predict_gpu(self.model, self.samples.shapes, self.decisions(), gpu_model)
        return predicted.described(self.samples.batch_note)

    def latency(self, *, gpu_model: str | None = None) -> pd.DataFrame:
        """Return one row a layer: its time in each format that was measured or predicted.

        Without ``gpu_model`` it is the fp32 model, measured on this machine's CPU: ONNX Runtime has no fp16 arithmetic
        there, so no fp16 time is shown. With it, fp32 and low format are predicted for that GPU.

        Args:
            gpu_model: name of a GPU, such as ``H100``.
        """
        if gpu_model is not None:
            return self.predicted_latency(gpu_model).table(self.model.layers, self.decisions())
        return self.cpu_latency().table(self.model.layers, self.decisions())

    # -- summary ---------------------------------------------------------------------------------------------------

    @property
    def low_share(self) -> float:
        """Share of the layers with float32 tensors that run low under the plan."""
        floats = [decision for decision in self.decisions() if decision.format != NO_FORMAT]
        return sum(decision.format == self.plan.format for decision in floats) / len(floats) if floats else 0.0

    @property
    def target_provenance(self) -> str:
        """What decided which layers may run low, in words."""
        if self.target is None:
            return "which layers may run low: what ONNX's operators allow"
        kernels = kernel_support(self.target)
        known = kernels.source if kernels.known else f"what ONNX's operators allow ({kernels.source})"
        return f"which layers may run low follows the kernels of {self.target}: {known}"

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader must know before trusting the figures, in sentences."""
        found = list(self.model.notes)
        if self.samples.origin == "random":
            found.append("The inputs are random: ranges and errors from random inputs are not to be trusted.")
        if self.target:
            support = kernel_support(self.target)
            known = support.source.partition(":")[0].rstrip(".")
            found.append(
                f"Which layers may run low follows the kernels of {self.target} ({known[:1].lower()}{known[1:]})."
                if support.known
                else f"Which layers may run low follows ONNX alone: there is no list of kernels of {self.target}."
            )
        return tuple(found)

    def report(self, path: str | Path, *, gpu_model: str | None = None, clamp: bool = False) -> Path:
        """Write the report, one HTML file that works offline, and return its path.

        Args:
            path: the file to write.
            gpu_model: adds the predicted latency on this GPU.
            clamp: the report is about the model that is exported with the same choice.

        Raises:
            ExportError: the file cannot be written; what stood there is untouched.
        """
        from explorer.report import write_report  # noqa: PLC0415 - plotly and jinja2 load only for a report
        from explorer.reporting import report_data  # noqa: PLC0415

        return Path(write_report(report_data(self, gpu_model=gpu_model, clamp=clamp), path))

    def __repr__(self) -> str:
        decisions = self.decisions()
        low = len(decisions.low_layers)
        return (
            f"Exploration of {self.model.name}: {len(self.model.layers)} layers, opset {self.model.opset}\n"
            f"  samples  {self.samples.describe()}\n"
            f"  plan     {self.plan}\n"
            f"  layers   {low} in {self.plan.format} ({self.low_share:.0%} of those with float32 tensors)\n"
            f"  next     .errors()  .output_error()  .latency()  .export(path)  .report(path)"
        )


def _made(what: Callable[[Any], Any], exact: npt.NDArray[Any], planned: npt.NDArray[Any]) -> int:
    """Return how many elements are ``what`` (inf, NaN) under the plan, and finite in the exact output."""
    found = what(planned)
    return int((found & np.isfinite(exact)).sum() if exact.shape == planned.shape else found.sum())


def _predictions(scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the predicted class of each row; -1, which is no label, where a score is NaN."""
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return np.where(np.isnan(scores).any(axis=1), -1, best)


def open(  # noqa: A001 - explorer.open reads as what it does
    model: str | Path | bytes | onnx.ModelProto | Any,
    *,
    inputs: str | Path | Mapping[str, npt.ArrayLike] | None = None,
    example_args: Sequence[Any] | None = None,
    plan: Plan | None = None,
    target: str | None = DEFAULT_TARGET,
    batch_size: int | None = None,
    dims: Mapping[str, int] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Exploration:
    """Return an exploration of a model.

    Args:
        model: path of an ONNX file, its bytes, a ``ModelProto``, or a ``torch.nn.Module`` with ``example_args``.
        inputs: an ``.npz`` file or a mapping with one array per model input, samples along axis 0, and ``labels`` if
            there are any. None makes seeded random inputs, whose ranges and errors are not to be trusted.
        example_args: positional example arguments, for a torch module only.
        plan: the plan to start with; by default everything that can runs in fp16.
        target: the backend whose kernels decide what may run low; None asks only what ONNX allows.
        batch_size: rows that run at once.
        dims: sizes of named dynamic dimensions, for random inputs.
        threads: of the runtime.
        progress: called with what is being done, batches done, and batches in all.

    Raises:
        ModelError: the model cannot be read or is invalid.
        InputError: the samples do not fit the model.
        PlanError: the plan names something that the model does not have.
    """
    if not isinstance(model, (str, Path, bytes, onnx.ModelProto)):
        from explorer.model.torch_module import export_torch  # noqa: PLC0415 - torch loads only when it is used

        model = export_torch(model, example_args)
    loaded = load_model(model)
    samples = load_samples(loaded, inputs, batch_size=batch_size, dims=dims)
    return Exploration(loaded, samples, plan, target=target, threads=threads, progress=progress)
