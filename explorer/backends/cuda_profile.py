"""When each node ran, from ONNX Runtime's profile: windows in which its launches of GPU work are looked for.

On CUDA the time of a node in that profile is the time of its *launch*, on the host: the GPU works later. The windows
are still good for one thing, telling which launch belongs to which node (`explorer.backends.cuda_match`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from explorer.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["NodeWindow", "RecordedRun", "clock_of", "offset_between", "read_runs"]

_SUFFIX: Final = "_kernel_time"
_NS: Final = 1000  # nanoseconds in the microsecond that the profile counts in
Clock = Literal["wall", "monotonic"]


@dataclass(frozen=True, slots=True)
class NodeWindow:
    """One node in one run, on the host.

    Attributes:
        name: of the node in the optimized graph.
        op: its operator type.
        provider: the execution provider that ran it.
        start_ns: when it was called, on the clock of the profile; exact to 1 microsecond.
        end_ns: when the call returned, likewise.
        thread: the operating system's id of the thread.
    """

    name: str
    op: str
    provider: str
    start_ns: int
    end_ns: int
    thread: int


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run on the host: its borders, and the windows of the nodes of the main graph in the order of their start."""

    start_ns: int
    end_ns: int
    windows: tuple[NodeWindow, ...]

    @property
    def total_us(self) -> float:
        """Duration of the run; it ends when the GPU is done."""
        return (self.end_ns - self.start_ns) / _NS


def read_runs(
    path: Path, *, start_ns: int, nodes: Sequence[str], body_nodes: Sequence[str] = ()
) -> tuple[RecordedRun, ...]:
    """Return the complete runs of a profile, in order.

    Args:
        path: the file that `Session.end_profiling` named.
        start_ns: when profiling began (``get_profiling_start_time_ns``); times in the file count from there.
        nodes: names of the nodes of the optimized main graph.
        body_nodes: names of the nodes in the bodies of control flow; they may repeat names of the main graph.

    Raises:
        BackendError: the file holds no complete run, or cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        events = list(_events(lines))
    runs = tuple(_runs(events, start_ns, frozenset(nodes), frozenset(nodes) & frozenset(body_nodes)))
    if not runs:
        raise BackendError(
            f"ONNX Runtime's profile '{path.name}' holds no complete run ({len(events)} events).",
            why="It stops recording after a million events, which a long Loop can fill in one run.",
            fix="Measure with inputs that make the loop shorter.",
        )
    return runs


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the events; ONNX Runtime writes one a line."""
    for line in lines:
        text = line.strip().lstrip("[").rstrip(",]").strip()
        if not text:
            continue
        try:
            yield json.loads(text)
        except ValueError as error:
            raise BackendError(f"ONNX Runtime wrote a profile that is not JSON: {text[:80]!r}.") from error


def _runs(
    events: list[dict[str, Any]], start_ns: int, main: frozenset[str], ambiguous: frozenset[str]
) -> Iterator[RecordedRun]:
    """Cut the events into runs: an event is written when it ends, so ``model_run`` comes last in each."""
    pending: list[NodeWindow] = []
    for event in events:
        name = str(event.get("name", ""))
        is_node = event.get("cat") == "Node" and name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) in main
        if not is_node and not (event.get("cat") == "Session" and name == "model_run"):
            continue
        begin = start_ns + int(event["ts"]) * _NS
        end = begin + int(event["dur"]) * _NS
        if is_node:
            told = event.get("args", {})
            window = NodeWindow(
                name.removesuffix(_SUFFIX),
                str(told.get("op_name", "")),
                str(told.get("provider", "")),
                begin,
                end,
                int(event.get("tid", 0)),
            )
            pending.append(window)
        else:
            outer = sorted(_outermost(pending, ambiguous), key=lambda window: window.start_ns)
            yield RecordedRun(begin, end, tuple(outer))
            pending = []


def _outermost(windows: list[NodeWindow], ambiguous: frozenset[str]) -> Iterator[NodeWindow]:
    """Yield the windows without those of bodies that repeat a name of the main graph."""
    outer_start: float = float("inf")  # start of the earliest window among those that ended later
    for window in reversed(windows):
        if window.name in ambiguous and window.start_ns >= outer_start:
            continue
        outer_start = min(outer_start, window.start_ns)
        yield window


def clock_of(start_ns: int, *, wall_ns: int, monotonic_ns: int) -> Clock:
    """Return which clock ONNX Runtime profiles on, from when profiling began and both clocks then.

    Its documentation says the monotonic one; where its C++ library makes ``high_resolution_clock`` the system's clock,
    as on Linux, it is the wall clock (seen with 1.31.1).

    >>> clock_of(1_700_000_000_000_000_000, wall_ns=1_700_000_000_000_900_000, monotonic_ns=36_887_180_110_742)
    'wall'
    """
    return "wall" if abs(start_ns - wall_ns) < abs(start_ns - monotonic_ns) else "monotonic"


def offset_between(samples: Sequence[tuple[int, int, int]]) -> int:
    """Return what to take from another clock's time to get ours, in nanoseconds.

    Args:
        samples: each our clock before, the other clock, our clock after; the narrowest tells most.

    >>> offset_between([(100, 1150, 200), (300, 1310, 304)])
    1008
    """
    before, other, after = min(samples, key=lambda sample: sample[2] - sample[0])
    return other - (before + after) // 2
