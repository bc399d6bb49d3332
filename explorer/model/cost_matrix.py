"""Cost rules of the layers that come down to matrix products; a multiply-add is two FLOP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from explorer.model.cost_types import GemmShape, Operands, UnknownCostError, Work

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MATRIX_RULES", "SOFTMAX_FLOPS", "touched_fraction"]

SOFTMAX_FLOPS = 5  # per element: max, subtract, exp, sum, divide (the definition)
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}  # ONNX operator specification
_GATE_FLOPS = {"LSTM": 24, "GRU": 16, "RNN": 3}  # per hidden unit and step: biases, sigmoids (4), tanh (1), mixing
_OPTIONAL_RECURRENT_BIAS = 3  # index of B in LSTM, GRU and RNN


def _convolution(ops: Operands, *, weight: int, bias: int) -> Work:
    out, kernel = ops.output_shape(), ops.shape(weight)
    groups = int(ops.attribute("group", 1))
    inner = kernel[1]  # the weight is [out channels, in channels of one group, *kernel]
    spatial = kernel[2:]
    gemm = GemmShape(
        m=out[0] * math.prod(out[2:]), n=kernel[0] // groups, k=inner * math.prod(spatial), batch=groups, k_inner=inner
    )
    extra = math.prod(out) if ops.has(bias) else 0
    return Work(gemm.flops + extra, "conv", gemm, read_fraction=touched_fraction(ops, spatial))


def touched_fraction(ops: Operands, kernel: tuple[int, ...]) -> float:
    """Return the share of the input that the kernel touches: below one only where the stride leaps over it."""
    strides = tuple(ops.attribute("strides", None) or (1,) * len(kernel))
    return math.prod(min(1.0, size / stride) for size, stride in zip(kernel, strides, strict=False))


def conv(ops: Operands) -> Work:
    """Convolution as an implicit matrix product; dilation changes the reach, not the work."""
    return _convolution(ops, weight=1, bias=2)


def qlinear_conv(ops: Operands) -> Work:
    """Convolution of quantized tensors: the weight is the fourth input."""
    return _convolution(ops, weight=3, bias=8)


def conv_integer(ops: Operands) -> Work:
    """Integer convolution; inputs 2 and 3 are zero points."""
    return _convolution(ops, weight=1, bias=len(ops.layer.inputs))


def conv_transpose(ops: Operands) -> Work:
    """Transposed convolution: every input position meets the whole kernel."""
    source, kernel = ops.shape(0), ops.shape(1)  # the weight is [in channels, out channels of one group, *kernel]
    groups = int(ops.attribute("group", 1))
    inner = kernel[0] // groups
    gemm = GemmShape(m=source[0] * math.prod(source[2:]), n=math.prod(kernel[1:]), k=inner, batch=groups, k_inner=inner)
    return Work(gemm.flops + (ops.output_elements() if ops.has(2) else 0), "conv", gemm)


def gemm(ops: Operands) -> Work:
    """Alpha * A' @ B' + beta * C."""
    left, right = ops.shape(0), ops.shape(1)
    m, k = reversed(left) if ops.attribute("transA", 0) else left
    n = right[0] if ops.attribute("transB", 0) else right[1]
    shape = GemmShape(m, n, k)
    return Work(shape.flops + (m * n if ops.has(2) else 0), "matmul", shape)


def _matmul(left: tuple[int, ...], right: tuple[int, ...]) -> Work:
    if not left or not right:
        raise UnknownCostError("an operand is a scalar")
    rows = left if len(left) > 1 else (1, *left)
    columns = right if len(right) > 1 else (*right, 1)
    m, k, n = rows[-2], rows[-1], columns[-1]
    if math.prod(columns[:-2]) == 1:  # one right matrix for all: the batch is more rows of one product
        shape = GemmShape(math.prod(rows[:-1]), n, k)
    else:
        depth = max(len(rows), len(columns)) - 2
        pairs = zip(_lead(rows, depth), _lead(columns, depth), strict=True)
        shape = GemmShape(m, n, k, batch=math.prod(0 if 0 in pair else max(pair) for pair in pairs))
    return Work(shape.flops, "matmul", shape)


def _lead(shape: tuple[int, ...], depth: int) -> tuple[int, ...]:
    batch = shape[:-2]
    return (1,) * (depth - len(batch)) + batch


def matmul(ops: Operands) -> Work:
    """Matrix product with numpy's broadcasting of the leading dimensions."""
    return _matmul(ops.shape(0), ops.shape(1))


def qlinear_matmul(ops: Operands) -> Work:
    """Matrix product of quantized tensors: the right operand is the fourth input."""
    return _matmul(ops.shape(0), ops.shape(3))


def einsum(ops: Operands) -> Work:
    """Einstein sum, evaluated in one go: one multiply-add per operand after the first, for every index combination."""
    equation = str(ops.attribute("equation", "")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    shapes = [ops.shape(index) for index in range(len(terms))]
    indices = [_indices(term, len(shape)) for term, shape in zip(terms, shapes, strict=True)]
    sizes: dict[str, int] = {}
    for names, shape in zip(indices, shapes, strict=True):
        for name, size in zip(names, shape, strict=True):
            sizes[name] = size if sizes.get(name, 1) == 1 else sizes[name]
    flat = [name for names in indices for name in names]
    if arrow:
        rank = max((len(names) - len(term.replace("...", "")) for names, term in zip(indices, terms, strict=True)))
        kept = set(_indices(result, len(result.replace("...", "")) + (rank if "..." in result else 0)))
    else:  # implicit form: indices that occur once stay, and so does the ellipsis
        kept = {name for name in flat if flat.count(name) == 1 or name.startswith("...")}
    points = math.prod(sizes.values())
    summed = set(sizes) - kept
    if len(terms) == 1:
        return Work(points if summed else 0, "reduction" if summed else "movement")
    if not summed:
        return Work(points * (len(terms) - 1), "elementwise")
    note = "" if len(terms) == 2 else "counted as one sum over all indices; a good contraction order needs less"
    return Work(points * 2 * (len(terms) - 1), "matmul", _contraction(indices, kept, sizes), note=note)


def _indices(term: str, rank: int) -> list[str]:
    """Names of a term's dimensions; those of an ellipsis are numbered from the right, as they broadcast."""
    if "..." not in term:
        return list(term)
    before, _, after = term.partition("...")
    count = rank - len(before) - len(after)
    return [*before, *(f"...{count - position}" for position in range(count)), *after]


def _contraction(indices: list[list[str]], kept: set[str], sizes: dict[str, int]) -> GemmShape | None:
    if len(indices) != 2:
        return None
    left, right = set(indices[0]), set(indices[1])

    def extent(names: set[str]) -> int:
        return math.prod(sizes[name] for name in names)

    shared = left & right
    return GemmShape(
        m=extent((left - right) & kept),
        n=extent((right - left) & kept),
        k=extent((left | right) - kept),
        batch=extent(shared & kept),
    )


def recurrent(ops: Operands) -> Work:
    """LSTM, GRU and RNN: per step and direction one product with [W R], then the gates' pointwise work."""
    source, weight = ops.shape(0), ops.shape(1)
    batch_first = bool(ops.attribute("layout", 0))
    batch, steps = (source[0], source[1]) if batch_first else (source[1], source[0])
    directions, gate_rows, width = weight
    hidden = gate_rows // _GATES[ops.layer.op]
    shape = GemmShape(m=batch, n=gate_rows, k=width + hidden, batch=directions, steps=steps)
    pointwise = _GATE_FLOPS[ops.layer.op] * hidden * batch * steps * directions
    bias = 2 * gate_rows * batch * steps * directions if ops.has(_OPTIONAL_RECURRENT_BIAS) else 0
    return Work(shape.flops + pointwise + bias, "matmul", shape)


def attention(ops: Operands) -> Work:
    """Scaled dot-product attention: two products and a softmax; a causal mask is counted as if it saved nothing."""
    query, key, value = ops.shape(0), ops.shape(1), ops.shape(2)
    if len(query) == 3:  # [batch, sequence, heads * size]
        heads, kv_heads = int(ops.attribute("q_num_heads", 1)), int(ops.attribute("kv_num_heads", 1))
        batch, queries, width = query[0], query[1], query[2] // heads
        keys, value_width = key[1], value[2] // kv_heads
    else:  # [batch, heads, sequence, size]
        batch, heads, queries, width = query
        keys, value_width = key[2], value[3]
    if ops.has(4):  # past key: [batch, heads, past, size]
        keys += ops.shape(4)[2]
    shape = GemmShape(m=queries, n=keys, k=width + value_width, batch=batch * heads, k_inner=width)
    return Work(shape.flops + SOFTMAX_FLOPS * batch * heads * queries * keys, "matmul", shape)


def deform_conv(ops: Operands) -> Work:
    """Deformable convolution: the product, and four multiply-adds for each sampled input."""
    work = _convolution(ops, weight=1, bias=3)
    kernel, out, source = ops.shape(1), ops.output_shape(), ops.shape(0)
    samples = out[0] * math.prod(out[2:]) * source[1] * math.prod(kernel[2:])
    return Work(work.flops + 8 * samples, "conv", work.gemm)


MATRIX_RULES: dict[str, Callable[[Operands], Work]] = {
    "Attention": attention,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "DeformConv": deform_conv,
    "Einsum": einsum,
    "GRU": recurrent,
    "Gemm": gemm,
    "LSTM": recurrent,
    "MatMul": matmul,
    "MatMulInteger": matmul,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "RNN": recurrent,
}
