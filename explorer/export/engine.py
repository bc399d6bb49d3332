"""Write a TensorRT engine with all that it came from, or what builds it on another machine.

An engine runs only with the version of TensorRT and on the kind of GPU that built it. The recipe (the mixed ONNX model
and a ``trtexec`` command line) needs neither here. ``trtexec``'s options are those that it documents in TensorRT 10 and
11; *neither command line nor engine was tried with TensorRT so far*.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from explorer import __version__
from explorer.backends.tensorrt.build import BuildSettings
from explorer.backends.tensorrt.pairs import check_pairs
from explorer.backends.tensorrt.shapes import InputRange, input_ranges, shape_words
from explorer.errors import BackendError
from explorer.export.blacklists import blacklist_text
from explorer.export.files import replacing
from explorer.export.onnx_file import save_onnx
from explorer.plan import NO_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.backends.runtime import Cancel
    from explorer.convert import Decisions
    from explorer.model import Model
    from explorer.plan import Plan
    from explorer.results import Results
    from explorer.results.engines import EngineRuns, InspectedEngine

__all__ = ["engine_metadata", "export_engine", "export_recipe", "trtexec_command", "weak_command"]

_KIND: Final = "precision-explorer engine"
_VERSION: Final = 1  # raised when a key changes its meaning or goes away
_VERSIONS: Final[tuple[Literal[10, 11], ...]] = (11, 10)  # major versions of TensorRT with command lines of their own
_MIB: Final = 1 << 20
_LEVEL: Final = BuildSettings().optimization_level
_SPECIAL: Final = re.compile(r"[:,']")  # what separates in trtexec's shapes: such a name stands in single quotes
_TF32: Final = "tf32"


def export_engine(
    runs: EngineRuns,
    model: Model,
    plan: Plan,
    target: str | None,
    path: str | Path,
    *,
    cancel: Cancel | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Path, Path]:
    """Write the engine of a plan, and beside it ``<name>.json`` with what it came from; return both paths.

    Args:
        runs: what builds engines.
        model: the model.
        plan: the plan.
        target: the backend whose kernels decide what may run low.
        path: the engine's file.
        cancel: stops the build.
        progress: called with what is being done, how much of it, and of how much.

    Raises:
        BackendError: TensorRT is not ready here, takes no such plan, or failed.
        ConversionError: the plan cannot be converted.
        ExportError: a file cannot be written; what stood there is untouched.
    """
    inspected = runs.inspect(plan, target, cancel=cancel, progress=progress)
    engine = Path(path)
    beside = engine.with_name(f"{engine.name}.json")
    text = json.dumps(engine_metadata(inspected, model, engine), indent=2, default=str) + "\n"
    with replacing(beside) as json_part, replacing(engine) as part:
        part.write_bytes(inspected.built.data)
        json_part.write_text(text, encoding="utf-8")
    return engine, beside


def engine_metadata(inspected: InspectedEngine, model: Model, engine: Path) -> dict[str, Any]:
    """Return what an engine came from and what it is, as plain values."""
    built, key = inspected.built, inspected.built.key
    ranges = {each.name: each for each in key.ranges}
    layers: Any = inspected.layers_json
    with suppress(ValueError):  # kept as text where it is no JSON
        layers = json.loads(inspected.layers_json)
    tensors = {
        name: {"dtype": dtype, **(_range_document(ranges[name]) if name in ranges else {})}
        for name, dtype in inspected.types.items()
    }
    return {
        "kind": _KIND,
        "schema": _VERSION,
        "precision_explorer": __version__,
        "model": {"name": model.name, "digest": model.digest, "onnx": key.model},
        "plan": json.loads(key.plan),
        "formats": {each.layer_id: each.format for each in built.decisions if each.format != NO_FORMAT},
        "typing": "strong" if built.weak is None else "weak",
        "tensorrt": key.tensorrt,
        "gpu": {"name": key.gpu, "capability": list(key.capability)},
        "settings": dict(key.settings),
        "inputs": {name: tensors[name] for name in tensors if name in ranges},
        "outputs": {name: tensors[name] for name in tensors if name not in ranges},
        "engine": {"bytes": len(built.data), "sha256": hashlib.sha256(built.data).hexdigest(), "file": engine.name},
        "rebuild": trtexec_command(
            f"{engine.stem}.onnx", engine.name, built.decisions, key.ranges,
            version=10 if key.tensorrt.startswith("10.") else 11, settings=built.settings,
        ),
        "layers": layers,
        "notes": list(built.notes),
    }  # fmt: skip


def _range_document(found: InputRange) -> dict[str, Any]:
    return {"min": list(found.least), "opt": list(found.usual), "max": list(found.most)}


def export_recipe(
    results: Results, plan: Plan, target: str | None, path: str | Path, *, settings: BuildSettings | None = None
) -> tuple[Path, ...]:
    """Write what builds a plan's engine where TensorRT is: the mixed ONNX model, and a script beside it.

    The script ``<name>.build.sh`` holds the ``trtexec`` command lines for TensorRT 11 and 10, and as a comment the
    weakly typed one for 10 and older. It needs no TensorRT here.

    Args:
        results: of the model; its samples give the shapes.
        plan: the plan.
        target: the backend whose kernels decide what may run low.
        path: the engine's file; the ONNX model gets the same name with the suffix ``.onnx``.
        settings: what the builder is told.

    Returns:
        The files that were written.

    Raises:
        BackendError: no file can hold the plan, or TensorRT does not take how it is quantised.
        ConversionError: the plan cannot be converted.
        ExportError: a file cannot be written; what stood there is untouched.
    """
    conversion = results.conversion(plan, target, clamp=False)
    if conversion.refusal:
        raise BackendError(f"No file can hold this plan: {conversion.refusal}.", fix="Change the plan.")
    check_pairs(conversion.ir)
    engine = Path(path)
    onnx, script = engine.with_suffix(".onnx"), engine.with_suffix(".build.sh")
    ranges = input_ranges(results.model, results.samples)
    written = save_onnx(conversion, results.model, onnx)
    files = (onnx.name, engine.name, conversion.decisions, ranges)
    new, old = (trtexec_command(*files, version=version, settings=settings) for version in _VERSIONS)
    weak, note = weak_command(results.model, conversion.decisions)
    text = (
        "#!/bin/sh\n"
        "# Builds the engine and times it, as a whole and layer by layer; run it where TensorRT is.\n"
        "# Then, on any machine: precision-explorer import-profile tells the times of the model's layers.\n"
        "set -e\n"
        'case "$(trtexec --help 2>&1)" in\n'
        f"*--stronglyTyped*)  # TensorRT 10\n{old}\n;;\n"
        f"*)  # TensorRT 11: every network is strongly typed\n{new}\n;;\nesac\n\n"
        f"# The same plan, weakly typed, from the fp32 model. {note}\n{_commented(weak)}"
    )
    with replacing(script) as part:
        part.write_text(text, encoding="utf-8")
    return (*written, script)


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def trtexec_command(
    onnx: str | Path,
    engine: str | Path,
    decisions: Decisions,
    ranges: tuple[InputRange, ...] = (),
    *,
    version: Literal[10, 11] = 11,
    settings: BuildSettings | None = None,
) -> str:
    """Return the ``trtexec`` command line that builds a strongly typed engine from the mixed ONNX model and times it.

    It writes the engine's layers and their times beside the engine, from a run of their own.

    Args:
        onnx: the mixed ONNX model.
        engine: the file to write.
        decisions: of the plan.
        ranges: shapes of the inputs; those of inputs without open axes are left out.
        version: TensorRT's major version.
        settings: what the builder is told.
    """
    told, stem = settings or BuildSettings(), str(Path(engine).with_suffix(""))
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}"]
    if version == 10:
        words.append("--stronglyTyped")
    words += _shape_flags([each for each in ranges if each.dynamic])
    if not (decisions.plan.format == _TF32 and decisions.low_layers):
        words.append("--noTF32")
    if told.optimization_level != _LEVEL:
        words.append(f"--builderOptimizationLevel={told.optimization_level}")
    if told.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{max(1, told.workspace_bytes // _MIB)}")
    words += [
        "--profilingVerbosity=detailed", f"--exportLayerInfo={stem}.layers.json",
        f"--exportProfile={stem}.profile.json", "--separateProfileRun",
    ]  # fmt: skip
    return shlex.join(words)


def _shape_flags(ranges: list[InputRange]) -> list[str]:
    if not ranges:
        return []
    kinds = (("minShapes", "least"), ("optShapes", "usual"), ("maxShapes", "most"), ("shapes", "usual"))
    return [
        f"--{flag}=" + ",".join(f"{_name(each.name)}:{shape_words(getattr(each, field))}" for each in ranges)
        for flag, field in kinds
    ]


def _name(name: str) -> str:
    return f"'{name}'" if _SPECIAL.search(name) else name


def weak_command(model: Model, decisions: Decisions) -> tuple[str, str]:
    """Return the weakly typed ``trtexec`` command line (TensorRT 10 and older), and what it cannot express."""
    return blacklist_text("trtexec", model, decisions)
