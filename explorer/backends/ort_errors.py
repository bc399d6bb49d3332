"""ONNX Runtime's exceptions, turned into this package's errors.

They share no base class but ``Exception``, and their text carries C++ signatures and line numbers.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Literal

from explorer.errors import BackendError, ExplorerError, InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RunCancelled", "translated"]

_MESSAGE_LIMIT = 700  # characters of ORT's own message: its longest useful ones are under 500, measured on the tests
_MODEL_FAULTS = ("Fail", "InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NoModel", "NoSuchFile", "NotFound")


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
