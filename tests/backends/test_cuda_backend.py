"""The CUDA backend where there is no GPU: it refuses with what is missing, and its timing loop works on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import small_models

from explorer.backends import onnxruntime_cuda, runtime
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


@pytest.mark.gpu
def test_a_gpu_computes_what_the_cpu_does(loaded):
    """Runs where there is a GPU; so far it has not been run."""
    model, feeds = loaded
    on_gpu = onnxruntime_cuda.open_session(model).run(feeds)
    on_cpu = create_session(model.proto().SerializeToString()).run(feeds)
    assert np.allclose(on_gpu["y"], on_cpu["y"], atol=1e-3)
    assert onnxruntime_cuda.measure_whole(model, feeds, runs=5).whole_us > 0
