"""Predicted latency of each layer, and of a whole model under a plan, on a named GPU that need not be here.

Nothing is run: the figures come from the layers' arithmetic and traffic and the GPU's datasheet. They are labelled
``predicted`` and are good for a first ranking and for what-if questions; ``docs/roofline.md`` states the errors seen
against real engines, and when the prediction misleads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from explorer.backends.gpus import Gpu, get_gpu
from explorer.backends.kernel_model import MEMORY_CEILING, Bound, KernelTime, Settings, kernel_time, storage_bytes
from explorer.backends.roofline_fusion import Fusion, Group
from explorer.model.cost_types import SWITCHABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from explorer.model.cost_types import LayerCost
    from explorer.model.graph import Layer, TensorSpec

__all__ = [
    "PredictedCast",
    "PredictedModel",
    "PredictedTime",
    "Predictor",
    "cast_us",
    "predict_layers",
    "predict_model",
]

_KNOWN_A_LAYER = 16  # times that are kept; see roofline_fusion
# Products whose result is not quantised where it is made, by format; the rules of explorer.convert.quantised_typing.
_WIDE_RESULTS = {
    "int8": ("Gemm", "MatMul"),
    **dict.fromkeys(("fp8e4m3", "fp8e5m2"), ("Conv", "ConvTranspose", "Gemm", "MatMul")),
}
_FREE = KernelTime(0.0, "free")
_UNKNOWN = KernelTime(math.nan, "unknown")


@dataclass(frozen=True, slots=True)
class PredictedTime:
    """Predicted time of one layer in each format.

    Attributes:
        layer_id: the layer.
        us: microseconds by format; NaN when shapes or a rule are missing; 0 for a layer that runs inside another's
            kernel, which then carries the time of all.
        bound: what limits it, by format.
        fused_with: ids of the other layers in the same kernel, the one that carries the time first.
        note: why a time is NaN, or what it leaves out.
        provenance: ``predicted (roofline, <GPU>)``.
    """

    layer_id: str
    us: Mapping[str, float]
    bound: Mapping[str, Bound]
    fused_with: tuple[str, ...] = ()
    note: str = ""
    provenance: str = ""


@dataclass(frozen=True, slots=True)
class PredictedCast:
    """Predicted time of one cast of ``value`` from one format to another."""

    value: str
    source: str
    target: str
    us: float


@dataclass(frozen=True, slots=True)
class PredictedModel:
    """Predicted latency of a model.

    Attributes:
        layers: the layers under the plan (or, without one, all in the first format), fused.
        casts: the casts that the plan needs.
        plan_us: the model's latency under the plan, casts included.
        uniform_us: its latency with every layer in one format, by format; input and output casts included.
        unpredicted: layers whose time is NaN; the sums leave them out and are lower bounds then.
        note: what the sums leave out.
        provenance: ``predicted (roofline, <GPU>)``.
    """

    layers: Mapping[str, PredictedTime]
    casts: tuple[PredictedCast, ...]
    plan_us: float
    uniform_us: Mapping[str, float]
    unpredicted: tuple[str, ...]
    note: str
    provenance: str


def predict_layers(
    costs: Mapping[str, LayerCost],
    gpu: Gpu | str,
    formats: Sequence[str] = ("fp32", "fp16"),
    *,
    allow_tf32: bool = True,
    accumulate: Literal["fp32", "fp16"] = "fp32",
) -> dict[str, PredictedTime]:
    """Return the predicted time of every layer as a kernel of its own, by layer id.

    Without fusion the sum is too large: an engine runs pointwise layers inside the product before them. For a model,
    use :func:`predict_model`.

    Args:
        costs: arithmetic and traffic of each layer.
        gpu: a GPU or its name.
        formats: formats to predict.
        allow_tf32: whether fp32 products may use TF32 tensor cores.
        accumulate: format in which fp16 products are summed.

    Raises:
        BackendError: no such GPU or format.
    """
    device = get_gpu(gpu) if isinstance(gpu, str) else gpu
    settings = Settings(allow_tf32=allow_tf32, accumulate=accumulate)
    found = {}
    for layer_id, cost in costs.items():
        times = {fmt: _layer_time(device, fmt, cost, settings) for fmt in formats}
        found[layer_id] = _predicted(device, layer_id, times, (), cost.note)
    return found


def cast_us(elements: float, gpu: Gpu | str, source: str, target: str) -> float:
    """Return the predicted time in microseconds of a cast as a kernel of its own; 0 between equal storage formats.

    An engine may fold a cast into a pointwise neighbour, so this is an upper bound.

    Raises:
        BackendError: no such GPU or format.
    """
    device = get_gpu(gpu) if isinstance(gpu, str) else gpu
    moved = elements * (storage_bytes(source) + storage_bytes(target))
    if source == target or {source, target} == {"fp32", "tf32"}:
        return 0.0
    return device.launch_us + moved / (device.bandwidth_gbs * MEMORY_CEILING) * 1e-3


class Predictor:
    """Predicts the latency of one model on one GPU under one plan after another.

    What no plan changes is worked out once, and the time of each kernel that a plan makes is kept: of 10,000 layers a
    plan takes some tens of milliseconds.

    Args:
        layers: the layers in execution order.
        costs: arithmetic and traffic of each layer.
        specs: dtype and concrete shape of every value.
        gpu: a GPU or its name.
        outputs: names of the model's outputs.
        weights: names of the initializers; they are cast once, before the run.
        formats: formats for which each kernel's time and the uniform totals are given.
        allow_tf32: whether fp32 products may use TF32 tensor cores.
        accumulate: format in which fp16 products are summed; ``fp16`` for TensorRT up to 10.

    Raises:
        BackendError: no such GPU.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        costs: Mapping[str, LayerCost],
        specs: Mapping[str, TensorSpec],
        gpu: Gpu | str,
        *,
        outputs: Collection[str],
        weights: Collection[str] = (),
        formats: Sequence[str] = ("fp32", "fp16"),
        allow_tf32: bool = True,
        accumulate: Literal["fp32", "fp16"] = "fp32",
    ) -> None:
        self.gpu = get_gpu(gpu) if isinstance(gpu, str) else gpu
        self.layers, self.formats = tuple(layers), tuple(formats)
        self.fusion = Fusion(self.layers, costs, specs, outputs=outputs)
        self.provenance = f"predicted (roofline, {self.gpu.name})"
        self._settings = Settings(allow_tf32=allow_tf32, accumulate=accumulate)
        self._costs, self._specs = costs, specs
        self._makers = {name: layer.id for layer in self.layers for name in layer.outputs}
        cast = {name for name, spec in specs.items() if name and spec.dtype in SWITCHABLE} - set(weights)
        self._reads = [(layer.id, [name for name in layer.inputs if name in cast]) for layer in self.layers]
        self._returns = [name for name in outputs if name in self._makers and name in cast]
        self._kernels: dict[tuple[tuple[int, ...], str], KernelTime] = {}
        self._times: dict[tuple[tuple[int, ...], tuple[str, ...]], dict[str, PredictedTime]] = {}
        self._cast_us: dict[tuple[str, str, str], float] = {}
        self._uniform: dict[str, Mapping[str, float]] = {}

    def predict(
        self,
        plan: Mapping[str, str] | None = None,
        *,
        casts: Iterable[tuple[str, str, str]] | None = None,
        io_format: str = "fp32",
    ) -> PredictedModel:
        """Return the predicted latency under a plan: fused kernels, plus the casts between formats.

        Args:
            plan: format of each layer; layers that it leaves out, and all without a plan, run in the first of
                ``formats``.
            casts: tensors that are cast, each with the formats from and to; None casts wherever a layer reads another
                format than its own.
            io_format: format of the model's inputs and outputs.

        Raises:
            BackendError: no such format.
        """
        chosen = [(plan or {}).get(layer.id, self.formats[0]) for layer in self.layers]
        formats = tuple(dict.fromkeys((*self.formats, *chosen)))
        by_layer: dict[str, PredictedTime] = {}
        # Products in tf32 take and give fp32, so what joins their kernels in fp32 still does.
        for group in self.fusion.groups(["fp32" if fmt == "tf32" else fmt for fmt in chosen]):
            by_layer.update(self._group_times(group, formats))
        found = self._between(chosen, io_format) if casts is None else casts
        paid = tuple(PredictedCast(*cast, us) for cast in found if (us := self.cast_us(*cast)))
        ordered = {layer.id: by_layer[layer.id] for layer in self.layers}
        times = [time.us[fmt] for time, fmt in zip(ordered.values(), chosen, strict=True)]
        unpredicted = tuple(layer.id for layer, us in zip(self.layers, times, strict=True) if math.isnan(us))
        count = f"{len(unpredicted)} of {len(self.layers)}"
        return PredictedModel(
            MappingProxyType(ordered),
            paid,
            _sum(times) + _sum(cast.us for cast in paid),
            self._uniform_us(io_format),
            unpredicted,
            f"{count} layers have no prediction and are left out" if unpredicted else "",
            self.provenance,
        )

    def kernel(self, group: Group, fmt: str) -> KernelTime:
        """Return the time of a kernel in a format; NaN where its work is not known."""
        found = self._kernels.get((group.members, fmt))
        if found is None:
            if len(self._kernels) > _KNOWN_A_LAYER * len(self.layers):
                self._kernels.clear()
            found = self._kernels[group.members, fmt] = self._kernel(group, fmt)
        return found

    def cast_us(self, value: str, source: str, target: str) -> float:
        """Return the time of a cast of a value; NaN where its size is not known, 0 between equal storage formats."""
        key = (value, source, target)
        if key not in self._cast_us:
            spec = self._specs.get(value)
            shape = spec.static_shape if spec is not None else None
            elements = math.nan if shape is None else math.prod(shape)
            self._cast_us[key] = cast_us(elements, self.gpu, source, target)
        return self._cast_us[key]

    def _kernel(self, group: Group, fmt: str) -> KernelTime:
        costs = [self._costs[layer.id] for layer in group.layers]
        head = costs[0]
        if len(costs) == 1 or not head.is_known:
            return _layer_time(self.gpu, fmt, head, self._settings, self._wide_bytes(group.layers[0], fmt))
        elements = sum(cost.moved_elements for cost in costs) - group.saved_elements
        fixed = sum(cost.fixed_bytes for cost in costs) - group.saved_bytes
        return kernel_time(
            self.gpu,
            fmt,
            flops=sum(cost.flops for cost in costs),
            moved_bytes=elements * storage_bytes(fmt) + fixed,
            gemm=head.gemm,
            kind=head.kind,
            settings=self._settings,
        )

    def _wide_bytes(self, layer: Layer, fmt: str) -> float:
        """Return the bytes that a quantised product writes more than its format tells: its result is fp32."""
        if layer.op not in _WIDE_RESULTS.get(fmt, ()) or not layer.outputs:
            return 0.0
        spec = self._specs.get(layer.outputs[0])
        shape = spec.static_shape if spec is not None else None
        return 0.0 if shape is None else math.prod(shape) * (storage_bytes("fp32") - storage_bytes(fmt))

    def _group_times(self, group: Group, formats: tuple[str, ...]) -> dict[str, PredictedTime]:
        """The first layer carries the kernel's time; the others run inside it."""
        found = self._times.get((group.members, formats))
        if found is None:
            if len(self._times) > _KNOWN_A_LAYER * len(self.layers):
                self._times.clear()
            found = self._times[group.members, formats] = self._made_times(group, formats)
        return found

    def _made_times(self, group: Group, formats: tuple[str, ...]) -> dict[str, PredictedTime]:
        ids = tuple(layer.id for layer in group.layers)
        head = ids[0]
        times = {fmt: self.kernel(group, fmt) for fmt in formats}
        found = {head: _predicted(self.gpu, head, times, ids[1:], self._costs[head].note)}
        inside = dict.fromkeys(formats, _FREE)
        for layer_id in ids[1:]:
            others = tuple(other for other in ids if other != layer_id)
            found[layer_id] = _predicted(self.gpu, layer_id, inside, others, f"runs inside the kernel of {head}")
        return found

    def _between(self, chosen: Sequence[str], io_format: str) -> list[tuple[str, str, str]]:
        """One cast for each tensor and format in which it is needed but not made."""
        format_of = {layer.id: fmt for layer, fmt in zip(self.layers, chosen, strict=True)}
        needed: dict[tuple[str, str], str] = {}
        for reader, names in self._reads:
            for name in names:
                maker = self._makers.get(name)
                needed[name, format_of[reader]] = format_of[maker] if maker else io_format
        for name in self._returns:
            needed[name, io_format] = format_of[self._makers[name]]
        return [(name, source, target) for (name, target), source in needed.items() if source != target]

    def _uniform_us(self, io_format: str) -> Mapping[str, float]:
        """Latency with every layer in one format; the kernels are the same for each."""
        if io_format not in self._uniform:
            groups = self.fusion.groups([""] * len(self.layers))
            totals = {}
            for fmt in self.formats:
                casts = self._between([fmt] * len(self.layers), io_format)
                kernels = _sum(self.kernel(group, fmt).us for group in groups)
                totals[fmt] = kernels + _sum(self.cast_us(*cast) for cast in casts)
            self._uniform[io_format] = MappingProxyType(totals)
        return self._uniform[io_format]


def predict_model(
    layers: Iterable[Layer],
    costs: Mapping[str, LayerCost],
    specs: Mapping[str, TensorSpec],
    gpu: Gpu | str,
    *,
    outputs: Collection[str],
    weights: Collection[str] = (),
    plan: Mapping[str, str] | None = None,
    formats: Sequence[str] = ("fp32", "fp16"),
    io_format: str = "fp32",
    allow_tf32: bool = True,
    accumulate: Literal["fp32", "fp16"] = "fp32",
) -> PredictedModel:
    """Return the predicted latency of a model: fused kernels, plus the casts between layers of different formats.

    For several plans of one model, a :class:`Predictor` is faster.

    Args:
        layers: the layers in execution order.
        costs: arithmetic and traffic of each layer.
        specs: dtype and concrete shape of every value.
        gpu: a GPU or its name.
        outputs: names of the model's outputs.
        weights: names of the initializers; they are cast once, before the run.
        plan: format of each layer; layers that it leaves out, and all without a plan, run in the first of ``formats``.
        formats: formats for which each kernel's time and the uniform totals are given.
        io_format: format of the model's inputs and outputs.
        allow_tf32: whether fp32 products may use TF32 tensor cores.
        accumulate: format in which fp16 products are summed; ``fp16`` for TensorRT up to 10.

    Raises:
        BackendError: no such GPU or format.
    """
    predictor = Predictor(
        layers,
        costs,
        specs,
        gpu,
        outputs=outputs,
        weights=weights,
        formats=formats,
        allow_tf32=allow_tf32,
        accumulate=accumulate,
    )
    return predictor.predict(plan, io_format=io_format)


def _sum(times: Iterable[float]) -> float:
    return math.fsum(us for us in times if not math.isnan(us))


def _predicted(
    gpu: Gpu, layer_id: str, times: Mapping[str, KernelTime], fused_with: tuple[str, ...], note: str
) -> PredictedTime:
    us = MappingProxyType({fmt: time.us for fmt, time in times.items()})
    bound: Mapping[str, Bound] = MappingProxyType({fmt: time.bound for fmt, time in times.items()})
    return PredictedTime(layer_id, us, bound, fused_with, note, f"predicted (roofline, {gpu.name})")


def _layer_time(gpu: Gpu, fmt: str, cost: LayerCost, settings: Settings, more_bytes: float = 0.0) -> KernelTime:
    size = storage_bytes(fmt)
    if not cost.is_known:
        return _UNKNOWN
    if cost.is_free:
        return _FREE
    moved = cost.bytes(size) + more_bytes
    return kernel_time(gpu, fmt, flops=cost.flops, moved_bytes=moved, gemm=cost.gemm, kind=cost.kind, settings=settings)
