"""What a report shows of an exploration, computed where it is not known yet."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import platform
from importlib import metadata
from typing import TYPE_CHECKING

from explorer import __version__
from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS, cpu_name
from explorer.export.python_code import session_code
from explorer.report import Accuracy, ModelFacts, ModelLatency, PlanFacts, ReportData, SampleFacts, WeightFacts
from explorer.report.layers import Layers
from explorer.reporting.graph import graph_scene

if TYPE_CHECKING:
    from explorer.convert import Conversion
    from explorer.measure.latency import MeasuredLatency
    from explorer.session import Exploration

__all__ = ["report_data"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "ml_dtypes", "pandas", "plotly")
_WORST_WEIGHTS = 10


def report_data(
    exploration: Exploration,
    *,
    gpu_model: str | None = None,
    runs: int = DEFAULT_RUNS,
    clamp: bool = False,
    measured: MeasuredLatency | None = None,
) -> ReportData:
    """Return everything that the report of an exploration shows; what was not computed yet is computed.

    Args:
        exploration: with its plan.
        gpu_model: adds the predicted latency on this GPU.
        runs: how many runs the latency on the CPU is the median of.
        clamp: the converted model's weights are clamped to the range of the low format.
        measured: the latency of the plan on another device; the CPU is then not timed.
    """
    model, plan = exploration.model, exploration.plan
    conversion = exploration.convert(clamp=clamp)
    if measured is None:
        latency, told = _cpu_latency(exploration, runs), exploration.cpu_latency(runs=runs).result.notes
        table = exploration.latency(runs=runs)
    else:
        table, told = measured.table(model.layers, exploration.decisions()), measured.result.notes
        latency = _measured_latency(measured, is_fp32=bool(table["fp32_us"].notna().any()))
    latencies = [latency]
    if gpu_model is not None:
        predicted = exploration.predicted_latency(gpu_model)
        table = predicted.table(model.layers, exploration.decisions())
        latencies.insert(
            0,
            ModelLatency(
                provenance=predicted.result.provenance,
                fp32_us=predicted.result.uniform_us["fp32"],
                plan_us=predicted.result.plan_us,
            ),
        )
    found = exploration.accuracy()
    data = ReportData(
        title=model.name,
        model=ModelFacts(
            path=str(model.path or model.name),
            opset=model.opset,
            layers=len(model.layers),
            parameters=sum(weight.elements for weight in model.weights.values()),
            weight_bytes=sum(weight.bytes for weight in model.weights.values()),
            inputs=model.inputs,
            outputs=model.outputs,
            producer=f"{model.ir.producer_name or ''} {model.ir.producer_version or ''}".strip(),
        ),
        plan=PlanFacts(
            format=plan.format,
            keep_io=plan.keep_io,
            rules=_rules(exploration),
            json=plan.to_json(),
            casts=len(conversion.casts),
        ),
        samples=SampleFacts(description=exploration.samples.describe(), random=exploration.samples.origin == "random"),
        errors=exploration.errors(),
        output_error=exploration.output_error(),
        ranges=exploration.ranges(),
        latency=table,
        model_latency=latencies,
        accuracy=None
        if found is None
        else Accuracy(before=found.exact, after=found.plan, samples=found.samples, provenance=found.provenance),
        weights=_weights(conversion),
        findings=exploration.findings(clamp=clamp, gpu_model=gpu_model),
        warnings=(
            *exploration.warnings(),
            *_unwritten(conversion),
            *_clamped(conversion),
            *conversion.notes,
            *told,
        ),
        versions=_versions(),
        command=exploration.command,
        python=_python(exploration, gpu_model=gpu_model, clamp=clamp),
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    shown = None if measured is None or gpu_model is not None else measured.result
    return dataclasses.replace(data, scene=graph_scene(exploration, data, Layers.of(data), measured=shown))


def _cpu_latency(exploration: Exploration, runs: int) -> ModelLatency:
    cpu = exploration.cpu_latency(runs=runs).result
    return ModelLatency(
        provenance=cpu.provenance,
        fp32_us=cpu.whole_us,
        plan_us=exploration.measure(runs=runs).result.whole_us if exploration.timed_here else None,
        spread_us=cpu.whole_spread_us,
    )


def _measured_latency(measured: MeasuredLatency, *, is_fp32: bool) -> ModelLatency:
    found = measured.result
    return ModelLatency(
        provenance=found.provenance,
        fp32_us=found.whole_us if is_fp32 else None,
        plan_us=found.whole_us,
        spread_us=None if math.isnan(found.whole_spread_us) else found.whole_spread_us,
    )


def _rules(exploration: Exploration) -> list[str]:
    plan = exploration.plan
    lines = [f"layers run in {plan.base} unless a rule says otherwise", *map(str, plan.rules)]
    lines += [f"{layer_id} in {wanted}" for layer_id, wanted in plan.overrides.items()]
    return [*lines, exploration.target_provenance]


def _weights(conversion: Conversion) -> WeightFacts:
    worst = conversion.weights.worst(_WORST_WEIGHTS)
    return WeightFacts(
        total=conversion.weights.total,
        worst={report.name: report.census for report in worst},
        clamped=bool(conversion.weights.clamped),
    )


def _unwritten(conversion: Conversion) -> tuple[str, ...]:
    """Tell that no file can hold the plan, where none can."""
    return (f"No ONNX file can hold this plan: {conversion.refusal}.",) if conversion.refusal else ()


def _clamped(conversion: Conversion) -> tuple[str, ...]:
    """Tell that the emulation knows nothing of a clamp, where there was one."""
    if not conversion.weights.clamped:
        return ()
    clamped = f"{conversion.weights.clamped:,} weights were clamped in the converted model, as asked."
    return (f"{clamped} The emulated errors are of the weights as they are: those beyond the range count as infinite.",)


def _versions() -> dict[str, str]:
    versions = {"precision-explorer": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**versions, "system": platform.platform(terse=True), "processor": cpu_name()}


def _python(exploration: Exploration, *, gpu_model: str | None, clamp: bool) -> str:
    model = exploration.model
    return session_code(
        model.path,
        exploration.plan,
        inputs=exploration.samples,
        target=exploration.target,
        gpu_model=gpu_model,
        export=f"{model.name}.{exploration.plan.format}.onnx",
        report="report.html",
        clamp=clamp,
        calibration=exploration.calibration,
    )
