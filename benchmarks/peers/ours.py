"""Measure Precision Explorer in a process of its own; runs in its environment, as `python -m peers.ours`."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

import explorer
from explorer.convert import convert, decide, type_layers
from explorer.export import save_onnx
from explorer.model import load_model, load_samples
from explorer.probe import Emulator
from explorer.session import DEFAULT_TARGET
from peers.worker import Clock, main, median, peak_mb, since_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__: list[str] = []

importlib.import_module("onnxruntime")  # imported lazily: it must not count as conversion

SHOWN_ERROR = 160  # characters of an error that go into the record
# Functions whose time is told apart, by the module that calls them; what is not there any more is left out.
PHASES = {
    "load": (explorer.convert_to_mixed_precision.__module__, "load_model"),
    "types": ("explorer.convert.convert", "type_layers"),
    "decide": ("explorer.convert.convert", "decide"),
    "casts and weights": ("explorer.convert.convert", "insert_casts"),
    "check": ("explorer.convert.convert", "check_converted"),
    "save": (explorer.convert_to_mixed_precision.__module__, "save_onnx"),
}


def _timed(function: Callable[..., Any], clock: Clock, phase: str) -> Callable[..., Any]:
    def call(*args: Any, **settings: Any) -> Any:
        with clock.phase(phase):
            return function(*args, **settings)

    return call


def _time_phases(clock: Clock) -> None:
    for phase, (module_name, name) in PHASES.items():
        module = importlib.import_module(module_name)
        if hasattr(module, name):
            setattr(module, name, _timed(getattr(module, name), clock, phase))


def convert_file(settings: dict[str, Any]) -> dict[str, Any]:
    """The one-call form, from file to file, with everything that it does by default: kernels asked, result checked."""
    clock = Clock()
    _time_phases(clock)
    before, start_s = peak_mb(), since_start(settings)
    start = time.perf_counter()
    explorer.convert_to_mixed_precision(settings["model"], settings["out"])
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "phases": {**clock.seconds, "other": seconds - clock.total},
        "start_s": start_s,
        "peak_mb": peak_mb(),
        "after_import_mb": before,
    }


def validity(settings: dict[str, Any]) -> dict[str, Any]:
    """Judge a converted file of any tool: onnx's full check, loading in ONNX Runtime, what was converted."""
    import onnxruntime  # noqa: PLC0415 - loaded already

    path = settings["model"]
    proto = onnx.load(path)
    sizes: dict[int, int] = {}
    for tensor in proto.graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    low, high = sizes.get(onnx.TensorProto.FLOAT16, 0), sizes.get(onnx.TensorProto.FLOAT, 0)
    found = {
        "file_mb": Path(path).stat().st_size / 1e6,
        "casts": sum(node.op_type == "Cast" for node in proto.graph.node),
        "low_weights": low / (low + high) if low + high else 0.0,
        "full_check": "passes",
        "loads": "loads",
    }
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        found["full_check"] = _told(error, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: the error itself is kept
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (onnxruntime.capi.onnxruntime_pybind11_state.Fail, RuntimeError, ValueError) as error:
        found["loads"] = _told(error, path)
    return found


def _told(error: BaseException, path: str) -> str:
    """Return an error in one line, without folders of this machine."""
    text = str(error).replace(path, Path(path).name).strip() or type(error).__name__
    return " ".join(text.split())[:SHOWN_ERROR]


def _samples(settings: dict[str, Any], model: Any) -> Any:
    with np.load(settings["samples"]) as arrays:
        return load_samples(model, {name: arrays[name][: settings["rows"]] for name in arrays.files})


def pick_layers(settings: dict[str, Any]) -> dict[str, Any]:
    """Return layers to toggle, spread over the model: of those that may run low, and named alike in the file."""
    model = load_model(settings["model"])
    typing = type_layers(model, "fp16", DEFAULT_TARGET)
    low = decide(explorer.Plan(), typing).low_layers
    names = {node.name for node in onnx.load(settings["model"], load_external_data=False).graph.node}
    heavy = [
        layer.id
        for layer in model.layers
        if layer.id in low and layer.id in names and layer.op in ("MatMul", "Gemm", "Conv", "Add", "Softmax", "Mul")
    ]
    count = settings["count"]
    chosen = [heavy[(2 * index + 1) * len(heavy) // (2 * count)] for index in range(count)]
    return {
        "layers": chosen,
        "model_layers": len(model.layers),
        "file_mb": Path(settings["model"]).stat().st_size / 1e6,
    }


def toggle(settings: dict[str, Any]) -> dict[str, Any]:
    """Set another layer to fp32 each time, and get the error of every layer; the compiled session is kept."""
    once = Clock()
    with once.phase("load"):
        model = load_model(settings["model"])
        samples = _samples(settings, model)
    with once.phase("types"):
        typing = type_layers(model, "fp16", DEFAULT_TARGET)
    plan = explorer.Plan()
    emulator = Emulator(typing, samples)
    with once.phase("ranges"):
        emulator.ranges()
    with once.phase("compile and first run"):
        emulator.accumulated(decide(plan, typing))
    seconds, measured = [], 0
    for layer in settings["layers"]:
        start = time.perf_counter()
        found = emulator.accumulated(decide(plan.set({layer: "fp32"}), typing))
        seconds.append(time.perf_counter() - start)
        measured = len(found.values)
    peak = peak_mb()
    exploration = explorer.session.Exploration(model, samples, plan)
    exploration.errors()  # compiles once more, and makes the local errors, which every later table repeats
    tables = []
    for layer in settings["layers"]:
        start = time.perf_counter()
        exploration.plan = plan.set({layer: "fp32"})
        exploration.errors()
        tables.append(time.perf_counter() - start)
    return {
        "all_seconds": seconds,
        "table_seconds": tables,
        "once": once.seconds,
        "compared": measured,
        "batches": len(samples),
        "peak_mb": peak,
    }


def trap(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the emulated error of the output that fp16 loses."""
    model = load_model(settings["model"])
    exploration = explorer.session.Exploration(model, load_samples(model, settings["samples"]))
    return {"relative_error": float(exploration.output_error()["rel_l2"].iloc[0])}


def forward(settings: dict[str, Any]) -> dict[str, Any]:
    """One pass of the fp32 model, ONNX Runtime's defaults: all samples at once, and one by one; the faster counts."""
    import onnxruntime  # noqa: PLC0415 - loaded already

    session = onnxruntime.InferenceSession(settings["model"], providers=["CPUExecutionProvider"])
    with np.load(settings["samples"]) as arrays:
        feeds = {name: arrays[name][: settings["rows"]] for name in arrays.files}
    singles = [{name: array[row : row + 1] for name, array in feeds.items()} for row in range(settings["rows"])]
    found = {}
    for name, batches in (("at once", [feeds]), ("one by one", singles)):
        seconds = []
        for _ in range(settings["repeats"] + 1):
            start = time.perf_counter()
            for batch in batches:
                session.run(None, batch)
            seconds.append(time.perf_counter() - start)
        found[name] = median(seconds[1:])
    return {"seconds": min(found.values()), "ways": found}


class _Memory:
    """Keeps what was woven and compiled, so that repeated runs show the run alone; and times what it does first."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._kept: dict[tuple[str, int], Any] = {}
        self._calls = 0

    def begin(self) -> None:
        """Let the next calls return what the calls after the last `begin` did."""
        self._calls = 0

    def around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            self._calls += 1
            key = (name, self._calls)
            if key not in self._kept:
                with self.clock.phase(name):
                    self._kept[key] = function(*args, **settings)
            return self._kept[key]

        return call


def local(settings: dict[str, Any]) -> dict[str, Any]:
    """All local errors: the run alone, again and again on one session, and apart from it what is done once."""
    module = importlib.import_module("explorer.probe.emulator")
    model = load_model(settings["model"])
    samples = _samples(settings, model)
    emulator = Emulator(type_layers(model, "fp16", DEFAULT_TARGET), samples)
    ranging = _Memory()
    runs = emulator._runs  # noqa: SLF001 - a stopwatch inside
    compile_graph = runs.compile
    runs.compile = ranging.around(compile_graph, "compile")
    start = time.perf_counter()
    emulator.ranges()
    ranges_s = time.perf_counter() - start
    memory = _Memory()
    runs.compile = memory.around(compile_graph, "compile")
    module.weave_local = memory.around(module.weave_local, "weave")
    seconds = []
    for _ in range(settings["repeats"] + 1):
        memory.begin()
        emulator._local = None  # noqa: SLF001 - forget the result, not the session
        start = time.perf_counter()
        found = emulator.local()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": median(seconds[1:]),
        "compile_s": memory.clock.total,
        "ranges_s": ranges_s,
        "ranges_compile_s": ranging.clock.total,
        "measured": len(found.values),
        "batches": len(samples),
        "peak_mb": peak_mb(),
    }


def scale(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What many layers cost, step by step; yields after each step, for some may be stopped."""
    clock = Clock()
    with clock.phase("load"):
        model = load_model(settings["model"])
    found = {"phases": clock.seconds, "layers": len(model.layers)}
    yield found
    samples = _samples({**settings, "rows": 1}, model)
    plan = explorer.Plan()
    with clock.phase("convert, checked"):
        made = convert(model, plan, backend=DEFAULT_TARGET)
    with clock.phase("save"):
        save_onnx(made, model, settings["out"])
    yield found
    emulator = Emulator(made.decisions.typing, samples)
    with clock.phase("ranges: compile, run"):
        emulator.ranges()
    yield found
    with clock.phase("switchable graph: compile, first run"):
        emulator.accumulated(made.decisions)
    yield found
    chosen = [decision.layer_id for decision in made.decisions if decision.layer_id in made.decisions.low_layers]
    toggles, decides = [], []
    for index in range(settings["repeats"]):
        layer = chosen[(2 * index + 1) * len(chosen) // (2 * settings["repeats"])]
        start = time.perf_counter()
        decided = decide(plan.set({layer: "fp32"}), made.decisions.typing)
        decides.append(time.perf_counter() - start)
        emulator.accumulated(decided)
        toggles.append(time.perf_counter() - start)
    clock.seconds["toggle"] = median(toggles)
    clock.seconds["of which decide"] = median(decides)
    yield {**found, "peak_mb": peak_mb()}


if __name__ == "__main__":
    main(
        {
            "convert": convert_file,
            "validity": validity,
            "pick": pick_layers,
            "toggle": toggle,
            "trap": trap,
            "forward": forward,
            "local": local,
            "scale": scale,
        }
    )
