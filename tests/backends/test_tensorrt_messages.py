"""TensorRT's own words reach every error, also the second one, and also where nothing can be started at all."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support import fake_tensorrt

from explorer.backends.tensorrt.build import BuildSettings, build_engine
from explorer.backends.tensorrt.engine import Engine
from explorer.backends.tensorrt.logger import failure, listen
from explorer.backends.tensorrt.shapes import InputRange
from explorer.backends.tensorrt.versions import api_of
from explorer.errors import BackendError

ONNX, _ = fake_tensorrt.dense_model()
RANGES = (InputRange("x", (1, 4), (3, 4), (3, 4), dynamic=True),)
FEEDS = {"x": np.ones((3, 4), np.float32)}
NO_CUDA = "CUDA initialization failure with error: 35"


@pytest.fixture(params=["10.13.3.9", "11.4.0.12"])
def fake(request):
    return fake_tensorrt.make(request.param)


def build(fake):
    return build_engine(fake.trt, api_of(fake.trt), ONNX, BuildSettings(), ranges=RANGES).plan


def load(fake, plan):
    return Engine(fake.trt, api_of(fake.trt), plan, fake_tensorrt.FakeDevice())


def error_of(action):
    with pytest.raises(BackendError) as caught:
        action()
    return caught.value


def test_the_second_failure_is_told_too_while_the_first_is_still_held(fake):
    """TensorRT keeps the first logger as long as anything lives that was made with it; Jupyter keeps exceptions."""
    fake.faults["build"] = "first reason"
    kept = error_of(lambda: build(fake))
    fake.faults["build"] = "second reason"
    told = str(error_of(lambda: build(fake)))
    assert "second reason" in told
    assert "first reason" not in told
    assert "first reason" in str(kept)


def test_a_failure_beside_a_loaded_engine_is_told(fake):
    engine = load(fake, build(fake))
    fake.faults["load"] = "damaged header"
    assert "damaged header" in str(error_of(lambda: load(fake, b"x")))
    assert engine.inputs == ("x",)


def test_an_old_reason_is_not_told_again(fake):
    engine = load(fake, build(fake))
    fake.faults["load"] = "damaged header"
    error_of(lambda: load(fake, b"x"))
    fake.faults["context"] = True
    assert "gave no reason" in str(error_of(lambda: engine.start(FEEDS)))


def say(said, text):
    said.logger.log(said.logger.Severity.ERROR, text)


def test_what_is_said_in_another_listeners_thread_is_not_for_this_one(fake):
    """Two GPUs may build beside each other; what a thread of TensorRT's own says may be of either."""
    mine, theirs = listen(fake.trt), []

    def other():
        theirs.append(listen(fake.trt))
        say(theirs[0], "on the other GPU")

    for action in (other, lambda: say(mine, "from a thread of TensorRT")):
        thread = threading.Thread(target=action)
        thread.start()
        thread.join()
    assert mine.errors == ["from a thread of TensorRT"]
    assert theirs[0].errors == ["on the other GPU", "from a thread of TensorRT"]
    say(mine, "here")
    assert "here" in str(failure("do it", mine))
    assert "here" not in theirs[0].errors


@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_where_cuda_does_not_start_the_reason_and_the_driver_are_told(fake, kind):
    """The bindings raise a TypeError of their own there."""
    plan = build(fake)
    fake.faults["start"] = NO_CUDA
    error = error_of(lambda: build(fake) if kind == "Builder" else load(fake, plan))
    assert error.what == f"TensorRT could not start its {kind}: {NO_CUDA}"
    assert "driver" in error.fix


def test_shapes_that_cannot_be_worked_out_are_an_error_of_ours(fake):
    engine = load(fake, build(fake))
    fake.faults["infer"] = "infer_shapes error code: -1"
    error = error_of(lambda: engine.start(FEEDS))
    assert error.what.startswith("TensorRT could not work out the shapes of the outputs")
    assert "samples of these shapes" in error.fix
