"""What a report shows of an exploration, computed where it is not known yet."""

from __future__ import annotations

import dataclasses
import datetime as dt
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
    from explorer.session import Exploration

__all__ = ["report_data"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "ml_dtypes", "pandas", "plotly")
_WORST_WEIGHTS = 10


def report_data(
    exploration: Exploration, *, gpu_model: str | None = None, runs: int = DEFAULT_RUNS, clamp: bool = False
) -> ReportData:
    """Return everything that the report of an exploration shows; what was not computed yet is computed.

    Args:
        exploration: with its plan.
        gpu_model: adds the predicted latency on this GPU.
        runs: how many runs the latency on the CPU is the median of.
        clamp: the converted model's weights are clamped to the range of the low format.
    """
    model, plan = exploration.model, exploration.plan
    conversion = exploration.convert(clamp=clamp)
    measured = exploration.cpu_latency(runs=runs)
    cpu = measured.result
    latencies = [
        ModelLatency(provenance=cpu.provenance, fp32_us=cpu.whole_us, spread_us=cpu.whole_spread_us),
    ]
    table = measured.table(model.layers, exploration.decisions())
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
        warnings=(*exploration.warnings(), *_clamped(conversion), *conversion.notes, *cpu.notes),
        versions=_versions(),
        command=exploration.command,
        python=_python(exploration, gpu_model=gpu_model, clamp=clamp),
        created=dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    return dataclasses.replace(data, scene=graph_scene(exploration, data, Layers.of(data)))


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
    model, samples = exploration.model, exploration.samples
    return session_code(
        model.path or "model.onnx",
        exploration.plan,
        inputs=samples.name if samples.origin == "user" else None,
        target=exploration.target,
        gpu_model=gpu_model,
        export=f"{model.name}.{exploration.plan.format}.onnx",
        report="report.html",
        clamp=clamp,
    )
