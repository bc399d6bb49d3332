"""Read the JSON that ONNX Runtime's profiler writes: the time of each node of the main graph in each run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from explorer.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["ProfiledRun", "read_profile"]

_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True)
class ProfiledRun:
    """One recorded run.

    Attributes:
        total_us: the whole run, from the call to its return inside ONNX Runtime.
        nodes_us: time of each node of the main graph, by the node's name in the optimized graph; the bodies of an
            If, Loop or Scan are inside the time of that node.
    """

    total_us: float
    nodes_us: Mapping[str, float]


def read_profile(path: Path, *, nodes: Sequence[str], body_nodes: Sequence[str] = ()) -> tuple[ProfiledRun, ...]:
    """Return the complete runs of a profile, in order. ONNX Runtime's clock ticks in whole microseconds.

    Args:
        path: the file that `Session.end_profiling` named.
        nodes: names of the nodes of the optimized main graph.
        body_nodes: names of the nodes in the bodies of control flow; they may repeat names of the main graph.

    Raises:
        BackendError: the file holds no complete run, or cannot be read.
    """
    events = list(_events(path))
    runs = tuple(_runs(events, frozenset(nodes), frozenset(nodes) & frozenset(body_nodes)))
    if not runs:
        raise BackendError(
            f"ONNX Runtime's profile '{path.name}' holds no complete run ({len(events)} events).",
            why="It stops recording after a million events, which a long Loop can fill in one run.",
            fix="Measure with inputs that make the loop shorter.",
        )
    return runs


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events without their arguments, which hold most of the text and are not needed.

    ONNX Runtime writes one event a line. Inside a string a quote is escaped, so the key is found by its plain text.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            head, found, _ = line.partition(',"args"')
            if not found:
                continue
            try:
                yield json.loads(head.lstrip("[, ") + "}")
            except ValueError as error:
                raise BackendError(f"ONNX Runtime wrote a profile that is not JSON: {head[:80]!r}.") from error


def _runs(events: list[dict[str, Any]], main: frozenset[str], ambiguous: frozenset[str]) -> Iterator[ProfiledRun]:
    """Cut the events into runs: ONNX Runtime writes an event when it ends, so ``model_run`` comes last in each."""
    pending: list[tuple[str, float, float]] = []
    for event in events:
        if event.get("cat") == "Session" and event.get("name") == "model_run":
            yield ProfiledRun(float(event["dur"]), _sum_by_node(pending, ambiguous))
            pending = []
        elif event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            name = event["name"].removesuffix(_SUFFIX)
            if name in main:
                pending.append((name, float(event["ts"]), float(event["dur"])))


def _sum_by_node(events: list[tuple[str, float, float]], ambiguous: frozenset[str]) -> dict[str, float]:
    """Add up the events by name, without those of bodies that repeat a name of the main graph."""
    sums: dict[str, float] = {}
    outer_start = float("inf")  # start of the earliest event among those that ended later
    for name, start, duration in reversed(events):
        if name in ambiguous and start >= outer_start:
            continue
        outer_start = min(outer_start, start)
        sums[name] = sums.get(name, 0.0) + duration
    return sums
