"""Latency by layer from the files that ``trtexec`` wrote on another machine; no TensorRT and no GPU is needed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from explorer.backends.latency import LatencyResult
from explorer.backends.tensorrt.engine_layers import read_engine_layers
from explorer.backends.tensorrt.layer_latency import with_layer_times
from explorer.backends.tensorrt.profile import EngineProfile, WholeTimes, read_profile, read_times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.model import Model

__all__ = ["BACKEND", "imported_latency"]

BACKEND: Final = "tensorrt"
_UNNAMED: Final = "a GPU that was not named"
_NAN: Final = float("nan")


def imported_latency(
    model: Model,
    decisions: Mapping[str, str] | None,
    layers_path: str | Path,
    profile_path: str | Path,
    *,
    device: str = "",
    times_path: str | Path | None = None,
    inserted: Mapping[str, str] | None = None,
) -> LatencyResult:
    """Return the latency of an engine that was profiled by ``trtexec``, by layer of the model.

    ``whole_us`` is the engine's time without the profiler where ``times_path`` is given. Else it is the sum of the
    layers, which is longer than the engine takes; the provenance says so. Spreads are NaN where only medians are told.

    Args:
        model: the model that the engine was built from, or that conversion started from.
        decisions: format by layer id that the plan asked for; None where that is not known.
        layers_path: what ``--exportLayerInfo`` wrote.
        profile_path: what ``--exportProfile`` wrote.
        device: name of the GPU; the files do not tell it.
        times_path: what ``--exportTimes`` wrote.
        inserted: nodes that conversion inserted, each with the value that it casts.

    Raises:
        InputError: a file cannot be read or is another one, or they are of another engine or another model.
    """
    engine, profile = read_engine_layers(layers_path), read_profile(profile_path)
    whole = None if times_path is None else read_times(times_path)
    summed = sum(profile.times_us.values())
    used = [Path(path).name for path in (layers_path, profile_path, *([times_path] if times_path else []))]
    result = LatencyResult(
        backend=BACKEND,
        device=device or _UNNAMED,
        provenance=_provenance(profile, whole, device or _UNNAMED, ", ".join(used)),
        formats="",
        threads=0,
        runs=whole.runs if whole else profile.runs,
        warmup_runs=0,
        whole_us=whole.median_us if whole else summed,
        whole_spread_us=whole.spread_us if whole else _NAN,
        notes=(_sum_note(summed, whole), *_age_notes(profile)),
    )
    times = {name: (us,) for name, us in profile.times_us.items()}
    return with_layer_times(result, model, engine, times, asked=decisions, inserted=inserted)


def _provenance(profile: EngineProfile, whole: WholeTimes | None, device: str, files: str) -> str:
    middle = "medians" if profile.medians else "averages"
    runs = f" of {profile.runs:,} run{'s' * (profile.runs > 1)}" if profile.runs else ""
    told = "" if whole else ", whole: the sum of its profiled layers"
    return f"measured on {device} by trtexec, imported from {files}; layers: {middle}{runs}{told}"


def _sum_note(summed: float, whole: WholeTimes | None) -> str:
    if whole is None:
        return (
            f"The layers add up to {summed:,.1f} us. The engine itself takes less: the profiler puts an event around "
            "every layer, which makes their sum 7 to 35 % longer as a rule. trtexec --exportTimes tells how long."
        )
    more = summed / whole.median_us - 1
    sense = f"{100 * more:.1f} % more, which is what profiling costs" if more >= 0 else f"{-100 * more:.1f} % less"
    return f"The layers add up to {summed:,.1f} us; the engine takes {whole.median_us:,.1f} us unprofiled: {sense}."


def _age_notes(profile: EngineProfile) -> list[str]:
    return [] if profile.medians else ["The profile tells averages only: single slow runs weigh in them."]
