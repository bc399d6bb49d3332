"""What both workers share: the clock, the peak of memory, and how a result leaves the process."""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Clock", "Result", "main", "median", "peak_mb", "since_start"]

Result = dict[str, Any]
KIB_PER_MB = 1000 / 1.024  # /proc and getrusage count KiB; the tables say MB of 10^6 bytes


class Clock:
    """Seconds by phase, in the order in which they were first measured."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def since_start(settings: dict[str, Any]) -> float:
    """Return the seconds since the process was asked for: starting Python, and imports."""
    return time.monotonic() - settings["asked_at"]  # one clock for all processes of the machine


def peak_mb() -> float:
    """Return the largest resident size of this process so far.

    VmHWM starts anew with the program; ru_maxrss would begin at what the parent process held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / KIB_PER_MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MB


def main(tasks: dict[str, Callable[[dict[str, Any]], Result | Iterator[Result]]]) -> None:
    """Run the task that the command line names with its JSON settings; the last argument is the file of the result.

    A task that yields leaves what it has so far, in case that it is stopped.
    """
    name, settings, result = sys.argv[1:]
    found = tasks[name](json.loads(settings))
    for part in [found] if isinstance(found, dict) else found:
        Path(result).write_text(json.dumps(part), encoding="utf-8")
