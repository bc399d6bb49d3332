"""What the GPU did and which call asked for it, recorded by CUPTI: NVIDIA's interface for profilers.

``cupti-python`` (PyPI) hands over one object for each call into CUDA (runtime or driver), and one for each kernel, copy
or fill that ran on the GPU; both carry the same correlation id. Everything but `Recorder` works on plain records, so
that it runs, and is tested, without a GPU.

Written against the interface of cupti-python 13.4 and *not run on a GPU so far*.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from explorer.backends.cuda_profile import Clock, offset_between
from explorer.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CuptiUnavailable", "Launch", "Recorder", "Records", "Work", "demangled", "find_cupti", "records_of"]

# Kinds of activity records (CUpti_ActivityKind in cupti_activity.h; stable since CUDA 5).
_COPY: Final = 1
_FILL: Final = 2
_KERNEL: Final = 3
_DRIVER: Final = 4
_RUNTIME: Final = 5
_CONCURRENT_KERNEL: Final = 10
_PEER_COPY: Final = 22
_WORK: Final = {
    _COPY: "copy",
    _PEER_COPY: "copy",
    _FILL: "fill",
    _KERNEL: "kernel",
    _CONCURRENT_KERNEL: "kernel",
}
_RECORDED: Final = (_CONCURRENT_KERNEL, _COPY, _FILL, _RUNTIME, _DRIVER)
_COPY_NAMES: Final = {1: "host to device", 2: "device to host", 8: "device to device", 10: "between devices"}
# ^ CUpti_ActivityMemcpyKind
_SYSTEM_THREADS: Final = 1  # CUPTI_ACTIVITY_THREAD_ID_TYPE_SYSTEM: the ids that ONNX Runtime's profile has too
_FLUSH_FORCED: Final = 1  # CUPTI_ACTIVITY_FLAG_FLUSH_FORCED
_BUFFER_BYTES: Final = 8 << 20  # what NVIDIA's own samples ask for
_CLOCK_SAMPLES: Final = 16  # of both clocks, of which the narrowest is taken


class CuptiUnavailable(BackendError):  # noqa: N818 - named by what happened, like its siblings
    """CUPTI cannot record here: not installed, too old for the driver, or in use by another profiler."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One call into CUDA, on the host."""

    correlation: int
    start_ns: int
    end_ns: int
    thread: int


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel, copy or fill on the GPU.

    Attributes:
        correlation: that of the call which asked for it.
        name: the kernel's symbol, demangled, or which way the copy went.
        kind: ``kernel``, ``copy`` or ``fill``.
        start_ns: when the GPU began, on the same clock as the launches.
        end_ns: when it was done.
    """

    correlation: int
    name: str
    kind: str
    start_ns: int
    end_ns: int

    @property
    def us(self) -> float:
        """Duration on the GPU in microseconds."""
        return (self.end_ns - self.start_ns) / 1000


@dataclass(frozen=True)
class Records:
    """What was recorded, on one clock."""

    launches: tuple[Launch, ...] = ()
    work: tuple[Work, ...] = ()


def records_of(activities: Iterable[Any], *, offset_ns: int = 0) -> Records:
    """Return plain records of CUPTI's activity objects; kinds that are not needed are passed over.

    Args:
        activities: as `cupti.cupti` hands them over; they may not outlive its callback.
        offset_ns: what to take from CUPTI's times to get those of the clock that is wanted.
    """
    launches: list[Launch] = []
    work: list[Work] = []
    for item in activities:
        kind = int(item.kind)
        if kind in (_DRIVER, _RUNTIME):
            begin, end = int(item.start) - offset_ns, int(item.end) - offset_ns
            launches.append(Launch(int(item.correlation_id), begin, end, int(item.thread_id)))
        elif kind in _WORK:
            begin, end = int(item.start) - offset_ns, int(item.end) - offset_ns
            if not int(item.start):  # CUPTI's mark of times that could not be collected
                continue
            work.append(Work(int(item.correlation_id), _name(item, kind), _WORK[kind], begin, end))
    return Records(tuple(launches), tuple(work))


def _name(item: Any, kind: int) -> str:
    if _WORK[kind] == "kernel":
        return demangled(str(item.name or "kernel"))
    if _WORK[kind] == "copy":
        way = _COPY_NAMES.get(int(getattr(item, "copy_kind", 0)), "memory")
        return f"copy, {way}"
    return "fill"


@functools.lru_cache(maxsize=4096)
def demangled(name: str) -> str:
    """Return a C++ symbol as it stands in the source; CUPTI tells the mangled one. Itself where it is none.

    >>> demangled("ampere_sgemm_128x64_nn")
    'ampere_sgemm_128x64_nn'
    """
    if not name.startswith("_Z"):
        return name
    try:
        runtime = ctypes.CDLL("libstdc++.so.6")  # ONNX Runtime needs it, so it is there on Linux
    except OSError:
        return name
    demangle = runtime["__cxa_demangle"]
    demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    address = demangle(name.encode(), None, None, ctypes.byref(status))
    if not address:
        return name
    try:
        return ctypes.string_at(address).decode("utf-8", "replace")
    finally:
        runtime.free.argtypes = [ctypes.c_void_p]
        runtime.free(address)


def find_cupti() -> Any:
    """Return the module ``cupti.cupti``.

    Raises:
        CuptiUnavailable: it is not installed, or its library does not load.
    """
    if importlib.util.find_spec("cupti") is None:
        raise CuptiUnavailable(
            "The package 'cupti-python' is not installed.",
            why="Without it no one tells how long the GPU works for each layer inside the whole model.",
            fix="pip install cupti-python (for a CUDA 12 build of ONNX Runtime: 'cupti-python<13').",
        )
    try:
        return importlib.import_module("cupti.cupti")
    except (ImportError, OSError, RuntimeError) as error:
        raise CuptiUnavailable(
            f"The package 'cupti-python' does not load: {error}.",
            fix="Install the version of your CUDA: pip install --upgrade cupti-python nvidia-cuda-cupti.",
        ) from error


@dataclass
class Recorder:
    """Records GPU work between ``with`` and its end; `records` holds it then.

    One at a time in a process: CUPTI knows no two. Code that runs inside is slowed down on the host, not on the GPU.

    Args:
        cupti: from `find_cupti`.
        clock: the clock that the records shall be on.

    Raises:
        CuptiUnavailable: CUPTI refuses, for one because another profiler is attached; or it keeps its records.
    """

    cupti: Any
    clock: Clock = "wall"
    records: Records = field(default_factory=Records)
    _parts: list[Records] = field(default_factory=list)
    _on: list[int] = field(default_factory=list)
    _offset: int = 0

    def __enter__(self) -> Self:
        try:
            self.cupti.set_thread_id_type(_SYSTEM_THREADS)
            self._offset = self._clock_offset()
            self.cupti.activity_register_callbacks(lambda: (_BUFFER_BYTES, 0), self._take)
            for kind in _RECORDED:
                self.cupti.activity_enable(kind)
                self._on.append(kind)
        except self._errors() as error:
            with contextlib.suppress(*self._errors()):  # the first refusal is the one to tell
                self._disable()
            raise CuptiUnavailable(
                f"CUPTI cannot record here: {_said(self.cupti, error)}.",
                why="Another profiler (Nsight, a debugger) may be attached, or the driver is older than CUPTI.",
                fix="Run without the other profiler; or update the driver, or install an older cupti-python.",
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            try:
                self.cupti.activity_flush_all(_FLUSH_FORCED)
            finally:
                self._disable()
        except self._errors() as error:
            if kind is not None:  # what ended the recording is what must be told
                return
            raise CuptiUnavailable(
                f"CUPTI did not hand over what it recorded: {_said(self.cupti, error)}.",
                fix="Update the driver, or install the cupti-python of your CUDA version.",
            ) from error
        launches = tuple(item for part in self._parts for item in part.launches)
        self.records = Records(launches, tuple(item for part in self._parts for item in part.work))

    def _take(self, activities: Iterable[Any]) -> None:
        self._parts.append(records_of(activities, offset_ns=self._offset))

    def _disable(self) -> None:
        while self._on:
            self.cupti.activity_disable(self._on.pop())

    def _clock_offset(self) -> int:
        read: Callable[[], int] = time.time_ns if self.clock == "wall" else time.monotonic_ns
        return offset_between([(read(), int(self.cupti.get_timestamp()), read()) for _ in range(_CLOCK_SAMPLES)])

    def _errors(self) -> tuple[type[Exception], ...]:
        own = getattr(self.cupti, "cuptiError", None)
        return (RuntimeError, OSError, *([own] if isinstance(own, type) else []))


def _said(cupti: Any, error: Exception) -> str:
    """Return the name of CUPTI's status, or the error's own text."""
    status = getattr(error, "status", None)
    try:
        return str(cupti.Result(status).name) if status is not None else str(error)
    except (ValueError, AttributeError):
        return str(error)
