"""Measure one peer in a process of its own; runs in the peers' environment, as `python -m peers.theirs`."""

from __future__ import annotations

import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from peers.tensors import compare, mark_all, run_all
from peers.worker import Clock, main, peak_mb, since_start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__: list[str] = []

MB = 1e6


def _common(*, shapes: bool) -> Callable[..., onnx.ModelProto]:
    from onnxconverter_common.float16 import convert_float_to_float16  # noqa: PLC0415 - only this peer's cost

    return lambda model, blocked: convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=not shapes, node_block_list=blocked
    )


def _transformers(*, shapes: bool) -> Callable[..., onnx.ModelProto]:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - only this peer's cost

    return lambda model, blocked: convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=not shapes, node_block_list=blocked
    )


def _autocast() -> Callable[..., onnx.ModelProto]:
    from modelopt.onnx.autocast import convert_to_mixed_precision  # noqa: PLC0415 - only this peer's cost

    logging.getLogger("modelopt").setLevel(logging.ERROR)
    return lambda path, blocked: convert_to_mixed_precision(
        path, keep_io_types=True, nodes_to_exclude=[f"^{re.escape(name)}$" for name in blocked]
    )


def _autocast_simple() -> Callable[..., onnx.ModelProto]:
    from modelopt.onnx.autocast import convert_to_f16  # noqa: PLC0415 - only this peer's cost

    logging.getLogger("modelopt").setLevel(logging.ERROR)

    def converter(model: onnx.ModelProto, blocked: Sequence[str]) -> onnx.ModelProto:
        if blocked:
            raise ValueError("convert_to_f16 cannot block single layers, so it takes no part in the toggle loop")
        return convert_to_f16(model, keep_io_types=True)

    return converter


# Tool to its converter, and whether that takes the path of a file or a model in memory.
TOOLS: dict[str, tuple[Callable[[], Callable[..., onnx.ModelProto]], bool]] = {
    "onnxconverter-common": (lambda: _common(shapes=True), False),
    "onnxconverter-common, no shape inference": (lambda: _common(shapes=False), False),
    "onnxruntime.transformers": (lambda: _transformers(shapes=True), False),
    "onnxruntime.transformers, no shape inference": (lambda: _transformers(shapes=False), False),
    "ModelOpt AutoCast": (_autocast, True),
    "ModelOpt AutoCast convert_to_f16": (_autocast_simple, False),
}


def _loaded(tool: str) -> tuple[Callable[..., onnx.ModelProto], bool]:
    warnings.simplefilter("ignore")
    make, from_path = TOOLS[tool]
    return make(), from_path


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime  # noqa: PLC0415 - the conversion alone must not pay for it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Nothing fuses when all tensors are outputs; without the attempt a session of BERT-base is there in half the time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _feeds(settings: dict[str, Any]) -> dict[str, Any]:
    with np.load(settings["samples"]) as arrays:
        return {name: arrays[name][: settings["rows"]] for name in arrays.files}


def convert_file(settings: dict[str, Any]) -> dict[str, Any]:
    """From one file to the other; the import of the converter is timed apart."""
    converter, from_path = _loaded(settings["tool"])
    before, start_s = peak_mb(), since_start(settings)
    clock = Clock()
    source: Any = settings["model"]
    if not from_path:
        with clock.phase("load"):
            source = onnx.load(source)
    with clock.phase("convert"):
        made = converter(source, [])
    with clock.phase("save"):
        onnx.save(made, settings["out"])
    return {
        "seconds": clock.total,
        "phases": clock.seconds,
        "start_s": start_s,
        "peak_mb": peak_mb(),
        "after_import_mb": before,
    }


def toggle(settings: dict[str, Any]) -> dict[str, Any]:
    """Block another layer each time, and compare every tensor with the fp32 model."""
    converter, from_path = _loaded(settings["tool"])
    feeds = _feeds(settings)
    once = Clock()
    with once.phase("fp32 reference"):
        source = onnx.load(settings["model"])
        marked = onnx.ModelProto()
        marked.CopyFrom(source)
        mark_all(marked)
        exact = run_all(_session(marked), feeds)
        del marked
    seconds, phases, compared = [], [], 0
    for layer in settings["layers"]:
        clock = Clock()
        given: Any = settings["model"]
        with clock.phase("convert"):
            if not from_path:
                given = onnx.ModelProto()
                given.CopyFrom(source)  # it converts in place; cheaper than to load the file again
            made = converter(given, [layer])
        with clock.phase("session"):
            mark_all(made)
            session = _session(made)
        with clock.phase("run"):
            low = run_all(session, feeds)
        with clock.phase("compare"):
            compared = len(compare(exact, low))
        del made, session, low, given
        seconds.append(clock.total)
        phases.append(clock.seconds)
    return {
        "all_seconds": seconds,
        "all_phases": phases,
        "once": once.seconds,
        "compared": compared,
        "peak_mb": peak_mb(),
    }


def trap(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the error that this way of measuring finds in the converted model on the CPU provider."""
    converter, from_path = _loaded(settings["tool"])
    with np.load(settings["samples"]) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    source = onnx.load(settings["model"])
    exact = _session(source).run(["y"], feeds)[0]
    made = converter(settings["model"] if from_path else source, [])
    mark_all(made)
    low = run_all(_session(made), feeds)["y"].astype(np.float32)
    return {"relative_error": float(np.linalg.norm(low - exact) / np.linalg.norm(exact))}


if __name__ == "__main__":
    main({"convert": convert_file, "toggle": toggle, "trap": trap})
