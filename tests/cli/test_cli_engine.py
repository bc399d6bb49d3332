"""`measure --on` and `export-engine`: what works without a GPU, and what is told where something is missing."""

import json

import numpy as np
import onnx
import pytest
from cli_support import cli, sample
from support import fake_tensorrt

from explorer.backends.status import BackendStatus, backend_status
from explorer.backends.tensorrt import versions
from explorer.backends.tensorrt.versions import api_of
from explorer.results import engine_builds

LENET = sample("lenet5_digits")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small(tmp_path):
    data, _ = fake_tensorrt.dense_model()
    (tmp_path / "small.onnx").write_bytes(data)
    np.savez(tmp_path / "small.npz", x=np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32))
    return [tmp_path / "small.onnx", "--inputs", tmp_path / "small.npz"]


@pytest.fixture
def tensorrt(monkeypatch):
    made = fake_tensorrt.make("11.4.0")
    status = BackendStatus("tensorrt", "ready", devices=("NVIDIA Fake",))
    monkeypatch.setattr(versions, "backend_status", lambda: (status,))
    monkeypatch.setattr(engine_builds, "load_tensorrt", lambda: (made.trt, api_of(made.trt)))
    monkeypatch.setattr(engine_builds, "open_device", fake_tensorrt.FakeDevice)
    return made


def without(backend):
    status = next(each for each in backend_status() if each.name == backend)
    if status.state == "ready":
        pytest.skip(f"{backend} is here")
    return status


# -- measure --on ------------------------------------------------------------------------------------------------------


def test_the_cpu_times_an_int8_plan_for_real(tmp_path):
    done = cli("measure", *LENET, "--on", "onnxruntime-cpu", "--format", "int8", "--runs", "5", "--json")
    assert done.code == 0, done.err
    found = done.document()
    latency = found["timing"]
    assert (found["command"], latency["backend"], latency["runs"]) == ("measure", "onnxruntime-cpu", 5)
    assert latency["whole_us"] > 0
    assert "measured on" in latency["provenance"]
    assert {row["layer_id"] for row in latency["layers"]} >= {"features/conv1/Conv", "classifier/fc3/Gemm"}
    assert found["plan"]["format"] == "int8"
    assert any("kernels of onnxruntime-cpu" in warning for warning in found["warnings"])


def test_the_table_shows_the_slowest_layers_and_where_figures_come_from():
    done = cli("measure", *LENET, "--on", "onnxruntime-cpu", "--preset", "fp32", "--runs", "5", "--top", "2")
    assert done.code == 0, done.err
    assert "on onnxruntime-cpu" in done.out
    assert "measured on" in done.out
    assert "The slowest layers, measured" in done.out
    assert "features/conv2/Conv" in done.out


def test_fp16_on_the_cpu_is_refused_with_the_reason():
    done = cli("measure", *LENET, "--on", "onnxruntime-cpu", "--backend", "onnxruntime-cuda")
    assert done.code == 2
    assert "layers in fp16 cannot be timed on onnxruntime-cpu" in done.err
    assert "in fp32 between casts" in done.err


def test_the_kernels_of_the_backend_that_is_timed_decide_unless_another_is_named():
    timed = ["measure", *LENET, "--on", "onnxruntime-cpu", "--format", "int8", "--runs", "5", "--json"]
    followed, named = cli(*timed).document(), cli(*timed, "--backend", "onnxruntime-cuda").document()
    assert any("kernels of onnxruntime-cpu" in each for each in followed["warnings"])
    assert any("kernels of onnxruntime-cuda" in each for each in named["warnings"])


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime-cuda"])
def test_a_backend_that_is_not_here_is_told(backend):
    status = without(backend)
    done = cli("measure", *LENET, "--on", backend)
    assert done.code == 2
    assert f"{backend} is not ready ({status.state})" in done.err
    assert done.out == ""


def test_tensorrt_is_timed_where_it_is(tensorrt, small):
    done = cli("measure", *small, "--on", "tensorrt", "--runs", "5", "--json")
    assert done.code == 0, done.err
    assert done.document()["timing"]["whole_us"] == 25.0
    assert {kernel["format"] for kernel in done.document()["timing"]["kernels"]} >= {"fp16"}
    shown = cli("measure", *small, "--on", "tensorrt", "--runs", "5")
    assert "ran" in shown.out
    assert "on tensorrt" in shown.out


def test_a_tensorrt_that_does_not_start_is_told_in_its_words(tensorrt, small):
    tensorrt.faults["start"] = "CUDA initialization failure with error: 35"
    done = cli("measure", *small, "--on", "tensorrt")
    assert done.code == 2
    assert "TensorRT could not start its Builder: CUDA initialization failure with error: 35" in done.err
    assert "driver" in done.err


# -- export-engine -----------------------------------------------------------------------------------------------------


def test_without_tensorrt_an_engine_is_refused_before_any_work(tmp_path):
    status = without("tensorrt")
    done = cli("export-engine", tmp_path / "no such model.onnx", "--out", tmp_path / "m.engine")
    assert done.code == 2
    assert f"tensorrt is not ready ({status.state})" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_written_without_tensorrt(tmp_path, small):
    out = tmp_path / "m.engine"
    done = cli("export-engine", *small, "--recipe", "--block", "relu", "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document()
    assert set(found["written"]) == {"model", "script"}
    onnx.checker.check_model(found["written"]["model"])
    assert "--stronglyTyped" in (tmp_path / "m.build.sh").read_text()
    assert not out.exists()


@pytest.mark.parametrize("low", ["tf32", "bf16"])
def test_a_recipe_of_another_format_is_whole(tmp_path, small, low):
    done = cli("export-engine", *small, "--recipe", "--format", low, "--out", tmp_path / "m.engine")
    assert done.code == 0, done.err
    assert {"m.onnx", "m.build.sh"} <= {path.name for path in tmp_path.iterdir()}
    assert ("--noTF32" in (tmp_path / "m.build.sh").read_text()) is (low != "tf32")


def test_an_engine_is_written_where_tensorrt_is(tensorrt, tmp_path, small):
    out = tmp_path / "m.engine"
    done = cli("export-engine", *small, "--out", out, "--optimization-level", "5", "--workspace", "64")
    assert done.code == 0, done.err
    assert "The engine is built" in done.out
    about = json.loads((tmp_path / "m.engine.json").read_text())
    assert about["settings"]["optimization_level"] == 5
    assert about["settings"]["workspace_bytes"] == 64 << 20
    assert out.read_bytes().startswith(fake_tensorrt.MAGIC)


def test_weak_typing_on_11_is_refused_with_the_reason(tensorrt, tmp_path, small):
    done = cli("export-engine", *small, "--weak", "--out", tmp_path / "m.engine")
    assert done.code == 2
    assert "builds strongly typed networks only" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prefer"], "--prefer is given without --weak"),
        (["--recipe", "--weak"], "Both --recipe and --weak are given"),
        (["--recipe", "--out", "model.onnx"], "names an ONNX model"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words, small):
    done = cli("export-engine", *small, *options)
    assert done.code == 2
    assert words in done.err
