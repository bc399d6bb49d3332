"""What a converted ONNX model asks for: the format of each layer, and the casts that conversion inserted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from explorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explorer.model import Model

__all__ = ["MixedModel", "read_mixed_model"]

_FORMATS: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8", TensorProto.FLOAT8E4M3FN: "fp8e4m3", TensorProto.FLOAT8E5M2: "fp8e5m2",
}  # fmt: skip
_CONVERTS: Final = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
_NO_FORMAT: Final = "none"


@dataclass(frozen=True, slots=True)
class MixedModel:
    """A converted model, as far as its precision goes.

    Attributes:
        formats: layer id to the format that it reads its first float input in; ``none`` where it reads no floats.
        inserted: nodes that are not in the source model and cast or quantise, each with the value that it reads.
    """

    formats: Mapping[str, str]
    inserted: Mapping[str, str]


def read_mixed_model(path: str | Path, model: Model) -> MixedModel:
    """Return what a converted model asks for.

    Args:
        path: the ONNX file; its weights are not read.
        model: the model that it was converted from.

    Raises:
        InputError: the file cannot be read, or is not of this model.
    """
    try:
        found = onnx.load(Path(path), load_external_data=False)
        inferred = (
            onnx.shape_inference.infer_shapes(found) if found.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF else found
        )
    except (OSError, DecodeError, onnx.shape_inference.InferenceError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no ONNX model"
        raise InputError(f"'{path}' cannot be read: {reason}.", fix="Name the file that convert wrote.") from error
    graph = inferred.graph
    types = {
        each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.value_info, *graph.output)
    } | {each.name: each.data_type for each in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    formats, inserted = {}, {}
    for node in graph.node:
        if node.name in model:
            formats[node.name] = _format(node, types, producers)
        elif node.op_type in _CONVERTS and node.name:
            inserted[node.name] = node.input[0]
    if not formats:
        raise InputError(
            f"'{path}' has none of the layers of {model.name}.",
            why="Conversion keeps the id of a layer as the name of its node.",
            fix="Give the model that it was converted from.",
        )
    return MixedModel(formats, inserted)


def _format(node: onnx.NodeProto, types: Mapping[str, int], producers: Mapping[str, onnx.NodeProto]) -> str:
    for name in node.input:
        before = producers.get(name)
        if before is not None and before.op_type == "DequantizeLinear":
            name = before.input[0]  # noqa: PLW2901 - the codes tell the format
            before = producers.get(name)
            if name not in types and before is not None and len(before.input) > 2:
                name = before.input[2]  # noqa: PLW2901
        if types.get(name) in _FORMATS:
            return _FORMATS[types[name]]
    return _NO_FORMAT
