"""What TensorRT takes of a quantised model: QuantizeLinear and DequantizeLinear around signed int8 and fp8.

ONNX Runtime also takes uint8 activations and int32 biases there, which TensorRT's parser refuses ("only activation
types allowed as input to this layer"), and has operators on codes (QLinearConv) and operators that measure ranges while
they run (DynamicQuantizeLinear), of which that parser has none. Such a model is refused before it is built, with its
nodes.

Source: NVIDIA TensorRT documentation, "Working with Quantized Types"; onnx-tensorrt, issue 850, and its
docs/operators.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from explorer.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_pairs"]

_TAKEN: Final = frozenset(
    getattr(ir.DataType, name)
    for name in ("INT8", "FLOAT8E4M3FN", "INT4", "FLOAT4E2M1", "UNDEFINED")
    if hasattr(ir.DataType, name)
)
_ON_CODES: Final = re.compile(r"QLinear|QGemm|QAttention|DynamicQuantize|ConvInteger|MatMulInteger")
_TOLD: Final = 3  # nodes that a message names


def check_pairs(model: ir.Model) -> None:
    """Check that TensorRT takes how a model is quantised.

    Raises:
        BackendError: it computes on codes, or stores what TensorRT does not take; the nodes are named.
    """
    on_codes = [f"'{node.name}' ({node.op_type})" for node in model.graph.all_nodes() if _ON_CODES.match(node.op_type)]
    if on_codes:
        raise BackendError(
            f"TensorRT has none of these quantised operators: {_named(on_codes)}.",
            why="It takes int8 as floating-point layers between QuantizeLinear and DequantizeLinear with constant "
            "scales, not operators on codes, nor ranges that are measured while the model runs.",
            fix="Start from the model before it was quantised; or quantise that anew statically, with "
            "quant_format=QDQ, QuantizeBias=False and signed activations.",
        )
    wrong = [(str(node.name), found) for node in model.graph.all_nodes() if (found := _stored(node)) not in _TAKEN]
    if not wrong:
        return
    named = _named([f"'{name}' ({dtype.name.lower()})" for name, dtype in wrong])
    raise BackendError(
        f"TensorRT does not take these DequantizeLinear nodes: {named}.",
        why="It takes signed int8 and fp8 only; biases stay in fp32 there, and nothing is stored unsigned.",
        fix="Let TensorRT's kernels decide what may run low: x.target = 'tensorrt', --backend tensorrt. A model that "
        "came quantised must be quantised anew with QuantizeBias=False and signed activations.",
    )


def _named(nodes: Sequence[str]) -> str:
    more = f", and {len(nodes) - _TOLD:,} more" if len(nodes) > _TOLD else ""
    return f"{', '.join(nodes[:_TOLD])}{more}"


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
