"""A torch module as an ONNX model, through torch's own exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from explorer._optional import require
from explorer.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["export_torch"]


def export_torch(module: Any, example_args: Sequence[Any] | None) -> onnx.ModelProto:
    """Return ``module`` exported with ``torch.onnx.export(dynamo=True)``, whose metadata tells scopes and source lines.

    Args:
        module: a ``torch.nn.Module``; it is put into evaluation mode for the export, and back.
        example_args: positional arguments of its forward method.

    Raises:
        ModelError: it is no torch module, or torch cannot export it.
        InputError: there are no example arguments.
        MissingDependency: torch or onnxscript is not installed.
    """
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(module).__mro__}
    if "torch.nn.modules.module.Module" not in kinds:
        raise ModelError(
            f"A {type(module).__name__} is no model that can be opened.",
            fix="Give a path, bytes, an onnx.ModelProto, or a torch.nn.Module with example_args.",
        )
    if example_args is None:
        raise InputError("A torch module needs example arguments to be exported.", fix="Give example_args=(x,).")
    torch = require("torch", why="to export a torch module", extra="training")
    require("onnxscript", why="by torch's ONNX exporter", extra="training")
    training = module.training
    module.eval()
    try:
        program = torch.onnx.export(module, tuple(example_args), dynamo=True, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"torch could not export the {type(module).__name__}: {str(error).splitlines()[0]}",
            fix="Export it yourself with torch.onnx.export and open the file.",
        ) from error
    finally:
        module.train(training)
    proto = program.model_proto
    assert isinstance(proto, onnx.ModelProto)
    return proto
