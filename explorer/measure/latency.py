"""Latency by layer as tables: measured for fp32 or a plan, or predicted for a GPU; never the one for the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explorer.backends.gpus import get_gpu
from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS, measure_layers
from explorer.backends.roofline import PredictedModel, Predictor
from explorer.convert.places import cast_places
from explorer.model.cost import layer_costs
from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from explorer.backends.latency import KernelTime, LatencyResult
    from explorer.convert import Decisions, Typing
    from explorer.convert.places import Places
    from explorer.model import Layer, Model, TensorSpec
    from explorer.model.cost import LayerCost

__all__ = ["CpuLatency", "GpuPredictions", "MeasuredLatency", "PredictedLatency", "measure_cpu", "predict_gpu"]

_FP32 = "fp32"
_SHARING = 64  # layers of one kernel that a row names


@dataclass(frozen=True)
class CpuLatency:
    """Latency of the fp32 model on this machine's CPU.

    Attributes:
        result: what the backend measured.
    """

    result: LatencyResult

    def described(self, note: str) -> CpuLatency:
        """Return the same, its provenance saying also what was run, such as ``batch of 32``."""
        return replace(self, result=replace(self.result, provenance=f"{self.result.provenance}, {note}"))

    def table(self, layers: Sequence[Layer], decisions: Decisions) -> pd.DataFrame:
        """Return one row a layer; the time of a fused group stands at one of its layers, which names the others."""
        rows = {row.layer_id: row for row in self.result.layers}
        nothing = (np.nan, np.nan, (), "")
        found = [
            (row.median_us, row.spread_us, row.fused_with, row.note) if (row := rows.get(layer.id)) else nothing
            for layer in layers
        ]
        return pd.DataFrame(
            {
                **_identity(layers, decisions),
                "fp32_us": [item[0] for item in found],
                "fp32_spread_us": [item[1] for item in found],
                "fused_with": [", ".join(item[2]) for item in found],
                "note": [item[3] for item in found],
                "provenance": self.result.provenance,
            }
        )


@dataclass(frozen=True)
class MeasuredLatency:
    """Latency of the model under a plan, as it was measured: here, or on the machine that a profile comes from.

    Attributes:
        result: what was measured.
        format: the plan's low format.
    """

    result: LatencyResult
    format: str

    def described(self, note: str) -> MeasuredLatency:
        """Return the same, its provenance saying also what was run, such as ``batch of 32``."""
        return replace(self, result=replace(self.result, provenance=f"{self.result.provenance}, {note}"))

    def table(self, layers: Sequence[Layer], decisions: Decisions) -> pd.DataFrame:
        """Return one row a layer: its time under the plan, the formats that really ran, and the kernels that ran it.

        The time of a kernel that computes several layers stands once, at one of them; `shares_kernel_with` names the
        others. `ran` and `kernel` are empty where the backend does not tell. `fp32_us` is known only when the plan is
        fp32 throughout; else the column of the plan's format (such as `fp16_us`) is what `plan_us` is: each layer in
        the format that the plan gives it.
        """
        result = self.result
        rows = {row.layer_id: row for row in result.layers}
        kernels: dict[str, list[KernelTime]] = {}
        for kernel in result.kernels:
            for layer_id in kernel.layer_ids:
                kernels.setdefault(layer_id, []).append(kernel)
        found = [rows.get(layer.id) for layer in layers]
        planned = [np.nan if row is None else row.median_us for row in found]
        spreads = [np.nan if row is None else row.spread_us for row in found]
        unknown = [np.nan] * len(found)
        is_fp32 = all(item.format in (_FP32, NO_FORMAT) for item in decisions)
        ran = [kernels.get(layer.id, ()) for layer in layers]
        return pd.DataFrame(
            {
                **_identity(layers, decisions),
                "fp32_us": planned if is_fp32 else unknown,
                "fp32_spread_us": spreads if is_fp32 else unknown,
                **({} if is_fp32 else {f"{self.format}_us": planned}),
                "plan_us": planned,
                "plan_spread_us": spreads,
                "ran": [", ".join(dict.fromkeys(each.format for each in them if each.format)) for them in ran],
                "kernel": [" | ".join(dict.fromkeys(each.name for each in them)) for them in ran],
                "shares_kernel_with": [_sharing(layer.id, them) for layer, them in zip(layers, ran, strict=True)],
                "fused_with": [", ".join(row.fused_with) if row else "" for row in found],
                "note": [row.note if row else "" for row in found],
                "provenance": result.provenance,
            }
        )


@dataclass(frozen=True)
class PredictedLatency:
    """Latency on a named GPU, predicted by the roofline: nothing was run there.

    Attributes:
        result: what the roofline says.
        low: the low format.
    """

    result: PredictedModel
    low: str

    def described(self, note: str) -> PredictedLatency:
        """Return the same, its provenance saying also what was run, such as ``batch of 32``."""
        return replace(self, result=replace(self.result, provenance=f"{self.result.provenance}, {note}"))

    def table(self, layers: Sequence[Layer], decisions: Decisions) -> pd.DataFrame:
        """Return one row a layer, its time in fp32 and in the low format, both predicted."""
        rows = [self.result.layers.get(layer.id) for layer in layers]
        return pd.DataFrame(
            {
                **_identity(layers, decisions),
                "fp32_us": [row.us[_FP32] if row else np.nan for row in rows],
                f"{self.low}_us": [row.us[self.low] if row else np.nan for row in rows],
                "bound": [row.bound[_FP32] if row else "" for row in rows],
                "fused_with": [", ".join(row.fused_with) if row else "" for row in rows],
                "note": [row.note if row else "" for row in rows],
                "provenance": self.result.provenance,
            }
        )


def measure_cpu(
    model: Model,
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    runs: int = DEFAULT_RUNS,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> CpuLatency:
    """Return the latency of the fp32 model on one batch, measured here."""
    return CpuLatency(measure_layers(model, feeds, runs=runs, threads=threads, progress=progress))


class GpuPredictions:
    """Predicts the latency of one model on GPUs, under one plan after another; what no plan changes is kept.

    Args:
        model: the model.
        input_shapes: concrete shapes of its inputs.
    """

    def __init__(self, model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._model, self._input_shapes = model, input_shapes
        self._predictors: dict[tuple[str, str], Predictor] = {}
        self._places: dict[str, tuple[Typing, Places]] = {}

    def predict(self, decisions: Decisions, gpu: str) -> PredictedLatency:
        """Return the latency predicted under a plan.

        Raises:
            BackendError: the GPU is not known; the nearest names are told.
        """
        low = decisions.plan.format
        plan = {item.layer_id: _FP32 if item.format == NO_FORMAT else item.format for item in decisions}
        io_format = _FP32 if decisions.plan.keep_io else low
        casts = list(self._casts(decisions))
        return PredictedLatency(self.predictor(gpu, low).predict(plan, casts=casts, io_format=io_format), low)

    def predictor(self, gpu: str, low: str) -> Predictor:
        """Return what predicts for a GPU in fp32 and one low format; layers in bodies are not predicted.

        Raises:
            BackendError: the GPU is not known; the nearest names are told.
        """
        model, name = self._model, get_gpu(gpu).name
        if (name, low) not in self._predictors:
            specs, costs = self._work
            self._predictors[name, low] = Predictor(
                [layer for layer in model.layers if layer.container is None],
                costs,
                specs,
                name,
                outputs=[spec.name for spec in model.outputs],
                weights=model.weights,
                formats=(_FP32, low),
                allow_tf32=low != "tf32",  # where tf32 is chosen by layer, fp32 means fp32
            )
        return self._predictors[name, low]

    @cached_property
    def _work(self) -> tuple[dict[str, TensorSpec], dict[str, LayerCost]]:
        """Shapes of the values, and arithmetic and traffic of the layers."""
        model, specs = self._model, self._model.infer(self._input_shapes)
        return specs, layer_costs(model.layers, specs, model.weights, model.attributes)

    def _casts(self, decisions: Decisions) -> Iterator[tuple[str, str, str]]:
        """Yield the casts that conversion inserts, but for those inside of bodies, whose layers are not predicted.

        Between two low formats a tensor goes through fp32, so the casts of each format stand alone.
        """
        parts = [(decisions.typing, decisions.low_layers, decisions.plan.keep_io)]
        if decisions.int8 is not None:
            parts.append((decisions.int8, decisions.int8_layers, True))
        for typing, layers, keep_io in parts:
            places = self._places_of(typing)
            low = np.array([layer.id in layers for layer in self._model.layers], np.bool_)
            down, up = places.casts(low, keep_io=keep_io)
            for cast, source, target in ((down, _FP32, typing.format), (up, typing.format, _FP32)):
                yield from ((places.names[number], source, target) for number in np.flatnonzero(cast & ~places.inner))

    def _places_of(self, typing: Typing) -> Places:
        known = self._places.get(typing.format)
        if known is None or known[0] is not typing:
            known = self._places[typing.format] = (typing, cast_places(typing))
        return known[1]


def predict_gpu(
    model: Model, input_shapes: Mapping[str, tuple[int, ...]], decisions: Decisions, gpu: str
) -> PredictedLatency:
    """Return the latency predicted for a GPU, for inputs of these shapes.

    For several plans of one model, :class:`GpuPredictions` is faster.

    Raises:
        BackendError: the GPU is not known; the nearest names are told.
    """
    return GpuPredictions(model, input_shapes).predict(decisions, gpu)


def _sharing(layer_id: str, kernels: Iterable[KernelTime]) -> str:
    """Return the other layers of some kernels; of large blocks the first, and how many there are."""
    others = list(dict.fromkeys(other for each in kernels for other in each.layer_ids if other != layer_id))
    more = len(others) - _SHARING
    return ", ".join(others if more <= 0 else [*others[:_SHARING], f"and {more:,} more"])


def _identity(layers: Sequence[Layer], decisions: Decisions) -> dict[str, list[str]]:
    return {
        "id": [layer.id for layer in layers],
        "name": [layer.name for layer in layers],
        "op": [layer.qualified_op for layer in layers],
        "scope": [layer.scope for layer in layers],
        "format": [decisions[layer.id].format for layer in layers],
    }
