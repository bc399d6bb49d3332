"""Predicted latency of each layer, and of a whole model under a plan, on a named GPU that need not be here.

Nothing is run: the figures come from the layers' arithmetic and traffic and the GPU's datasheet. They are labelled
``predicted`` and are good for a first ranking and for what-if questions; ``docs/roofline.md`` states the errors seen
against real engines, and when the prediction misleads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from explorer.backends.gpus import Gpu, get_gpu
from explorer.backends.kernel_model import MEMORY_CEILING, Bound, KernelTime, Settings, kernel_time, storage_bytes
from explorer.backends.roofline_fusion import Group, fuse
from explorer.model.cost_types import SWITCHABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from explorer.model.cost_types import LayerCost
    from explorer.model.graph import Layer, TensorSpec

__all__ = ["PredictedCast", "PredictedModel", "PredictedTime", "cast_us", "predict_layers", "predict_model"]

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


@dataclass(frozen=True)
class _Scene:
    """Everything about the model that does not change with the plan."""

    layers: tuple[Layer, ...]
    costs: Mapping[str, LayerCost]
    specs: Mapping[str, TensorSpec]
    outputs: frozenset[str]
    weights: frozenset[str]
    io_format: str
    gpu: Gpu
    settings: Settings
    makers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.makers.update({name: layer.id for layer in self.layers for name in layer.outputs})

    def elements(self, name: str) -> float:
        spec = self.specs.get(name)
        if spec is None or spec.shape is None:
            return math.nan
        return math.prod(dim if isinstance(dim, int) else math.nan for dim in spec.shape)


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
    device = get_gpu(gpu) if isinstance(gpu, str) else gpu
    settings = Settings(allow_tf32=allow_tf32, accumulate=accumulate)
    ordered = tuple(layers)
    scene = _Scene(ordered, costs, specs, frozenset(outputs), frozenset(weights), io_format, device, settings)
    chosen = {layer.id: (plan or {}).get(layer.id, formats[0]) for layer in ordered}
    wanted = tuple(dict.fromkeys((*formats, *chosen.values())))
    groups = _fused(scene, chosen)
    predicted: dict[str, PredictedTime] = {}
    for group in groups:
        predicted.update(_group_times(scene, group, wanted))
    casts = _casts(scene, chosen)
    unpredicted = tuple(layer.id for layer in ordered if math.isnan(predicted[layer.id].us[chosen[layer.id]]))
    plan_us = _sum(predicted[layer.id].us[chosen[layer.id]] for layer in ordered) + _sum(cast.us for cast in casts)
    note = f"{len(unpredicted)} of {len(ordered)} layers have no prediction and are left out" if unpredicted else ""
    ranked = {layer.id: predicted[layer.id] for layer in ordered}
    return PredictedModel(
        MappingProxyType(ranked),
        casts,
        plan_us,
        MappingProxyType(_uniform(scene, formats)),
        unpredicted,
        note,
        _provenance(device),
    )


def _provenance(gpu: Gpu) -> str:
    return f"predicted (roofline, {gpu.name})"


def _sum(times: Iterable[float]) -> float:
    return math.fsum(us for us in times if not math.isnan(us))


def _predicted(
    gpu: Gpu, layer_id: str, times: Mapping[str, KernelTime], fused_with: tuple[str, ...], note: str
) -> PredictedTime:
    us = MappingProxyType({fmt: time.us for fmt, time in times.items()})
    bound: Mapping[str, Bound] = MappingProxyType({fmt: time.bound for fmt, time in times.items()})
    return PredictedTime(layer_id, us, bound, fused_with, note, _provenance(gpu))


def _layer_time(gpu: Gpu, fmt: str, cost: LayerCost, settings: Settings) -> KernelTime:
    size = storage_bytes(fmt)
    if not cost.is_known:
        return _UNKNOWN
    if cost.is_free:
        return _FREE
    return kernel_time(
        gpu, fmt, flops=cost.flops, moved_bytes=cost.bytes(size), gemm=cost.gemm, kind=cost.kind, settings=settings
    )


def _fused(scene: _Scene, chosen: Mapping[str, str]) -> list[Group]:
    return fuse(scene.layers, scene.costs, scene.specs, outputs=scene.outputs, formats=chosen)


def _group_times(scene: _Scene, group: Group, formats: Sequence[str]) -> dict[str, PredictedTime]:
    """The first layer carries the kernel's time; the others run inside it."""
    ids = tuple(layer.id for layer in group.layers)
    head = ids[0]
    times = {fmt: _group_time(scene, group, fmt) for fmt in formats}
    found = {head: _predicted(scene.gpu, head, times, ids[1:], scene.costs[head].note)}
    inside = dict.fromkeys(formats, _FREE)
    for layer_id in ids[1:]:
        others = tuple(other for other in ids if other != layer_id)
        found[layer_id] = _predicted(scene.gpu, layer_id, inside, others, f"runs inside the kernel of {head}")
    return found


def _group_time(scene: _Scene, group: Group, fmt: str) -> KernelTime:
    costs = [scene.costs[layer.id] for layer in group.layers]
    head = costs[0]
    if len(costs) == 1 or not head.is_known:
        return _layer_time(scene.gpu, fmt, head, scene.settings)
    elements = sum(cost.moved_elements for cost in costs) - group.saved_elements
    fixed = sum(cost.fixed_bytes for cost in costs) - group.saved_bytes
    return kernel_time(
        scene.gpu,
        fmt,
        flops=sum(cost.flops for cost in costs),
        moved_bytes=elements * storage_bytes(fmt) + fixed,
        gemm=head.gemm,
        kind=head.kind,
        settings=scene.settings,
    )


def _casts(scene: _Scene, chosen: Mapping[str, str]) -> tuple[PredictedCast, ...]:
    """One cast for each tensor and format in which it is needed but not made."""
    needed: dict[tuple[str, str], str] = {}
    for layer in scene.layers:
        for name in layer.inputs:
            spec = scene.specs.get(name)
            if not name or name in scene.weights or spec is None or spec.dtype not in SWITCHABLE:
                continue
            maker = scene.makers.get(name)
            needed[name, chosen[layer.id]] = chosen[maker] if maker else scene.io_format
    for name in scene.outputs:
        spec, maker = scene.specs.get(name), scene.makers.get(name)
        if maker and spec is not None and spec.dtype in SWITCHABLE:
            needed[name, scene.io_format] = chosen[maker]
    found = []
    for (name, target), source in needed.items():
        us = cast_us(scene.elements(name), scene.gpu, source, target)
        if us:
            found.append(PredictedCast(name, source, target, us))
    return tuple(found)


def _uniform(scene: _Scene, formats: Sequence[str]) -> dict[str, float]:
    """Latency with every layer in one format; the kernels are the same for each."""
    groups = _fused(scene, {layer.id: "" for layer in scene.layers})
    totals = {}
    for fmt in formats:
        casts = _casts(scene, {layer.id: fmt for layer in scene.layers})
        totals[fmt] = _sum(_group_time(scene, group, fmt).us for group in groups) + _sum(cast.us for cast in casts)
    return totals
