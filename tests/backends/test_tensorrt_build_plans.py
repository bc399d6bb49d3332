"""Plans on TensorRT from end to end, on stand-ins: conversion, cache, engine, latency, outputs, inner values."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import onnx
import pytest
from support import fake_tensorrt, fake_tensorrt_engine
from support.tensorrt_here import Here

import explorer
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.backends.status import BackendStatus
from explorer.backends.tensorrt import versions
from explorer.backends.tensorrt.build import BuildSettings
from explorer.backends.tensorrt.status_probe import probe
from explorer.errors import BackendError
from explorer.plan import Plan
from explorer.results import engine_builds, engines
from explorer.results.engines import EngineRuns
from explorer.results.measuring import measure_plan

ONNX, WEIGHTS = fake_tensorrt.dense_model()
SAMPLES = np.random.default_rng(7).standard_normal((10, 4)).astype(np.float32)
FP16, FP32 = Plan(), Plan.preset("fp32")
FEW = {"runs": 5, "warmup": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def here(monkeypatch):
    return Here(monkeypatch)


@pytest.fixture
def results():
    return explorer.open(ONNX, inputs={"x": SAMPLES}, batch_size=8).results


def parsed(here):
    """Returns the ONNX models that the parser was given."""
    return [onnx.load_from_string(data) for (data,) in here.fake.called("parse")]


# -- what is built -----------------------------------------------------------------------------------------------------


def test_the_parser_is_given_the_mixed_model(here, results):
    EngineRuns(results).engine(FP16.block(layers=["relu"]), "tensorrt")
    (model,) = parsed(here)
    types = {item.name: item.data_type for item in model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types.values()
    names = [node.name for node in model.graph.node]
    assert {"first", "bias", "relu", "last"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(names)  # TensorRT's metadata names layers by them


def test_shapes_come_from_the_samples(here, results):
    EngineRuns(results).engine(FP32, None)
    ((_, config),) = here.fake.called("build")
    assert config._profiles[0].shapes == {"x": ((2, 4), (8, 4), (8, 4))}


@pytest.mark.parametrize(("plan", "on"), [(FP32, False), (FP16, False), (Plan(format="tf32"), True)])
def test_tf32_is_on_for_a_tf32_plan_only(here, results, plan, on):
    EngineRuns(results).engine(plan, None)
    ((_, config),) = here.fake.called("build")
    assert config.get_flag(here.fake.trt.BuilderFlag.TF32) is on


def test_a_plan_that_no_file_can_hold_is_refused(here, results):
    plan = Plan(format="tf32").block(layers=["last"])
    with pytest.raises(BackendError, match="TensorRT cannot run this plan: tf32 is a mode of the whole model"):
        EngineRuns(results).engine(plan, None)
    assert here.builds == 0


def test_the_source_model_is_never_changed(here, results):
    before = results.model.digest
    EngineRuns(results).engine(FP16, None)
    del results.model.__dict__["digest"]
    assert results.model.digest == before


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_an_engine_is_built_once(here, results, cache):
    runs = EngineRuns(results)
    first, again = runs.engine(FP16, None), runs.engine(FP16, None)
    assert (first.from_cache, again.from_cache) == (False, True)
    other = EngineRuns(results).engine(FP16, None)  # another session finds it in the folder
    assert other.from_cache
    assert other.data == first.data
    assert here.builds == 1
    assert len(list((cache / "engines").iterdir())) == 1
    assert len(list((cache / "timing").iterdir())) == 1


def test_without_keeping_nothing_is_written(here, results, cache):
    EngineRuns(results, keep=False).engine(FP16, None)
    assert not cache.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda here, patch: {"plan": FP16.block(layers=["last"])},
        lambda here, patch: {"settings": BuildSettings(optimization_level=5)},
        lambda here, patch: here.install(patch, "10.14.1"),
        lambda here, patch: setattr(here, "gpu", "NVIDIA Other"),
    ],
    ids=["plan", "settings", "version", "gpu"],
)
def test_another_plan_setting_version_or_gpu_is_another_engine(here, results, cache, monkeypatch, change):
    EngineRuns(results).engine(FP16, None)
    given = change(here, monkeypatch) or {}
    made = EngineRuns(results, settings=given.get("settings")).engine(given.get("plan", FP16), None)
    assert not made.from_cache
    assert len(list((cache / "engines").iterdir())) == 2


def test_the_timing_cache_of_the_last_build_helps_the_next(here, results):
    EngineRuns(results).engine(FP16, None)
    EngineRuns(results).engine(FP32, None)
    given = [data for (data,) in here.fake.called("create_timing_cache")]
    assert given == [b"", fake_tensorrt.CACHE + b"10.13.3.9"]


@pytest.mark.parametrize("damage", [b"", b"damaged"])
def test_a_damaged_engine_in_the_cache_is_built_anew(here, results, cache, damage):
    EngineRuns(results).engine(FP16, None)
    (path,) = (cache / "engines").iterdir()
    path.write_bytes(damage)
    assert not EngineRuns(results).engine(FP16, None).from_cache
    assert here.builds == 2


def test_an_engine_of_the_cache_that_does_not_load_is_built_anew(here, results, monkeypatch):
    """The driver or the library may have changed under the same version number."""
    EngineRuns(results).engine(FP16, None)
    real = engine_builds.Engine
    seen = []

    def picky(*arguments):
        seen.append(arguments)
        if len(seen) == 1:
            raise BackendError("it does not load")
        return real(*arguments)

    monkeypatch.setattr(engine_builds, "Engine", picky)
    assert EngineRuns(results).outputs(FP16, None)
    assert here.builds == 2


def test_a_fresh_engine_that_does_not_load_is_an_error(here, results):
    here.fake.faults["load"] = "Platform specific tag does not match"
    with pytest.raises(BackendError, match="Platform specific tag"):
        EngineRuns(results).outputs(FP16, None)
    assert here.builds == 1


# -- what it gives -----------------------------------------------------------------------------------------------------


def test_outputs_are_those_of_the_plan_batch_by_batch(here, results):
    runs, told = EngineRuns(results), []
    found = runs.outputs(FP32, None, progress=lambda *step: told.append(step))
    assert [each["y"].shape for each in found] == [(8, 4), (2, 4)]
    hidden = np.maximum(SAMPLES @ WEIGHTS["w"] + WEIGHTS["b"], 0)
    np.testing.assert_allclose(np.concatenate([each["y"] for each in found]), hidden @ WEIGHTS["v"], rtol=1e-5)
    assert told[-1] == ("run the engine", 2, 2)
    assert all(device.closed and not device.held for device in here.devices)
    low = np.concatenate([each["y"] for each in runs.outputs(FP16, None)])
    error = np.abs(low - hidden @ WEIGHTS["v"]).max()
    assert 0 < error < 0.1  # fp16 rounds, and little


def test_a_plan_that_stores_inputs_low_is_fed_low(here, results):
    found = EngineRuns(results).outputs(dataclasses.replace(FP16, keep_io=False), None)
    assert found[0]["y"].dtype == np.float16


def test_latency_says_what_was_measured_and_how(here, results):
    told = []
    found = EngineRuns(results).measure(FP16, None, **FEW, progress=lambda *step: told.append(step))
    assert (found.backend, found.device, found.runs, found.warmup_runs) == ("tensorrt", "NVIDIA Fake", 5, 1)
    assert found.whole_us == 25.0
    for words in ("measured on NVIDIA Fake", "TensorRT 10.13.3.9 (strongly typed)", "median of 5 runs", "batch of 8"):
        assert words in found.provenance
    assert "fp16" in found.formats
    assert any("7 to 35 %" in note for note in found.notes)
    assert {stage for stage, _, _ in told} >= {"Building", "time the engine", "time its layers"}


@pytest.mark.parametrize("version", ["10.13", "11.4"])
def test_times_stand_at_the_layers_of_the_model_and_casts_apart(monkeypatch, results, version):
    """The stand-in computes `first` and `bias` in one engine layer; the n-th engine layer takes n microseconds."""
    Here(monkeypatch, version)
    found = EngineRuns(results).measure(FP16.block(layers=["relu"]), None, **FEW)
    assert {row.layer_id: row.median_us for row in found.layers} == {
        "first": 2.0,
        "bias": 0.0,
        "relu": 4.0,
        "last": 6.0,
    }
    assert found.layer("bias").fused_with == ("first",)
    assert [each.median_us for each in found.inserted] == [1.0, 3.0, 5.0, 7.0]
    kernels = {kernel.name: kernel for kernel in found.kernels}
    assert kernels["first + bias"].layer_ids == ("first", "bias")
    assert (kernels["first + bias"].format, kernels["relu"].format) == ("fp16", "fp32")
    assert found.profiled_us == sum(range(1, 8))
    assert not any("Asked" in note for note in found.notes)


def test_what_ran_in_another_format_than_asked_is_told(here, results, monkeypatch):
    real = engines.parse_engine_layers
    wide = lambda text: real(text.replace("FP16", "FP32"))  # noqa: E731 - as if TensorRT had chosen so
    monkeypatch.setattr(engines, "parse_engine_layers", wide)
    found = EngineRuns(results).measure(FP16, None, **FEW)
    assert any(note.startswith("Asked fp16, ran fp32") for note in found.notes)


def test_an_engine_that_tells_no_layers_is_timed_as_a_whole(here, results, monkeypatch):
    monkeypatch.setattr(fake_tensorrt_engine, "inspected", lambda proto, major: {"Layers": [{"Name": "?"}]})
    found = EngineRuns(results).measure(FP16, None, **FEW)
    assert found.whole_us == 25.0
    assert found.layers == ()
    assert any(note.startswith("Times by layer cannot be told.") for note in found.notes)


def test_results_are_told_from_any_thread_without_holding_the_models_turn(here, results):
    """Emulated figures stand in while an engine is built: they must not wait for it."""
    seen = []

    def progress(stage, done, total):
        if stage == "Building" and not seen:
            worker = threading.Thread(target=lambda: seen.append(results.errors(FP16, None).worst_db))
            worker.start()
            worker.join(timeout=30)

    EngineRuns(results).measure(FP16, None, **FEW, progress=progress)
    assert np.isfinite(seen[0])


@pytest.mark.parametrize("when", ["before", "building", "timing"])
def test_everything_can_be_cancelled(here, results, when):
    token = Cancel()
    if when == "before":
        token.cancel()
    stages = {"building": "Building", "timing": "time the engine"}

    def progress(stage, done, total):
        if stage == stages.get(when):
            token.cancel()

    with pytest.raises(RunCancelled):
        EngineRuns(results).measure(FP16, None, **FEW, cancel=token, progress=progress)
    assert all(device.closed and not device.held for device in here.devices)


def test_a_cancelled_build_is_not_kept(here, results, cache):
    token = Cancel()
    with pytest.raises(RunCancelled):
        EngineRuns(results).engine(FP16, None, cancel=token, progress=lambda *_: token.cancel())
    assert not (cache / "engines").exists()


def test_inner_values_come_from_an_engine_of_their_own(here, results, cache):
    found = EngineRuns(results).inner_values(FP16, None, keep=["r"])
    assert [network._marked for network, _ in here.fake.called("build")] == [False, True]
    assert found.values["r"].dtype == "float16"
    assert found.values["r"].values is not None
    assert found.layers["r"] == ("relu",)
    assert found.layers["c"] == ("first", "bias")
    assert found.notes == ()
    assert len(list((cache / "engines").iterdir())) == 2


def test_a_nan_that_vanishes_when_looked_at_is_told(here, results):
    here.fake.faults["unmarked_nan"] = True
    (note,) = EngineRuns(results).inner_values(FP16, None).notes
    assert "Output 'y' holds 32 infinities or NaN as the engine runs, and none when" in note


# -- weakly typed ------------------------------------------------------------------------------------------------------


def test_a_plan_becomes_constraints_on_the_fp32_model(here, results):
    built = EngineRuns(results, strong=False).engine(FP16.block(layers=["relu"]), None)
    (model,) = parsed(here)
    assert {item.data_type for item in model.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert built.weak.formats == ("fp16",)
    assert built.weak.layers["relu"] == "fp32"
    network, config = here.fake.called("build")[0]
    assert {layer.name: layer.precision.name for layer in network._layers}["relu"] == "FLOAT"
    assert config.get_flag(here.fake.trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def test_strong_obeyed_and_preferred_are_three_engines(here, results):
    kinds = [{"strong": True}, {"strong": False}, {"strong": False, "obey": False}]
    digests = {EngineRuns(results, **kind).engine(FP16, None).key.digest for kind in kinds}
    assert len(digests) == 3


def test_weak_typing_is_told_in_the_provenance(here, results):
    found = EngineRuns(results, strong=False, obey=False).measure(FP16, None, **FEW)
    assert "(weakly typed, constraints prefer)" in found.provenance


def test_weak_typing_is_refused_on_11(monkeypatch, results):
    here = Here(monkeypatch, "11.4.0")
    with pytest.raises(BackendError, match="strongly typed networks only"):
        EngineRuns(results, strong=False).engine(FP16, None)
    assert here.builds == 0


# -- through measure_plan ----------------------------------------------------------------------------------------------


def test_measure_plan_runs_tensorrt_too(here, results):
    runs = EngineRuns(results)
    found = measure_plan(results, FP16, None, "tensorrt", runs=5, engines=runs)
    assert (found.backend, found.whole_us) == ("tensorrt", 25.0)
    assert measure_plan(results, FP16, None, "tensorrt", runs=5).runs == 5
    assert here.builds == 1


def test_a_machine_without_tensorrt_says_what_is_missing(monkeypatch, results):
    status = BackendStatus("tensorrt", "not installed", detail="TensorRT is not installed.", fix="pip install it")
    monkeypatch.setattr(versions, "backend_status", lambda: (status,))
    with pytest.raises(BackendError, match=r"tensorrt is not ready \(not installed\).*pip install it"):
        measure_plan(results, FP16, None, "tensorrt")


@pytest.mark.tensorrt
@pytest.mark.gpu
@pytest.mark.skipif(probe().state != "ready", reason=f"tensorrt is not ready: {probe().detail}")
@pytest.mark.parametrize("plan", [FP32, FP16], ids=["fp32", "fp16"])
def test_a_real_engine_computes_what_the_model_does(results, plan):
    """Runs where TensorRT and a GPU are; so far it has not been run."""
    runs = EngineRuns(results)
    hidden = np.maximum(SAMPLES @ WEIGHTS["w"] + WEIGHTS["b"], 0)
    found = np.concatenate([each["y"] for each in runs.outputs(plan, "tensorrt")])
    np.testing.assert_allclose(found, hidden @ WEIGHTS["v"], atol=1e-4 if plan == FP32 else 5e-2)
    latency = runs.measure(plan, "tensorrt", runs=10)
    assert latency.whole_us > 0
    assert {layer for kernel in latency.kernels for layer in kernel.layer_ids} <= {"first", "bias", "relu", "last"}
    assert runs.inner_values(plan, "tensorrt").notes == ()
