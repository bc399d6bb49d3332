"""Which node of ONNX Runtime's graph asked for which work of the GPU: profile windows and CUPTI's records, joined.

A call into CUDA belongs to the node in whose window it was made, on the same thread; a kernel, copy or fill belongs to
the call with its correlation id. The profile counts whole microseconds, so a window may have begun up to one later,
and ended up to two later, than it says: a call in such a gap belongs to the node before it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from explorer.backends.cupti import CuptiUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from explorer.backends.cuda_profile import NodeWindow, RecordedRun
    from explorer.backends.cupti import Records, Work

__all__ = ["NodeWork", "RunWork", "format_of_kernel", "match", "require_work", "short_name"]

_TICK_NS: Final = 2000  # start and duration are each cut down to whole microseconds
CPU: Final = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class NodeWork:
    """What one node did in one run.

    Attributes:
        window: when it was called, on the host.
        work: what the GPU did for it.
    """

    window: NodeWindow
    work: tuple[Work, ...]

    @property
    def on_cpu(self) -> bool:
        """Whether the node ran on the CPU."""
        return self.window.provider == CPU

    @property
    def us(self) -> float:
        """Its time: that of the GPU, or for a node on the CPU that of its call."""
        device = sum(item.us for item in self.work)
        host = (self.window.end_ns - self.window.start_ns) / 1000 if self.on_cpu else 0.0
        return max(device, host)


@dataclass(frozen=True)
class RunWork:
    """One run: what each node did, by its name, and the GPU work that no node asked for."""

    total_us: float
    nodes: Mapping[str, NodeWork]
    outside: tuple[Work, ...] = field(default=())


def match(runs: Sequence[RecordedRun], records: Records) -> tuple[RunWork, ...]:
    """Return what every node of every run did, and what the GPU did for none: copies of inputs, for one.

    Args:
        runs: in the order of time.
        records: on the same clock.
    """
    launch_of = {}
    for launch in sorted(records.launches, key=lambda item: item.start_ns, reverse=True):
        launch_of[launch.correlation] = launch  # of nested calls with one id the outermost, which begins first
    threads = {window.thread for run in runs for window in run.windows}
    comparable = any(launch.thread in threads for launch in records.launches)
    starts = [run.start_ns for run in runs]
    index = [_Windows(run) for run in runs]
    found: list[dict[str, list[Work]]] = [defaultdict(list) for _ in runs]
    outside: list[list[Work]] = [[] for _ in runs]
    for work in records.work:
        call = launch_of.get(work.correlation)
        middle = (call.start_ns + call.end_ns) // 2 if call is not None else work.start_ns
        number = bisect_right(starts, middle + _TICK_NS) - 1
        if number < 0 or middle > runs[number].end_ns + _TICK_NS:
            continue  # before the first run, between two, or of another program's part
        thread = call.thread if call is not None and comparable else None
        name = index[number].at(middle, thread) if call is not None else None
        if name is None:
            outside[number].append(work)
        else:
            found[number][name].append(work)
    return tuple(
        RunWork(run.total_us, _joined(run, found[number]), tuple(outside[number])) for number, run in enumerate(runs)
    )


def require_work(runs: Sequence[RunWork]) -> None:
    """Refuse runs in which nodes ran on the GPU and no work of it was recorded for any of them.

    Raises:
        CuptiUnavailable: it is so; times by layer would all be 0.
    """
    on_gpu = [node for run in runs for node in run.nodes.values() if not node.on_cpu]
    if on_gpu and not any(node.work for node in on_gpu):
        raise CuptiUnavailable(
            f"CUPTI recorded no work of the GPU for any of {len(on_gpu):,} node runs.",
            why="It may be of another CUDA version than the driver, or records went to another profiler.",
            fix="Update the driver, or install the cupti-python of your CUDA version.",
        )


class _Windows:
    """Finds the window of one run in which a moment lies."""

    def __init__(self, run: RecordedRun) -> None:
        self._windows = run.windows
        self._starts = [window.start_ns for window in run.windows]

    def at(self, moment: int, thread: int | None) -> str | None:
        """Return the name of the node that was running, or None."""
        position = bisect_right(self._starts, moment) - 1
        while position >= 0:
            window = self._windows[position]
            if thread is None or window.thread == thread:
                return window.name if moment <= window.end_ns + _TICK_NS else None
            position -= 1
        return None


def _joined(run: RecordedRun, found: Mapping[str, list[Work]]) -> dict[str, NodeWork]:
    joined: dict[str, NodeWork] = {}
    for window in run.windows:
        if window.name not in joined:
            joined[window.name] = NodeWork(window, tuple(found.get(window.name, ())))
    return joined


# What a kernel's symbol says of the numbers that it computes with, most telling first: read from names that cuBLAS,
# cuDNN, CUTLASS and ONNX Runtime give their kernels in published profiles ("sm80_xmma_gemm_f16f16_f16f32_f32_nn",
# "ampere_sgemm_128x64_nn", "ampere_fp16_s16816gemm_fp16_128x64", "cutlass_80_tensorop_s1688gemm_128x128").
_SPELLED: Final = (
    ("tf32", re.compile(r"tf32")),
    ("bf16", re.compile(r"bf16|bfloat16")),
    ("fp8", re.compile(r"e4m3|e5m2|fp8")),
    ("int8", re.compile(r"i8816|i16832|imma|int8|s8s8|i8i8")),
    ("fp16", re.compile(r"fp?16|half|h884|h1688|h16816|s884|s16816|hgemm|hmma")),
    ("tf32", re.compile(r"s1688(?!\d)|s1684")),  # tensor cores that take 8 or 4 wide steps of single precision
    ("fp32", re.compile(r"sgemm|scudnn|f32|<float|float[,>]|_float_|simt_s")),
)


def format_of_kernel(name: str) -> str:
    """Return the format that a kernel computes in, as far as its symbol tells; empty where it does not.

    It is a reading of names, not a measurement. It shows at once where "fp32" runs as tf32.

    >>> [format_of_kernel(name) for name in ("ampere_sgemm_128x64_nn", "ampere_h16816gemm_128x64", "my_kernel")]
    ['fp32', 'fp16', '']
    """
    folded = name.lower()
    return next((fmt for fmt, spelling in _SPELLED if spelling.search(folded)), "")


def short_name(name: str, most: int = 80) -> str:
    """Return a kernel's symbol without its arguments and templates, cut to a readable length.

    >>> short_name("void onnxruntime::cuda::_BinaryElementWise<float, 4>(float*, int)")
    'onnxruntime::cuda::_BinaryElementWise'
    """
    plain = re.sub(r"^(?:static )?void ", "", name)
    cut = re.split(r"[<(]", plain, maxsplit=1)[0].strip() or plain
    return cut if len(cut) <= most else f"{cut[: most - 3]}..."
