"""Plans on TensorRT: latency, outputs and inner values, each from an engine that is built or taken from the cache.

Everything here may run in a worker thread for minutes; it holds none of the locks of `Results`, so emulated figures
are there meanwhile. Written against NVIDIA's documented interfaces; *not run with TensorRT so far*: tests run it on a
stand-in for TensorRT and for the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorer.backends.latency import LatencyResult, median_and_spread
from explorer.backends.onnxruntime_cpu import DEFAULT_BUDGET_S, DEFAULT_RUNS, DEFAULT_WARMUP
from explorer.backends.runtime import Cancel
from explorer.backends.tensorrt.build import BuildSettings
from explorer.backends.tensorrt.debug_values import InnerValue, read_inner_values, vanished
from explorer.backends.tensorrt.engine_layers import parse_engine_layers
from explorer.backends.tensorrt.layer_latency import with_layer_times
from explorer.backends.tensorrt.mapping import map_layers
from explorer.backends.tensorrt.timing import OVERHEAD_NOTE, time_layers, time_whole
from explorer.backends.tensorrt.versions import BACKEND
from explorer.errors import InputError
from explorer.plan import NO_FORMAT
from explorer.results.engine_builds import BuiltEngine, EngineBuilds, Loaded, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy.typing as npt

    from explorer.backends.tensorrt.engine import Engine
    from explorer.convert import Decisions
    from explorer.plan import Plan
    from explorer.results.results import Results

__all__ = ["EngineRuns", "InnerValues", "InspectedEngine"]

_WHOLE: Final = "time the engine"
_LAYERS: Final = "time its layers"
_RUN: Final = "run the engine"


@dataclass(frozen=True)
class InnerValues:
    """What the tensors inside an engine held in one run of the first batch.

    Attributes:
        values: by the engine's own name of the tensor, in the order in which they were made.
        layers: name of a tensor to the layers of the model that the kernel computes which writes it, where known.
        notes: what must be known to read them: outputs whose infinities or NaN vanish when values are looked at.
    """

    values: Mapping[str, InnerValue]
    layers: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class InspectedEngine:
    """An engine, and what TensorRT's engine inspector tells of it.

    Attributes:
        built: the engine and what it came from.
        layers_json: the inspector's JSON text.
        types: inputs and outputs to their types, as numpy names them.
    """

    built: BuiltEngine
    layers_json: str
    types: Mapping[str, str]


class EngineRuns:
    """Builds, runs and times the engines of one model's plans on one GPU.

    Every method raises `BackendError` where TensorRT is not ready here, takes no such plan, or failed, in its own
    words; `ConversionError` where the plan cannot be converted; and `RunCancelled` when it is cancelled.

    Args:
        results: of the model; its samples give the shapes that engines take.
        device: index of the GPU.
        settings: what the builder is told; ``tf32`` and ``inner_values`` are set as the plan and the question need.
        strong: build the mixed ONNX model as it is typed. False builds the fp32 model under builder flags and layer
            constraints, which TensorRT 10 and older can.
        obey: with ``strong=False``, fail where a constraint cannot be kept; else it is only preferred.
        keep: keep engines and timing caches in the user's cache folder.
    """

    def __init__(
        self,
        results: Results,
        *,
        device: int = 0,
        settings: BuildSettings | None = None,
        strong: bool = True,
        obey: bool = True,
        keep: bool = True,
    ) -> None:
        self._samples = results.samples
        self._model = results.model
        self._builds = EngineBuilds(
            results, device=device, settings=settings or BuildSettings(), strong=strong, obey=obey, keep=keep
        )

    def engine(
        self,
        plan: Plan,
        target: str | None,
        *,
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> BuiltEngine:
        """Return the engine of a plan, built now or taken from the cache.

        Args:
            plan: the plan.
            target: the backend whose kernels decide what may run low.
            cancel: stops the build at its next step.
            progress: called with what the builder does, steps done, and steps in all; from other threads too.
        """
        return self._builds.built(Wanted(plan, target, cancel=cancel or Cancel(), progress=progress))

    def inspect(
        self,
        plan: Plan,
        target: str | None,
        *,
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> InspectedEngine:
        """Return the engine of a plan and what the engine inspector tells of it; arguments as of `engine`."""
        wanted = Wanted(plan, target, cancel=cancel or Cancel(), progress=progress)
        with self._builds.loaded(wanted) as loaded:
            engine = loaded.engine
            types = {name: engine.dtype(name).name for name in (*engine.inputs, *engine.outputs)}
            return InspectedEngine(loaded.built, engine.layers_json(), types)

    def measure(
        self,
        plan: Plan,
        target: str | None,
        *,
        runs: int = DEFAULT_RUNS,
        warmup: int = DEFAULT_WARMUP,
        budget_s: float = DEFAULT_BUDGET_S,
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> LatencyResult:
        """Return the latency of a plan on TensorRT: of the whole engine, unprofiled, and of its layers, profiled.

        Args:
            plan: the plan.
            target: the backend whose kernels decide what may run low.
            runs: how many runs to take medians of, in each of the two measurements.
            warmup: runs before them that do not count.
            budget_s: seconds for each measurement; when they are over, fewer runs are taken, but at least 5.
            cancel: stops the build or the measurement.
            progress: called with what is being done, how much of it, and of how much.
        """
        wanted = Wanted(plan, target, cancel=cancel or Cancel(), progress=progress)
        often: dict[str, Any] = {"runs": runs, "warmup": warmup, "budget_s": budget_s, "cancel": wanted.cancel}
        with self._builds.loaded(wanted) as loaded:
            engine = loaded.engine
            with engine.start(_fed(engine, self._samples.feeds[0])) as running:
                whole = time_whole(running, progress=_share(progress, _WHOLE), **often)
                layers = time_layers(loaded.trt, running, progress=_share(progress, _LAYERS), **often)
                inspected = engine.layers_json(running.context)
            built, result = loaded.built, self._result(loaded, whole.device_us, warmup)
        host, _ = median_and_spread(whole.host_us)
        seen = f"Seen by the caller, launches and waiting included, a run takes {host:,.0f} us."
        result = replace(result, notes=(*result.notes, seen, OVERHEAD_NOTE))
        return self._with_layers(result, built, inspected, {each.name: each.runs_us for each in layers})

    def _with_layers(
        self, result: LatencyResult, built: BuiltEngine, inspected: str, times_us: Mapping[str, tuple[float, ...]]
    ) -> LatencyResult:
        """Return the result with its layers, or with why they cannot be told: the whole is known all the same."""
        asked = {each.layer_id: each.format for each in built.decisions if each.format != NO_FORMAT}
        try:
            engine = parse_engine_layers(inspected)
            return with_layer_times(result, self._model, engine, times_us, asked=asked, inserted=built.inserted)
        except InputError as error:
            return replace(result, notes=(*result.notes, f"Times by layer cannot be told. {error.what}"))

    def _result(self, loaded: Loaded, times: tuple[float, ...], warmup: int) -> LatencyResult:
        built, gpu = loaded.built, loaded.engine.device.name
        median, spread = median_and_spread(times)
        typed = "strongly typed" if built.weak is None else f"weakly typed, constraints {built.weak.constraints}"
        return LatencyResult(
            backend=BACKEND,
            device=gpu,
            provenance=f"measured on {gpu}, TensorRT {built.key.tensorrt} ({typed}), time on the GPU, inputs there, "
            f"median of {len(times)} runs, {self._samples.batch_note}",
            formats=_formats(built.decisions),
            threads=0,
            runs=len(times),
            warmup_runs=warmup,
            whole_us=median,
            whole_spread_us=spread,
            notes=built.notes,
        )

    def outputs(
        self,
        plan: Plan,
        target: str | None,
        *,
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> tuple[dict[str, npt.NDArray[Any]], ...]:
        """Return the engine's outputs by name, one mapping for each batch of the samples; arguments as of `measure`."""
        wanted = Wanted(plan, target, cancel=cancel or Cancel(), progress=progress)
        feeds, found = self._samples.feeds, []
        with self._builds.loaded(wanted) as loaded:
            for index, feed in enumerate(feeds):
                wanted.cancel.check()
                found.append(_outputs(loaded.engine, feed))
                if progress is not None:
                    progress(_RUN, index + 1, len(feeds))
        return tuple(found)

    def inner_values(
        self,
        plan: Plan,
        target: str | None,
        *,
        keep: Collection[str] = (),
        cancel: Cancel | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> InnerValues:
        """Return what the tensors inside the engine hold on the first batch, without blocking fusion.

        A second engine is built for it; outputs of both are compared, and a NaN that is in the plain engine only is
        told in the notes.

        Args:
            plan: the plan.
            target: the backend whose kernels decide what may run low.
            keep: names of tensors whose values are returned too.
            cancel: stops it.
            progress: called with what is being done, how much of it, and of how much.
        """
        wanted = Wanted(plan, target, cancel=cancel or Cancel(), progress=progress)
        feed = self._samples.feeds[0]
        with self._builds.loaded(wanted) as loaded:
            plain = _outputs(loaded.engine, feed)
        with self._builds.loaded(replace(wanted, inner_values=True)) as loaded:
            engine = loaded.engine
            with engine.start(_fed(engine, feed)) as running:
                values = read_inner_values(loaded.trt, running, keep=keep)
                marked, inspected = running.outputs(), engine.layers_json(running.context)
        makers = self._makers(inspected, loaded.built)
        layers = {name: makers[name] for name in values if name in makers}
        return InnerValues(values, layers, tuple(each.text for each in vanished(plain, marked)))

    def _makers(self, inspected: str, built: BuiltEngine) -> dict[str, tuple[str, ...]]:
        """Return the layers of the model behind each tensor that an engine layer writes; none where it tells none."""
        try:
            engine = parse_engine_layers(inspected)
        except InputError:
            return {}
        mapped = map_layers(self._model, engine.layers, built.inserted)
        return {tensor.name: each.ids for each in mapped if each.ids for tensor in each.layer.outputs}


def _outputs(engine: Engine, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    with engine.start(_fed(engine, feed)) as running:
        running.run()
        return running.outputs()


def _fed(engine: Engine, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return what an engine takes: where the plan stores inputs low, float32 samples are rounded as it says."""
    found = {}
    for name in engine.inputs:
        array, wanted = feed[name], engine.dtype(name)
        low = array.dtype == np.float32 and wanted.itemsize < array.dtype.itemsize and wanted.kind not in "biu"
        found[name] = array.astype(wanted) if low else array
    return found


def _formats(decisions: Decisions) -> str:
    used = sorted({each.format for each in decisions if each.format != NO_FORMAT})
    return f"asked for {', '.join(used) or 'no float format'}"


def _share(progress: Callable[[str, int, int], None] | None, stage: str) -> Callable[[float], None] | None:
    return None if progress is None else lambda share: progress(stage, round(100 * share), 100)
