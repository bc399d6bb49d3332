"""The gate before every export: a converted model is valid, loads, and keeps its promises."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from explorer.backends.runtime import create_session
from explorer.convert.specimen import specimen
from explorer.errors import BackendError, ConversionError, ModelError
from explorer.model import Model, TensorSpec
from explorer.model.graph import check_structure, dtype_name, first_line, skeleton

__all__ = ["check_converted"]

_WHOLE_NODES = 2000  # graphs up to here load whole, within half a second; larger ones by one node of every sort


def check_converted(converted: ir.Model, source: Model, *, keep_io: bool) -> tuple[str, ...]:
    """Check a converted model; large weights stand in it by type and shape, so that the check copies none.

    Args:
        converted: the converted model.
        source: the model that it was made from.
        keep_io: whether inputs and outputs had to keep their types.

    Returns:
        What could not be checked here, in words; usually nothing.

    Raises:
        ConversionError: onnx's full check or ONNX Runtime refuses the model, or its inputs and outputs are not the
            promised ones. It is a defect of this package, and the message asks to report it.
    """
    proto = skeleton(converted)
    notes: list[str] = []
    try:
        # The two halves of check_model(full_check=True); the second also returns the types.
        check_structure(proto)
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        if _passes(source.skeleton()):
            raise _defect("onnx.checker refuses it", first_line(error)) from error
        notes.append("onnx's full check refuses the source model too, so the converted one was not checked by it")
        inferred = proto
    _check_signature(converted, source, keep_io=keep_io)
    try:
        _load(inferred)
    except ModelError as error:
        if _loads(source.skeleton()):
            raise _defect("ONNX Runtime refuses it", error.what) from error
        notes.append("ONNX Runtime loads neither the source model nor the converted one, so loading was not checked")
    except BackendError as error:
        notes.append(f"not loaded here: ONNX Runtime's CPU provider lacks a kernel ({error.what})")
    return tuple(notes)


def _passes(proto: onnx.ModelProto) -> bool:
    try:
        check_structure(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _load(proto: onnx.ModelProto) -> None:
    if len(proto.graph.node) > _WHOLE_NODES:
        proto = specimen(proto)
    create_session(proto.SerializeToString(), optimize="none", disable_prepacking=True, plan_memory=False)


def _loads(proto: onnx.ModelProto) -> bool:
    try:
        _load(proto)
    except (ModelError, BackendError):
        return False
    return True


def _check_signature(converted: ir.Model, source: Model, *, keep_io: bool) -> None:
    given = [value for value in converted.graph.inputs if value.name not in converted.graph.initializers]
    pairs = [*zip(given, source.inputs, strict=True), *zip(converted.graph.outputs, source.outputs, strict=True)]
    for value, promised in pairs:
        dtype = dtype_name(value.dtype) if isinstance(value.type, ir.TensorType) else promised.dtype
        shape = TensorSpec("", "", None).shape if value.shape is None else tuple(str(dim) for dim in value.shape)
        wanted = None if promised.shape is None else tuple(str(dim) for dim in promised.shape)
        if value.name != promised.name or (keep_io and dtype != promised.dtype and promised.dtype):
            raise _defect("its signature changed", f"{value.name}: {dtype} instead of {promised}")
        if shape is not None and wanted is not None and len(shape) != len(wanted):
            raise _defect("its signature changed", f"{value.name} has {len(shape)} dimensions instead of {len(wanted)}")


def _defect(what: str, detail: str) -> ConversionError:
    return ConversionError(
        f"The converted model is not valid: {what}: {detail}",
        why="It was not written, so nothing of yours has changed.",
        fix="This is a defect of Precision Explorer: please report it with the model; blocking the layer avoids it.",
    )
