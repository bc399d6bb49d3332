"""Latency on an NVIDIA GPU through ONNX Runtime's CUDA provider: of the whole model, and of each layer on the device.

The whole is timed on the host, unprofiled, from the call to the end of ``synchronize_outputs``; inputs are copied to
the device once and outputs stay there (IO binding), so that the time is the model's, not the copies'.

The layers are timed on the device, in runs of their own: CUPTI records each kernel and copy, ONNX Runtime's profile
says when each node was called, and `explorer.backends.cuda_match` joins both. Where CUPTI is missing or the recording
fails, each layer is run alone (`explorer.backends.cuda_isolated`) and the result says *isolated*, and why.

Matrix products of float32 run in fp32 here: TF32, which ONNX Runtime switches on by itself, is off unless asked for.
CUDA graphs are off: inside one, no launch belongs to a node.

Written against the documented interfaces of ONNX Runtime, CUPTI and the driver, and *not run on a GPU so far*: tested
are the refusals, the timing loop and the method for single layers on the CPU, and all that is made of records.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from explorer._optional import require
from explorer.backends.cuda_isolated import EventTimer, HostTimer, Isolated, Timer, time_isolated
from explorer.backends.cuda_match import RunWork, match, require_work
from explorer.backends.cuda_placement import Placement, placement
from explorer.backends.cuda_profile import clock_of, read_runs
from explorer.backends.cuda_result import with_isolated, with_rows
from explorer.backends.cuda_rows import rows_of
from explorer.backends.cupti import Recorder, find_cupti
from explorer.backends.fusion import FusionMap, map_fusion
from explorer.backends.graph_view import Runnable, served_by_inserted, shown_layers, view_of
from explorer.backends.kernels import kernel_support
from explorer.backends.latency import LatencyResult, median_and_spread
from explorer.backends.lend import lend_weights
from explorer.backends.onnxruntime_cpu import (
    DEFAULT_BUDGET_S,
    DEFAULT_RUNS,
    DEFAULT_WARMUP,
    MIN_RUNS,
    OPTIMIZED_WEIGHTS,
    body_nodes,
    stored_formats,
)
from explorer.backends.ort_errors import OutOfMemory, RunCancelled
from explorer.backends.runtime import Cancel, Session, create_session, run_bound
from explorer.backends.status import backend_status
from explorer.backends.values import dtype_of
from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = ["OutOfMemory", "measure_layers", "measure_whole", "open_session", "provider_options", "require_device"]

BACKEND: Final = "onnxruntime-cuda"
_LOW_TYPES: Final = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}
_LOW: Final = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where and how often to run."""

    device: int
    runs: int
    warmup: int
    budget_s: float
    tf32: bool
    memory_limit: int | None
    cancel: Cancel | None

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warmup < 0:
            raise InputError(
                f"Cannot measure {self.runs} runs after {self.warmup} of warm-up.", fix="Ask for 1 or more."
            )

    @property
    def options(self) -> dict[str, str]:
        return provider_options(tf32=self.tf32, memory_limit=self.memory_limit)


def provider_options(*, tf32: bool = False, memory_limit: int | None = None) -> dict[str, str]:
    """Return the options of the CUDA provider that every session here has.

    Args:
        tf32: let matrix products and convolutions of float32 run in tf32. ONNX Runtime's own default is on; a
            reference in fp32 needs it off.
        memory_limit: bytes that ONNX Runtime's arena may take of the GPU's memory; all when None.
    """
    options = {"use_tf32": str(int(tf32)), "enable_cuda_graph": "0"}
    if memory_limit is not None:
        options["gpu_mem_limit"] = str(memory_limit)
    return options


def open_session(
    model: Runnable,
    *,
    device: int = 0,
    tf32: bool = False,
    memory_limit: int | None = None,
    options: Mapping[str, str] | None = None,
    cancel: Cancel | None = None,
    **settings: Any,
) -> Session:
    """Return a session of a model, or of a conversion, on one GPU.

    Args:
        model: the loaded model, or what `explorer.convert.convert` returned.
        device: index of the GPU in CUDA's order.
        tf32: see `provider_options`.
        memory_limit: likewise.
        options: more options of the CUDA provider.
        cancel: token to stop with.
        settings: further arguments of `explorer.backends.runtime.create_session`.

    Raises:
        BackendError: the CUDA provider is not ready here, with what is missing and how to get it.
        OutOfMemory: the GPU's memory is too small.
        ModelError: ONNX Runtime cannot load the model.
    """
    require_device(device)
    source, weights = lend_weights(model.ir)
    return create_session(
        source,
        provider="cuda",
        initializers=weights,
        device=device,
        provider_options={**provider_options(tf32=tf32, memory_limit=memory_limit), **(options or {})},
        cancel=cancel,
        **settings,
    )


def require_device(device: int) -> str:
    """Return the name of a GPU.

    Raises:
        BackendError: the CUDA provider is not ready here, or there is no such GPU.
    """
    status = next(item for item in backend_status() if item.name == BACKEND)
    if status.state != "ready":
        raise BackendError(f"{BACKEND} is not ready ({status.state}): {status.detail}", fix=status.fix)
    if not 0 <= device < len(status.devices):
        raise BackendError(
            f"There is no GPU {device}.",
            fix=f"There are: {', '.join(f'{index} ({name})' for index, name in enumerate(status.devices))}.",
        )
    return status.devices[device]


def measure_whole(
    model: Runnable,
    feeds: Mapping[str, NDArray[Any]],
    *,
    device: int = 0,
    runs: int = DEFAULT_RUNS,
    warmup: int = DEFAULT_WARMUP,
    budget_s: float = DEFAULT_BUDGET_S,
    tf32: bool = False,
    memory_limit: int | None = None,
    cancel: Cancel | None = None,
) -> LatencyResult:
    """Return the latency of the whole model on one GPU, inputs and outputs on the device.

    It misleads when part of the model runs on the CPU because the CUDA provider has no kernel for it; the notes of the
    result then cannot tell, `measure_layers` does.

    Args:
        model: the loaded model in any formats, or a conversion of it.
        feeds: one array for each input; float arrays are cast where a conversion takes another float type.
        device: index of the GPU.
        runs: how many runs to take the median of.
        warmup: runs before them that do not count: the first ones choose cuDNN's algorithms.
        budget_s: seconds after which fewer runs are taken, but at least 5.
        tf32: see `provider_options`.
        memory_limit: likewise.
        cancel: token to stop with.

    Raises:
        BackendError: the CUDA provider is not ready here, or a node failed while it ran.
        OutOfMemory: the GPU's memory is too small, with what to lower.
        ModelError: ONNX Runtime cannot load the model.
        InputError: the feeds do not fit the model.
    """
    plan = _Plan(device, runs, warmup, budget_s, tf32, memory_limit, cancel)
    times, threads = _time_whole(model, feeds, plan)
    return _result(model, plan, times, threads)


def measure_layers(
    model: Runnable,
    feeds: Mapping[str, NDArray[Any]],
    *,
    device: int = 0,
    runs: int = DEFAULT_RUNS,
    warmup: int = DEFAULT_WARMUP,
    budget_s: float = DEFAULT_BUDGET_S,
    tf32: bool = False,
    memory_limit: int | None = None,
    progress: Callable[[float], None] | None = None,
    cancel: Cancel | None = None,
) -> LatencyResult:
    """Return the time of every layer on the GPU, and of the whole model.

    With CUPTI the time of a layer is that of its kernels and copies inside the whole model; of a layer on the CPU, that
    of its call. Where nothing can be recorded it is that of the layer run alone: the provenance and a note call it
    *isolated* and tell why.

    Args:
        model: the loaded model, or a conversion of it: its rows are then the layers of the source model, and the casts
            that conversion inserted stand among ``inserted``.
        feeds: as in `measure_whole`.
        device: likewise.
        runs: likewise, in each of the two sessions (recorded and not).
        warmup: likewise.
        budget_s: likewise, for each session.
        tf32: see `provider_options`.
        memory_limit: likewise.
        progress: called with the share that is done, 0 to 1.
        cancel: token to stop with.

    Raises:
        BackendError: as in `measure_whole`; OutOfMemory, ModelError and InputError likewise.
    """
    plan = _Plan(device, runs, warmup, budget_s, tf32, memory_limit, cancel)
    told = progress or (lambda _: None)
    times, threads = _time_whole(model, feeds, plan)
    told(1 / 3)
    result = _result(model, plan, times, threads)
    try:
        cupti = find_cupti()
        recorded, fusion, placed = _record(model, feeds, plan, cupti)
    except RunCancelled:
        raise
    except BackendError as missing:  # the whole is timed: what fails in recording, or in reading it, costs only that
        isolated = _isolate(model, feeds, plan, lambda share: told((1 + 2 * share) / 3))
        return with_isolated(result, model, isolated, str(missing))
    told(1.0)
    shown = [layer.id for layer in shown_layers(model)]
    return with_rows(result, rows_of(recorded, fusion, shown, placed, served_by_inserted(model)), placed)


def _time_whole(model: Runnable, feeds: Mapping[str, NDArray[Any]], plan: _Plan) -> tuple[list[float], int]:
    session = open_session(
        model, device=plan.device, tf32=plan.tf32, memory_limit=plan.memory_limit, cancel=plan.cancel
    )
    times = time_bound(
        session,
        feeds,
        device=plan.device,
        runs=plan.runs,
        warmup=plan.warmup,
        budget_s=plan.budget_s,
        cancel=plan.cancel,
    )
    return times, session.threads


def _result(model: Runnable, plan: _Plan, times: list[float], threads: int) -> LatencyResult:
    median, spread = median_and_spread(times)
    name = require_device(plan.device)
    version = require("onnxruntime", why="to run models", extra="gpu").__version__
    formats = stored_formats(model)[0].replace(", computed mostly in fp32", "")
    return LatencyResult(
        backend=BACKEND,
        device=name,
        provenance=f"measured on {name}, ONNX Runtime {version} CUDA, inputs on the GPU, median of {len(times)} runs",
        formats=f"{formats}, fp32 products in tf32" if plan.tf32 else formats,
        threads=threads,
        runs=len(times),
        warmup_runs=plan.warmup,
        whole_us=median,
        whole_spread_us=spread,
    )


def time_bound(
    session: Session,
    feeds: Mapping[str, NDArray[Any]],
    *,
    device: int,
    runs: int,
    warmup: int,
    budget_s: float,
    cancel: Cancel | None,
) -> list[float]:
    """Return the duration of each counted run in microseconds, inputs and outputs bound to the session's device."""
    bound = session.bind(fitting(session.input_types, feeds), device=device)
    times: list[float] = []
    deadline = time.perf_counter() + budget_s
    for index in range(warmup + runs):
        started = time.perf_counter_ns()
        run_bound(session, bound, cancel=cancel)
        if index >= warmup:
            times.append((time.perf_counter_ns() - started) / 1000)
        if len(times) >= MIN_RUNS and time.perf_counter() > deadline:
            break
    return times


def fitting(types: Mapping[str, str], feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the feeds; float32 ones in the low type where the graph takes one, as conversions may.

    Args:
        types: of the inputs, as ONNX Runtime names them.
        feeds: one array for each input.
    """
    found = {}
    for name, array in feeds.items():
        wanted = dtype_of(types.get(name, ""))
        is_low = wanted in _LOW and array.dtype == np.float32
        found[name] = array.astype(wanted) if is_low and wanted is not None else array
    return found


def _record(
    model: Runnable, feeds: Mapping[str, NDArray[Any]], plan: _Plan, cupti: Any
) -> tuple[tuple[RunWork, ...], FusionMap, Placement]:
    """Run with the profile and CUPTI on, and return what each node did in each counted run."""
    with tempfile.TemporaryDirectory(prefix="precision-explorer-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        wall, monotonic = time.time_ns(), time.monotonic_ns()
        session = open_session(
            model,
            device=plan.device,
            options=plan.options,
            cancel=plan.cancel,
            profile_prefix=Path(folder) / "profile",
            optimized_to=optimized,
            config=OPTIMIZED_WEIGHTS,
        )
        try:
            start_ns = int(session.raw.get_profiling_start_time_ns())
            clock = clock_of(start_ns, wall_ns=wall, monotonic_ns=monotonic)
            bound = session.bind(fitting(session.input_types, feeds), device=plan.device)
            for _ in range(plan.warmup):
                run_bound(session, bound, cancel=plan.cancel)
            with Recorder(cupti, clock=clock) as recorder:
                counted = _run_counted(session, bound, plan)
        finally:
            path = session.end_profiling()  # also after an error: the file is open until then
        graph = onnx.load(optimized, load_external_data=False).graph
        names = [node.name for node in graph.node]
        recorded = read_runs(path, start_ns=start_ns, nodes=names, body_nodes=[node.name for node in body_nodes(graph)])
    runs = match(recorded[-counted:], recorder.records)
    require_work(runs)
    fusion = map_fusion(view_of(model), graph)
    providers = {name: work.window.provider for name, work in runs[-1].nodes.items()}
    return runs, fusion, placement(graph, providers, fusion, has_kernel=_has_kernel(model))


def _run_counted(session: Session, bound: Any, plan: _Plan) -> int:
    deadline = time.perf_counter() + plan.budget_s
    for count in range(1, plan.runs + 1):
        run_bound(session, bound, cancel=plan.cancel)
        if count >= MIN_RUNS and time.perf_counter() > deadline:
            return count
    return plan.runs


def _has_kernel(model: Runnable) -> Callable[[str, str], bool | None]:
    support = kernel_support(BACKEND)
    versions = model.ir.opset_imports
    return lambda domain, op: support.supports(domain, op, int(versions.get(domain, 1)), {})


def _isolate(
    model: Runnable, feeds: Mapping[str, NDArray[Any]], plan: _Plan, progress: Callable[[float], None]
) -> Isolated:
    from explorer.backends.tensorrt.device import open_device  # noqa: PLC0415 - opens the driver's library

    types = {str(value.name): _LOW_TYPES.get(value.dtype, "") if value.dtype else "" for value in model.ir.graph.inputs}
    fed = fitting(types, feeds)

    def timed(timer: Timer) -> Isolated:
        return time_isolated(
            model,
            fed,
            timer,
            device=plan.device,
            options=plan.options,
            progress=progress,
            cancel=plan.cancel,
        )

    try:
        opened = open_device(plan.device)
    except BackendError:  # the driver's library cannot be called: the host's clock still can
        return timed(HostTimer())
    with opened:
        return timed(EventTimer(opened))
