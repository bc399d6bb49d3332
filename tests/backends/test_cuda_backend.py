"""The CUDA backend where there is no GPU: it refuses with what is missing, and its timing loop works on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import small_models

from explorer.backends import onnxruntime_cuda, runtime
from explorer.backends.ort_errors import OutOfMemory, translated
from explorer.backends.runtime import Cancel, RunCancelled, create_session
from explorer.backends.status import BackendStatus, backend_status
from explorer.errors import BackendError, InputError
from explorer.model import load_model


@pytest.fixture
def loaded():
    data, feeds = small_models.serialized(small_models.cnn)
    return load_model(data), feeds


def pretend(monkeypatch, **facts):
    ready = BackendStatus("onnxruntime-cuda", **({"state": "ready", "devices": ("NVIDIA H100",)} | facts))
    monkeypatch.setattr(onnxruntime_cuda, "backend_status", lambda: (ready,))


@pytest.mark.parametrize("state", ["not installed", "wrong version", "missing library", "no device"])
def test_a_backend_that_is_not_ready_refuses_with_its_state_and_remedy(monkeypatch, loaded, state):
    pretend(monkeypatch, state=state, detail="This is why.", fix="Do that.", devices=())
    with pytest.raises(BackendError, match=f"{state}.*This is why. Do that."):
        onnxruntime_cuda.measure_whole(*loaded)


def test_this_machines_own_refusal_is_clear(loaded):
    if next(item for item in backend_status() if item.name == "onnxruntime-cuda").state == "ready":
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendError, match="onnxruntime-cuda is not ready"):
        onnxruntime_cuda.open_session(loaded[0])


@pytest.mark.parametrize("device", [-1, 1])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch, loaded, device):
    pretend(monkeypatch)
    with pytest.raises(BackendError, match="NVIDIA H100"):
        onnxruntime_cuda.open_session(loaded[0], device=device)


def test_an_impossible_number_of_runs_is_refused(loaded):
    with pytest.raises(InputError):
        onnxruntime_cuda.measure_whole(*loaded, runs=0)


def test_a_provider_that_falls_back_to_the_cpu_is_refused(monkeypatch, loaded):
    """ONNX Runtime only warns when CUDA's libraries are missing, and runs on the CPU."""
    pretend(monkeypatch)
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda source, options, **_: real(source, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(BackendError, match="fell back"):
        onnxruntime_cuda.open_session(loaded[0])


def test_the_bound_loop_times_every_counted_run(loaded):
    model, feeds = loaded
    session = create_session(model.proto().SerializeToString())
    times = onnxruntime_cuda.time_bound(session, feeds, device=0, runs=7, warmup=2, budget_s=60, cancel=None)
    assert len(times) == 7
    assert min(times) > 0
    short = onnxruntime_cuda.time_bound(session, feeds, device=0, runs=100, warmup=0, budget_s=0, cancel=None)
    assert len(short) == 5


def test_the_bound_loop_can_be_cancelled(loaded):
    model, feeds = loaded
    token = Cancel()
    token.cancel()
    session = create_session(model.proto().SerializeToString())
    with pytest.raises(RunCancelled):
        onnxruntime_cuda.time_bound(session, feeds, device=0, runs=1, warmup=0, budget_s=1, cancel=token)


def test_wrong_feeds_are_refused_when_bound(loaded):
    model, _ = loaded
    session = create_session(model.proto().SerializeToString())
    with pytest.raises(InputError, match="Missing inputs: x"):
        session.bind({})
    with pytest.raises(InputError):
        runtime.run_bound(session, session.bind({"x": np.zeros((1, 3, 16, 16), np.float64)}))


# What ONNX Runtime 1.31 says, from its source and from reports of users.
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "Name:'stem/conv' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size "
    "2147483648"
)
LIMIT = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: bfc_arena.cc:376 Available memory "
    "of 1000 is smaller than requested bytes of 5242880"
)
CUDA = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_allocator.cc ; line=47 ; "
    "expr=cudaMalloc((void**)&p, size);"
)
CUBLAS = "[ONNXRuntimeError] : 1 : FAIL : CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&h);"


def raised(message, *, doing="run", provider="CUDAExecutionProvider"):
    with pytest.raises(BackendError) as caught, translated(doing=doing, provider=provider):
        raise RuntimeError(message)
    return caught.value


@pytest.mark.parametrize(
    ("message", "size"),
    [(ARENA, "2.0 GiB more were asked for by 'stem/conv'"), (LIMIT, "5.0 MiB"), (CUDA, ""), (CUBLAS, "")],
)
def test_a_full_gpu_is_told_with_what_to_lower(message, size):
    error = raised(message)
    assert isinstance(error, OutOfMemory)
    for part in ("memory of this GPU is too small", size, "Lower the batch", "gpu_mem_limit"):
        assert part in str(error)
    assert "bfc_arena" not in str(error)


def test_too_little_memory_to_load_names_another_remedy():
    assert "fp16 weights" in str(raised(CUDA, doing="load"))


@pytest.mark.parametrize("doing", ["load", "run"])
@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaStreamSynchronize(stream);",
        "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0 ; expr=cudnnConvolutionForward(...)",
        "Invalid device ID: 4, must be between 0 (inclusive) and 1 (exclusive).",
    ],
)
def test_a_gpu_that_fails_is_no_fault_of_the_model(said, doing):
    error = raised(f"[ONNXRuntimeError] : 1 : FAIL : {said}", doing=doing)
    assert isinstance(error, BackendError)
    assert not isinstance(error, OutOfMemory)
    assert str(error).startswith(f"The GPU failed: {said.partition(' ')[0]}")
    assert "nvidia-smi" in str(error)


def test_a_full_machine_is_no_full_gpu():
    error = raised("std::bad_alloc", provider="CPUExecutionProvider")
    assert "this machine" in str(error)
    assert "gpu_mem_limit" not in str(error)


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libcublasLt.so.13", "nvidia-cublas"),
        ("libcublasLt.so.12", "nvidia-cublas-cu12"),
        ("libcudnn.so.9", "nvidia-cudnn-cu13"),
        ("libcufft.so.12", "nvidia-cufft"),
    ],
)
def test_a_missing_library_is_named_with_its_package(library, package):
    message = (
        "[ONNXRuntimeError] : 1 : FAIL : Failed to load library libonnxruntime_providers_cuda.so with error: "
        f"{library}: cannot open shared object file: No such file or directory"
    )
    error = raised(message, doing="load")
    assert f"{library} is missing" in str(error)
    assert f"pip install {package};" in str(error)


def test_tf32_is_off_by_default_on_cuda(monkeypatch, loaded):
    """ONNX Runtime's own default would compute an fp32 reference in tf32."""
    asked = []

    class Seen(BaseException):
        """Ends what would go on to use a session."""

    def session(*_, providers, **__):
        asked.append(providers[0])
        raise Seen

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(Seen):
        create_session(loaded[0].proto().SerializeToString(), provider="cuda", device=3)
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "3"})]
