"""Values inside an engine while it runs as it is: TensorRT's debug tensors, without marking outputs.

Marking a tensor as an output keeps it from being fused, so that other kernels run: a NaN may be gone when one looks
for it. Tensors that fusion leaves are marked as debug tensors instead, which changes no fusion; and where values were
read in an engine that differs all the same, `vanished` compares its outputs with the untouched engine's and says so.

Names are those of the engine, as its inspector tells them; a value that a kernel never stores has none. Written against
NVIDIA's documented Python interface; *not run with TensorRT so far*.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.backends.tensorrt.engine import numpy_type
from explorer.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from explorer.backends.tensorrt.engine import Running

__all__ = ["InnerValue", "Vanished", "read_inner_values", "vanished"]


@dataclass(frozen=True, slots=True)
class InnerValue:
    """What one tensor inside the engine held in one run.

    Attributes:
        name: in the engine.
        shape: its shape.
        dtype: what it is stored in, as numpy names it.
        largest: largest |value| that is finite; NaN where none is.
        inf: how many are infinite.
        nan: how many are NaN.
        values: the values, where they were asked for.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    largest: float
    inf: int
    nan: int
    values: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Vanished:
    """An output that holds infinities or NaN as the engine is, and fewer once its inner values are looked at."""

    output: str
    plain: int
    marked: int

    @property
    def text(self) -> str:
        """What it means, as a sentence."""
        rest = "none" if not self.marked else f"{self.marked:,}"
        return (
            f"Output '{self.output}' holds {self.plain:,} infinities or NaN as the engine runs, and {rest} when its "
            "inner values are marked: marking changes which layers are fused, so the fault is in a fused kernel, and "
            "the values that were read are not those of the engine that you would ship."
        )


def read_inner_values(trt: Any, running: Running, *, keep: Collection[str] = ()) -> dict[str, InnerValue]:
    """Run once and return what the tensors inside the engine held, by name, in the order in which they were made.

    The engine must have been built with ``inner_values``. Times of such a run mean nothing.

    Args:
        trt: the module ``tensorrt``.
        running: the engine with its inputs.
        keep: names whose values are returned too; they may be large.

    Raises:
        BackendError: the engine has no debug tensors, a value cannot be read, or the run failed.
    """
    listener = _listener(trt, running, frozenset(keep))
    context = running.context
    if not context.set_debug_listener(listener):
        raise BackendError("TensorRT takes no debug listener for this engine.", fix="Build it with inner values.")
    context.set_all_tensors_debug_state(True)
    context.unfused_tensors_debug_state = True
    try:
        running.run()
    finally:
        context.unfused_tensors_debug_state = False
        context.set_all_tensors_debug_state(False)
    if listener.error is not None:
        raise listener.error
    found: dict[str, InnerValue] = listener.found
    if not found:
        raise BackendError(
            "The engine shows no values inside it.",
            why="Either it was built without inner values, or all of it is one kernel.",
            fix="Build it with inner values; a single kernel can only be seen from outside.",
        )
    return found


def vanished(plain: Mapping[str, NDArray[Any]], marked: Mapping[str, NDArray[Any]]) -> tuple[Vanished, ...]:
    """Return the outputs whose infinities or NaN grow fewer when inner values are marked.

    Args:
        plain: outputs of the engine as it is.
        marked: outputs, on the same inputs, of the engine whose inner values were marked.
    """
    counts = [(name, _lost(plain[name]), _lost(marked[name])) for name in plain if name in marked]
    return tuple(Vanished(name, before, after) for name, before, after in counts if after < before)


def _lost(array: NDArray[Any]) -> int:
    return 0 if array.dtype.kind in "biu" else int((~np.isfinite(array.astype(np.float64))).sum())


def _listener(trt: Any, running: Running, keep: frozenset[str]) -> Any:
    device = running.engine.device

    class Listener(trt.IDebugListener):  # type: ignore[misc]  # the base is known only at run time
        """Called by TensorRT for each tensor, whose memory is valid only until the call returns."""

        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.found: dict[str, InnerValue] = {}
            self.error: Exception | None = None

        def process_debug_tensor(  # noqa: PLR0917 - TensorRT calls it so
            self, addr: Any, location: Any, dtype: Any, shape: Any, name: str, stream: int
        ) -> bool:
            """Take one tensor; an error is kept, because none may pass through TensorRT."""
            try:
                array = np.empty(tuple(int(dim) for dim in shape), dtype=numpy_type(trt, dtype))
                if location == trt.TensorLocation.HOST:
                    ctypes.memmove(array.ctypes.data, _address(addr), array.nbytes)
                elif array.nbytes:
                    device.wait(stream)  # it may be one of TensorRT's own
                    device.copy_out(_address(addr), array)
                self.found[name] = _summary(name, array, keep=name in keep)
            except (BackendError, ValueError, TypeError) as error:
                self.error = error
                return False
            return True

    return Listener()


def _address(given: Any) -> int:
    """Return an address that the documentation calls a capsule and the bindings give as a number."""
    if isinstance(given, int):
        return given
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return int(pointer(given, None) or 0)


def _summary(name: str, array: NDArray[Any], *, keep: bool) -> InnerValue:
    values = array.astype(np.float64)
    finite = np.abs(values[np.isfinite(values)])
    return InnerValue(
        name=name,
        shape=array.shape,
        dtype=array.dtype.name,
        largest=float(finite.max()) if finite.size else float("nan"),
        inf=int(np.isinf(values).sum()),
        nan=int(np.isnan(values).sum()),
        values=array if keep else None,
    )
