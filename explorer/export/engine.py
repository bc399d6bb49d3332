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
from explorer.export.blacklists import blacklist_text, takes
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
    from explorer.results.engine_builds import BuiltEngine
    from explorer.results.engines import EngineRuns, InspectedEngine

__all__ = ["engine_metadata", "export_engine", "export_recipe", "trtexec_command", "weak_command"]

_KIND: Final = "precision-explorer engine"
_VERSION: Final = 1  # raised when a key changes its meaning or goes away
_VERSIONS: Final[tuple[Literal[10, 11], ...]] = (11, 10)  # major versions of TensorRT with command lines of their own
_MIB: Final = 1 << 20
_LEVEL: Final = BuildSettings().optimization_level
_SPECIAL: Final = re.compile(r"[:,']")  # what separates in trtexec's shapes: such a name stands in single quotes
_TF32: Final = "tf32"
_WEAK_BESIDE: Final = frozenset({"int8"})  # what a plan of another format may hold too
_NO_RANGES: Final = (
    "Where the model has no Q/DQ nodes int8 needs ranges: write them with explorer.calibrate.write_tensorrt_cache and "
    "add --calib=FILE; without, trtexec makes them up."
)


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
    rebuild, needs = _rebuild(built, model, engine)
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
        "rebuild": rebuild,
        "rebuild_needs": needs,
        "layers": layers,
        "notes": list(built.notes),
    }  # fmt: skip


def _rebuild(built: BuiltEngine, model: Model, engine: Path) -> tuple[str, str]:
    """Return the command line that builds an engine again, and what it needs or cannot tell."""
    key, weak = built.key, built.weak
    if weak is not None:
        command, note = weak_command(
            model, built.decisions, engine.name, key.ranges, settings=built.settings, constraints=weak.constraints
        )
        return command, f"It builds from the source model, whose nodes it names as they are named there. {note}"
    onnx = f"{engine.stem}.onnx"
    command = trtexec_command(
        onnx, engine.name, built.decisions, key.ranges,
        version=10 if key.tensorrt.startswith("10.") else 11, settings=built.settings,
    )  # fmt: skip
    return command, (
        f"{onnx} is the mixed model, which is not written with the engine: `precision-explorer export-engine MODEL "
        f"--plan PLAN --recipe --out {engine.name}` writes it. PLAN is a file of what 'plan' holds here; where layers "
        "are int8, add the calibration (--calibration) of this engine."
    )


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
    files = (onnx.name, engine.name, conversion.decisions, ranges)
    new, old = (trtexec_command(*files, version=version, settings=settings) for version in _VERSIONS)
    weak, note = weak_command(results.model, conversion.decisions, engine.name, ranges, settings=settings)
    text = (
        "#!/bin/sh\n"
        "# Builds the engine and times it, as a whole and layer by layer; run it where TensorRT is.\n"
        "# Then, on any machine: precision-explorer import-profile tells the times of the model's layers.\n"
        "set -e\n"
        'case "$(trtexec --help 2>&1)" in\n'
        f"*--stronglyTyped*)  # TensorRT 10\n{old}\n;;\n"
        f"*)  # TensorRT 11: every network is strongly typed\n{new}\n;;\nesac\n\n"
        f"# The same plan, weakly typed, from the source model. {note}\n{_commented(weak)}"
    )
    with replacing(script) as part:  # both files or none
        part.write_text(text, encoding="utf-8")
        written = save_onnx(conversion, results.model, onnx)
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

    It writes the engine's layers, their times, and the times of whole runs beside the engine; layers are timed in runs
    of their own.

    Args:
        onnx: the mixed ONNX model.
        engine: the file to write.
        decisions: of the plan.
        ranges: shapes of the inputs; those of inputs without open axes are left out.
        version: TensorRT's major version.
        settings: what the builder is told.
    """
    words = ["trtexec", f"--onnx={onnx}"]
    if version == 10:
        words.append("--stronglyTyped")
    if not _is_tf32(decisions):
        words.append("--noTF32")
    return shlex.join([*words, *_common_flags(engine, ranges, settings or BuildSettings())])


def _is_tf32(decisions: Decisions) -> bool:
    return decisions.plan.format == _TF32 and bool(decisions.low_layers)


def _common_flags(engine: str | Path, ranges: tuple[InputRange, ...], told: BuildSettings) -> list[str]:
    """Return the options that do not tell of precision."""
    stem = str(Path(engine).with_suffix(""))
    words = [f"--saveEngine={engine}", *_shape_flags([each for each in ranges if each.dynamic])]
    if told.optimization_level != _LEVEL:
        words.append(f"--builderOptimizationLevel={told.optimization_level}")
    if told.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{max(1, told.workspace_bytes // _MIB)}")
    return [
        *words, "--profilingVerbosity=detailed", f"--exportLayerInfo={stem}.layers.json",
        f"--exportProfile={stem}.profile.json", f"--exportTimes={stem}.times.json", "--separateProfileRun",
    ]  # fmt: skip


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


def weak_command(
    model: Model,
    decisions: Decisions,
    engine: str | Path,
    ranges: tuple[InputRange, ...] = (),
    *,
    settings: BuildSettings | None = None,
    constraints: Literal["obey", "prefer"] = "obey",
) -> tuple[str, str]:
    """Return the weakly typed ``trtexec`` command line (TensorRT 10 and older), and what it cannot express.

    It builds from the source model. Of a format that weakly typed networks do not have there is none: it is empty.

    Args:
        model: the source model.
        decisions: of the plan.
        engine: as in `trtexec_command`, and so are ``ranges`` and ``settings``.
        ranges: likewise.
        settings: likewise.
        constraints: whether the build fails where a constraint cannot be kept.
    """
    low = decisions.plan.format
    if low == _TF32:
        words = ["trtexec", f"--onnx={model.path or 'model.onnx'}", *([] if _is_tf32(decisions) else ["--noTF32"])]
        notes = ["TF32 is on by itself there: it takes no flag and no blacklist."]
    elif takes("trtexec", low):
        text, note = blacklist_text("trtexec", model, decisions)
        chosen = {"--precisionConstraints=obey": f"--precisionConstraints={constraints}"}
        words = [chosen.get(word, word) for word in shlex.split(text)]
        others = sorted({each.format for each in decisions} & _WEAK_BESIDE - {low})
        words += [f"--{each}" for each in others]
        notes = [note, "What runs low is left to TensorRT's choice among these formats and fp32."]
        if "int8" in (low, *others):
            notes.append(_NO_RANGES)
    else:
        return "", f"There is none: weakly typed networks have no {low}."
    return shlex.join([*words, *_common_flags(engine, ranges, settings or BuildSettings())]), " ".join(notes)
