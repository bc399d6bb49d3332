"""Exploration: a model, its samples, a plan and every result; the one object that CLI, widgets and report share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from explorer.backends.kernels import kernel_support
from explorer.errors import MissingDependency
from explorer.results import Accuracy, Trial, trial
from explorer.search.agree import AGREE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy.typing as npt

    from explorer.advise import Finding
    from explorer.backends.runtime import Cancel
    from explorer.plan import Plan
    from explorer.results.metric import UserMetric
    from explorer.search.front import Front
    from explorer.view import Panel
from explorer.session.figures import Figures
from explorer.session.timed import Timed

__all__ = ["Exploration"]


class Exploration(Figures, Timed):
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

    def fork(self) -> Exploration:
        """Return an exploration of the same model and samples with a plan of its own; results are shared."""
        made = Exploration(
            self.model, self.samples, self._plan, target=self._target, progress=self.progress, results=self.results
        )
        made.command = self.command
        return made

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
        decisions, cpu = self.decisions(), self.results.latencies.known_cpu()
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
            weights=self.convert(clamp=clamp).weights,
            clamped=clamp,
            slow=slow,
        )

    # -- search ----------------------------------------------------------------------------------------------------

    def search(
        self,
        *,
        formats: Sequence[str] | None = None,
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
            formats: low formats to choose among beside fp32: one, or ``("fp16", "int8")`` (bf16 likewise); by default
                those that the plan names.
            metric: what the model is for: ``top1``, ``agreement``, or a function of the outputs by name and of the
                labels (higher is better). None judges by the error of the outputs alone.
            data: samples to measure the metric on, as ``inputs`` of :func:`explorer.open`; by default those here.
            max_drop: look for the fastest plan that loses at most so much of the metric.
            gpu_model: the GPU that latency is predicted for; by default the one that is here, else an H100. With ``""``
                the best plan is the one with the most layers in the low format, whatever the latency. ``"cpu"``
                measures layers in fp32 and int8 on this machine's processor.
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
            formats=formats, metric=metric, data=data, max_drop=max_drop, gpu_model=gpu_model, seconds=seconds,
            resume=resume, agree=agree, cancel=cancel, progress=progress, found=found,
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

    def export_engine(self, path: str | Path, *, device: int = 0) -> Path:
        """Build a TensorRT engine of the plan, write it with its metadata beside it, and return the path.

        Raises:
            BackendError: TensorRT is not ready here, or does not build the model; nothing is written.
            ExportError: the file cannot be written.
        """
        from explorer.export.engine import export_engine  # noqa: PLC0415 - only where TensorRT is asked for
        from explorer.results.engines import EngineRuns  # noqa: PLC0415

        runs = EngineRuns(self.results, device=device)
        return export_engine(runs, self.model, self._plan, self._target, path)[0]

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
