"""What is known of one model's speed under one plan on one device: what every cause of "not faster" is tested on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from explorer.advise.finding import Finding
from explorer.backends.roofline import Predictor
from explorer.convert import decide
from explorer.errors import ModelError
from explorer.formats import get_format
from explorer.measure.latency import predict_gpu
from explorer.model.cost import layer_costs
from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.advise.finding import Fix, Verdict
    from explorer.backends.gpus import Gpu
    from explorer.backends.kernel_model import Bound
    from explorer.backends.latency import LatencyResult
    from explorer.backends.roofline import PredictedCast, PredictedModel
    from explorer.convert import Decisions
    from explorer.model import Layer, Model
    from explorer.model.cost import LayerCost
    from explorer.model.graph import TensorSpec, WeightInfo

__all__ = ["HIGH", "NOTABLE", "WORTH", "Case", "Kernel", "Tested", "told"]

HIGH: Final = "fp32"
NOTABLE: Final = 0.10  # share of the latency from which a cause explains something
WORTH: Final = 0.05  # share of the latency from which a change is worth its trouble; the roofline sees no finer
LARGER: Final = 8  # how many times the batch is taken when a larger one is tried


@dataclass(frozen=True, slots=True)
class Tested:
    """A cause that was tested, with the share of the latency that it explains: the order among the confirmed."""

    finding: Finding
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel under the plan: the layer that starts it, the format it runs in, its predicted time and limit."""

    layer: Layer
    format: str
    us: Mapping[str, float]
    bound: Mapping[str, Bound]

    @property
    def here_us(self) -> float:
        """Its time in the format that the plan gives it."""
        return self.us[self.format]


def told(
    name: str, verdict: Verdict, title: str, text: str = "", evidence: str = "",
    *, layers: tuple[str, ...] = (), fix: Fix | None = None, share: float = 0.0,
) -> Tested:  # fmt: skip
    """Return a cause that was tested."""
    finding = Finding(
        id=f"slow-{name}", tone="warn" if verdict == "confirmed" else "note", verdict=verdict, title=title, text=text,
        evidence=evidence, layers=layers, fix=fix,
    )  # fmt: skip
    return Tested(finding, 0.0 if math.isnan(share) else share)


@dataclass(frozen=True)
class Case:
    """One model under one plan on one device.

    Attributes:
        model: the model.
        decisions: what became of the plan.
        shapes: shape of each input, as the samples have it.
        gpu: the GPU that is predicted for; None for the device that was measured.
        predicted: the prediction under the plan for these shapes, where it is there already.
        measured: what was measured of the fp32 model, on the CPU; None where nothing was.
        packages: installed runtimes, to their versions.
        target: the backend whose kernels decide what may run low; empty for none.
        types: dtype and shape of every value where they are not what ``shapes`` leads to.
        resized: likewise the weights.
        kept_casts: the casts where conversion does not tell them: value, format from and to.
    """

    model: Model
    decisions: Decisions
    shapes: Mapping[str, tuple[int, ...]]
    gpu: Gpu | None = None
    predicted: PredictedModel | None = None
    measured: LatencyResult | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    types: Mapping[str, TensorSpec] | None = None
    resized: Mapping[str, WeightInfo] | None = None
    kept_casts: tuple[tuple[str, str, str], ...] | None = None

    @property
    def low(self) -> str:
        """The low format of the plan."""
        return self.decisions.plan.format

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that run as they stand: those of the main graph."""
        return tuple(layer for layer in self.model.layers if layer.container is None)

    @cached_property
    def plan(self) -> dict[str, str]:
        """Format of each layer."""
        return {each.layer_id: HIGH if each.format == NO_FORMAT else each.format for each in self.decisions}

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtype and shape of every value, for the shapes of the samples."""
        return self.types or self.model.infer(self.shapes)

    @property
    def weights(self) -> Mapping[str, WeightInfo]:
        """The weights."""
        return self.resized or self.model.weights

    @cached_property
    def costs(self) -> Mapping[str, LayerCost]:
        """Arithmetic and traffic of every layer."""
        return layer_costs(self.model.layers, self.specs, self.weights, self.model.attributes)

    @cached_property
    def result(self) -> PredictedModel:
        """The prediction under the plan."""
        assert self.gpu is not None, "only for a GPU is anything predicted"
        if self.predicted is not None:
            return self.predicted
        if self.kept_casts is None:
            return predict_gpu(self.model, self.shapes, self.decisions, self.gpu.name).result
        outputs = [spec.name for spec in self.model.outputs]
        predictor = Predictor(
            self.layers, self.costs, self.specs, self.gpu, outputs=outputs, weights=self.model.weights,
            formats=(HIGH, self.low),
        )  # fmt: skip
        io_format = HIGH if self.decisions.plan.keep_io else self.low
        return predictor.predict(self.plan, casts=self.kept_casts, io_format=io_format)

    @cached_property
    def casts(self) -> tuple[PredictedCast, ...]:
        """The casts under the plan whose time is known."""
        return tuple(cast for cast in self.result.casts if not math.isnan(cast.us))

    def _but(self, **changes: Any) -> Case:
        """Return the same casts and formats under other conditions, which no run gave."""
        casts = tuple((cast.value, cast.source, cast.target) for cast in self.result.casts)
        return replace(self, predicted=None, kept_casts=casts, **changes)

    def reshaped(self, types: Mapping[str, TensorSpec], weights: Mapping[str, WeightInfo]) -> Case:
        """Return the same with other shapes inside."""
        return self._but(types=types, resized=weights)

    def on(self, gpu: Gpu) -> Case:
        """Return the same on another GPU, which need not be in the table."""
        return self._but(gpu=gpu)

    @cached_property
    def low_io(self) -> Case:
        """The same with inputs and outputs in the low format."""
        decisions = decide(replace(self.decisions.plan, keep_io=False), self.decisions.typing)
        return replace(self, decisions=decisions, predicted=None)

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that the layers become under the plan; the casts between them are none of them."""
        found = (
            Kernel(layer, self.plan[layer.id], time.us, time.bound)
            for layer in self.layers
            for time in (self.result.layers[layer.id],)
        )
        return tuple(kernel for kernel in found if kernel.here_us > 0)

    @property
    def plan_us(self) -> float:
        """Predicted latency under the plan."""
        return self.result.plan_us

    @property
    def fp32_us(self) -> float:
        """Predicted latency of the fp32 model."""
        return self.result.uniform_us[HIGH]

    @property
    def faster(self) -> float:
        """How many times as fast the plan is, by prediction; NaN where nothing was predicted."""
        return self.fp32_us / self.plan_us if self.plan_us > 0 else math.nan

    @property
    def source(self) -> str:
        """How the figures came to be, as a sentence."""
        words = self.result.provenance
        return f"{words[:1].upper()}{words[1:]}."

    @property
    def high_words(self) -> str:
        """What fp32 products run in on this GPU."""
        return "fp32 (TF32 in products)" if self.gpu is not None and "tf32" in self.gpu.tensor_tflops else "fp32"

    @property
    def low_bytes(self) -> int:
        """Bytes of one element of the low format."""
        return get_format(self.low).bits // 8

    @cached_property
    def batch(self) -> int:
        """Rows that run at once; 0 where the inputs have no first dimension in common that may change."""
        free = [spec.name for spec in self.model.inputs if spec.shape and not isinstance(spec.shape[0], int)]
        rows = {self.shapes[name][0] for name in free if self.shapes.get(name)}
        return rows.pop() if len(rows) == 1 else 0

    @cached_property
    def larger(self) -> Case | None:
        """The same with a batch several times as large; None where the model's batch is fixed."""
        if not self.batch or self.gpu is None:
            return None
        free = {spec.name for spec in self.model.inputs if spec.shape and not isinstance(spec.shape[0], int)}
        shapes = {
            name: (shape[0] * LARGER, *shape[1:]) if name in free and shape else shape
            for name, shape in self.shapes.items()
        }
        larger = replace(self, shapes=shapes, predicted=None)
        try:
            unknown = larger.result.unpredicted
        except ModelError:  # a shape inside depends on the batch that the model was exported with
            return None
        return larger if len(unknown) == len(self.result.unpredicted) else None
