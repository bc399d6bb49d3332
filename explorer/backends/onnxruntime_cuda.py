"""Whole-model latency on an NVIDIA GPU through ONNX Runtime's CUDA provider.

Written against ONNX Runtime's documented interface and *not run on a GPU so far*: only its refusals, and its path
through IO binding on the CPU, are tested. Times by layer are a later issue: ONNX Runtime's own profile gives launch
times on CUDA, not device times.

Inputs are copied to the device once and outputs stay there (IO binding), so that the time is the model's, not the
copies'. A run is timed on the host from the call to the end of ``synchronize_outputs``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from explorer._optional import require
from explorer.backends.latency import LatencyResult, median_and_spread
from explorer.backends.lend import lend_weights
from explorer.backends.onnxruntime_cpu import DEFAULT_BUDGET_S, DEFAULT_RUNS, DEFAULT_WARMUP, MIN_RUNS, stored_formats
from explorer.backends.runtime import Cancel, Session, create_session, run_bound
from explorer.backends.status import backend_status
from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from explorer.model import Model

__all__ = ["measure_whole", "open_session"]

BACKEND = "onnxruntime-cuda"


def open_session(model: Model, *, device: int = 0, cancel: Cancel | None = None) -> Session:
    """Return a session of ``model`` on one GPU.

    Args:
        model: the loaded model.
        device: index of the GPU in CUDA's order.
        cancel: token to stop with.

    Raises:
        BackendError: the CUDA provider is not ready here, with what is missing and how to get it.
        ModelError: ONNX Runtime cannot load the model.
    """
    status = next(item for item in backend_status() if item.name == BACKEND)
    if status.state != "ready":
        raise BackendError(f"{BACKEND} is not ready ({status.state}): {status.detail}", fix=status.fix)
    if not 0 <= device < len(status.devices):
        raise BackendError(
            f"There is no GPU {device}.",
            fix=f"There are: {', '.join(f'{index} ({name})' for index, name in enumerate(status.devices))}.",
        )
    source, weights = lend_weights(model.ir)
    return create_session(source, provider="cuda", initializers=weights, device=device, cancel=cancel)


def measure_whole(
    model: Model,
    feeds: Mapping[str, NDArray[Any]],
    *,
    device: int = 0,
    runs: int = DEFAULT_RUNS,
    warmup: int = DEFAULT_WARMUP,
    budget_s: float = DEFAULT_BUDGET_S,
    cancel: Cancel | None = None,
) -> LatencyResult:
    """Return the latency of the whole model on one GPU, inputs and outputs on the device.

    It misleads when part of the model runs on the CPU because the CUDA provider has no kernel for it; the notes of the
    result then cannot tell, `explorer.backends.kernels` can.

    Args:
        model: the loaded model, in any formats.
        feeds: one array for each input.
        device: index of the GPU.
        runs: how many runs to take the median of.
        warmup: runs before them that do not count: the first ones choose cuDNN's algorithms.
        budget_s: seconds after which fewer runs are taken, but at least 5.
        cancel: token to stop with.

    Raises:
        BackendError: the CUDA provider is not ready here, or a node failed while it ran.
        ModelError: ONNX Runtime cannot load the model.
        InputError: the feeds do not fit the model.
    """
    if runs < 1 or warmup < 0:
        raise InputError(f"Cannot measure {runs} runs after {warmup} of warm-up.", fix="Ask for 1 or more.")
    session = open_session(model, device=device, cancel=cancel)
    times = time_bound(session, feeds, device=device, runs=runs, warmup=warmup, budget_s=budget_s, cancel=cancel)
    median, spread = median_and_spread(times)
    name = next(item for item in backend_status() if item.name == BACKEND).devices[device]
    version = require("onnxruntime", why="to run models", extra="gpu").__version__
    return LatencyResult(
        backend=BACKEND,
        device=name,
        provenance=f"measured on {name}, ONNX Runtime {version} CUDA, inputs on the GPU, median of {len(times)} runs",
        formats=stored_formats(model)[0].replace(", computed mostly in fp32", ""),
        threads=session.threads,
        runs=len(times),
        warmup_runs=warmup,
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
    bound = session.bind(feeds, device=device)
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
