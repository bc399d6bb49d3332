"""What each layer computes and moves: FLOP, elements, and the matrix product that it comes down to.

One floating-point operation is one add, multiply, divide, comparison or elementary function of the operator's
definition; a multiply-add is two. That is the convention of the datasheets that the roofline compares with. A number
that depends on an unknown dimension is NaN, and the cost's ``note`` says which.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from explorer.model.cost_matrix import MATRIX_RULES, SOFTMAX_FLOPS, touched_fraction
from explorer.model.cost_types import (
    SWITCHABLE,
    GemmShape,
    Kind,
    LayerCost,
    Operands,
    UnknownCostError,
    Work,
    item_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from explorer.model.graph import Layer, TensorSpec, WeightInfo

__all__ = ["GemmShape", "Kind", "LayerCost", "layer_costs"]

_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_CONTAINERS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout", "Shape", "Size", "Constant"})

_ONE_OPERATION = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Cos Cosh "
    "Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Mod Mul Neg Not Or Pow "
    "Reciprocal Relu Round Sign Sin Sinh Sqrt Sub Tan Tanh ThresholdedRelu Where Xor"
)
# Operations per output element, counted from each operator's definition; one where nothing else is written.
_ELEMENTWISE: dict[str, int] = dict.fromkeys(_ONE_OPERATION.split(), 1) | {
    "BiasGelu": 6,
    "Celu": 6,
    "Clip": 2,
    "DequantizeLinear": 2,
    "Elu": 4,
    "FastGelu": 8,
    "Gelu": 5,
    "HardSigmoid": 4,
    "HardSwish": 5,
    "LeakyRelu": 2,
    "Mish": 5,
    "PRelu": 2,
    "QuantizeLinear": 4,
    "QuickGelu": 6,
    "RotaryEmbedding": 3,
    "Selu": 5,
    "Shrink": 2,
    "Sigmoid": 4,
    "Softplus": 3,
    "Softsign": 3,
    "Swish": 6,
}
_VARIADIC = frozenset({"Max", "Mean", "Min", "Sum"})
_NORMALIZATION = {  # per element: statistics, centring, scaling; batch statistics are constants at inference
    "BatchNormalization": 2,
    "GroupNormalization": 7,
    "InstanceNormalization": 7,
    "LayerNormalization": 7,
    "LpNormalization": 3,
    "MeanVarianceNormalization": 6,
    "RMSNormalization": 4,
    "SimplifiedLayerNormalization": 4,
    "SkipLayerNormalization": 8,
    "SkipSimplifiedLayerNormalization": 5,
}
_SOFTMAX = {"Hardmax": 1, "LogSoftmax": SOFTMAX_FLOPS, "Softmax": SOFTMAX_FLOPS}
_REDUCTION = {  # per input element
    "ArgMax": 1,
    "ArgMin": 1,
    "CumProd": 1,
    "CumSum": 1,
    "ReduceL1": 2,
    "ReduceL2": 2,
    "ReduceLogSum": 1,
    "ReduceLogSumExp": 2,
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 2,
}
_GLOBAL_POOL = {"GlobalAveragePool": 1, "GlobalLpPool": 2, "GlobalMaxPool": 1}
_POOL = {"AveragePool": 1, "LpPool": 2, "MaxPool": 1}
_MOVES = (
    "Cast CastLike Concat ConstantOfShape DepthToSpace Expand EyeLike OneHot Pad Range ReverseSequence "
    "ScatterElements ScatterND SpaceToDepth Split Tile Transpose Trilu"
)
_MOVEMENT = frozenset(_MOVES.split())
_GATHERS = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})  # they touch only what they return
_PER_INPUT_ELEMENT = _NORMALIZATION | _SOFTMAX | _REDUCTION | _GLOBAL_POOL
_INTERPOLATION_POINTS = {"linear": 2, "cubic": 4}  # per resized axis: the ONNX specification of Resize
_MICROSOFT = "com.microsoft"
_MICROSOFT_OPS = frozenset(
    {"BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
)


def layer_costs(
    layers: Iterable[Layer],
    specs: Mapping[str, TensorSpec],
    weights: Mapping[str, WeightInfo],
    attributes: Callable[[str], Mapping[str, Any]],
) -> dict[str, LayerCost]:
    """Return the arithmetic and traffic of every layer, by layer id.

    Traffic counts each distinct input once and each output once, as if no cache kept anything between layers; views
    (Reshape, Squeeze, Unsqueeze, Flatten, Identity, Dropout at inference) move nothing. A body of a Loop or Scan is
    counted for one iteration.

    Args:
        layers: the layers, bodies included.
        specs: dtype and shape of every value; shapes must be concrete for a number to come out.
        weights: the initializers.
        attributes: from a layer id to its attributes as Python values, such as ``model.attributes``.

    Returns:
        one cost a layer; a number is NaN when a shape or a rule is missing, and ``note`` says why.

    Source: operator definitions of the ONNX specification.
    """
    return {layer.id: _cost(Operands(layer, specs, weights, attributes)) for layer in layers}


def _cost(ops: Operands) -> LayerCost:
    try:
        work = _work(ops)
    except UnknownCostError as unknown:
        work = Work(math.nan, _kind(ops.layer.op), note=str(unknown))
    if not work.moves:
        return LayerCost(ops.layer.id, work.flops, 0, 0, 0, None, work.kind, note=work.note)
    note = work.note
    try:
        weight, read, write, fixed = _traffic(ops, work)
    except UnknownCostError as unknown:
        weight = read = write = fixed = math.nan
        note = note or str(unknown)
    return LayerCost(ops.layer.id, work.flops, weight, read, write, work.gemm, work.kind, fixed, note)


def _traffic(ops: Operands, work: Work) -> tuple[float, float, float, float]:
    """Elements read from weights, read from activations and written, then the bytes that no plan changes."""
    weight = read = write = fixed = 0.0
    for position, name in enumerate(dict.fromkeys(ops.layer.inputs)):
        if not name:
            continue
        dtype, count = ops.dtype_of(name), float(math.prod(ops.shape_of(name)))
        if position == 0:
            count = count * work.read_fraction if work.first_read is None else min(count, work.first_read)
        if dtype not in SWITCHABLE:
            fixed += count * item_bytes(dtype)
        elif name in ops.weights:
            weight += count
        else:
            read += count
    for name in ops.layer.outputs:
        if name and (dtype := ops.dtype_of(name)) in SWITCHABLE:
            write += math.prod(ops.shape_of(name))
        elif name:
            fixed += math.prod(ops.shape_of(name)) * item_bytes(dtype)
    return weight, read, write, fixed


def _work(ops: Operands) -> Work:
    op, domain = ops.layer.op, ops.layer.domain
    known = domain in _STANDARD_DOMAINS or (domain == _MICROSOFT and op in _MICROSOFT_OPS)
    if not known:
        raise UnknownCostError(f"operator '{domain}::{op}' has no FLOP rule")
    if op in _CONTAINERS:
        return Work(0, "other", moves=False, note="control flow: the layers of its body carry the cost")
    if op in _VIEWS:
        return Work(0, "movement", moves=False)
    return _RULES.get(op, _counted)(ops)


def _counted(ops: Operands) -> Work:
    """Rules that need only a count of elements."""
    op = ops.layer.op
    if op in _MOVEMENT:
        return Work(0, "movement")
    if op in _PER_INPUT_ELEMENT:
        return Work(_PER_INPUT_ELEMENT[op] * ops.elements(), _kind(op))
    if op in _ELEMENTWISE:
        return Work(_ELEMENTWISE[op] * ops.output_elements(), "elementwise")
    raise UnknownCostError(f"operator '{op}' has no FLOP rule")


def _gather(ops: Operands) -> Work:
    return Work(0, "movement", first_read=ops.output_elements())


def _local_response(ops: Operands) -> Work:
    return Work((2 * int(ops.attribute("size", 1)) + 3) * ops.elements(), "normalization")


def _variadic(ops: Operands) -> Work:
    pairwise = len(ops.layer.inputs) - 1 + (ops.layer.op == "Mean")  # a mean divides once more
    return Work(pairwise * ops.output_elements(), "elementwise")


def _pool(ops: Operands) -> Work:
    kernel = tuple(ops.attribute("kernel_shape", ()))
    flops = _POOL[ops.layer.op] * ops.output_elements() * math.prod(kernel)
    return Work(flops, "pool", read_fraction=touched_fraction(ops, kernel))


def _resize(ops: Operands) -> Work:
    mode = str(ops.attribute("mode", "nearest"))
    if mode not in _INTERPOLATION_POINTS:
        return Work(0, "movement")
    resized = sum(a != b for a, b in zip(ops.shape(0), ops.output_shape(), strict=False))
    return Work(2 * _INTERPOLATION_POINTS[mode] ** resized * ops.output_elements(), "other")


_RULES: dict[str, Callable[[Operands], Work]] = {
    **MATRIX_RULES,
    **dict.fromkeys(_GATHERS, _gather),
    **dict.fromkeys(_POOL, _pool),
    **dict.fromkeys(_VARIADIC, _variadic),
    "LRN": _local_response,
    "Resize": _resize,
    "Upsample": _resize,
}


def _kind(op: str) -> Kind:
    if op in MATRIX_RULES:
        return "conv" if "Conv" in op else "matmul"
    families: tuple[tuple[Iterable[str], Kind], ...] = (
        (_ELEMENTWISE, "elementwise"),
        (_VARIADIC, "elementwise"),
        (_NORMALIZATION, "normalization"),
        (("LRN",), "normalization"),
        (_SOFTMAX, "softmax"),
        (_REDUCTION, "reduction"),
        (_GLOBAL_POOL, "pool"),
        (_POOL, "pool"),
        (_MOVEMENT, "movement"),
        (_GATHERS, "movement"),
        (_VIEWS, "movement"),
    )
    return next((kind for members, kind in families if op in members), "other")
