"""Loading, running, timing and looking into engines, on stand-ins for TensorRT and for the GPU's driver."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import onnx
import pytest
import small_models
from support import fake_tensorrt
from support.fake_driver import FakeDriver

from explorer.backends.runtime import Cancel, RunCancelled, create_session
from explorer.backends.tensorrt import debug_values
from explorer.backends.tensorrt import device as devices
from explorer.backends.tensorrt.build import BuildSettings, build_engine
from explorer.backends.tensorrt.debug_values import read_inner_values, vanished
from explorer.backends.tensorrt.device import open_device
from explorer.backends.tensorrt.engine import Engine, numpy_type
from explorer.backends.tensorrt.shapes import InputRange
from explorer.backends.tensorrt.timing import time_layers, time_whole
from explorer.backends.tensorrt.versions import api_of
from explorer.errors import BackendError, InputError

ONNX, WEIGHTS = fake_tensorrt.dense_model()
FEEDS = {"x": np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)}
OFTEN = {"runs": 6, "warmup": 2, "budget_s": 60.0}


@pytest.fixture(params=["10.13.3.9", "11.4.0.12"])
def fake(request):
    return fake_tensorrt.make(request.param)


@pytest.fixture
def gpu():
    return fake_tensorrt.FakeDevice()


def truth(feeds=FEEDS):
    return np.maximum(feeds["x"] @ WEIGHTS["w"] + WEIGHTS["b"], 0) @ WEIGHTS["v"]


def loaded(fake, gpu, *, data=ONNX, **settings):
    api = api_of(fake.trt)
    ranges = (InputRange("x", (1, 4), (3, 4), (3, 4), dynamic=True),)
    built = build_engine(fake.trt, api, data, BuildSettings(**settings), ranges=ranges)
    return Engine(fake.trt, api, built.plan, gpu)


# -- running -----------------------------------------------------------------------------------------------------------


def test_an_engine_computes_what_numpy_does(fake, gpu):
    engine = loaded(fake, gpu)
    assert (engine.inputs, engine.outputs) == (("x",), ("y",))
    with engine.start(FEEDS) as running:
        running.run()
        np.testing.assert_allclose(running.outputs()["y"], truth(), rtol=1e-5)
    small = {"x": FEEDS["x"][:1]}
    with engine.start(small) as running:
        running.run()
        np.testing.assert_allclose(running.outputs()["y"], truth(small), rtol=1e-5)


def test_a_scalar_input_stays_one(fake, gpu):
    """Row 3 of a table: an index of rank 1 would make a row of rank 2."""
    data, feeds = small_models.serialized(small_models.picked)
    with loaded(fake, gpu, data=data).start(feeds) as running:
        running.run()
        np.testing.assert_array_equal(running.outputs()["y"], create_session(data).run(feeds)["y"])


def test_all_device_memory_is_given_back(fake, gpu):
    engine = loaded(fake, gpu)
    with engine.start(FEEDS) as running:
        running.run()
        assert len(gpu.held) == 2
    assert gpu.held == {}
    running.close()


def test_memory_is_given_back_when_binding_fails(fake):
    gpu = fake_tensorrt.FakeDevice(most_bytes=60)  # the input fits, the output does not
    engine = loaded(fake, gpu)
    with pytest.raises(BackendError, match="memory is too small"):
        engine.start(FEEDS)
    assert gpu.held == {}


def test_values_on_the_host_are_bound_there(fake, gpu):
    fake.faults["on_host"] = ("x", "y")
    with loaded(fake, gpu).start(FEEDS) as running:
        assert gpu.held == {}
        running.run()
        np.testing.assert_allclose(running.outputs()["y"], truth(), rtol=1e-5)


def test_an_output_whose_shape_depends_on_values_gets_memory_while_it_runs(fake, gpu):
    fake.faults["grown"] = ("y",)
    with loaded(fake, gpu).start(FEEDS) as running:
        running.run()
        running.run()
        np.testing.assert_allclose(running.outputs()["y"], truth(), rtol=1e-5)
        assert len(gpu.held) == 2


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "Missing inputs: x"),
        ({**FEEDS, "z": FEEDS["x"]}, "Unknown inputs: z"),
        ({"x": FEEDS["x"].astype(np.float64)}, "float64; the engine takes float32"),
        ({"x": np.zeros((9, 4), np.float32)}, "does not take shape .9, 4."),
    ],
)
def test_wrong_inputs_are_refused(fake, gpu, feeds, words):
    with pytest.raises(InputError, match=words):
        loaded(fake, gpu).start(feeds)
    assert gpu.held == {}


def test_shapes_that_stay_unknown_are_told(fake, gpu):
    fake.faults["unknown"] = ("mask",)
    with pytest.raises(InputError, match="mask"):
        loaded(fake, gpu).start(FEEDS)


def test_an_engine_of_another_version_is_refused_with_the_remedy(gpu):
    old, new = (fake_tensorrt.make(version) for version in ("10.12.0", "10.13.0"))
    ranges = (InputRange("x", (1, 4), (3, 4), (3, 4), dynamic=True),)
    plan = build_engine(old.trt, api_of(old.trt), ONNX, BuildSettings(), ranges=ranges).plan
    with pytest.raises(
        BackendError, match=r"load the engine with version 10.13.0 on NVIDIA Fake: Version.*build it anew"
    ):
        Engine(new.trt, api_of(new.trt), plan, gpu)


def test_bytes_that_are_no_engine_are_refused(fake, gpu):
    with pytest.raises(BackendError, match="Magic tag"):
        Engine(fake.trt, api_of(fake.trt), b"something else", gpu)


def test_too_little_memory_for_a_context_says_what_to_lower(fake, gpu):
    engine = loaded(fake, gpu)
    fake.faults["context"] = True
    with pytest.raises(BackendError, match="could not make room to run the engine") as caught:
        engine.start(FEEDS)
    assert "batch" in caught.value.fix


def test_a_run_that_does_not_start_is_an_error(fake, gpu):
    with loaded(fake, gpu).start(FEEDS) as running:
        fake.faults["run"] = True
        with pytest.raises(BackendError, match="could not run the engine"):
            running.run()


def test_types_of_both_worlds_agree(fake):
    trt = fake.trt
    assert numpy_type(trt, trt.bfloat16) == ml_dtypes.bfloat16
    assert numpy_type(trt, trt.DataType.HALF) == np.float16
    with pytest.raises(BackendError, match="cannot be read here"):
        numpy_type(trt, "int4")


# -- timing ------------------------------------------------------------------------------------------------------------


def test_the_whole_is_timed_unprofiled_between_events(fake, gpu):
    with loaded(fake, gpu).start(FEEDS) as running:
        done = []
        found = time_whole(running, **OFTEN, progress=done.append)
        assert running.context.profiler is None
        assert running.context._ran == 8
    assert found.device_us == (25.0,) * 6  # what the stand-in's clock says
    assert len(found.host_us) == 6
    assert min(found.host_us) > 0
    assert done[-1] == 1.0
    assert gpu.events == 0


def test_layers_are_timed_by_the_profiler_after_each_run(fake, gpu):
    with loaded(fake, gpu).start(FEEDS) as running:
        found = time_layers(fake.trt, running, **OFTEN)
        assert running.context.enqueue_emits_profile is False
    assert [each.name for each in found] == ["first + bias", "relu", "last"]
    assert [each.runs_us for each in found] == [(1.0,) * 6, (2.0,) * 6, (3.0,) * 6]


def test_little_time_takes_fewer_runs_but_five(fake, gpu):
    with loaded(fake, gpu).start(FEEDS) as running:
        assert len(time_whole(running, runs=50, warmup=0, budget_s=0).device_us) == 5
        assert len(time_layers(fake.trt, running, runs=50, warmup=0, budget_s=0)[0].runs_us) == 5


def test_timing_can_be_cancelled_and_gives_its_events_back(fake, gpu):
    token = Cancel()
    token.cancel()
    with loaded(fake, gpu).start(FEEDS) as running:
        with pytest.raises(RunCancelled):
            time_whole(running, **OFTEN, cancel=token)
        with pytest.raises(RunCancelled):
            time_layers(fake.trt, running, **OFTEN, cancel=token)
    assert gpu.events == 0


@pytest.mark.parametrize("wrong", [{"runs": 0, "warmup": 0}, {"runs": 1, "warmup": -1}])
def test_impossible_numbers_of_runs_are_refused(fake, gpu, wrong):
    with loaded(fake, gpu).start(FEEDS) as running:
        with pytest.raises(InputError):
            time_whole(running, budget_s=1, **wrong)
        with pytest.raises(InputError):
            time_layers(fake.trt, running, budget_s=1, **wrong)


def test_a_profiler_that_reports_nothing_is_an_error(fake, gpu):
    fake.faults["no_profile"] = True
    with loaded(fake, gpu).start(FEEDS) as running, pytest.raises(BackendError, match="no times by layer"):
        time_layers(fake.trt, running, **OFTEN)


# -- inner values ------------------------------------------------------------------------------------------------------


def test_inner_values_are_those_that_numpy_computes(fake, gpu):
    engine = loaded(fake, gpu, inner_values=True)
    with engine.start(FEEDS) as running:
        found = read_inner_values(fake.trt, running, keep=["r"])
        hidden = np.maximum(FEEDS["x"] @ WEIGHTS["w"] + WEIGHTS["b"], 0)
        np.testing.assert_allclose(found["r"].values, hidden, rtol=1e-5)
        np.testing.assert_allclose(found["r"].largest, hidden.max(), rtol=1e-5)
        assert (found["r"].shape, found["r"].dtype, found["r"].inf, found["r"].nan) == ((3, 4), "float32", 0, 0)
        assert found["a"].values is None
        assert running.context.unfused_tensors_debug_state is False  # timing after it is not disturbed


def test_inner_values_count_what_is_not_finite(fake, gpu):
    model = onnx.load_from_string(ONNX)
    weight = next(item for item in model.graph.initializer if item.name == "w")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((4, 4), 3e38, np.float32), "w"))
    feeds = {"x": np.array([[3.0, 3.0, 3.0, 3.0]], np.float32)}
    with loaded(fake, gpu, data=model.SerializeToString(), inner_values=True).start(feeds) as running:
        found = read_inner_values(fake.trt, running)
    assert found["c"].inf == 4
    assert np.isnan(found["c"].largest)


def test_an_engine_without_inner_values_says_so(fake, gpu):
    with loaded(fake, gpu).start(FEEDS) as running, pytest.raises(BackendError, match="shows no values inside"):
        read_inner_values(fake.trt, running)
    fake.faults["listener"] = True
    with loaded(fake, gpu).start(FEEDS) as running, pytest.raises(BackendError, match="takes no debug listener"):
        read_inner_values(fake.trt, running)


def test_a_value_that_cannot_be_read_comes_out_as_an_error(fake, gpu, monkeypatch):
    """An exception may not pass through TensorRT's own code."""
    engine = loaded(fake, gpu, inner_values=True)

    def broken(address, array):
        raise BackendError("the copy failed")

    with engine.start(FEEDS) as running:
        monkeypatch.setattr(gpu, "copy_out", broken)
        with pytest.raises(BackendError, match="the copy failed"):
            read_inner_values(fake.trt, running)


def test_a_capsule_is_an_address_too():
    """The documentation calls the address a capsule; the bindings give a number."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    assert debug_values._address(make(4096, None, None)) == 4096
    assert debug_values._address(4096) == 4096


def test_a_nan_that_vanishes_when_values_are_marked_is_told():
    nan = np.array([np.nan, 1.0, np.inf], np.float32)
    finite = np.zeros(3, np.float32)
    (found,) = vanished({"y": nan, "z": finite, "i": np.array([1])}, {"y": finite, "z": nan, "i": np.array([1])})
    assert (found.output, found.plain, found.marked) == ("y", 2, 0)
    assert "and none when" in found.text
    assert vanished({"y": nan}, {"y": nan}) == ()


# -- the driver --------------------------------------------------------------------------------------------------------


@pytest.fixture
def driver(monkeypatch):
    made = FakeDriver()
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: made)
    return made


def test_a_device_tells_who_it_is_and_copies_both_ways(driver):
    with open_device(0) as gpu:
        assert (gpu.name, gpu.capability) == ("NVIDIA H200", (9, 0))
        address = gpu.allocate(FEEDS["x"].nbytes)
        gpu.copy_in(address, FEEDS["x"])
        back = np.empty_like(FEEDS["x"])
        gpu.copy_out(address, back)
        assert np.array_equal(back, FEEDS["x"])
        gpu.free(address)
        start, end = gpu.event(), gpu.event()
        gpu.record(start)
        gpu.record(end)
        gpu.synchronize()
        gpu.wait(7)
        assert gpu.elapsed_us(start, end) == pytest.approx(1500)
        gpu.drop_event(start)
        gpu.drop_event(end)
    gpu.close()
    assert driver.open == {"memory": 0, "events": 0, "streams": 0}


def test_too_little_device_memory_tells_what_is_free(driver):
    driver.fails["cuMemAlloc_v2"] = 2
    with (
        open_device() as gpu,
        pytest.raises(BackendError, match=r"hold 2.0 MiB more: 512 of 1,024 MiB are free") as caught,
    ):
        gpu.allocate(2 << 20)
    assert "batch" in caught.value.fix


def test_the_drivers_own_words_come_out(driver):
    driver.fails["cuStreamSynchronize"] = 700
    with open_device() as gpu, pytest.raises(BackendError, match=r"an illegal memory access.*error 700"):
        gpu.synchronize()


def test_a_machine_without_a_driver_says_so(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(devices.ctypes, "CDLL", absent)
    with pytest.raises(BackendError, match="No NVIDIA driver"):
        open_device()
