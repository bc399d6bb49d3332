"""Engines and recipes as files: metadata, trtexec's command line for both major versions, nothing half written."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess

import numpy as np
import onnx
import pytest
from support import fake_tensorrt

import explorer
from explorer.backends.status import BackendStatus
from explorer.backends.tensorrt import versions
from explorer.backends.tensorrt.build import BuildSettings
from explorer.backends.tensorrt.shapes import InputRange
from explorer.backends.tensorrt.versions import api_of
from explorer.errors import BackendError, ExportError
from explorer.export import engine as engine_module
from explorer.export.blacklists import blacklist_text
from explorer.export.engine import export_engine, export_recipe, trtexec_command, weak_command
from explorer.plan import Plan
from explorer.results import engine_builds
from explorer.results.engines import EngineRuns

ONNX, _ = fake_tensorrt.dense_model()
FP16, FP32, TF32 = Plan(), Plan.preset("fp32"), Plan(format="tf32")
RANGES = (
    InputRange("x", (1, 4), (8, 4), (8, 4), dynamic=True),
    InputRange("fixed", (2,), (2,), (2,), dynamic=False),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def x():
    samples = np.random.default_rng(7).standard_normal((10, 4)).astype(np.float32)
    return explorer.open(ONNX, inputs={"x": samples}, batch_size=8, plan=FP16.block(layers=["relu"]), target=None)


@pytest.fixture(params=["10.13.3.9", "11.4.0.12"])
def fake(request, monkeypatch):
    made = fake_tensorrt.make(request.param)
    status = BackendStatus("tensorrt", "ready", devices=("NVIDIA Fake",))
    monkeypatch.setattr(versions, "backend_status", lambda: (status,))
    monkeypatch.setattr(engine_builds, "load_tensorrt", lambda: (made.trt, api_of(made.trt)))
    monkeypatch.setattr(engine_builds, "open_device", fake_tensorrt.FakeDevice)
    return made


def decisions(plan):
    return explorer.open(ONNX, dims={"batch": 1}, target=None).results.decisions(plan, None)


def flags(line):
    """Returns trtexec's options of a command line, as a shell would split them."""
    program, *words = shlex.split(line)
    assert program == "trtexec"
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_builds_times_and_tells_layers():
    found = flags(trtexec_command("mixed.onnx", "out/m.engine", decisions(FP16)))
    assert found == {
        "onnx": "mixed.onnx", "saveEngine": "out/m.engine", "noTF32": "", "profilingVerbosity": "detailed",
        "exportLayerInfo": "out/m.layers.json", "exportProfile": "out/m.profile.json", "separateProfileRun": "",
        "exportTimes": "out/m.times.json",
    }  # fmt: skip


def test_only_version_10_is_told_that_types_are_strong():
    assert "stronglyTyped" in flags(trtexec_command("m.onnx", "m.engine", decisions(FP16), version=10))
    assert "stronglyTyped" not in flags(trtexec_command("m.onnx", "m.engine", decisions(FP16), version=11))


@pytest.mark.parametrize("version", [10, 11])
def test_no_command_has_what_11_removed(version):
    found = flags(trtexec_command("m.onnx", "m.engine", decisions(FP16), version=version))
    assert not {"fp16", "bf16", "int8", "fp8", "best", "layerPrecisions", "precisionConstraints", "calib"} & set(found)


@pytest.mark.parametrize(("plan", "cleared"), [(FP32, True), (FP16, True), (TF32, False)])
def test_tf32_is_off_unless_the_plan_is_of_it(plan, cleared):
    assert ("noTF32" in flags(trtexec_command("m.onnx", "m.engine", decisions(plan)))) is cleared


def test_shapes_are_given_for_inputs_with_open_axes():
    found = flags(trtexec_command("m.onnx", "m.engine", decisions(FP16), RANGES))
    assert (found["minShapes"], found["optShapes"], found["maxShapes"]) == ("x:1x4", "x:8x4", "x:8x4")
    assert found["shapes"] == "x:8x4"  # what is timed


def test_names_that_would_be_taken_apart_are_quoted():
    ranges = (InputRange("in:0", (1,), (2,), (3,), dynamic=True), InputRange("n", (), (), (), dynamic=True))
    found = flags(trtexec_command("a b.onnx", "m.engine", decisions(FP16), ranges))
    assert found["minShapes"] == "'in:0':1,n:scalar"
    assert found["onnx"] == "a b.onnx"


def test_builder_settings_are_told():
    settings = BuildSettings(optimization_level=5, workspace_bytes=3 << 20)
    found = flags(trtexec_command("m.onnx", "m.engine", decisions(FP16), settings=settings))
    assert (found["builderOptimizationLevel"], found["memPoolSize"]) == ("5", "workspace:3")


@pytest.mark.parametrize("constraints", ["obey", "prefer"])
def test_the_weakly_typed_command_is_that_of_the_blacklist_and_writes_an_engine(x, constraints):
    text, note = weak_command(x.model, x.decisions(), "out/m.engine", RANGES, constraints=constraints)
    found, strong = flags(text), flags(trtexec_command("m.onnx", "out/m.engine", x.decisions(), RANGES))
    blacklist, told = blacklist_text("trtexec", x.model, x.decisions())
    assert found["layerPrecisions"] == flags(blacklist)["layerPrecisions"] == "relu:fp32"
    assert found["precisionConstraints"] == constraints
    assert {name: strong[name] for name in strong if name != "onnx"}.items() <= found.items()
    assert told in note


def test_the_weakly_typed_command_keeps_fp32_in_fp32(x):
    """TF32 is on by itself, and a layer of fp32 may run in it."""
    assert "noTF32" in flags(blacklist_text("trtexec", x.model, x.decisions())[0])
    assert "noTF32" in flags(weak_command(x.model, decisions(FP32), "m.engine")[0])
    text, note = weak_command(x.model, decisions(TF32), "m.engine")
    assert not {"noTF32", "fp16", "layerPrecisions"} & set(flags(text))
    assert "by itself" in note


def test_int8_beside_fp16_gets_its_flag_and_is_told_to_need_ranges(x):
    x.calibrate()
    x.plan = FP16.use("int8", op_types=["MatMul"])
    text, note = weak_command(x.model, x.decisions(), "m.engine")
    assert {"fp16", "int8"} <= set(flags(text))
    assert "--calib=FILE" in note


# -- the recipe --------------------------------------------------------------------------------------------------------


def test_a_recipe_needs_no_tensorrt(x, tmp_path):
    model, script = export_recipe(x.results, x.plan, x.target, tmp_path / "m.engine")
    assert (model.name, script.name) == ("m.onnx", "m.build.sh")
    onnx.checker.check_model(str(model), full_check=True)
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.parametrize(("version", "said"), [(10, "--stronglyTyped  Create a network"), (11, "--skipInference")])
def test_the_script_gives_trtexec_the_words_of_its_version(x, tmp_path, version, said):
    """It runs the script in a shell, with a program of that name that notes what it is given."""
    model, script = export_recipe(x.results, x.plan, x.target, tmp_path / "m.engine")
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = --help ]; then echo "{said}"; exit 0; fi\n'
        'for word in "$@"; do echo "$word"; done > given\n'
    )
    program.chmod(0o755)
    subprocess.run(["sh", script], cwd=tmp_path, check=True, env={"PATH": f"{program.parent}:/usr/bin:/bin"})
    given = (tmp_path / "given").read_text().splitlines()
    decided = x.decisions()
    ranges = (InputRange("x", (2, 4), (8, 4), (8, 4), dynamic=True),)
    wanted = trtexec_command(model.name, "m.engine", decided, ranges, version=version)
    assert ["trtexec", *given] == shlex.split(wanted)


def test_the_script_holds_the_weakly_typed_form_as_a_comment(x, tmp_path):
    _, script = export_recipe(x.results, x.plan, x.target, tmp_path / "m.engine")
    lines = script.read_text().splitlines()
    assert any(line.startswith("# trtexec") and "--layerPrecisions=relu:fp32" in line for line in lines)


@pytest.mark.parametrize("low", ["tf32", "fp8e4m3"])
def test_formats_without_a_blacklist_have_a_recipe_too(tmp_path, low):
    x = explorer.open(dense_of_opset_19(), dims={"batch": 2}, plan=Plan(format=low), target=None)
    model, script = export_recipe(x.results, x.plan, x.target, tmp_path / "m.engine")
    lines = script.read_text().splitlines()
    weakly = [line for line in lines if line.startswith("# trtexec")]
    strong = [line for line in lines if line.startswith("trtexec")]
    assert len(strong) == 2
    assert all(("--noTF32" in line) is (low != "tf32") for line in (*strong, *weakly))
    assert len(weakly) == (low == "tf32")
    onnx.checker.check_model(str(model), full_check=True)


def dense_of_opset_19():
    """fp8 is a type from opset 19 on."""
    return onnx.version_converter.convert_version(onnx.load_from_string(ONNX), 19).SerializeToString()


def test_a_recipe_that_fails_leaves_nothing(x, tmp_path, monkeypatch):
    def refuse(*_):
        raise ExportError("The disk is full.")

    monkeypatch.setattr(engine_module, "save_onnx", refuse)
    with pytest.raises(ExportError, match="disk is full"):
        export_recipe(x.results, x.plan, x.target, tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_no_file_can_hold_gives_no_recipe(x, tmp_path):
    with pytest.raises(BackendError, match="No file can hold this plan: tf32"):
        export_recipe(x.results, TF32.block(layers=["last"]), None, tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


# -- the engine --------------------------------------------------------------------------------------------------------


def test_an_engine_is_written_with_all_that_it_came_from(fake, x, tmp_path):
    told = []
    engine, beside = export_engine(
        EngineRuns(x.results), x.model, x.plan, None, tmp_path / "m.engine", progress=lambda *step: told.append(step)
    )
    found = json.loads(beside.read_text())
    assert beside.name == "m.engine.json"
    assert found["engine"]["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert engine.read_bytes().startswith(fake_tensorrt.MAGIC)
    assert found["kind"] == "precision-explorer engine"
    assert found["model"]["digest"] == x.model.digest
    assert Plan.from_json(json.dumps(found["plan"])) == x.plan
    assert found["formats"] == {"first": "fp16", "bias": "fp16", "relu": "fp32", "last": "fp16"}
    assert (found["tensorrt"], found["typing"]) == (fake.trt.__version__, "strong")
    assert found["gpu"] == {"name": "NVIDIA Fake", "capability": [9, 0]}
    assert found["inputs"] == {"x": {"dtype": "float32", "min": [2, 4], "opt": [8, 4], "max": [8, 4]}}
    assert found["outputs"] == {"y": {"dtype": "float32"}}
    assert found["settings"]["tf32"] is False
    names = [layer["Name"] for layer in found["layers"]["Layers"]]
    assert "first + bias" in names or "first" in names
    assert ("stronglyTyped" in flags(found["rebuild"])) is fake.trt.__version__.startswith("10.")
    assert flags(found["rebuild"])["onnx"] == "m.onnx"
    assert found["rebuild_needs"].startswith("m.onnx is the mixed model, which is not written with the engine")
    assert "export-engine MODEL --plan PLAN --recipe --out m.engine" in found["rebuild_needs"]
    assert ("Building", 2, 2) in told


def test_the_metadata_of_a_weak_engine_says_so(monkeypatch, x, tmp_path):
    made = fake_tensorrt.make("10.13")
    status = BackendStatus("tensorrt", "ready", devices=("NVIDIA Fake",))
    monkeypatch.setattr(versions, "backend_status", lambda: (status,))
    monkeypatch.setattr(engine_builds, "load_tensorrt", lambda: (made.trt, api_of(made.trt)))
    monkeypatch.setattr(engine_builds, "open_device", fake_tensorrt.FakeDevice)
    runs = EngineRuns(x.results, strong=False, obey=False)
    _, beside = export_engine(runs, x.model, x.plan, None, tmp_path / "m.engine")
    found = json.loads(beside.read_text())
    rebuild = flags(found["rebuild"])
    assert (rebuild["precisionConstraints"], rebuild["layerPrecisions"]) == ("prefer", "relu:fp32")
    assert {"fp16", "noTF32", "minShapes"} <= set(rebuild)
    assert "stronglyTyped" not in rebuild
    assert "source model" in found["rebuild_needs"]
    assert found["typing"] == "weak"
    assert found["settings"]["weak"]["layers"]["relu"] == "fp32"


def test_a_failed_build_leaves_the_old_files_whole(fake, x, tmp_path):
    engine, beside = tmp_path / "m.engine", tmp_path / "m.engine.json"
    engine.write_bytes(b"old")
    beside.write_text("old")
    fake.faults["build"] = "no implementation"
    with pytest.raises(BackendError):
        export_engine(EngineRuns(x.results), x.model, x.plan, None, engine)
    assert (engine.read_bytes(), beside.read_text()) == (b"old", "old")
    assert {path.name for path in tmp_path.iterdir()} <= {"m.engine", "m.engine.json", "cache"}


def test_a_folder_that_is_not_there_is_told(fake, x, tmp_path):
    with pytest.raises(ExportError):
        export_engine(EngineRuns(x.results), x.model, x.plan, None, tmp_path / "none" / "m.engine")
