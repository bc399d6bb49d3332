"""Who waits for whom when several threads ask at once: for a GPU, for a run of the model, and for nobody."""

from __future__ import annotations

import contextlib
import shutil
import threading

import numpy as np
import pytest
from support import fake_tensorrt
from support.tensorrt_here import LONG_S, Here

import explorer
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.plan import Plan
from explorer.results import engine_builds, measuring
from explorer.results.engines import EngineRuns
from explorer.results.gpu_turn import gpu_turn

ONNX, _ = fake_tensorrt.dense_model()
SAMPLES = np.random.default_rng(7).standard_normal((10, 4)).astype(np.float32)
FP16 = Plan()
INT8 = Plan(format="int8")
A_WHILE_S = 0.3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.fixture
def here(monkeypatch):
    return Here(monkeypatch, gpus=2)


def opened():
    return explorer.open(ONNX, inputs={"x": SAMPLES}, batch_size=8)


@pytest.fixture
def x():
    return opened()


class Thread(threading.Thread):
    """Does something, and keeps what came of it."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.result, self.error = work, None, None
        self.start()

    def run(self):
        try:
            self.result = self.work()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.error = error

    def ended(self):
        self.join(LONG_S)
        assert not self.is_alive(), "it waits for ever"
        return self


def taken(device):
    """Tells whether a GPU is in use, to any other thread."""

    def ask():
        with gpu_turn(device, token):
            pass

    token = Cancel()
    other = Thread(ask)
    other.join(A_WHILE_S)
    token.cancel()
    return isinstance(other.ended().error, RunCancelled)


# -- one GPU -----------------------------------------------------------------------------------------------------------


def test_engines_of_one_gpu_are_built_one_after_the_other(here, monkeypatch):
    """Also by two explorations: they do not know of each other, and would spoil each other's times."""
    together, meeting = [], threading.Barrier(2)
    real = here.fake.trt.Builder.build_serialized_network

    def build(this, network, config):
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(A_WHILE_S)
            together.append(network)
        return real(this, network, config)

    monkeypatch.setattr(here.fake.trt.Builder, "build_serialized_network", build)
    first, second = (Thread(lambda: opened().measure("tensorrt", runs=5)) for _ in range(2))
    assert (first.ended().error, second.ended().error) == (None, None)
    assert not together


def test_engines_of_two_gpus_are_built_side_by_side(here, x):
    held = here.held()
    on_first = Thread(lambda: x.measure("tensorrt", runs=5))
    first = held.wait(0)
    on_second = Thread(lambda: x.measure("tensorrt", runs=5, device=1))
    held.wait(1).set()
    assert on_second.ended().error is None
    first.set()
    assert on_first.ended().error is None


def test_whoever_waits_for_a_gpu_can_be_cancelled(here, x):
    held, token = here.held(), Cancel()
    first = Thread(lambda: EngineRuns(x.results).engine(FP16, None))
    may_go = held.wait(0)
    second = Thread(lambda: EngineRuns(x.results).engine(FP16.block(layers=["last"]), None, cancel=token))
    second.join(A_WHILE_S)
    token.cancel()
    assert isinstance(second.ended().error, RunCancelled)
    assert len(held.begun) == 1
    may_go.set()
    assert first.ended().error is None


def test_a_measurement_through_onnx_runtime_has_its_gpu_to_itself_too(x, monkeypatch):
    seen = []

    def on_cuda(results, plan, target, **_):
        seen.append((taken(0), taken(1)))
        raise RunCancelled("Enough.")

    monkeypatch.setattr(measuring, "_on_cuda", on_cuda)
    with pytest.raises(RunCancelled, match="Enough"):
        x.measure("onnxruntime-cuda")
    assert seen == [(True, False)]
    assert not taken(0), "it is given back"


def test_each_gpu_has_figures_of_its_own(here, x):
    first, second = (x.measure("tensorrt", runs=5, device=device).result for device in range(2))
    assert (first.device, second.device) == ("NVIDIA Fake 0", "NVIDIA Fake 1")
    latencies = x.results.latencies
    assert latencies.known_measured(x.plan, x.target, "tensorrt").result is first
    assert latencies.known_measured(x.plan, x.target, "tensorrt", device=1).result is second
    assert x.measure("tensorrt", runs=5, device=1).result is second, "it is measured once"


# -- the model's turn --------------------------------------------------------------------------------------------------


def test_a_measurement_is_stopped_by_its_own_token_alone(here, x):
    """What runs the model meanwhile, and stops, is another's business."""
    held, others = here.held(), Cancel()
    with x.results.turn(others):
        measured = Thread(lambda: x.measure("tensorrt", runs=5))
        may_go = held.wait(0)
        others.cancel()
        may_go.set()
        assert measured.ended().error is None


def test_scales_are_found_before_the_gpu_is_taken(here, x, monkeypatch):
    """They need a run of the model: whoever runs it may be waiting for the GPU."""
    known, token = [], Cancel()
    opens = engine_builds.open_device
    monkeypatch.setattr(engine_builds, "open_device", lambda index: known.append(x.calibration) or opens(index))
    stages = []
    EngineRuns(x.results).engine(INT8, "tensorrt", cancel=token, progress=lambda stage, *_: stages.append(stage))
    assert known[0] is not None
    assert any("calibrat" in stage for stage in stages), stages


def test_a_conversion_that_has_to_calibrate_keeps_no_other_from_the_turn(x, monkeypatch):
    reached, scales = threading.Event(), x.results.scales
    real = scales.get
    monkeypatch.setattr(scales, "get", lambda: reached.set() or real())

    def in_turn():
        with x.results.turn(Cancel()):
            calibrating.append(Thread(lambda: x.results.conversion(INT8, None, clamp=False)))
            assert reached.wait(LONG_S)
            calibrating[0].join(A_WHILE_S)
            return x.results.conversion(FP16, None, clamp=False)

    calibrating = []
    assert Thread(in_turn).ended().error is None
    assert calibrating[0].ended().error is None
