"""How long an engine takes: as a whole, unprofiled; and layer by layer, profiled, in runs of their own.

The two do not add up, and must not: the profiler puts a CUDA event around every layer, which costs 7 to 35 % of a run
(seen in NVIDIA's issues and by users), keeps kernels from overlapping, and is of no consequence to the whole that is
timed without it.

Written against NVIDIA's documented Python interface; *not run with TensorRT so far*.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from explorer.backends.runtime import Cancel
from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.backends.tensorrt.engine import Running

__all__ = ["OVERHEAD_NOTE", "LayerRuns", "WholeRuns", "time_layers", "time_whole"]

MIN_RUNS: Final = 5  # fewer have no quartiles worth the name
_US: Final = 1000.0  # microseconds in a millisecond: TensorRT reports milliseconds
OVERHEAD_NOTE: Final = (
    "Times by layer are taken in profiled runs: an event around every layer makes their sum 7 to 35 % longer than the "
    "engine runs unprofiled. Compare layers with each other, and engines by the time of the whole."
)


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """Time of each counted run, unprofiled.

    Attributes:
        device_us: between two CUDA events around it: what the GPU took.
        host_us: from the call to the end of waiting: what a caller sees, launches included.
    """

    device_us: tuple[float, ...]
    host_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LayerRuns:
    """Time of one engine layer in each counted run, in microseconds."""

    name: str
    runs_us: tuple[float, ...]


def time_whole(
    running: Running,
    *,
    runs: int,
    warmup: int,
    budget_s: float,
    progress: Callable[[float], None] | None = None,
    cancel: Cancel | None = None,
) -> WholeRuns:
    """Return how long each run of the whole engine took, inputs and outputs on the device.

    Args:
        running: the engine with its inputs.
        runs: how many count.
        warmup: how many come before, uncounted.
        budget_s: seconds after which fewer are taken, but at least 5.
        progress: called with the share that is done, 0 to 1.
        cancel: token to stop with.

    Raises:
        InputError: ``runs`` is below 1, or ``warmup`` below 0.
        BackendError: a run failed.
        RunCancelled: `cancel` was called.
    """
    _check(runs, warmup)
    device, token = running.engine.device, cancel or Cancel()
    start, end = device.event(), device.event()
    on_device: list[float] = []
    on_host: list[float] = []
    deadline = time.perf_counter() + budget_s
    try:
        for index in range(warmup + runs):
            token.check()
            begun = time.perf_counter_ns()
            device.record(start)
            running.enqueue()
            device.record(end)
            device.synchronize()
            ended = time.perf_counter_ns()
            if index >= warmup:
                on_device.append(device.elapsed_us(start, end))
                on_host.append((ended - begun) / _US)
            if progress is not None:
                progress((index + 1) / (warmup + runs))
            if len(on_device) >= MIN_RUNS and time.perf_counter() > deadline:
                break
    finally:
        device.drop_event(start)
        device.drop_event(end)
    return WholeRuns(tuple(on_device), tuple(on_host))


def time_layers(
    trt: Any,
    running: Running,
    *,
    runs: int,
    warmup: int,
    budget_s: float,
    progress: Callable[[float], None] | None = None,
    cancel: Cancel | None = None,
) -> tuple[LayerRuns, ...]:
    """Return how long each layer of the engine took, in the engine's order; arguments as in `time_whole`.

    Layers of one name are added up.

    Raises:
        InputError: ``runs`` is below 1, or ``warmup`` below 0.
        BackendError: a run failed, or TensorRT reported no layer.
        RunCancelled: `cancel` was called.
    """
    _check(runs, warmup)
    token, profiler = cancel or Cancel(), _profiler(trt)
    context = running.context
    context.profiler = profiler
    context.enqueue_emits_profile = False  # else a run would wait for its own report
    recorded: list[dict[str, float]] = []
    deadline = time.perf_counter() + budget_s
    for index in range(warmup + runs):
        token.check()
        running.run()
        profiler.times = {}
        if not context.report_to_profiler():
            raise BackendError("TensorRT reported no times by layer.", fix="Measure the engine as a whole.")
        if index >= warmup:
            recorded.append(profiler.times)
        if progress is not None:
            progress((index + 1) / (warmup + runs))
        if len(recorded) >= MIN_RUNS and time.perf_counter() > deadline:
            break
    names = list(dict.fromkeys(name for run in recorded for name in run))
    if not names:
        raise BackendError("TensorRT reported no times by layer.", fix="Measure the engine as a whole.")
    return tuple(LayerRuns(name, tuple(run.get(name, 0.0) for run in recorded)) for name in names)


def _profiler(trt: Any) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base is known only at run time
        """Collects the layers of one run."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Take the time of one layer."""
            self.times[layer_name] = self.times.get(layer_name, 0.0) + ms * _US

    return Profiler()


def _check(runs: int, warmup: int) -> None:
    if runs < 1 or warmup < 0:
        raise InputError(f"Cannot measure {runs} runs after {warmup} of warm-up.", fix="Ask for 1 or more.")
