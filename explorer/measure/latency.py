"""Latency by layer as tables: measured on this machine's CPU, or predicted for a GPU; never the one for the other."""

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
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from explorer.backends.latency import LatencyResult
    from explorer.convert import Decisions, Typing
    from explorer.convert.places import Places
    from explorer.model import Layer, Model, TensorSpec
    from explorer.model.cost import LayerCost

__all__ = ["CpuLatency", "GpuPredictions", "PredictedLatency", "measure_cpu", "predict_gpu"]

_FP32 = "fp32"


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
        self._places: tuple[Typing, Places] | None = None

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
            )
        return self._predictors[name, low]

    @cached_property
    def _work(self) -> tuple[dict[str, TensorSpec], dict[str, LayerCost]]:
        """Shapes of the values, and arithmetic and traffic of the layers."""
        model, specs = self._model, self._model.infer(self._input_shapes)
        return specs, layer_costs(model.layers, specs, model.weights, model.attributes)

    def _casts(self, decisions: Decisions) -> Iterator[tuple[str, str, str]]:
        """Yield the casts that conversion inserts, but for those inside of bodies, whose layers are not predicted."""
        known = self._places
        if known is None or known[0] is not decisions.typing:
            known = self._places = (decisions.typing, cast_places(decisions.typing))
        places, low_format = known[1], decisions.plan.format
        low = np.array([layer.id in decisions.low_layers for layer in self._model.layers], np.bool_)
        down, up = places.casts(low, keep_io=decisions.plan.keep_io)
        for cast, source, target in ((down, _FP32, low_format), (up, low_format, _FP32)):
            yield from ((places.names[number], source, target) for number in np.flatnonzero(cast & ~places.inner))


def predict_gpu(
    model: Model, input_shapes: Mapping[str, tuple[int, ...]], decisions: Decisions, gpu: str
) -> PredictedLatency:
    """Return the latency predicted for a GPU, for inputs of these shapes.

    For several plans of one model, :class:`GpuPredictions` is faster.

    Raises:
        BackendError: the GPU is not known; the nearest names are told.
    """
    return GpuPredictions(model, input_shapes).predict(decisions, gpu)


def _identity(layers: Sequence[Layer], decisions: Decisions) -> dict[str, list[str]]:
    return {
        "id": [layer.id for layer in layers],
        "name": [layer.name for layer in layers],
        "op": [layer.qualified_op for layer in layers],
        "scope": [layer.scope for layer in layers],
        "format": [decisions[layer.id].format for layer in layers],
    }
