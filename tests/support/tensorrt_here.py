"""A machine that has TensorRT and GPUs, for tests of what is built there: on stand-ins for both."""

from __future__ import annotations

import threading

from support import fake_tensorrt

from explorer.backends.status import BackendStatus
from explorer.backends.tensorrt import versions
from explorer.backends.tensorrt.versions import api_of
from explorer.results import engine_builds

LONG_S = 60.0


class Here:
    """A machine that has TensorRT and GPUs."""

    def __init__(self, monkeypatch, version="10.13.3.9", gpu="NVIDIA Fake", gpus=1):
        self.gpu, self.gpus, self.devices = gpu, gpus, []
        self.install(monkeypatch, version)
        monkeypatch.setattr(engine_builds, "open_device", self.open)
        monkeypatch.setattr(versions, "backend_status", lambda: (self.status,))

    def install(self, monkeypatch, version):
        self.fake = fake_tensorrt.make(version)
        monkeypatch.setattr(engine_builds, "load_tensorrt", lambda: (self.fake.trt, api_of(self.fake.trt)))

    def name(self, index):
        return self.gpu if self.gpus == 1 else f"{self.gpu} {index}"

    @property
    def status(self):
        return BackendStatus("tensorrt", "ready", devices=tuple(self.name(index) for index in range(self.gpus)))

    def open(self, index):
        self.devices.append(fake_tensorrt.FakeDevice(index, name=self.name(index)))
        return self.devices[-1]

    @property
    def builds(self):
        return len(self.fake.called("build"))

    def held(self):
        """Returns a builder's long step: the next builds stay in it until each is let go."""
        return Held(self.fake)


class Held:
    """Holds builds in a step of the builder, which cannot be cancelled inside; each begins, and ends when it may.

    Attributes:
        begun: builds that came to the step so far, each an event that lets it go on.
    """

    def __init__(self, fake):
        self.begun, self._came = [], threading.Condition()
        builder = fake.trt.Builder
        real = builder.build_serialized_network

        def build(this, network, config):
            may_go = threading.Event()
            with self._came:
                self.begun.append(may_go)
                self._came.notify_all()
            assert may_go.wait(LONG_S)
            return real(this, network, config)

        builder.build_serialized_network = build

    def wait(self, number):
        """Returns what lets the build of this number go on, when it has begun."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.begun) > number, LONG_S), "no build began"
        return self.begun[number]
