"""Plans as TensorRT engines: built, or taken from the cache, and loaded.

Written against NVIDIA's documented interfaces; *not run with TensorRT so far*.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir

from explorer.backends.runtime import Cancel
from explorer.backends.tensorrt.build import BuildSettings, build_engine
from explorer.backends.tensorrt.caches import Cache, EngineKey, engine_cache, timing_cache, timing_key
from explorer.backends.tensorrt.device import Device, open_device
from explorer.backends.tensorrt.engine import Engine
from explorer.backends.tensorrt.pairs import check_pairs
from explorer.backends.tensorrt.shapes import input_ranges
from explorer.backends.tensorrt.versions import Api, load_tensorrt, require_ready
from explorer.backends.tensorrt.weak import WeakPlan
from explorer.errors import BackendError
from explorer.model.wire import serialized
from explorer.plan import NO_FORMAT
from explorer.results.gpu_turn import gpu_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from explorer.convert import Decisions
    from explorer.plan import Plan
    from explorer.results.results import Results

__all__ = ["BuiltEngine", "EngineBuilds", "Loaded", "Wanted"]

_PROTOBUF_LIMIT: Final = 2_000_000_000  # bytes: protobuf's 2 GiB, less what the graph itself takes
_TF32: Final = "tf32"


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        plan: the plan.
        target: the backend whose kernels decide what may run low.
        inner_values: values inside the engine can be read.
        cancel: stops the build at its next step.
        progress: called with what the builder does, steps done, and steps in all; from other threads too.
    """

    plan: Plan
    target: str | None
    inner_values: bool = False
    cancel: Cancel = field(default_factory=Cancel)
    progress: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """An engine and all that it came from.

    Attributes:
        data: the serialized engine.
        key: what it depends on.
        decisions: what became of each layer.
        settings: what the builder was told.
        weak: the plan as constraints, for a weakly typed engine; else None.
        inserted: nodes that conversion inserted, each with the value that it casts.
        from_cache: whether it was there already.
        notes: what a reader should know, in sentences.
    """

    data: bytes
    key: EngineKey
    decisions: Decisions
    settings: BuildSettings
    weak: WeakPlan | None = None
    inserted: Mapping[str, str] = field(default_factory=dict)
    from_cache: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """An engine on its GPU: the module ``tensorrt``, the engine, and what it came from."""

    trt: Any
    engine: Engine
    built: BuiltEngine


@dataclass(frozen=True)
class _Place:
    """Where engines are built."""

    trt: Any
    api: Api
    gpu: Device


class EngineBuilds:
    """Builds the engines of one model's plans on one GPU, and keeps them.

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
        self, results: Results, *, device: int, settings: BuildSettings, strong: bool, obey: bool, keep: bool
    ) -> None:
        self.results, self.device, self.settings = results, device, settings
        self.strong, self.obey = strong, obey
        self._engines: Cache | None = engine_cache() if keep else None
        self._timings: Cache | None = timing_cache() if keep else None
        self._last: BuiltEngine | None = None

    def built(self, wanted: Wanted) -> BuiltEngine:
        """Return an engine, built now or taken from the cache.

        Raises:
            BackendError: TensorRT is not ready here, takes no such plan, or failed, in its own words.
            ConversionError: the plan cannot be converted.
            RunCancelled: it was cancelled.
        """
        with self._place(wanted) as place:
            return self._built(place, wanted)

    @contextmanager
    def loaded(self, wanted: Wanted) -> Iterator[Loaded]:
        """Give an engine, loaded; one from the cache that does not load is built anew. Errors as of `built`."""
        with self._place(wanted) as place:
            built = self._built(place, wanted)
            try:
                engine = Engine(place.trt, place.api, built.data, place.gpu)
            except BackendError:
                if not built.from_cache:
                    raise
                self._forget(built)
                built = self._built(place, wanted)
                engine = Engine(place.trt, place.api, built.data, place.gpu)
            yield Loaded(place.trt, engine, built)

    @contextmanager
    def _place(self, wanted: Wanted) -> Iterator[_Place]:
        require_ready(self.device)
        trt, api = load_tensorrt()
        if not self.strong:
            api.require_weak()
        self._calibrate(wanted)
        with gpu_turn(self.device, wanted.cancel), open_device(self.device) as gpu:
            yield _Place(trt, api, gpu)

    def _calibrate(self, wanted: Wanted) -> None:
        """Find the scales of an int8 plan where there are none yet: that runs the model, which needs no GPU."""
        results, decisions = self.results, self.results.decisions(wanted.plan, wanted.target)
        if results.scales.known is None and results.scales.needed(wanted.plan, decisions):
            with results.turn(wanted.cancel, wanted.progress):
                results.scales.get()

    def _built(self, place: _Place, wanted: Wanted) -> BuiltEngine:
        wanted.cancel.check()
        plan, target, model = wanted.plan, wanted.target, self.results.model
        decisions = self.results.decisions(plan, target)
        conversion = self.results.conversion(plan, target, clamp=False) if self.strong else None
        if conversion is not None and conversion.refusal:
            raise BackendError(f"TensorRT cannot run this plan: {conversion.refusal}.", fix="Change the plan.")
        check_pairs(model.ir if conversion is None else conversion.ir)
        settings = replace(self.settings, tf32=_is_tf32(decisions), inner_values=wanted.inner_values)
        weak = None if self.strong else self._weak(plan, decisions)
        with _onnx(model.ir if conversion is None else conversion.ir) as (onnx, digest):
            told = {**asdict(settings), "weak": None if weak is None else asdict(weak)}
            gpu, version = place.gpu, place.api.version
            ranges = input_ranges(model, self.results.samples)
            key = EngineKey(digest, plan.to_json(), version, gpu.name, gpu.capability, told, ranges)
            blank = BuiltEngine(b"", key, decisions, settings, weak)
            if conversion is not None:
                inserted = {cast.name: cast.value for cast in conversion.casts}
                blank = replace(blank, inserted=inserted, notes=conversion.notes)
            if (known := self._known(blank)) is not None:
                return known
            timings = timing_key(version, gpu.name, gpu.capability)
            made = build_engine(
                place.trt, place.api, onnx, settings,
                ranges=ranges, weak=weak, cancel=wanted.cancel, progress=wanted.progress,
                timing=(self._timings.get(timings) if self._timings else None) or b"",
            )  # fmt: skip
        if self._timings is not None and made.timing:
            self._timings.put(timings, made.timing)
        if self._engines is not None:
            self._engines.put(key.digest, made.plan)
        self._last = replace(blank, data=made.plan, notes=(*blank.notes, *made.notes))
        return self._last

    def _known(self, blank: BuiltEngine) -> BuiltEngine | None:
        digest = blank.key.digest
        if self._last is not None and self._last.key.digest == digest:
            return replace(self._last, from_cache=True)
        data = self._engines.get(digest) if self._engines is not None else None
        if data is None:
            return None
        self._last = replace(blank, data=data, from_cache=True)
        return self._last

    def _forget(self, built: BuiltEngine) -> None:
        self._last = None
        if self._engines is not None:
            self._engines.drop(built.key.digest)

    def _weak(self, plan: Plan, decisions: Decisions) -> WeakPlan:
        layers = {each.layer_id: each.format for each in decisions if each.format != NO_FORMAT}
        scales = self.results.scales.of(plan, decisions)
        used = tuple(low for low in plan.formats if low in layers.values())
        return WeakPlan(used, layers, obey=self.obey, ranges=dict(scales.amax) if scales is not None else {})


def _is_tf32(decisions: Decisions) -> bool:
    return decisions.plan.format == _TF32 and bool(decisions.low_layers)


@contextmanager
def _onnx(model: ir.Model) -> Iterator[tuple[bytes | Path, str]]:
    """Give the model as TensorRT reads it, and the SHA-256 of what it holds; beyond 2 GB that is a file."""
    sha, parts = hashlib.sha256(), []
    large = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    for part in serialized(model):
        sha.update(part)
        if large < _PROTOBUF_LIMIT:
            parts.append(part)
    if large < _PROTOBUF_LIMIT:
        yield b"".join(parts), sha.hexdigest()
        return
    with tempfile.TemporaryDirectory(prefix="precision-explorer-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        yield path, sha.hexdigest()
