"""The real latency of a plan: measured where it runs, never told as something else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.backends.kernels import kernel_support
from explorer.backends.latency import InsertedTime, LatencyResult, LayerTime
from explorer.backends.onnxruntime_cpu import DEFAULT_RUNS, measure_layers
from explorer.backends.runtime import Cancel
from explorer.convert.traits import Kind
from explorer.errors import BackendError, nearest
from explorer.model import Model, load_model
from explorer.model.wire import serialized
from explorer.results.gpu_turn import gpu_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy.typing as npt

    from explorer.convert import Conversion, Decisions
    from explorer.plan import Plan
    from explorer.results.engines import EngineRuns
    from explorer.results.results import Results

__all__ = ["BACKENDS", "measure_plan"]

CPU, CUDA, TENSORRT = "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt"
BACKENDS: Final = (CPU, CUDA, TENSORRT)
"""Where the latency of a plan can be measured."""

_INT8: Final = "int8"
_TF32: Final = "tf32"
_STAGE: Final = "latency on {backend}"
_LOW_DTYPES: Final = {"float16": np.float16}
_PARTNERS: Final = "the layers it is fused with"  # as explorer.backends.onnxruntime_cpu words it
_AROUND: Final = "what conversion inserted around it"
_KERNEL: Final = re.compile(r"^Runs as one (\w+) ")
_INT8_KERNELS: Final = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger")  # ONNX Runtime's, by name
_NAMED: Final = 3  # layers that a note names
_KINDS: Final = {"Cast": "cast", "QuantizeLinear": "cast", "DequantizeLinear": "cast"}


def measure_plan(
    results: Results,
    plan: Plan,
    target: str | None,
    backend: str,
    *,
    device: int = 0,
    runs: int = DEFAULT_RUNS,
    engines: EngineRuns | None = None,
    cancel: Cancel | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> LatencyResult:
    """Return the latency of the model under a plan, measured on a backend, with one row for each layer of the model.

    It may take minutes, and may run in a worker thread. It measures the first, largest batch of the samples.

    Args:
        results: of the model.
        plan: the plan.
        target: the backend whose kernels decide what may run low.
        backend: where to run it: one of :data:`BACKENDS`.
        device: index of the GPU, for backends that run on one.
        runs: how many runs to take medians of.
        engines: what builds and keeps engines, for ``tensorrt``; by default one for this call.
        cancel: stops it from another thread.
        progress: called with what is being done, how much of it, and of how much.

    Raises:
        BackendError: the backend is not ready here, cannot run the plan, does not compute in its format (the CPU and
            fp16), or failed.
        ConversionError: the plan cannot be converted.
        RunCancelled: `cancel` was called.
    """
    if backend not in BACKENDS:
        raise BackendError(
            f"A plan cannot be measured on '{backend}'.",
            fix=nearest(backend, BACKENDS) or f"Choose one of: {', '.join(BACKENDS)}.",
        )
    token = cancel or Cancel()
    if backend == TENSORRT:
        from explorer.results.engines import EngineRuns  # noqa: PLC0415 - only where TensorRT is asked for

        runner = engines or EngineRuns(results, device=device)
        return runner.measure(plan, target, runs=runs, cancel=token, progress=progress)
    if backend == CUDA:  # timed from the host: a GPU that is shared, or a busy CPU, would spoil its times
        with gpu_turn(device, token), results.turn(token, progress):
            found = _on_cuda(results, plan, target, device=device, runs=runs, progress=progress, cancel=token)
    else:
        with results.turn(token, progress):
            found = _on_cpu(results, plan, target, runs=runs, progress=progress, cancel=token)
    return _described(found, results.decisions(plan, target), results.samples.batch_note)


def _on_cpu(
    results: Results,
    plan: Plan,
    target: str | None,
    *,
    runs: int,
    progress: Callable[[str, int, int], None] | None,
    cancel: Cancel,
) -> LatencyResult:
    decisions = results.decisions(plan, target)
    _check_cpu(decisions)
    model = results.model if _is_fp32(decisions) else _loaded(_conversion(results, plan, target))
    found = measure_layers(
        model, _fed(model, results.samples.feeds[0]),
        runs=runs, threads=results.threads, progress=_share(progress, CPU), cancel=cancel,
    )  # fmt: skip
    return told_int8(folded(found, results.model, model), decisions)


def _on_cuda(
    results: Results,
    plan: Plan,
    target: str | None,
    *,
    device: int,
    runs: int,
    progress: Callable[[str, int, int], None] | None,
    cancel: Cancel,
) -> LatencyResult:
    from explorer.backends import onnxruntime_cuda  # noqa: PLC0415 - only where it is asked for

    onnxruntime_cuda.require_device(device)  # before the conversion, which may calibrate
    decisions = results.decisions(plan, target)
    runnable = results.model if _is_fp32(decisions) else _conversion(results, plan, target)
    return onnxruntime_cuda.measure_layers(
        runnable, results.samples.feeds[0],
        device=device, runs=runs, tf32=plan.format == _TF32 and bool(decisions.low_layers),
        progress=_share(progress, CUDA), cancel=cancel,
    )  # fmt: skip


def _conversion(results: Results, plan: Plan, target: str | None) -> Conversion:
    conversion = results.conversion(plan, target, clamp=False)
    if conversion.refusal:
        raise BackendError(f"No file can hold this plan: {conversion.refusal}.", fix="Change the plan.")
    return conversion


def _share(progress: Callable[[str, int, int], None] | None, backend: str) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda done: progress(_STAGE.format(backend=backend), round(100 * done), 100)


def _check_cpu(decisions: Decisions) -> None:
    """Refuse formats that the CPU provider does not compute in: their times would say nothing about them."""
    used = {each.format for each in decisions if each.layer_id in decisions.low_layers}
    wrong = sorted(used - {_INT8})
    if not wrong:
        return
    low = ", ".join(wrong)
    raise BackendError(
        f"A plan with layers in {low} cannot be timed on {CPU}.",
        why=f"ONNX Runtime's CPU provider computes {low} layers in fp32 between casts, so the time would say nothing "
        f"about {low}.",
        fix="Measure it on onnxruntime-cuda or tensorrt, predict it for a GPU (--gpu-model), or time an int8 plan.",
    )


def _is_fp32(decisions: Decisions) -> bool:
    return not decisions.low_layers and not decisions.int8_layers and decisions.plan.keep_io


def _loaded(conversion: Conversion) -> Model:
    """Return the converted model as one that can be measured: what conversion inserted are layers there too."""
    return load_model(b"".join(serialized(conversion.ir)))


def _fed(model: Model, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return what the converted model takes: where the plan stores inputs low, samples are rounded as it says."""
    found = {}
    for spec in model.inputs:
        array = feeds[spec.name]
        low = _LOW_DTYPES.get(spec.dtype) if array.dtype == np.float32 else None
        found[spec.name] = array if low is None else array.astype(low)
    return found


# -- from the converted model back to the layers of the model ----------------------------------------------------------


def folded(found: LatencyResult, source: Model, measured: Model) -> LatencyResult:
    """Return a measurement of a converted model with the rows of the model that it was made from.

    What conversion inserted (casts, pairs of QuantizeLinear and DequantizeLinear) becomes rows of ``inserted``; where
    it runs in one kernel with a layer, the time stands at that layer.

    Args:
        found: of the converted model.
        source: the model.
        measured: the converted model, as it was measured.
    """
    if measured is source or not found.layers:
        return found
    order = {layer.id: index for index, layer in enumerate(source.layers)}
    rows: dict[str, LayerTime] = {}
    inserted: list[InsertedTime] = []
    for row in found.layers:
        if row.layer_id in order:
            rows[row.layer_id] = _ours(row, order)
        elif row.median_us > 0 and not any(name in order for name in row.fused_with):
            inserted.append(_inserted(row, source, measured))
    for row in found.layers:
        if row.layer_id not in order and row.median_us > 0:
            _hand_over(row, rows, order)
    for layer in source.layers:
        if layer.id not in rows:
            rows[layer.id] = LayerTime(layer.id, 0.0, 0.0, note="Conversion replaced it.")
    moved = [replace(each, serves=_served(each.serves, source, measured)) for each in found.inserted]
    kernels = [
        replace(kernel, layer_ids=ours, kind=kernel.kind if ours else _KINDS.get(kernel.note, kernel.kind))
        for kernel in found.kernels
        for ours in [tuple(name for name in kernel.layer_ids if name in order)]
    ]
    layers = tuple(rows[layer.id] for layer in source.layers)
    return replace(found, layers=layers, inserted=(*moved, *inserted), kernels=tuple(kernels))


def _ours(row: LayerTime, order: Mapping[str, int]) -> LayerTime:
    """Return a row whose partners are layers of the model."""
    others = tuple(name for name in row.fused_with if name in order)
    return replace(row, fused_with=others, note=row.note if others else row.note.replace(_PARTNERS, _AROUND))


def _served(layer_id: str | None, source: Model, measured: Model) -> str | None:
    """Return the layer of the model that an inserted node serves, where that was told as another inserted one."""
    if layer_id is None or layer_id in source:
        return layer_id
    return _maker(measured.layer(layer_id).inputs, source, measured)


def _hand_over(row: LayerTime, rows: dict[str, LayerTime], order: Mapping[str, int]) -> None:
    """Give the time of a kernel that stands at an inserted node to the last of our layers that the kernel computes."""
    ours = [name for name in row.fused_with if name in order]
    if not ours:
        return
    main = max(ours, key=order.__getitem__)
    for name in ours:
        note = row.note if len(ours) > 1 else row.note.replace(_PARTNERS, _AROUND)
        rows[name] = replace(rows[name], note=note if name == main else f"Fused: its time stands at '{main}'.")
    rows[main] = replace(rows[main], median_us=rows[main].median_us + row.median_us, spread_us=row.spread_us)


def told_int8(found: LatencyResult, decisions: Decisions) -> LatencyResult:
    """Return a measurement on the CPU that says which layers were asked for int8 and ran in fp32 all the same.

    ONNX Runtime takes an int8 kernel only where the pairs around a layer fit it; it may also fuse the layer with others
    before it looks for one.
    """
    typing = decisions.typing if decisions.plan.format == _INT8 else decisions.int8
    asked = decisions.low_layers if decisions.plan.format == _INT8 else decisions.int8_layers
    if typing is None:
        return found
    rows, wide = [], []
    for row in found.layers:
        kernel = _KERNEL.match(row.note)
        name = kernel.group(1) if kernel else typing.model.layer(row.layer_id).op
        computes = row.layer_id in asked and typing.layers[row.layer_id].kind is Kind.COMPUTE and row.median_us > 0
        if computes and not name.startswith(_INT8_KERNELS):
            wide.append(row.layer_id)
        note = f"Asked int8, ran fp32, as {name}. {row.note}".strip()
        rows.append(replace(row, note=note) if row.layer_id in wide else row)
    if not wide:
        return found
    named = ", ".join(f"'{layer_id}'" for layer_id in wide[:_NAMED]) + (" ..." if len(wide) > _NAMED else "")
    count = "1 layer was" if len(wide) == 1 else f"{len(wide):,} layers were"
    note = f"{count} asked for int8 and ran in fp32: ONNX Runtime found no int8 kernel that fits there ({named})."
    return replace(found, layers=tuple(rows), notes=(*found.notes, note))


def _inserted(row: LayerTime, source: Model, measured: Model) -> InsertedTime:
    layer = measured.layer(row.layer_id)
    serves = _maker(layer.inputs, source, measured)
    return InsertedTime(row.layer_id, layer.op, _KINDS.get(layer.op, "other"), serves, row.median_us, row.spread_us)


def _maker(values: Iterable[str], source: Model, measured: Model) -> str | None:
    """Return the layer of the model that makes what an inserted node reads, through other inserted ones."""
    makers = {name: layer for layer in measured.layers for name in layer.outputs if name}
    for value in values:
        layer = makers.get(value)
        while layer is not None and layer.id not in source and layer.inputs:
            layer = makers.get(layer.inputs[0])
        if layer is not None and layer.id in source:
            return layer.id
    return None


def _described(found: LatencyResult, decisions: Decisions, batch_note: str) -> LatencyResult:
    """Return the result with what was run in its provenance, and what decided the formats in its notes."""
    used = sorted({each.format for each in decisions} & {decisions.plan.format, "int8", "fp32"})
    notes = list(found.notes)
    target = decisions.typing.backend
    if target and target != found.backend and decisions.low_layers:
        support = kernel_support(target)
        notes.append(
            f"Which layers may run low followed the kernels of {target}, not of {found.backend}"
            f"{'' if support.known else ', of which there is no list'}."
        )
    formats = " and ".join(reversed(used)) if found.formats == "fp32" else found.formats
    return replace(found, provenance=f"{found.provenance}, {batch_note}", formats=formats, notes=tuple(notes))
