"""Error and latency of any plan of one model, the same for all tools."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

import explorer
from explorer.plan import Plan
from search.mapping import map_back, with_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from search.mapping import Mapped

__all__ = ["Judge", "worst_error"]


def worst_error(exact: Mapping[str, npt.NDArray[Any]], planned: Mapping[str, npt.NDArray[Any]]) -> float:
    """Return the relative L2 error of the worst output; inf where one is not finite."""
    worst = 0.0
    for name, reference in exact.items():
        wide = reference.astype(np.float64)
        error = float(np.linalg.norm(planned[name].astype(np.float64) - wide) / np.linalg.norm(wide))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


class Judge:
    """Emulates plans of one model on its samples, and predicts their latency; remembers both.

    Args:
        model: the file.
        samples: the ``.npz`` file.
        rows: how many samples.
        gpu: the GPU that latency is predicted for.
        batch_size: rows that run at once.
    """

    def __init__(
        self, model: str | Path, samples: str | Path, *, rows: int, gpu: str, batch_size: int | None = None
    ) -> None:
        self.path, self.gpu, self.batch_size = model, gpu, batch_size
        with np.load(samples) as arrays:
            self.inputs = {name: arrays[name][:rows] for name in arrays.files}
        start = time.perf_counter()
        self.x = explorer.open(str(model), inputs=self.inputs, batch_size=batch_size)
        self.typing = self.x.decisions().typing
        self.layers = [layer.id for layer in self.x.model.layers if layer.container is None]
        self.switchable = [layer for layer in self.layers if self.typing.layers[layer].switchable]
        self._known: dict[Plan, tuple[float, float]] = {}
        self.x.plan = Plan()
        self.x.output_error()  # compiles
        self.setup_s = time.perf_counter() - start

    def plan_of(self, low: Collection[str]) -> Plan:
        """Return the plan that runs exactly these layers low, as far as they can."""
        return Plan(base="fp32").set({layer: "fp16" if layer in low else "fp32" for layer in self.switchable})

    @staticmethod
    def plan_without(high: Collection[str]) -> Plan:
        """Return the plan that runs everything low but these layers, and what follows them."""
        return Plan().set(dict.fromkeys(high, "fp32"))

    def error(self, plan: Plan) -> tuple[float, float]:
        """Return the relative L2 error of the worst output, inf where one is not finite, and the seconds of the run."""
        if plan not in self._known:
            start = time.perf_counter()
            self.x.plan = plan
            values = self.x.output_error()["rel_l2"].to_numpy()
            worst = float(values.max()) if np.isfinite(values).all() else float("inf")
            self._known[plan] = worst, time.perf_counter() - start
        return self._known[plan]

    def latency_us(self, plan: Plan) -> float:
        """Return the predicted latency of the whole model."""
        self.x.plan = plan
        return self.x.predicted_latency(self.gpu).result.plan_us

    def figures(self, plan: Plan) -> dict[str, Any]:
        """Return what stands in the record of every plan."""
        self.x.plan = plan
        low = self.x.decisions().low_layers
        return {"error": self.error(plan)[0], "latency_us": self.latency_us(plan), "low": len(low)}

    def converted(self, path: str | Path) -> dict[str, Any]:
        """Return the figures of a model that another tool converted, with the weights that it changed.

        Latency is that of its layers' formats. The error is that of its layers' formats and its weights, against the
        source model.
        """
        mapped = map_back(onnx.load(str(path)), self.typing)
        plan = self.plan_of(mapped.low)
        found = self.figures(plan)
        found |= {"merged": len(mapped.merged), "lost": len(mapped.lost), "weights_changed": len(mapped.weights)}
        found["refused"] = len(mapped.low - self.x.decisions().low_layers)
        if mapped.weights:
            found["error_of_plan"] = found["error"]
            found["error"] = self._error_with(mapped, plan)
        return found

    def _error_with(self, mapped: Mapped, plan: Plan) -> float:
        self.x.plan = plan
        exact, _ = self.x.outputs()
        names = {layer.id: layer.name for layer in self.x.model.layers}
        weights = {(names[layer], place): values for (layer, place), values in mapped.weights.items()}
        other = explorer.open(
            with_weights(onnx.load(str(self.path)), weights), inputs=self.inputs, batch_size=self.batch_size, plan=plan
        )
        return worst_error(exact, other.outputs()[1])

    def local_errors(self) -> dict[str, float]:
        """Return the local error of each layer that can run low; NaN where its result is not finite."""
        self.x.plan = Plan()
        table = self.x.errors().set_index("id")["local_rel_l2"]
        return {layer: float(table[layer]) for layer in self.switchable}
