"""Build an engine: builder settings, shapes, timing cache, progress, and a way to stop it.

Written against NVIDIA's documented Python interface; *not run with TensorRT so far*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from explorer.backends.runtime import Cancel, RunCancelled
from explorer.backends.tensorrt.logger import LOWER, Messages, failure, listen, load_plugins, start
from explorer.backends.tensorrt.network import parse_network
from explorer.backends.tensorrt.shapes import InputRange, shape_words
from explorer.backends.tensorrt.weak import WeakPlan, constrain
from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from explorer.backends.tensorrt.versions import Api

__all__ = ["BuildSettings", "Built", "Progress", "build_engine"]

Progress = Callable[[str, int, int], None]
DEFAULT_LEVEL = 3  # TensorRT's own default of builder_optimization_level; 5 searches longest
_LEVELS = range(6)  # builder_optimization_level, documented as 0 to 5


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What the builder is told.

    Attributes:
        tf32: matrix multiplications of float32 tensors may round their inputs to tf32. TensorRT's own default is yes;
            ours is no, so that fp32 means fp32, and only a plan of tf32 turns it on.
        optimization_level: 0 to 5: how long the builder looks for fast kernels.
        workspace_bytes: most memory that one layer may use besides its tensors; None sets no limit.
        inner_values: every tensor that fusion leaves can be read while the engine runs; fusion stays as it is.
    """

    tf32: bool = False
    optimization_level: int = DEFAULT_LEVEL
    workspace_bytes: int | None = None
    inner_values: bool = False

    def __post_init__(self) -> None:
        if self.optimization_level not in _LEVELS:
            raise InputError(
                f"The builder optimization level is {self.optimization_level}.", fix="Give 0 (fastest build) to 5."
            )
        if self.workspace_bytes is not None and self.workspace_bytes <= 0:
            raise InputError(f"The workspace limit is {self.workspace_bytes} bytes.", fix="Give 1 or more, or None.")


@dataclass(frozen=True)
class Built:
    """An engine as bytes.

    Attributes:
        plan: the serialized engine.
        timing: the timing cache after the build; empty where TensorRT gave none.
        notes: what the reader should know of the build, in sentences.
    """

    plan: bytes
    timing: bytes = b""
    notes: tuple[str, ...] = ()


def build_engine(
    trt: Any,
    api: Api,
    onnx: bytes | Path,
    settings: BuildSettings,
    *,
    ranges: tuple[InputRange, ...] = (),
    weak: WeakPlan | None = None,
    timing: bytes = b"",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Built:
    """Return the engine of an ONNX model; it takes seconds to many minutes.

    Args:
        trt: the module ``tensorrt``.
        api: what it can do.
        onnx: the serialized model, or the path of its file.
        settings: what the builder is told.
        ranges: shapes that the engine must take; needed where the model leaves an input's axis open.
        weak: build a weakly typed network under this plan (TensorRT 10 and older); None builds a strongly typed one,
            in which the types of the ONNX model decide.
        timing: a timing cache of the same version and GPU; a wrong one is left unused.
        progress: called with what the builder does, steps done, and steps in all; from TensorRT's threads.
        cancel: stops the build at its next step.

    Raises:
        BackendError: the parser or the builder refuses the model, or memory is too small, in TensorRT's own words.
        InputError: a setting is out of range, or the shapes contradict the model.
        RunCancelled: `cancel` was called.
    """
    token = cancel or Cancel()
    token.check()
    said = listen(trt)
    load_plugins(trt, said)
    builder = start(trt.Builder, said=said)
    parsed = parse_network(trt, api, builder, said, onnx, strong=weak is None)
    config = builder.create_builder_config()
    _configure(trt, api, config, settings)
    if settings.inner_values and not parsed.network.mark_unfused_tensors_as_debug_tensors():
        raise failure("mark the tensors inside the engine", said)
    _add_profile(builder, parsed.network, config, ranges)
    absent = constrain(trt, api, parsed.network, config, weak) if weak is not None else ()
    notes = (
        (f"Layers of the plan that TensorRT folded, so that they have no format: {len(absent):,}.",) if absent else ()
    )
    cache = _attach(config, timing)
    steps = _Steps(progress, token)
    config.progress_monitor = _monitor(trt, steps)
    token.check()
    plan = builder.build_serialized_network(parsed.network, config)
    steps.check()
    if plan is None:
        raise failure("build the engine", said, fix=_build_fix(weak))
    return Built(bytes(plan), _serialized(cache), (*notes, *_warnings(said)))


def _configure(trt: Any, api: Api, config: Any, settings: BuildSettings) -> None:
    if settings.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = settings.optimization_level
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.inner_values and not api.inner_values:
        raise BackendError(
            f"TensorRT {api.version} cannot show values inside an engine without changing it.",
            why="Marking them as outputs blocks fusion, so other kernels would run.",
            fix="Install TensorRT 10.12 or newer.",
        )


def _add_profile(builder: Any, network: Any, config: Any, ranges: tuple[InputRange, ...]) -> None:
    """Give the builder the shapes of the inputs that have open axes, and the values of those that are shapes."""
    known = {each.name: each for each in ranges}
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    wanted = [tensor for tensor in inputs if tensor.is_shape_tensor or any(dim < 0 for dim in tensor.shape)]
    if not wanted:
        return
    profile = builder.create_optimization_profile()
    for tensor in wanted:
        found = known.get(str(tensor.name))
        if found is None:
            raise InputError(
                f"Input '{tensor.name}' has open axes {tuple(tensor.shape)} and no shapes were given for it.",
                fix="Give samples, or the size of its dimensions (dims, --dim).",
            )
        try:
            if tensor.is_shape_tensor:
                profile.set_shape_input(found.name, *_shape_values(found))
            else:
                profile.set_shape(found.name, found.least, found.usual, found.most)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"TensorRT refuses the shapes {shape_words(found.least)} to {shape_words(found.most)} "
                f"of input '{found.name}': {error}.",
                fix="Give samples of the shapes that the model takes.",
            ) from error
    if config.add_optimization_profile(profile) < 0:
        raise InputError(
            "TensorRT refuses the shapes of the samples: "
            + ", ".join(_range_words(known[str(t.name)]) for t in wanted),
            fix="Give samples of the shapes that the model takes.",
        )


def _shape_values(found: InputRange) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    if found.values is None:
        raise InputError(
            f"TensorRT reads input '{found.name}' to know shapes, and its samples differ in shape or are no integers.",
            fix="Give samples in which this input has one shape.",
        )
    return found.values


def _range_words(found: InputRange) -> str:
    return f"'{found.name}' {shape_words(found.least)} to {shape_words(found.most)}"


def _attach(config: Any, timing: bytes) -> Any:
    """Attach a timing cache, an empty one where the given one is of another version or GPU, or damaged."""
    for data in dict.fromkeys((timing, b"")):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):  # noqa: FBT003 - the binding's signature
            return cache
    return None


def _serialized(cache: Any) -> bytes:
    data = None if cache is None else cache.serialize()
    return b"" if data is None else bytes(data)


def _build_fix(weak: WeakPlan | None) -> str:
    if weak is not None and weak.obey:
        return "A constraint may be impossible to obey: prefer constraints instead, or build the mixed ONNX model."
    return f"Keep the layers that it names in fp32. {LOWER}"


def _warnings(said: Messages) -> tuple[str, ...]:
    """Return the builder's warnings about numbers; the others are about speed and style."""
    told = [each for each in said.warnings if "subnormal" in each.lower() or "out of range" in each.lower()]
    return tuple(f"TensorRT warns: {' '.join(each.split())[:300]}" for each in dict.fromkeys(told))


class _Steps:
    """What the builder told of its steps, and whether it may go on; no exception may pass through its own code."""

    def __init__(self, progress: Progress | None, cancel: Cancel) -> None:
        self._progress, self._cancel = progress, cancel
        self._totals: dict[str, int] = {}
        self._error: BaseException | None = None

    def begin(self, phase: str, steps: int) -> None:
        self._totals[phase] = steps
        self._tell(phase, 0, steps)

    def step(self, phase: str, done: int) -> bool:
        self._tell(phase, done, self._totals.get(phase, 0))
        return self._error is None and not self._cancel.cancelled

    def end(self, phase: str) -> None:
        """Report the end of a phase, which may come before all of its steps."""
        total = self._totals.pop(phase, None)
        if total is not None and not self._cancel.cancelled:
            self._tell(phase, total, total)

    def _tell(self, phase: str, done: int, total: int) -> None:
        if self._progress is None or self._error is not None:
            return
        try:
            self._progress(phase, min(done, total), total)
        except BaseException as error:  # noqa: BLE001 - `check` raises it again, after the builder's own code
            self._error = error

    def check(self) -> None:
        """Raise what stopped the build."""
        if self._error is not None:
            raise self._error
        if self._cancel.cancelled:
            raise RunCancelled("The build of the engine was cancelled.")


def _monitor(trt: Any, steps: _Steps) -> Any:
    """Return a progress monitor that reports steps; the builder calls it from its own threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase  # phases nest; each is told by its own name
            steps.begin(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return steps.step(phase_name, step + 1)  # False ends the build

        def phase_finish(self, phase_name: str) -> None:
            steps.end(phase_name)

    return Monitor()
