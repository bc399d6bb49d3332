"""What TensorRT takes between QuantizeLinear and DequantizeLinear: signed int8 and fp8, around zero.

ONNX Runtime also takes uint8 activations and int32 biases there; TensorRT's parser refuses them ("only activation types
allowed as input to this layer"). Such a model is refused before it is built, with its nodes.

Source: NVIDIA TensorRT documentation, "Working with Quantized Types"; onnx-tensorrt, issue 850.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from explorer.errors import BackendError

__all__ = ["check_pairs"]

_TAKEN: Final = frozenset(
    getattr(ir.DataType, name)
    for name in ("INT8", "FLOAT8E4M3FN", "INT4", "FLOAT4E2M1", "UNDEFINED")
    if hasattr(ir.DataType, name)
)
_TOLD: Final = 3  # nodes that the message names


def check_pairs(model: ir.Model) -> None:
    """Check that every DequantizeLinear of a model is one that TensorRT takes.

    Raises:
        BackendError: one is not; the nodes are named.
    """
    wrong = [(str(node.name), found) for node in model.graph.all_nodes() if (found := _stored(node)) not in _TAKEN]
    if not wrong:
        return
    named = ", ".join(f"'{name}' ({dtype.name.lower()})" for name, dtype in wrong[:_TOLD])
    more = f", and {len(wrong) - _TOLD:,} more" if len(wrong) > _TOLD else ""
    raise BackendError(
        f"TensorRT does not take these DequantizeLinear nodes: {named}{more}.",
        why="It takes signed int8 and fp8 only; biases stay in fp32 there, and nothing is stored unsigned.",
        fix="Let TensorRT's kernels decide what may run low: x.target = 'tensorrt', --backend tensorrt. A model that "
        "came quantised must be quantised anew with QuantizeBias=False and signed activations.",
    )


def _stored(node: ir.Node) -> ir.DataType:
    """Return what a DequantizeLinear reads; UNDEFINED of other nodes and where that is not known."""
    if node.op_type != "DequantizeLinear" or not node.inputs or node.inputs[0] is None:
        return ir.DataType.UNDEFINED
    value = node.inputs[0]
    if value.dtype is not None:
        return value.dtype
    tensor = value.const_value
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if tensor is not None:
        return tensor.dtype
    if zero is not None and zero.const_value is not None:
        return zero.const_value.dtype
    return ir.DataType.UNDEFINED
