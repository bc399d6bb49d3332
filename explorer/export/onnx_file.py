"""Write a converted model as an ONNX file, with its weights inside or beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from explorer.errors import ConversionError, ExportError
from explorer.export.files import replacing
from explorer.model.wire import serialized

if TYPE_CHECKING:
    from explorer.convert import Conversion
    from explorer.model import Model

__all__ = ["save_onnx"]

_PROTOBUF_LIMIT = 2_000_000_000  # bytes: protobuf's 2 GiB, less what the graph itself takes
_INLINE_BYTES = 1024  # smaller weights stay in the .onnx file, where shape inference reads them


def save_onnx(conversion: Conversion, source: Model, path: str | Path) -> tuple[Path, ...]:
    """Write a converted model, which was checked when it was made, and return the files written.

    Weights go into the file itself, as long as protobuf allows (2 GB) and unless the source kept them beside it:
    then they go to ``<name>.data`` in the same folder.

    Args:
        conversion: the converted model.
        source: the model that it was made from; its files are never written to.
        path: the file to write.

    Raises:
        ConversionError: no ONNX file can hold the plan.
        ExportError: the file is the source model's own, or cannot be written; then nothing has changed.
    """
    target = Path(path)
    if conversion.refusal:
        raise ConversionError(
            f"No ONNX file can hold this plan: {conversion.refusal}.",
            why="Nothing was written.",
            fix="Use fp16, bf16 or int8, or change the plan.",
        )
    _refuse_source(source, target)
    weights = [value.const_value for value in conversion.ir.graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in weights if tensor is not None)
    kept_beside = any(isinstance(v.const_value, ir.ExternalTensor) for v in source.ir.graph.initializers.values())
    if size < _PROTOBUF_LIMIT and not kept_beside:
        with replacing(target) as part, part.open("wb") as file:
            file.writelines(serialized(conversion.ir))
        return (target,)
    data = target.with_name(f"{target.name}.data")
    _refuse_source(source, data)
    with replacing(data) as data_part, replacing(target) as part:
        # onnx-ir writes the location that it is given into the model: write under the final name, in a folder apart.
        _save_external(conversion.ir, part, data_part, data.name)
    return (target, data)


def _save_external(model: ir.Model, part: Path, data_part: Path, location: str) -> None:
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    try:
        large = [v for v in model.graph.initializers.values() if v.const_value is not None and _is_large(v.const_value)]
        offset = 0
        with data_part.open("wb") as file:
            for value in large:
                tensor = value.const_value
                assert tensor is not None
                written = file.write(tensor.tobytes())
                value.const_value = ir.ExternalTensor(
                    location,
                    offset,
                    written,
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=str(value.name),
                    base_dir="",
                )
                offset += written
        with part.open("wb") as file:
            file.write(ir.to_proto(model).SerializeToString())
    finally:
        for name, tensor in tensors.items():
            model.graph.initializers[name].const_value = tensor


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.nbytes > _INLINE_BYTES and tensor.dtype != ir.DataType.STRING


def _refuse_source(source: Model, target: Path) -> None:
    if source.path is None or not target.exists():
        return
    tensors = [value.const_value for value in source.ir.graph.initializers.values()]
    own = [source.path, *(Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor))]
    if any(file.exists() and target.samefile(file) for file in own):
        raise ExportError(
            f"'{target}' is the source model's own file.",
            why="The model that you gave is never overwritten.",
            fix="Write to another path.",
        )
