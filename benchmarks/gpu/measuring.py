"""What the GPU suite measures, as plain rows of its record; every function also runs with a CPU in the GPU's place."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import explorer
from explorer.backends.cuda_rows import formats_run
from explorer.backends.onnxruntime_cuda import measure_layers, measure_whole
from explorer.convert import convert
from explorer.errors import BackendError, ExplorerError
from explorer.measure.latency import GpuPredictions
from explorer.model import load_model
from explorer.plan import Plan
from explorer.probe.fidelity import Fidelity, measure_fidelity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from explorer.backends.latency import InsertedTime, KernelTime, LatencyResult, LayerTime
    from explorer.model import Model
    from explorer.session import Exploration

__all__ = [
    "MODELS",
    "Case",
    "Measured",
    "autocast_row",
    "by_layer",
    "cases",
    "fidelity_rows",
    "latency_row",
    "plans_of",
    "roofline_row",
    "whole",
]

SAMPLE_MODELS = Path(__file__).resolve().parents[2] / "sample_models"
MODELS: dict[str, tuple[int, ...]] = {
    # Name of the model to the batch sizes that it is timed with.
    "resnet50": (1, 32),
    "bert_base": (1, 16),
    "lenet5_digits": (1, 256),
    "digits_transformer": (1, 256),
    "misaligned_cnn": (1, 32),
}
TITLES = {"resnet50": "ResNet-50", "bert_base": "BERT-base"}
SEARCH_SHARE = 0.25  # the searched plan is the fastest one with a quarter of the error of the full fp16 plan
SEARCH_SECONDS = 120.0
SLOWEST = 10  # layers that the record tells one by one
NAME = 160  # characters of a kernel's name; engine layers are named after all that they compute
WITHIN = 1.5  # factor between predicted and measured time that counts as right (docs/roofline.md)
LEAST_SHARE = 0.01  # layers below this share of the time are left out of the comparison with the roofline


@dataclass(frozen=True)
class Case:
    """One model with one batch size."""

    name: str
    batch: int
    path: Path

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name.replace("_", " "))

    def open(self) -> Exploration:
        """The model with its samples, decided for CUDA."""
        samples = self.path.with_suffix(".npz")
        return explorer.open(self.path, inputs=samples if samples.exists() else None, target="onnxruntime-cuda")

    def open_batch(self, target: str) -> Exploration:
        """The model with one batch of this size as its samples: what `Exploration.measure` times."""
        return explorer.open(self.path, inputs=self.feeds(), batch_size=self.batch, target=target)

    def feeds(self) -> dict[str, NDArray[Any]]:
        """One batch: the samples, repeated where there are too few."""
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as stored:
            wanted = [spec.name for spec in load_model(self.path).inputs]
            return {name: np.resize(stored[name], (self.batch, *stored[name].shape[1:])) for name in wanted}


@dataclass(frozen=True)
class Measured:
    """One timed model: the row of the record, and what it is made of."""

    row: dict[str, Any]
    result: LatencyResult


def cases(wanted: Mapping[str, tuple[int, ...]] = MODELS) -> Iterator[Case | str]:
    """Yield the cases, or for a model that is not there how to make it."""
    for name, batches in wanted.items():
        found = [folder / f"{name}.onnx" for folder in (SAMPLE_MODELS, SAMPLE_MODELS / "generated")]
        path = next((each for each in found if each.exists()), None)
        if path is None:
            yield f"{name}: not there; python sample_models/make.py {name}"
            continue
        yield from (Case(name, batch, path) for batch in batches)


def plans_of(x: Exploration, gpu_model: str | None) -> dict[str, Plan | str]:
    """Return the plans that are timed; for one that could not be made, why."""
    found: dict[str, Plan | str] = {"fp32": Plan(base="fp32"), "fp16": Plan()}
    try:
        x.plan = Plan()
        error = float(x.output_error()["rel_l2"].max())
        front = x.search(gpu_model=gpu_model, seconds=SEARCH_SECONDS)
        found["searched"] = front.best(max_error=error * SEARCH_SHARE)
    except ExplorerError as failure:
        found["searched"] = str(failure)
    return found


def latency_row(case: Case, x: Exploration, plan: Plan, label: str, *, device: int = 0, **settings: Any) -> Measured:
    """Return the whole and by-layer latency of a plan on the GPU.

    Raises:
        ExplorerError: it cannot be converted or run.
    """
    conversion = convert(x.model, plan, backend="onnxruntime-cuda")
    result = measure_layers(conversion, case.feeds(), device=device, **settings)
    row = {
        **whole(case, label, result),
        "low_share": round(conversion.low_share, 4),
        "casts": len(conversion.casts),
        "overhead_us": None if result.overhead_us is None else round(result.overhead_us, 2),
        **by_layer(x.model, result),
    }
    return Measured(row, result)


def by_layer(model: Model, result: LatencyResult) -> dict[str, Any]:
    """Return what a row tells of layers: sums, times by operator and by format, and the slowest ones."""
    ops: dict[str, float] = defaultdict(float)
    kinds = {layer.id: layer.op for layer in model.layers}
    for row in result.layers:
        ops[kinds[row.layer_id]] += row.median_us
    slowest = sorted(result.layers, key=lambda row: -row.median_us)[:SLOWEST]
    return {
        "layers_us": _sum(result.layers) if result.layers else None,
        "inserted_us": _sum(result.inserted) if result.layers else None,
        "by_op": {op: round(us, 2) for op, us in sorted(ops.items(), key=lambda item: -item[1]) if us},
        "formats_run_us": {name: round(us, 2) for name, us in formats_run(result.kernels).items()},
        "slowest": [_slow(item, kinds, result.kernels) for item in slowest if item.median_us],
    }


def _sum(rows: Iterable[LayerTime | InsertedTime]) -> float:
    return round(sum(row.median_us for row in rows), 2)


def _slow(row: LayerTime, kinds: Mapping[str, str], kernels: Iterable[KernelTime]) -> dict[str, Any]:
    mine = [kernel for kernel in kernels if row.layer_id in kernel.layer_ids]
    return {
        "layer": row.layer_id,
        "op": kinds[row.layer_id],
        "us": round(row.median_us, 2),
        "ran": list(dict.fromkeys(kernel.format for kernel in mine if kernel.format)),
        "kernels": [kernel.name[:NAME] for kernel in mine],
        "note": row.note,
    }


def whole(case: Case, label: str, result: LatencyResult) -> dict[str, Any]:
    """Return what every row of a latency tells: what was run, how long the whole took, and how that was found."""
    return {
        "model": case.title,
        "batch": case.batch,
        "plan": label,
        "whole_us": round(result.whole_us, 2),
        "spread_us": round(result.whole_spread_us, 2),
        "runs": result.runs,
        "provenance": result.provenance,
        "notes": list(result.notes),
    }


def autocast_row(case: Case, *, device: int = 0, **settings: Any) -> dict[str, Any]:
    """Return the latency of the model as ModelOpt's AutoCast converts it, on the same runtime.

    Raises:
        BackendError: ModelOpt is not installed, or fails on the model.
        ExplorerError: what it made cannot be run.
    """
    try:
        from modelopt.onnx.autocast import convert_to_mixed_precision  # noqa: PLC0415 - a peer, and optional
    except ImportError as error:
        raise BackendError(
            "ModelOpt is not installed.", fix="pip install 'nvidia-modelopt[onnx]' to compare with AutoCast."
        ) from error
    try:
        made = convert_to_mixed_precision(str(case.path), keep_io_types=True)
    except Exception as error:  # a peer's failure is a row of the record, whatever it is
        raise BackendError(f"AutoCast failed: {type(error).__name__}: {str(error)[:300]}") from error
    return whole(case, "AutoCast", measure_whole(load_model(made), case.feeds(), device=device, **settings))


def fidelity_rows(case: Case, x: Exploration, *, provider: str = "cuda", device: int = 0) -> list[dict[str, Any]]:
    """Return how close emulated errors are to real ones: of single layers, and under the full fp16 plan."""
    decisions = x.results.decisions(Plan(), "onnxruntime-cuda")
    typing = decisions.typing
    found = []
    for scope, chosen in (("local", None), ("accumulated", decisions)):
        errors = measure_fidelity(typing, x.samples, chosen, provider=provider, device=device)
        found.append({"model": case.title, "format": typing.format, "scope": scope, **_fidelity(errors)})
    return found


def _fidelity(found: Fidelity) -> dict[str, Any]:
    def told(value: float) -> float | str:
        return round(value, 3) if np.isfinite(value) else str(value)

    difference = found.difference_db
    return {
        "results": len(found.values),
        "close": round(float(np.mean(np.abs(difference) <= 3.0)), 4) if len(difference) else None,
        "by_op": [
            {
                "op": item.op,
                "count": item.count,
                "median_db": told(item.median_db),
                "worst_db": told(item.worst_db),
                "worst_layer": item.worst_layer,
                "close": round(item.close, 4),
            }
            for item in found.by_op()
        ],
    }


def roofline_row(case: Case, x: Exploration, plan: Plan, measured: Measured, gpu_model: str) -> dict[str, Any]:
    """Return predicted against measured times of one plan.

    Raises:
        BackendError: the table of GPUs does not have this one.
    """
    shapes = {name: array.shape for name, array in case.feeds().items()}
    decisions = x.results.decisions(plan, "onnxruntime-cuda")
    predicted = GpuPredictions(x.model, shapes).predict(decisions, gpu_model).result
    total = sum(row.median_us for row in measured.result.layers)
    factors = []
    for row in measured.result.layers:
        ours = predicted.layers.get(row.layer_id)
        if ours is None or row.median_us < LEAST_SHARE * total:
            continue
        # Either side may have fused other layers into this one: the group's sum is what can be compared.
        group = {row.layer_id, *row.fused_with}
        us = sum(
            _planned_us(predicted.layers[item].us, decisions[item].format) for item in group & predicted.layers.keys()
        )
        if np.isfinite(us) and us > 0:
            factors.append(row.median_us / us)
    return {
        "model": case.title,
        "batch": case.batch,
        "plan": measured.row["plan"],
        "gpu": gpu_model,
        "predicted_us": round(float(predicted.plan_us), 2),
        "measured_us": measured.row["whole_us"],
        "device_us": round(total, 2),
        "layers": len(factors),
        "median_factor": round(float(np.median(factors)), 3) if factors else None,
        "within": round(float(np.mean([1 / WITHIN <= item <= WITHIN for item in factors])), 4) if factors else None,
    }


def _planned_us(us: Mapping[str, float], format_: str) -> float:
    """The predicted time in the layer's own format; layers without floats are predicted as in fp32."""
    return us.get(format_, us.get("fp32", float("nan")))
