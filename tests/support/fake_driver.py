"""A stand-in for libcuda with the documented functions; its memory is this machine's, its clock 1.5 ms a record."""

# ruff: noqa: N802 - the driver's own names

from __future__ import annotations

import ctypes

_MIB = 1 << 20


def _out(argument):
    """Returns what a ``byref`` points to."""
    return argument._obj


class FakeDriver:
    """Functions return the code in ``fails``, else do what they must and return 0."""

    def __init__(self):
        self.fails = {}
        self.open = {"memory": 0, "events": 0, "streams": 0}
        self._memory, self._times, self._clock, self._next = {}, {}, 0.0, 100

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)
        work = getattr(type(self), f"_{name}")
        return lambda *arguments: self.fails.get(name) or work(self, *arguments) or 0

    def _handle(self, kind):
        self._next += 1
        self.open[kind] += 1
        return self._next

    def _cuInit(self, flags):
        assert flags == 0

    def _cuDeviceGet(self, device, ordinal):
        _out(device).value = ordinal

    def _cuDeviceGetName(self, text, size, device):
        text.value = b"NVIDIA H200"

    def _cuDeviceGetAttribute(self, value, attribute, device):
        _out(value).value = {75: 9, 76: 0}[attribute]

    def _cuDevicePrimaryCtxRetain(self, context, device):
        _out(context).value = 4096

    def _cuCtxSetCurrent(self, context):
        assert context.value

    def _cuStreamCreate(self, stream, flags):
        _out(stream).value = self._handle("streams")

    def _cuStreamDestroy_v2(self, stream):
        self.open["streams"] -= 1

    def _cuStreamSynchronize(self, stream):
        assert stream.value

    def _cuMemAlloc_v2(self, address, size):
        buffer = ctypes.create_string_buffer(size.value)
        self._memory[ctypes.addressof(buffer)] = buffer
        self.open["memory"] += 1
        _out(address).value = ctypes.addressof(buffer)

    def _cuMemFree_v2(self, address):
        del self._memory[address.value]
        self.open["memory"] -= 1

    def _cuMemcpyHtoD_v2(self, target, source, size):
        ctypes.memmove(target.value, source.value, size.value)

    def _cuMemcpyDtoH_v2(self, target, source, size):
        ctypes.memmove(target.value, source.value, size.value)

    def _cuMemGetInfo_v2(self, free, total):
        _out(free).value, _out(total).value = 512 * _MIB, 1024 * _MIB

    def _cuEventCreate(self, event, flags):
        _out(event).value = self._handle("events")

    def _cuEventDestroy_v2(self, event):
        self.open["events"] -= 1

    def _cuEventRecord(self, event, stream):
        self._clock += 1.5
        self._times[event.value] = self._clock

    def _cuEventElapsedTime(self, milliseconds, start, end):
        _out(milliseconds).value = self._times[end.value] - self._times[start.value]

    def _cuGetErrorString(self, code, text):
        _out(text).value = b"an illegal memory access was encountered"
