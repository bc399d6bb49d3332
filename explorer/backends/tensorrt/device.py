"""Memory, a stream and events of one NVIDIA GPU, through the driver's own library.

The driver's library is on every machine that has a GPU; nothing else need be installed for this. TensorRT works in the
same (primary) context. Written against NVIDIA's documented driver API; *not run on a GPU so far*.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from explorer.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Device", "open_device"]

_OUT_OF_MEMORY: Final = 2  # CUDA_ERROR_OUT_OF_MEMORY
_CAPABILITY: Final = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NAME_BYTES: Final = 256  # cuDeviceGetName writes at most as many as it is told
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Driver:
    """The driver's library; a failed call raises."""

    driver: Any

    def call(self, name: str, *arguments: Any, doing: str = "") -> None:
        """Call a function of the driver.

        Raises:
            BackendError: it failed, in the driver's own words.
        """
        code = getattr(self.driver, name)(*arguments)
        if code == 0:
            return
        if code == _OUT_OF_MEMORY:
            raise BackendError(
                f"The GPU's memory is too small{f' to {doing}' if doing else ''}{self._left()}.",
                fix="Lower the batch (batch_size, --batch-size) or the length of the inputs; close what else uses it.",
            )
        text = ctypes.c_char_p()
        self.driver.cuGetErrorString(code, ctypes.byref(text))
        said = (text.value or b"unknown error").decode("utf-8", "replace")
        raise BackendError(
            f"CUDA failed{f' to {doing}' if doing else ''}: {said} (error {code} of {name}).",
            why="After an error of a kernel nothing else runs in this process." if "launch" in said else "",
            fix="Start again; `nvidia-smi` tells whether the GPU is well.",
        )

    def _left(self) -> str:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if self.driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) != 0:
            return ""
        return f": {free.value / _MIB:,.0f} of {total.value / _MIB:,.0f} MiB are free"


class Device:
    """One GPU, its primary context and one stream. Close it, or use it as a context manager.

    Attributes:
        index: in CUDA's order.
        name: as the driver tells it.
        capability: CUDA compute capability.
        stream: handle of the stream that everything runs on.
    """

    def __init__(self, driver: _Driver, index: int) -> None:
        self._driver, self.index = driver, index
        driver.call("cuInit", 0)
        handle = ctypes.c_int()
        driver.call("cuDeviceGet", ctypes.byref(handle), index, doing=f"open GPU {index}")
        self._handle = handle
        text = ctypes.create_string_buffer(_NAME_BYTES)
        driver.call("cuDeviceGetName", text, _NAME_BYTES, handle)
        self.name = text.value.decode("utf-8", "replace")
        major, minor = (self._attribute(number) for number in _CAPABILITY)
        self.capability = (major, minor)
        context = ctypes.c_void_p()
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle, doing=f"open GPU {index}")
        self._context = context
        self.use()
        stream = ctypes.c_void_p()
        driver.call("cuStreamCreate", ctypes.byref(stream), 1)  # CU_STREAM_NON_BLOCKING
        self._stream: ctypes.c_void_p | None = stream

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._driver.call("cuDeviceGetAttribute", ctypes.byref(value), number, self._handle)
        return value.value

    def use(self) -> None:
        """Make this GPU the one of the calling thread; every thread that uses it must."""
        self._driver.call("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        assert self._stream is not None, "the device is closed"
        return int(self._stream.value or 0)

    def allocate(self, size: int) -> int:
        """Return the address of fresh device memory of at least ``size`` bytes.

        Raises:
            BackendError: the memory is too small, with what is free and what to lower.
        """
        address = ctypes.c_uint64()
        self._driver.call(
            "cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)),
            doing=f"hold {size / _MIB:,.1f} MiB more",
        )  # fmt: skip
        return int(address.value)

    def free(self, address: int) -> None:
        """Give memory back."""
        self._driver.call("cuMemFree_v2", ctypes.c_uint64(address))

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device, and wait for it."""
        self._driver.call(
            "cuMemcpyHtoD_v2",
            ctypes.c_uint64(address),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
        )

    def copy_out(self, address: int, array: NDArray[Any]) -> None:
        """Fill a contiguous array from the device, after everything on the stream."""
        self.synchronize()
        self._driver.call(
            "cuMemcpyDtoH_v2",
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_uint64(address),
            ctypes.c_size_t(array.nbytes),
        )

    def synchronize(self) -> None:
        """Wait until the stream is done.

        Raises:
            BackendError: something on it failed.
        """
        self._driver.call("cuStreamSynchronize", self._stream, doing="run the engine")

    def wait(self, stream: int) -> None:
        """Wait until another stream is done, by its handle."""
        self._driver.call("cuStreamSynchronize", ctypes.c_void_p(stream), doing="read a value")

    def event(self) -> ctypes.c_void_p:
        """Return a new event; close it with `drop_event`."""
        event = ctypes.c_void_p()
        self._driver.call("cuEventCreate", ctypes.byref(event), 0)  # CU_EVENT_DEFAULT: it keeps the time
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """Let the stream note the time when it comes here."""
        self._driver.call("cuEventRecord", event, self._stream)

    def elapsed_us(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """Return the microseconds between two recorded events, both of which the stream has passed."""
        milliseconds = ctypes.c_float()
        self._driver.call("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return float(milliseconds.value) * 1000

    def drop_event(self, event: ctypes.c_void_p) -> None:
        """Give an event back."""
        self._driver.call("cuEventDestroy_v2", event)

    def close(self) -> None:
        """Give the stream back; a second call does nothing.

        The context stays for the life of the process: objects of TensorRT that were made in it may go later.
        """
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._driver.call("cuStreamDestroy_v2", stream)

    def __enter__(self) -> Self:
        self.use()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_device(index: int = 0) -> Device:
    """Return a GPU by its index in CUDA's order.

    Raises:
        BackendError: there is no driver, no such GPU, or it cannot be used.
    """
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return Device(_Driver(library), index)
    raise BackendError(
        "No NVIDIA driver is installed here (libcuda.so.1).",
        fix="Run on a machine with an NVIDIA GPU; in a container, start it with access to the GPU.",
    )
