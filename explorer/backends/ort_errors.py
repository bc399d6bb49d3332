"""ONNX Runtime's exceptions, turned into this package's errors.

They share no base class but ``Exception``, and their text carries C++ signatures and line numbers.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Literal

from explorer.backends.machine import look
from explorer.backends.status import cuda_major, wheel_of
from explorer.errors import BackendError, ExplorerError, InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["OutOfMemory", "RunCancelled", "translated"]

_MESSAGE_LIMIT = 700  # characters of ORT's own message: its longest useful ones are under 500, measured on the tests
_MODEL_FAULTS = ("Fail", "InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NoModel", "NoSuchFile", "NotFound")
# What ONNX Runtime's arena, CUDA, cuBLAS and cuDNN say when the memory is too small.
_NO_MEMORY = re.compile(
    r"failed to allocate memory|out of memory|cudaErrorMemoryAllocation|CUDA failure 2\b|bad_alloc|ALLOC_FAILED"
    r"|is smaller than requested bytes",
    re.IGNORECASE,
)
_ASKED = re.compile(r"requested (?:buffer of size|bytes of) (\d+)")
_NODE = re.compile(r"Name: ?'([^']+)'")
_DEVICE_FAILED = re.compile(r"(?:CUDA|CUDNN|CUBLAS) (?:failure|error)|Invalid device ID|cudaError[A-Z]")
_LACKING = re.compile(r"(lib[\w-]+\.so[.\d]*): cannot open shared object file")
_CUDAS_OWN = re.compile(r"lib(?:cublas|cublasLt|cudart)\.so\.(\d+)")  # the others count versions of their own
_GIB, _MIB = 1 << 30, 1 << 20


class OutOfMemory(BackendError):  # noqa: N818 - as in errors.py, errors are named by what happened
    """The memory of the device is too small for this model with these inputs."""


class RunCancelled(BackendError):  # noqa: N818 - as in errors.py, errors are named by what happened
    """A run, or the creation of a session, was stopped by `Cancel.cancel`."""


@contextlib.contextmanager
def translated(
    *, doing: Literal["load", "run"], provider: str, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Turn what ONNX Runtime raises into this package's errors.

    Args:
        doing: loading a model or running it: the same exception means different things.
        provider: name of the execution provider, for the message.
        cancelled: whether a failure is only the answer to a cancellation.

    Raises:
        ModelError: the model cannot be parsed or is invalid.
        InputError: the feeds do not fit.
        BackendError: no kernel, or a node failed.
        RunCancelled: it failed because it was told to stop.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - heavy, and optional

    known: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError)
    known += tuple(item for item in vars(state).values() if isinstance(item, type) and issubclass(item, Exception))
    try:
        yield
    except known as error:
        # RuntimeError: pybind's own for std::exception; ValueError, TypeError: bad feeds, from ORT's Python layer
        if isinstance(error, ExplorerError):
            raise
        if cancelled():
            raise RunCancelled("The run was cancelled.") from error
        raise _our_error(error, doing=doing, provider=provider) from error


def _our_error(error: Exception, *, doing: Literal["load", "run"], provider: str) -> ExplorerError:
    kind, said = type(error).__name__, _one_paragraph(str(error))
    if lack := _lack(str(error), doing=doing, provider=provider):
        return lack
    if kind == "NotImplemented":
        return BackendError(
            f"{provider} has no kernel for a node of this model: {said}",
            fix="Another opset or type for this node, or another backend, may help.",
        )
    if doing == "run":
        if kind in {"InvalidArgument", "ValueError", "TypeError"}:
            return InputError(f"ONNX Runtime refused the inputs: {said}", fix="Check names, dtypes and shapes.")
        return BackendError(f"ONNX Runtime failed while it ran the model: {said}")
    if kind in _MODEL_FAULTS:
        return ModelError(
            f"ONNX Runtime cannot load the model: {said}",
            fix="Run onnx.checker.check_model(path, full_check=True) on it, and export it again.",
        )
    return BackendError(f"ONNX Runtime could not create a session ({kind}): {said}")


def _lack(message: str, *, doing: Literal["load", "run"], provider: str) -> BackendError | None:
    """Return what the machine lacks, memory, a library or a working GPU; None where the failure is another."""
    if _NO_MEMORY.search(message):
        return _out_of_memory(message, doing=doing, provider=provider)
    if lacking := _LACKING.search(message):
        return _missing_library(lacking.group(1), provider=provider)
    if _DEVICE_FAILED.search(message):
        return BackendError(
            f"The GPU failed: {_one_paragraph(message)}",
            why="After a kernel has failed nothing else runs on the GPU in this process.",
            fix="Start again; `nvidia-smi` tells which GPUs are there and whether they are well.",
        )
    return None


def _out_of_memory(message: str, *, doing: Literal["load", "run"], provider: str) -> OutOfMemory:
    where = "GPU" if provider.startswith("CUDA") else "machine"
    asked, node = _ASKED.search(message), _NODE.search(message)
    size = f": {_size(int(asked.group(1)))} more were asked for" if asked else ""
    by = f" by '{node.group(1)}'" if node and asked else ""
    lower = "Lower the batch, or the length or size of the inputs"
    if doing == "load":
        lower = "Load a smaller model, or one with fp16 weights"
    other = ", close what else uses the GPU, or raise gpu_mem_limit where you set it" if where == "GPU" else ""
    return OutOfMemory(
        f"The memory of this {where} is too small to {doing} the model{size}{by}.",
        why="Weights, and the largest tensors that live at the same time, must fit into it together.",
        fix=f"{lower}{other}.",
    )


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.1f} MiB"


def _missing_library(library: str, *, provider: str) -> BackendError:
    version = _CUDAS_OWN.match(library)
    package = wheel_of(library, int(version.group(1)) if version else cuda_major(look().cuda_libraries))
    return BackendError(
        f"{provider} does not start: the library {library} is missing (package {package}).",
        why="ONNX Runtime would run on the CPU instead, and say so only in its log.",
        fix=f"pip install {package}; or add the folder that holds it to LD_LIBRARY_PATH.",
    )


def _one_paragraph(message: str) -> str:
    r"""Return ORT's message without its prefix, its C++ source places and its line breaks.

    >>> _one_paragraph("[ONNXRuntimeError] : 1 : FAIL : Load model failed:/a/b/graph.cc:43 void f(int)  No x\n")
    'Load model failed: No x.'
    """
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)
    text = re.sub(r"(?:/\S*/)?\w+\.(?:cc|cpp|h):\d+ ?(?:[^\n]*?\)(?: const)?\s*(?:\[with[^\]]*\] ?)?)?", " ", text)
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) > _MESSAGE_LIMIT:
        return text[:_MESSAGE_LIMIT].rstrip() + " ..."
    return text if text.endswith((".", "!", "?")) else f"{text}."
