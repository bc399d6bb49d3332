"""Kernel support: the installed list and the snapshots agree, and unknown stays unknown."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import onnxruntime
import pytest
from small_models import FLOAT16, model, node, noise, value

from explorer.backends import kernels, kernels_live
from explorer.backends.kernels import Kernel, KernelSupport, kernel_support
from explorer.backends.runtime import create_session
from explorer.backends.status import BackendStatus
from explorer.errors import BackendError

CUDA = kernel_support("onnxruntime-cuda")
CPU = kernel_support("onnxruntime-cpu")
HALF = "tensor(float16)"


def snapshot(name):
    return json.loads(resources.files("explorer.backends").joinpath("data", name).read_text("utf-8"))


@pytest.mark.parametrize("op", ["MatMul", "Conv", "Add", "Softmax", "Relu", "Pow", "ReduceMean", "LayerNormalization"])
def test_cuda_runs_the_usual_operators_in_half_precision(op):
    assert CUDA.supports("", op, 17, {"T": HALF}) is True


@pytest.mark.parametrize("op", ["MatMul", "Conv", "Add", "Pow", "ReduceMean"])
def test_the_cpu_has_no_half_precision_arithmetic(op):
    assert CPU.supports("", op, 17, {"T": HALF}) is False
    assert CPU.supports("", op, 17, {"T": "tensor(float)"}) is True


def test_bfloat16_convolution_needs_opset_22_on_cuda():
    assert CUDA.supports("", "Conv", 17, {"T": "tensor(bfloat16)"}) is False
    assert CUDA.supports("", "Conv", 22, {"T": "tensor(bfloat16)"}) is True


def test_variables_that_are_not_named_may_be_anything():
    assert CUDA.supports("", "Cast", 17, {"T1": HALF}) is True
    assert CUDA.supports("", "Cast", 17, {}) is True
    assert CUDA.supports("ai.onnx", "Cast", 17, {"T1": "tensor(string)"}) is False


def test_an_operator_without_any_kernel_is_not_supported():
    assert CUDA.supports("com.example", "Thing", 1, {"T": HALF}) is False


def test_onnx_runtimes_own_operators_are_known():
    assert CUDA.supports("com.microsoft", "FusedMatMul", 1, {"T": HALF}) is True


def test_a_function_with_an_unknown_body_is_unknown():
    assert CUDA.supports("", "GroupNormalization", 22, {"T": HALF}) in {None, True}
    assert CPU.supports("", "SoftmaxCrossEntropyLoss", 13, {"T": HALF}) is None


def test_a_backend_without_a_list_knows_nothing():
    assert kernel_support("tensorrt").supports("", "Conv", 17, {"T": HALF}) is None
    assert "no list" in kernel_support("tensorrt").source


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(BackendError, match="onnxruntime-cuda"):
        kernel_support("onnxruntime-cud")


def test_the_source_names_the_version():
    assert onnxruntime.__version__ in CPU.source
    assert snapshot("onnxruntime_cuda_kernels.json")["onnxruntime"] in CUDA.source


@pytest.mark.parametrize(
    ("name", "least"), [("onnxruntime_cpu_kernels.json", 1400), ("onnxruntime_cuda_kernels.json", 1400)]
)
def test_snapshots_are_whole_sorted_and_without_repetition(name, least):
    rows = snapshot(name)["kernels"]
    texts = [json.dumps(row) for row in rows]
    assert len(rows) > least
    assert texts == sorted(set(texts))
    assert all(last is None or first <= last for _, _, first, last, _ in rows)


def test_the_cpu_snapshot_is_the_installed_list_of_the_same_version():
    """The snapshot was taken from the GPU package: its CPU provider is the one of the CPU package."""
    stored = snapshot("onnxruntime_cpu_kernels.json")
    if stored["onnxruntime"] != onnxruntime.__version__ or "Listed" not in CPU.source:
        pytest.skip(f"the snapshot is of {stored['onnxruntime']}, installed is {onnxruntime.__version__}")
    assert as_sets(kernels._grouped(stored["kernels"])) == as_sets(CPU.kernels)


def as_sets(groups):
    return {
        key: {
            (
                item.first_version,
                item.last_version,
                *sorted((name, tuple(sorted(kinds))) for name, kinds in item.types.items()),
            )
            for item in group
        }
        for key, group in groups.items()
    }


@pytest.fixture
def fresh():
    """Forget lists that were read before, and those that the test reads."""
    kernels._load.cache_clear()
    yield
    kernels._load.cache_clear()


def test_a_gpu_build_is_never_asked_in_this_process(monkeypatch, fresh):
    """It would start every provider: that raises without a device, and crashes without TensorRT's library."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        onnxruntime.capi.onnxruntime_pybind11_state, "get_all_opkernel_def", lambda: pytest.fail("was asked")
    )
    for backend in ("onnxruntime-cpu", "onnxruntime-cuda"):
        assert kernel_support(backend).source.startswith("Snapshot")


def pretend_ready(monkeypatch, tmp_path, *, missing=()):
    ready = BackendStatus("onnxruntime-cuda", "ready", "9.9.9", devices=("Test GPU",))
    monkeypatch.setattr(kernels_live, "backend_status", lambda: (ready,))
    monkeypatch.setattr(kernels_live, "missing_for_providers", lambda: missing)
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path))


def test_another_process_lists_what_this_one_would(fresh):
    """The way that a GPU build is asked, with the provider that is here."""
    rows, version = kernels_live.ask_in_process("CPUExecutionProvider")
    assert version == onnxruntime.__version__
    if "Listed" in CPU.source:
        assert as_sets(kernels._grouped(rows)) == as_sets(CPU.kernels)


def test_a_ready_gpu_build_is_asked_once_for_each_version(monkeypatch, tmp_path, fresh):
    pretend_ready(monkeypatch, tmp_path)
    asked = []
    rows = [["Conv", "", 11, None, {"T": [HALF]}]]
    monkeypatch.setattr(kernels_live, "ask_in_process", lambda provider: asked.append(provider) or (rows, "9.9.9"))
    found = kernel_support("onnxruntime-cuda")
    assert found.source == "Listed by the installed ONNX Runtime 9.9.9."
    assert found.supports("", "Conv", 11, {"T": HALF}) is True
    kernels._load.cache_clear()
    assert as_sets(kernel_support("onnxruntime-cuda").kernels) == as_sets(found.kernels)
    assert asked == ["CUDAExecutionProvider"]


@pytest.mark.parametrize("answer", [None, ([], "9.9.9")])
def test_where_asking_fails_the_snapshot_answers(monkeypatch, tmp_path, fresh, answer):
    pretend_ready(monkeypatch, tmp_path)
    monkeypatch.setattr(kernels_live, "ask_in_process", lambda _: answer)
    assert kernel_support("onnxruntime-cuda").source.startswith("Snapshot")


def test_a_build_whose_providers_lack_a_library_is_not_asked(monkeypatch, tmp_path, fresh):
    pretend_ready(monkeypatch, tmp_path, missing=("libnvinfer.so.10",))
    monkeypatch.setattr(kernels_live, "ask_in_process", lambda _: pytest.fail("was asked, and would have crashed"))
    assert kernel_support("onnxruntime-cuda").source.startswith("Snapshot")


def test_a_crash_of_the_other_process_is_no_answer(monkeypatch):
    monkeypatch.setattr(kernels_live, "_SCRIPT", "import os; os.abort()")
    assert kernels_live.ask_in_process("CUDAExecutionProvider") is None
    monkeypatch.setattr(kernels_live, "_SCRIPT", "print('not json')")
    assert kernels_live.ask_in_process("CUDAExecutionProvider") is None
    monkeypatch.setattr(kernels_live, "_SCRIPT", "import time; time.sleep(60)")
    assert kernels_live.ask_in_process("CUDAExecutionProvider", patience_s=0.2) is None


def test_a_damaged_cache_is_asked_anew(monkeypatch, tmp_path, fresh):
    pretend_ready(monkeypatch, tmp_path)
    kept = tmp_path / "kernels" / "onnxruntime-gpu-9.9.9.json"
    kept.parent.mkdir()
    kept.write_text('{"onnxruntime": "9.9.9", "kern')
    rows = [["Relu", "", 14, None, {"T": [HALF]}]]
    monkeypatch.setattr(kernels_live, "ask_in_process", lambda _: (rows, "9.9.9"))
    assert kernel_support("onnxruntime-cuda").supports("", "Relu", 14, {"T": HALF}) is True
    assert json.loads(kept.read_text())["kernels"] == rows


@pytest.mark.parametrize(
    ("first", "last", "since", "runs"),
    [(13, None, 13, True), (13, None, 14, False), (7, 12, 9, True), (7, 12, 13, False), (13, 16, 7, False)],
)
def test_a_kernel_without_an_end_serves_only_the_version_it_starts_at(first, last, since, runs):
    assert Kernel(first, last, {}).runs(since) is runs


def test_a_constraint_may_name_an_input_instead_of_the_type_variable():
    listed = {("", "Add"): (Kernel(14, None, {"A": frozenset({"tensor(float)"})}),)}
    support = KernelSupport("onnxruntime-cpu", "made up", listed)
    assert support.supports("", "Add", 17, {"T": "tensor(float)"}) is True
    assert support.supports("", "Add", 17, {"T": HALF}) is False


@pytest.mark.parametrize("op", ["Erf", "Sigmoid", "Transpose", "Sqrt"])
def test_the_list_tells_where_onnx_runtime_inserts_casts(op, tmp_path):
    """Where no half-precision kernel is listed, ONNX Runtime runs the operator between casts; elsewhere it does not."""
    graph = model([node(op, ["x"], ["y"], name="n")], [value("x", [2, 2], FLOAT16)], [value("y", [2, 2], FLOAT16)])
    session = create_session(graph.SerializeToString(), profile_prefix=tmp_path / "p")
    session.run({"x": np.abs(noise(2, 2)).astype(np.float16)})
    events = json.loads(session.end_profiling().read_text())
    casts = any(event["args"].get("op_name") == "Cast" for event in events if event["cat"] == "Node")
    assert CPU.supports("", op, 17, {"T": HALF}) is not casts
