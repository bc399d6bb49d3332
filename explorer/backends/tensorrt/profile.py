"""Times of an engine's layers, read from what ``trtexec --exportProfile`` wrote; TensorRT is not needed for it.

The form is the same in versions 8 to 11: an array whose first entry tells how many runs were profiled, and one entry
a layer with ``name``, ``timeMs`` (over all runs), ``averageMs``, ``medianMs`` (from 8.5 on) and ``percentage``.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from explorer.backends.latency import median_and_spread
from explorer.backends.tensorrt.json_file import is_profile, is_times, parse, read
from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["EngineProfile", "WholeTimes", "read_profile", "read_times"]

_US: Final = 1000.0  # microseconds in a millisecond: trtexec writes milliseconds
_LONGEST_MS: Final = 86_400_000  # a day: no run of an engine takes longer, and sums of such times stay finite


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Times by engine layer.

    Attributes:
        times_us: name of the engine layer to its time in one run, in microseconds; layers of one name are added up.
        runs: how many runs were profiled; 0 where that is not told.
        medians: the times are medians over the runs; else averages, which old versions write alone.
    """

    times_us: Mapping[str, float]
    runs: int
    medians: bool


@dataclass(frozen=True, slots=True)
class WholeTimes:
    """Time on the GPU of the whole engine, in microseconds: median and interquartile range over the runs."""

    median_us: float
    spread_us: float
    runs: int


def read_profile(path: str | Path) -> EngineProfile:
    """Return the times that ``trtexec --exportProfile`` wrote to a file.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    name, content = f"'{path}'", None
    content = parse(read(path), name)
    if not is_profile(content):
        raise _no_profile(content, name)
    rows = [row for row in content if isinstance(row, dict) and "name" in row]
    head = next((row for row in content if isinstance(row, dict) and "count" in row and "name" not in row), {})
    medians = all("medianMs" in row for row in rows)
    times: dict[str, float] = {}
    for row in rows:
        layer = str(row["name"])
        times[layer] = times.get(layer, 0.0) + _US * _number(row, "medianMs" if medians else "averageMs", name)
    if not any(times.values()):
        raise InputError(f"{name} tells that every layer took 0 ms.", fix="Run trtexec --exportProfile again.")
    count = head.get("count", 0)
    return EngineProfile(times, max(count, 0) if isinstance(count, int) else 0, medians)


def read_times(path: str | Path) -> WholeTimes:
    """Return the time of the whole engine, from what ``trtexec --exportTimes`` wrote to a file.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    name = f"'{path}'"
    content = parse(read(path), name)
    if not is_times(content):
        raise InputError(
            f"{name} does not hold the times of whole runs (trtexec --exportTimes).",
            fix="Give the file of --exportTimes, or leave it out: layers and profile are enough.",
        )
    times = [_US * _number(row, "computeMs", name) for row in content if isinstance(row, dict) and "computeMs" in row]
    if not times:
        raise InputError(f"{name} tells no run's time on the GPU (computeMs).", fix="Run trtexec --exportTimes again.")
    whole = WholeTimes(*median_and_spread(times), len(times))
    if not whole.median_us:
        raise InputError(f"{name} tells that the median run took 0 ms.", fix="Run trtexec --exportTimes again.")
    return whole


def _number(row: Mapping[str, Any], key: str, name: str) -> float:
    value = row.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LONGEST_MS:
        raise InputError(
            f"{name} tells no time for '{row.get('name', 'a run')}': {key} is {reprlib.repr(value)}.",
            fix="Give the file as trtexec wrote it.",
        )
    return float(value)


def _no_profile(content: Any, name: str) -> InputError:
    if isinstance(content, dict) and "Layers" in content:
        return InputError(
            f"{name} holds the layers of an engine (trtexec --exportLayerInfo), not their times (--exportProfile).",
            why="They may have been given in each other's place.",
            fix="Give the file of --exportProfile as profile, and this one as layers.",
        )
    if is_times(content):
        return InputError(
            f"{name} holds the times of whole runs (trtexec --exportTimes), not those of layers (--exportProfile).",
            fix="Give the file of --exportProfile as profile, and this one as times.",
        )
    return InputError(
        f"{name} holds no times of layers.",
        why="trtexec --exportProfile writes an array: the number of runs, then one entry a layer.",
        fix="Run trtexec --loadEngine=model.engine --separateProfileRun --exportProfile=profile.json.",
    )
