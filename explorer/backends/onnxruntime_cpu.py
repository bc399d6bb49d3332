"""Latency on the CPU: the time of each layer from ONNX Runtime's own profile, and of the whole model without it.

What is timed is what users run: all graph optimizations on. `explorer.backends.fusion` maps the nodes of the optimized
graph back to the layers; what ONNX Runtime inserted stands in rows of its own, and what it folded away or removed
says so. The time of a fused group stands once, at the layer that does most of the work.

The CPU provider has float16 kernels for a few operators only and runs the rest of a float16 model in float32 between
casts. Timing such a model here says nothing about half precision on a GPU, and `LatencyResult.formats` says that.
"""

from __future__ import annotations

import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from explorer.backends.fusion import HEAVY_OPS, FusionMap, map_fusion
from explorer.backends.latency import (
    InsertedTime,
    KernelTime,
    LatencyResult,
    LayerTime,
    median_and_spread,
    medians_and_spreads,
)
from explorer.backends.lend import lend_weights
from explorer.backends.profiles import ProfiledRun, read_profile
from explorer.backends.runtime import Cancel, Session, create_session
from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from explorer.backends.graph_view import Runnable
    from explorer.model import Model

__all__ = ["cpu_name", "measure_layers", "measure_whole", "stored_formats"]

BACKEND = "onnxruntime-cpu"
DEFAULT_RUNS = 30  # quartiles of 30 values are stable to a few percent on an idle machine
DEFAULT_WARMUP = 5  # the first runs allocate the arena and fault pages in: on our samples the third is already steady
MIN_RUNS = 5  # fewer have no quartiles worth the name
DEFAULT_BUDGET_S = 20.0  # a large model gets fewer runs rather than minutes of waiting
SLOWED = 1.5  # times the whole: beyond it the times by layer are said to be too high
BUSY = 0.2  # share of a run: on an idle machine the parts' medians add up to the run within a few percent
_LOW_TYPES = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
# Operators of the optimized graph that multiply or add integers, and those that only change the form of a tensor.
INT8_OPS = ("ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "NhwcMaxPool", "QAttention", "QGemm", "QLinear")
_KERNEL_KINDS = {"layer": "layer", "cast": "cast", "copy": "copy", "reorder": "reformat", "transpose": "reformat",
                 "reshape": "reformat"}  # fmt: skip
# Weights of the optimized graph go to a file beside it: only its nodes are read back.
OPTIMIZED_WEIGHTS = {
    "session.optimized_model_external_initializers_file_name": "optimized.weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


def measure_layers(
    model: Model,
    feeds: Mapping[str, NDArray[Any]],
    *,
    runs: int = DEFAULT_RUNS,
    warmup: int = DEFAULT_WARMUP,
    threads: int | None = None,
    budget_s: float = DEFAULT_BUDGET_S,
    progress: Callable[[float], None] | None = None,
    cancel: Cancel | None = None,
) -> LatencyResult:
    """Return the time of every layer of ``model`` and of the whole, on this machine's CPU.

    It misleads when other programs run beside it, and for layers of a few microseconds: ONNX Runtime's clock ticks in
    whole microseconds, and profiling adds some to each node.

    Args:
        model: the loaded model; any formats, though only float32 ones are computed as they are stored.
        feeds: one array for each input.
        runs: how many runs to take medians of, in each of the two sessions (profiled and not).
        warmup: runs before them that do not count.
        threads: threads inside one operator; every processor that this process may use when None.
        budget_s: seconds for each session's runs; when they are over, fewer runs than asked are taken, but at least 5.
        progress: called with the share that is done, 0 to 1.
        cancel: token to stop with.

    Raises:
        InputError: the feeds do not fit the model, or ``runs`` is below 1.
        ModelError: ONNX Runtime cannot load the model.
        BackendError: a node failed while it ran.
    """
    share = _Progress(progress)
    source, weights = lend_weights(model.ir)
    plan = _Timing(runs, warmup, budget_s, cancel)
    whole = plan.time(
        create_session(source, initializers=weights, threads=threads, cancel=cancel), feeds, share.half(0)
    )
    profiled, fusion, threads = _profile(
        model, source, weights, feeds, threads=threads, plan=plan, progress=share.half(1)
    )
    whole_us, whole_spread = median_and_spread(whole)
    layers, inserted = _rows(model, fusion, profiled)
    kernels = _kernels(fusion, profiled)
    profiled_us, _ = median_and_spread([run.total_us for run in profiled])
    overhead_us, _ = median_and_spread([run.total_us - sum(run.nodes_us.values()) for run in profiled])
    accounted = sum(row.median_us for row in layers) + sum(row.median_us for row in inserted)
    interference_us = profiled_us - accounted - overhead_us
    formats, warning = stored_formats(model)
    return LatencyResult(
        backend=BACKEND,
        device=cpu_name(),
        provenance=_provenance(threads, len(profiled)),
        formats=formats,
        threads=threads,
        runs=len(profiled),
        warmup_runs=warmup,
        whole_us=whole_us,
        whole_spread_us=whole_spread,
        layers=layers,
        inserted=inserted,
        profiled_us=profiled_us,
        overhead_us=overhead_us,
        interference_us=interference_us,
        kernels=kernels,
        notes=tuple(
            note for note in (warning, _slowed(whole_us, accounted), _busy(interference_us, profiled_us)) if note
        ),
    )


def measure_whole(
    model: Model,
    feeds: Mapping[str, NDArray[Any]],
    *,
    runs: int = DEFAULT_RUNS,
    warmup: int = DEFAULT_WARMUP,
    threads: int | None = None,
    budget_s: float = DEFAULT_BUDGET_S,
    cancel: Cancel | None = None,
) -> LatencyResult:
    """Return the latency of the whole model without times by layer; arguments and errors as in `measure_layers`."""
    source, weights = lend_weights(model.ir)
    session = create_session(source, initializers=weights, threads=threads, cancel=cancel)
    times = _Timing(runs, warmup, budget_s, cancel).time(session, feeds, lambda _: None)
    whole_us, spread = median_and_spread(times)
    formats, warning = stored_formats(model)
    return LatencyResult(
        backend=BACKEND,
        device=cpu_name(),
        provenance=_provenance(session.threads, len(times)),
        formats=formats,
        threads=session.threads,
        runs=len(times),
        warmup_runs=warmup,
        whole_us=whole_us,
        whole_spread_us=spread,
        notes=(warning,) if warning else (),
    )


def cpu_name() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown CPU"


def stored_formats(model: Runnable) -> tuple[str, str]:
    """Return which formats the model stores floats in, and a warning when the CPU does not compute in them."""
    names = {_LOW_TYPES[kind] for kind in _types(model) if kind in _LOW_TYPES}
    if not names:
        return "fp32", ""
    low = " and ".join(sorted(names))
    return f"stored in {low}, computed mostly in fp32", (
        f"This model stores {low} tensors. ONNX Runtime's CPU provider computes most operators in fp32 between casts: "
        f"these times say nothing about the speed of {low} on a GPU."
    )


def _types(model: Runnable) -> Iterator[ir.DataType | None]:
    for value in (*model.ir.graph.inputs, *model.ir.graph.outputs):
        yield value.dtype
    for value in model.ir.graph.initializers.values():
        yield value.const_value.dtype if value.const_value is not None else None
    for node in model.ir.graph.all_nodes():
        if node.op_type == "Cast":
            yield ir.DataType(node.attributes["to"].as_int())


@dataclass(frozen=True, slots=True)
class _Timing:
    """How often to run."""

    runs: int
    warmup: int
    budget_s: float
    cancel: Cancel | None

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warmup < 0:
            raise InputError(
                f"Cannot measure {self.runs} runs after {self.warmup} of warm-up.", fix="Ask for 1 or more."
            )

    def time(
        self, session: Session, feeds: Mapping[str, NDArray[Any]], progress: Callable[[float], None]
    ) -> list[float]:
        """Return the duration of each counted run in microseconds."""
        times: list[float] = []
        deadline = time.perf_counter() + self.budget_s
        for index in range(self.warmup + self.runs):
            started = time.perf_counter_ns()
            session.run(feeds, cancel=self.cancel)
            if index >= self.warmup:
                times.append((time.perf_counter_ns() - started) / 1000)
            progress((index + 1) / (self.warmup + self.runs))
            if len(times) >= MIN_RUNS and time.perf_counter() > deadline:
                break
        return times


class _Progress:
    """Splits one bar into the two halves of a measurement."""

    def __init__(self, report: Callable[[float], None] | None) -> None:
        self._report = report or (lambda _: None)

    def half(self, index: int) -> Callable[[float], None]:
        return lambda share: self._report((index + share) / 2)


def _profile(
    model: Model,
    source: bytes,
    weights: Mapping[str, NDArray[Any]],
    feeds: Mapping[str, NDArray[Any]],
    *,
    threads: int | None,
    plan: _Timing,
    progress: Callable[[float], None],
) -> tuple[tuple[ProfiledRun, ...], FusionMap, int]:
    with tempfile.TemporaryDirectory(prefix="precision-explorer-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        session = create_session(
            source,
            initializers=weights,
            threads=threads,
            profile_prefix=Path(folder) / "profile",
            optimized_to=optimized,
            config=OPTIMIZED_WEIGHTS,
            cancel=plan.cancel,
        )
        try:
            counted = len(plan.time(session, feeds, progress))
        finally:
            path = session.end_profiling()  # also after an error: the file is open until then
        graph = onnx.load(optimized, load_external_data=False).graph
        names = [node.name for node in graph.node]
        recorded = read_profile(path, nodes=names, body_nodes=[node.name for node in body_nodes(graph)])
    if len(set(names)) != len(names):
        raise BackendError("ONNX Runtime gave two nodes of the optimized graph one name; its profile cannot be read.")
    return recorded[-counted:], map_fusion(model, graph), session.threads


def body_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the bodies of control flow, at every depth."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from body.node
                yield from body_nodes(body)


def _rows(
    model: Model, fusion: FusionMap, runs: tuple[ProfiledRun, ...]
) -> tuple[tuple[LayerTime, ...], tuple[InsertedTime, ...]]:
    """Return a row for every layer, in the model's order, and one for every inserted node."""
    rows: dict[str, LayerTime] = {}
    inserted: list[InsertedTime] = []
    times = medians_and_spreads([[run.nodes_us.get(group.node, 0.0) for run in runs] for group in fusion.groups])
    for group, (median, spread) in zip(fusion.groups, times, strict=True):
        if group.main is None:
            inserted.append(InsertedTime(group.node, group.op, group.kind, group.serves, median, spread))
        for layer in group.layers:
            others = tuple(item for item in group.layers if item != layer)
            here = layer == group.main
            note = "" if here and not others else _fused_note(group.op, group.main or "", here=here)
            rows[layer] = LayerTime(layer, median if here else 0.0, spread if here else 0.0, others, note)
    for layer, fate in fusion.fates.items():
        rows[layer] = LayerTime(layer, 0.0, 0.0, note=fate)
    return tuple(rows[layer.id] for layer in model.layers), tuple(inserted)


def _kernels(fusion: FusionMap, runs: tuple[ProfiledRun, ...]) -> tuple[KernelTime, ...]:
    """Return one row for every node of the optimized graph, with the format that its operator computes in."""
    times = medians_and_spreads([[run.nodes_us.get(group.node, 0.0) for run in runs] for group in fusion.groups])
    return tuple(
        KernelTime(
            group.node, group.layers, median, spread, _KERNEL_KINDS.get(group.kind, "other"),
            _computes_in(group.op), group.op,
        )
        for group, (median, spread) in zip(fusion.groups, times, strict=True)
    )  # fmt: skip


def _computes_in(op: str) -> str:
    """Return what an operator of the optimized graph computes in; empty where its name does not tell."""
    if op.startswith(INT8_OPS):
        return "int8"
    return "fp32" if op in HEAVY_OPS or op.startswith("Fused") else ""


def _slowed(whole_us: float, layers_us: float) -> str:
    if layers_us < SLOWED * whole_us:
        return ""
    return (
        f"The layers add up to {layers_us:.0f} us while the whole model takes {whole_us:.0f} us: profiling adds some "
        "microseconds to each node and each turn of a loop, so the times of small layers and of loops are too high."
    )


def _busy(interference_us: float, profiled_us: float) -> str:
    if interference_us < BUSY * profiled_us:
        return ""
    return (
        f"Other programs were busy on this machine: they cost the median run {interference_us:.0f} of {profiled_us:.0f}"
        " us. The medians by layer bear that well, the time of the whole does not: measure again on an idle machine."
    )


def _fused_note(op: str, main: str, *, here: bool) -> str:
    return f"Runs as one {op} with the layers it is fused with." if here else f"Fused: its time stands at '{main}'."


def _provenance(threads: int, runs: int) -> str:
    import onnxruntime  # noqa: PLC0415 - heavy; it is loaded by now

    return (
        f"measured on {cpu_name()}, ONNX Runtime {onnxruntime.__version__} CPU, "
        f"{threads} thread{'s' if threads != 1 else ''}, median of {runs} runs"
    )
