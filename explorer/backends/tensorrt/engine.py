"""Load an engine, bind its inputs and outputs to device memory, and run it.

Written against NVIDIA's documented Python interface; *not run with TensorRT so far*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import ml_dtypes
import numpy as np

from explorer.backends.tensorrt.logger import LOWER, failure, listen, load_plugins, start
from explorer.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from explorer.backends.tensorrt.device import Device
    from explorer.backends.tensorrt.versions import Api

__all__ = ["Engine", "Running", "numpy_type"]

_TYPES: Final[Mapping[str, Any]] = {
    "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "fp8": ml_dtypes.float8_e4m3fn,
    "int8": np.int8, "uint8": np.uint8, "int32": np.int32, "int64": np.int64, "bool": np.bool_,
}  # fmt: skip
_OTHER_SHAPES: Final = "Build it with samples of these shapes among them."
_ALIGNMENT: Final = 256  # bytes; cuMemAlloc gives at least that


def numpy_type(trt: Any, dtype: Any) -> np.dtype[Any]:
    """Return numpy's type of a TensorRT data type.

    Raises:
        BackendError: numpy has none (int4, fp4).
    """
    for name, found in _TYPES.items():
        if getattr(trt, name, None) == dtype:
            numpy_dtype: np.dtype[Any] = np.dtype(found)
            return numpy_dtype
    raise BackendError(f"Tensors of TensorRT's type {dtype} cannot be read here.", fix="Keep such outputs in fp32.")


class Engine:
    """A built engine on one GPU.

    Args:
        trt: the module ``tensorrt``.
        api: what it can do.
        plan: the serialized engine.
        device: the GPU.

    Raises:
        BackendError: the engine was built by another version or for another GPU, is damaged, or does not fit into
            the GPU's memory.
    """

    def __init__(self, trt: Any, api: Api, plan: bytes, device: Device) -> None:
        self.trt, self.device = trt, device
        said = listen(trt)
        load_plugins(trt, said)
        self._runtime = start(trt.Runtime, said=said)
        self.raw = self._runtime.deserialize_cuda_engine(plan)
        if self.raw is None:
            raise failure(
                f"load the engine with version {api.version} on {device.name}",
                said,
                fix="An engine runs with the version and on the kind of GPU that it was built with: build it anew.",
            )
        names = [str(self.raw.get_tensor_name(index)) for index in range(self.raw.num_io_tensors)]
        is_input = {name: self.raw.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(name for name in names if is_input[name])
        self.outputs = tuple(name for name in names if not is_input[name])

    def layers_json(self, context: Any = None) -> str:
        """Return what the engine inspector tells of the layers, as JSON text.

        Args:
            context: an execution context whose shapes are set, so that open axes are told as numbers.
        """
        inspector = self.raw.create_engine_inspector()
        if context is not None:
            inspector.execution_context = context
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def start(self, feeds: Mapping[str, NDArray[Any]]) -> Running:
        """Return the engine bound to these inputs, ready to run as often as wanted.

        Raises:
            InputError: an input is missing or unknown, or of a type or shape that the engine was not built for.
            BackendError: the GPU's memory is too small.
        """
        return Running(self, feeds)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return numpy's type of an input or output."""
        return numpy_type(self.trt, self.raw.get_tensor_dtype(name))


class Running:
    """An engine with its inputs on the device; use it as a context manager.

    Attributes:
        context: TensorRT's execution context.
    """

    def __init__(self, engine: Engine, feeds: Mapping[str, NDArray[Any]]) -> None:
        self.engine, self._device = engine, engine.device
        self._memory: list[int] = []
        self._outputs: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._grown: dict[str, Any] = {}
        self._host: list[NDArray[Any]] = []
        self._said = listen(engine.trt)
        _check_names(engine, feeds)
        self.context = engine.raw.create_execution_context()
        if self.context is None:
            raise failure("make room to run the engine", self._said, fix=LOWER)
        try:
            for name in engine.inputs:
                self._bind_input(name, np.asarray(feeds[name], order="C"))
            self._check_shapes()
            for name in engine.outputs:
                self._bind_output(name)
        except BaseException:
            self.close()
            raise

    def _bind_input(self, name: str, array: NDArray[Any]) -> None:
        engine, wanted = self.engine, self.engine.dtype(name)
        if array.dtype != wanted:
            raise InputError(
                f"Input '{name}' has data type {array.dtype}; the engine takes {wanted}.",
                fix=f"Convert it with .astype('{wanted}') where that keeps its meaning.",
            )
        if not self.context.set_input_shape(name, tuple(array.shape)):
            raise InputError(
                f"The engine does not take shape {tuple(array.shape)} for input '{name}'.",
                why="It was built for the shapes of the samples.",
                fix=_OTHER_SHAPES,
            )
        if engine.raw.get_tensor_location(name) == engine.trt.TensorLocation.HOST:
            self._host.append(array)
            self.context.set_tensor_address(name, array.ctypes.data)
            return
        address = self._allocate(array.nbytes)
        self._device.copy_in(address, array)
        self.context.set_tensor_address(name, address)

    def _check_shapes(self) -> None:
        try:
            missing = self.context.infer_shapes()
        except RuntimeError as error:
            raise failure("work out the shapes of the outputs", self._said, fix=_OTHER_SHAPES) from error
        if missing:
            raise InputError(f"TensorRT needs more of the inputs to know all shapes: {', '.join(missing)}.")

    def _bind_output(self, name: str) -> None:
        shape = tuple(int(dim) for dim in self.context.get_tensor_shape(name))
        if any(dim < 0 for dim in shape):  # its shape depends on values: TensorRT asks for memory while it runs
            self._grown[name] = _growing(self.engine.trt, self._allocate)
            self.context.set_output_allocator(name, self._grown[name])
            return
        if self.engine.raw.get_tensor_location(name) == self.engine.trt.TensorLocation.HOST:
            array = np.zeros(shape, dtype=self.engine.dtype(name))
            self._host.append(array)
            self._outputs[name] = (-len(self._host), shape)
            self.context.set_tensor_address(name, array.ctypes.data)
            return
        address = self._allocate(int(np.prod(shape, dtype=np.int64)) * self.engine.dtype(name).itemsize)
        self._outputs[name] = (address, shape)
        self.context.set_tensor_address(name, address)

    def _allocate(self, size: int) -> int:
        address = self._device.allocate(size)
        self._memory.append(address)
        return address

    def enqueue(self) -> None:
        """Start one run; it ends when the device's stream is done.

        Raises:
            BackendError: TensorRT could not start it, in its own words.
        """
        if not self.context.execute_async_v3(self._device.stream):
            raise failure("run the engine", self._said, fix=LOWER)

    def run(self) -> None:
        """Run once and wait for the end."""
        self.enqueue()
        self._device.synchronize()

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return the outputs of the last run by name, copied to the host, in the engine's own types."""
        found: dict[str, NDArray[Any]] = {}
        for name in self.engine.outputs:
            address, shape = self._place(name)
            if address < 0:
                found[name] = self._host[-address - 1].copy()
                continue
            found[name] = np.empty(shape, dtype=self.engine.dtype(name))
            self._device.copy_out(address, found[name])
        return found

    def _place(self, name: str) -> tuple[int, tuple[int, ...]]:
        if name not in self._grown:
            return self._outputs[name]
        grown = self._grown[name]
        if grown.shape is None:
            raise BackendError(f"TensorRT did not tell the shape of output '{name}'.")
        return grown.address, grown.shape

    def close(self) -> None:
        """Give the device memory back; a second call does nothing."""
        self.context = None
        while self._memory:
            self._device.free(self._memory.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_names(engine: Engine, feeds: Mapping[str, Any]) -> None:
    missing = [name for name in engine.inputs if name not in feeds]
    unknown = [name for name in feeds if name not in engine.inputs]
    if missing:
        raise InputError(f"Missing inputs: {', '.join(missing)}.", fix=f"It takes: {', '.join(engine.inputs)}.")
    if unknown:
        raise InputError(f"Unknown inputs: {', '.join(unknown)}.", fix=f"It takes: {', '.join(engine.inputs)}.")


def _growing(trt: Any, allocate: Any) -> Any:
    """Return an output allocator for one output whose shape is known only after the run."""

    class Growing(trt.IOutputAllocator):  # type: ignore[misc]  # the base is known only at run time
        """Called by TensorRT while it runs; an error is told as address 0, which ends the run."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address, self.size = 0, 0
            self.shape: tuple[int, ...] | None = None

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            """Return memory of at least this size."""
            del tensor_name, memory
            if size > self.size or not self.address:
                try:
                    self.address, self.size = allocate(max(size, alignment, _ALIGNMENT)), size
                except BackendError:
                    return 0
            return self.address

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, _: int) -> int:
            """Return memory of at least this size; the stream does not matter, memory is not freed while it runs."""
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            """Note the shape."""
            del tensor_name
            self.shape = tuple(int(dim) for dim in shape)

    return Growing()
