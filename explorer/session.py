"""Exploration: a model, its samples, a plan and every result; the one object that CLI, widgets and report share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backends.kernels import kernel_support
from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS, cpu_name
from explorer.convert import DEFAULT_TARGET, Conversion, Decisions
from explorer.errors import InputError, MissingDependency, PlanError
from explorer.export import save_onnx
from explorer.measure import ErrorSums
from explorer.measure.tables import errors_table, outputs_table, ranges_table
from explorer.plan import Plan
from explorer.results import Accuracy, Results, Trial, TriedPlan, provenance_of, trial
from explorer.search.agree import AGREE

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from explorer.advise import Finding
    from explorer.backends.runtime import Cancel
    from explorer.measure import Histogram
    from explorer.measure.latency import CpuLatency, PredictedLatency
    from explorer.model import Model, Samples
    from explorer.probe import LayerValues
    from explorer.results.metric import UserMetric
    from explorer.search.front import Front
    from explorer.view import Panel

__all__ = ["Accuracy", "Exploration", "Progress"]

Progress = Callable[[str, int, int], None]
Watcher = Callable[[Plan, str | None], None]


class Exploration:
    """A model, the samples that run through it, and a plan; results are computed when asked for, and kept.

    Make it with :func:`explorer.open`. Setting :attr:`plan` costs nothing; the next result is one run of the compiled
    emulation.

    Any thread may ask: runs of the model take turns, and what is known is answered at once.

    Attributes:
        model: the model; never modified.
        samples: what runs through it.
        results: what was computed so far, shared by the forks.
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
        results: Results | None = None,
    ) -> None:
        self.model, self.samples = model, samples
        self.progress: Progress = progress or (lambda *_: None)
        self.command = ""
        self.results = results or Results(model, samples, threads=threads, progress=self._tell)
        self.controller: Any = None  # what the panels on this exploration share; made by explorer.view
        self.shown: Any = None  # the panel that a notebook shows for the exploration itself; likewise
        self._watchers: list[Watcher] = []
        self._target = target
        self._plan = self._checked(plan or Plan(), target)

    @property
    def plan(self) -> Plan:
        """Which layers shall run low; set a new one to change it."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.change(plan, self._target)

    @property
    def target(self) -> str | None:
        """The backend whose kernels decide what may run low; None asks only what ONNX allows. Set it to change it."""
        return self._target

    @target.setter
    def target(self, target: str | None) -> None:
        self.change(self._plan, target)

    def change(self, plan: Plan, target: str | None) -> None:
        """Set plan and target at once.

        Raises:
            PlanError: the plan names something that the model does not have; what was set before stays.
        """
        checked = self._checked(plan, target)
        before = (self._plan, self._target)
        if (checked, target) == before:
            return
        self._plan, self._target = checked, target
        for watcher in tuple(self._watchers):
            watcher(*before)

    def _checked(self, plan: Plan, target: str | None) -> Plan:
        if not isinstance(plan, Plan):
            raise PlanError(
                f"A plan must be a Plan, not {type(plan).__name__}.", fix="Use x.plan.block(...) or Plan(...)."
            )
        plan.check(self.model)
        self.results.typing(plan.format, target)  # refuses a format that the model cannot have before anything runs
        return plan

    def watch(self, changed: Watcher) -> Callable[[], None]:
        """Call ``changed`` with the plan and the target that were, after each change of one of them.

        Returns:
            What ends that.
        """
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed) if changed in self._watchers else None

    def fork(self) -> Exploration:
        """Return an exploration of the same model and samples with a plan of its own; results are shared."""
        made = Exploration(
            self.model, self.samples, self._plan, target=self._target, progress=self.progress, results=self.results
        )
        made.command = self.command
        return made

    @property
    def tried(self) -> tuple[TriedPlan, ...]:
        """Every plan whose errors were measured, in the order of the first time."""
        return tuple(self.results.tried)

    def _tell(self, stage: str, done: int, count: int) -> None:
        self.progress(stage, done, count)  # looked up at each call: it may be set later

    # -- what becomes of the plan ----------------------------------------------------------------------------------

    def decisions(self) -> Decisions:
        """Return what becomes of each layer under the plan, with reasons."""
        return self.results.decisions(self._plan, self._target)

    def convert(self, *, clamp: bool = False) -> Conversion:
        """Return the converted, checked model under the plan.

        Args:
            clamp: weights beyond the range of the low format become its largest value instead of infinity.
        """
        return self.results.conversion(self._plan, self._target, clamp=clamp)

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
        return provenance_of(self.plan.format)

    def errors(self) -> pd.DataFrame:
        """Return one row a layer: decision and reason, local and accumulated error, counts of what is lost.

        ``local_*`` is the error when only that layer runs low on exact inputs; ``acc_*`` when the whole plan does.
        ``overflow``, ``subnormal`` and ``flushed`` count the elements of the layer's exact result that leave the
        range of the low format, lose bits or become zero in it; ``nan`` those that its low version makes NaN.
        """
        plan, target = self._plan, self._target
        ranges, local = (ask(plan.format, target) for ask in (self.results.ranges, self.results.local))
        accumulated = self.results.errors(plan, target)
        return errors_table(
            self.model.layers,
            self.results.decisions(plan, target),
            ranges,
            local,
            accumulated.layers,
            incomparable=accumulated.found.incomparable,
            provenance=provenance_of(plan.format),
        )

    def output_error(self) -> pd.DataFrame:
        """Return one row a float32 output of the model: its error under the plan."""
        plan = self._plan
        errors = self.results.errors(plan, self._target)
        sums, names = errors.found.output_sums, errors.found.outputs
        if not sums.finite.all():
            sums = replace(sums, nan=errors.nan)
        overflow = dict(zip(names, errors.overflow.tolist(), strict=True))
        return outputs_table(names, sums, overflow, provenance=provenance_of(plan.format))

    def ranges(self) -> pd.DataFrame:
        """Return one row a layer: where its exact fp32 values lie relative to the low format, known before any plan."""
        found = self.results.ranges(self.plan.format, self._target)
        return ranges_table(self.model.layers, found, provenance=self.range_provenance)

    @property
    def range_provenance(self) -> str:
        """How ranges come to be."""
        trust = "; random inputs: not to be trusted" if self.samples.origin == "random" else ""
        return f"measured: fp32 on onnxruntime-cpu, {cpu_name()}{trust}"

    def first_nonfinite(self) -> str | None:
        """Return the id of the first layer whose result is not finite under the plan though the exact one is."""
        errors = self.results.errors(self._plan, self._target)
        assert isinstance(errors.layers.sums, ErrorSums)
        rows = zip(self.model.layers, errors.layers.measured, errors.layers.sums.finite, strict=True)
        lost = errors.found.incomparable
        return next((layer.id for layer, seen, ok in rows if seen and not ok and not lost & set(layer.outputs)), None)

    def outputs(self) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
        """Return the model's outputs for all samples: exact, and under the plan (emulated)."""
        self.results.errors(self._plan, self._target)
        return self.results.outputs(self._plan, self._target)

    def values(self, layer_id: str, output: int = 0) -> LayerValues:
        """Return the values of one result of a layer, exact and under the plan (emulated): one run of the samples.

        Args:
            layer_id: the layer.
            output: which of its float32 results, from 0 on.

        Raises:
            PlanError: the model has no such layer, or the layer no such result.
            ModelError: the layer makes no float32 tensor, or stands in the body of a control-flow layer.
        """
        return self.results.values(self._plan, self._target, layer_id, output)

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of the exact fp32 |values| of each layer's first float32 result, by layer id."""
        found = self.results.histograms(self.plan.format, self._target)
        first = {layer.id: next((name for name in layer.outputs if name in found), "") for layer in self.model.layers}
        return {layer_id: found[name] for layer_id, name in first.items() if name}

    def accuracy(self) -> Accuracy | None:
        """Return the accuracy before and after, or None where the samples have no labels.

        Raises:
            InputError: no output of the model has one row of scores per label.
        """
        found = self.results.errors(self._plan, self._target).accuracy
        if isinstance(found, InputError):
            raise InputError(found.what, why=found.why, fix=found.fix)
        return found

    def findings(self, *, clamp: bool = False, gpu_model: str | None = None) -> list[Finding]:
        """Return what breaks under the plan, why it is not faster, and what to do; most important first.

        Set ``x.plan = finding.fix.apply(x.plan)`` to do what a finding proposes.

        Args:
            clamp: weights beyond the range are clamped in the converted model.
            gpu_model: the GPU on which causes of missing speed are tested, by prediction. Without one they are tested
                on the latency of this machine's CPU, if that was measured, else not at all.

        Raises:
            BackendError: the GPU is not known.
        """
        from explorer.advise import findings, slow_findings  # noqa: PLC0415 - pandas loads only for results

        known = self.results.errors(self._plan, self._target).accuracy
        decisions, cpu = self.decisions(), self.results.known_cpu_latency()
        slow = slow_findings(
            self.model,
            decisions,
            self.samples.shapes,
            gpu=gpu_model or None,
            predicted=self.predicted_latency(gpu_model).result if gpu_model else None,
            measured=cpu.result if cpu is not None else None,
            target=self._target,
        )
        return findings(
            self.model,
            decisions,
            self.errors(),
            self.ranges(),
            self.output_error(),
            accuracy=(known.exact, known.plan) if isinstance(known, Accuracy) else None,
            weights=self.convert(clamp=clamp).weights.total,
            clamped=clamp,
            slow=slow,
        )

    # -- search ----------------------------------------------------------------------------------------------------

    def search(
        self,
        *,
        metric: str | UserMetric | None = None,
        data: str | Path | Mapping[str, npt.ArrayLike] | None = None,
        max_drop: float | None = None,
        gpu_model: str | None = None,
        seconds: float | None = None,
        resume: bool = True,
        agree: Collection[str] = AGREE,
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int, float | None], None] | None = None,
        found: Callable[[Front], None] | None = None,
    ) -> Front:
        """Return the best plans: the Pareto front of output error and latency; ``x.plan = front.best(max_error=1e-3)``.

        The rules of the plan (its blacklist) are kept; single overrides are chosen anew. Nothing of the exploration
        changes but :attr:`front`.

        Args:
            metric: what the model is for: ``top1``, ``agreement``, or a function of the outputs by name and of the
                labels (higher is better). None judges by the error of the outputs alone.
            data: samples to measure the metric on, as ``inputs`` of :func:`explorer.open`; by default those here.
            max_drop: look for the fastest plan that loses at most so much of the metric.
            gpu_model: the GPU that latency is predicted for; by default the one that is here, else an H100. With ``""``
                the best plan is the one with the most layers in the low format, whatever the latency.
            seconds: after which no further tensor is measured; by default when that no longer pays.
            resume: use what was measured before, and keep what is measured now, in the user's cache folder.
            agree: kinds of layers that shall run in one format: ``qkv``, ``tied``, ``fused``.
            cancel: stops it from another thread; what was measured is kept.
            progress: called with what is being done, how much of it, of how much, and the seconds left if known.
            found: called with every better front on the way.

        Raises:
            InputError: the metric, the data or a budget cannot be used, or no output can be compared.
            BackendError: the GPU is not known.
            RunCancelled: `cancel` was called.
        """
        from explorer.results.searching import Quest  # noqa: PLC0415 - scipy loads only for a search

        quest = Quest(
            metric=metric, data=data, max_drop=max_drop, gpu_model=gpu_model, seconds=seconds, resume=resume,
            agree=agree, cancel=cancel, progress=progress, found=found,
        )  # fmt: skip
        return quest.run(self.results, self._plan, self._target)

    @property
    def front(self) -> Front | None:
        """The front that :meth:`search` found last, or None."""
        return self.results.front

    def trial(self, plan: Plan, *, gpu_model: str | None = None) -> Trial:
        """Return what another plan would change, by a run of it; the plan of the exploration stays.

        Args:
            plan: the plan to try, such as ``x.plan.set({"conv1": "fp32"})`` or ``finding.fix.apply(x.plan)``.
            gpu_model: the GPU that latency is predicted for; None leaves latency out.

        Raises:
            PlanError: the plan names something that the model does not have.
        """
        return trial(self.results, self._plan, self._checked(plan, self._target), self._target, gpu_model=gpu_model)

    # -- latency ---------------------------------------------------------------------------------------------------

    def cpu_latency(self, *, runs: int = DEFAULT_RUNS) -> CpuLatency:
        """Return the latency of the fp32 model on this machine's CPU, measured once for each number of runs.

        Args:
            runs: how many runs to take medians of.
        """
        return self.results.cpu_latency(runs=runs)

    def predicted_latency(self, gpu_model: str) -> PredictedLatency:
        """Return the latency on a GPU that need not be here, predicted by the roofline."""
        return self.results.predicted_latency(self._plan, self._target, gpu_model)

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
        return self.results.low_share(self._plan, self._target)

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
            found.append(self.target_note)
        return tuple(found)

    @property
    def target_note(self) -> str:
        """What decided which layers may run low, as a sentence; empty where no backend was asked."""
        if not self.target:
            return ""
        support = kernel_support(self.target)
        if not support.known:
            return f"Which layers may run low follows ONNX alone: there is no list of kernels of {self.target}."
        known = support.source.partition(":")[0].rstrip(".")
        return f"Which layers may run low follows the kernels of {self.target} ({known[:1].lower()}{known[1:]})."

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

    # -- display ---------------------------------------------------------------------------------------------------

    def panel(self, *, height: int = 720, gpu_model: str | None = None) -> Panel:
        """Return the panel: the model's graph with every layer's error, where a click changes the plan.

        Args:
            height: in pixels.
            gpu_model: the GPU that latency is predicted for; ``""`` for none. By default the one that is here, else
                an H100.

        Raises:
            MissingDependency: the packages for notebooks are not installed.
            BackendError: the GPU is not known.
        """
        from explorer.view import open_panel  # noqa: PLC0415 - ipywidgets loads only for a panel

        return open_panel(self, height=height, gpu_model=gpu_model)

    def _ipython_display_(self) -> None:
        """Show the panel in a notebook; elsewhere, or without the packages for it, IPython then prints the text."""
        from explorer.view import in_notebook, show  # noqa: PLC0415

        if not in_notebook():
            raise NotImplementedError
        try:
            show(self)
        except MissingDependency as error:
            raise NotImplementedError from error

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
