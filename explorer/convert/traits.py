"""What kind of operator a layer is, where its schema alone does not tell.

Everything else (which inputs may be low, which types belong together) is read from the operator's schema at the model's
opset; this table holds only what no schema says: that an operator merely moves data, that it joins streams, or that one
of its inputs describes the computation instead of taking part in it.
"""

from __future__ import annotations

from enum import Enum

from explorer.model.normalise import CONTROL_FLOW

__all__ = [
    "CONTROL_FLOW",
    "DTYPE_ATTRIBUTE",
    "KEPT",
    "KIND",
    "PARAMETER_VARIABLES",
    "PERMUTING",
    "UNDEFINED_BEFORE",
    "Kind",
]


class Kind(Enum):
    """How a layer takes part in a plan."""

    COMPUTE = "compute"
    """Rounds its inputs and its result."""
    MOVEMENT = "movement"
    """Moves data without arithmetic: it follows the format of what it moves."""
    PROMOTE = "promote"
    """Joins several streams: it takes the widest of them."""
    OBSERVE = "observe"
    """Reads shape or type only: it takes whatever format comes."""
    CONTROL = "control"
    """Runs bodies; its border stays in fp32, the layers inside decide on their own."""
    INERT = "inert"
    """Carries no float32 tensor."""


_MOVEMENT = (
    # The last line: operators that only look at values or pick some. A cast for their sake alone would change what they
    # find (ties, NaN, infinities, distinct values) and save nothing.
    "Compress", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu",
    "Unsqueeze",
    "ArgMax", "ArgMin", "IsInf", "IsNaN", "NonZero", "TopK", "Unique",
)  # fmt: skip
_PROMOTE = ("Concat", "Max", "Mean", "Min", "Scatter", "ScatterElements", "ScatterND", "Sum", "TensorScatter", "Where")
_OBSERVE = ("Shape", "Size")

KIND: dict[str, Kind] = {
    **dict.fromkeys(_MOVEMENT, Kind.MOVEMENT),
    **dict.fromkeys(_PROMOTE, Kind.PROMOTE),
    **dict.fromkeys(_OBSERVE, Kind.OBSERVE),
    **dict.fromkeys(CONTROL_FLOW, Kind.CONTROL),
}

PERMUTING = frozenset(
    # Movement whose result holds the very values of its first input, each once, perhaps in another order.
    ("DepthToSpace", "Flatten", "Identity", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze")
)

_SCALES = "quantization scales keep their type: rounding one would move every value"
_RANDOM = "a random generator keeps its type, so that it draws the same numbers"
KEPT: dict[str, str] = {
    # Operators that stay in fp32 whatever their schema allows, with the reason that the user reads.
    "CastLike": "its result takes the type of its second input, which must not change",
    "BitCast": "it reads the bits of its input, which must not change",
    "MeanVarianceNormalization": "its definition in ONNX holds float32 constants, so no other type is valid",
    "DequantizeLinear": _SCALES,
    "DynamicQuantizeLinear": _SCALES,
    "QLinearConv": _SCALES,
    "QLinearMatMul": _SCALES,
    "QuantizeLinear": _SCALES,
    "Bernoulli": _RANDOM,
    "Multinomial": _RANDOM,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
}

UNDEFINED_BEFORE: dict[tuple[str, str], tuple[int, str]] = {
    # (operator, format) whose schema allows the format before the operators that define it do: the first opset where
    # they do, and which operator lacks the format. A runtime without a kernel of its own expands the definition.
    ("Clip", "bf16"): (16, "Where"),
    ("SoftmaxCrossEntropyLoss", "bf16"): (1 << 16, "NegativeLogLikelihoodLoss"),
}

PARAMETER_VARIABLES: dict[str, frozenset[str]] = {
    # Type variables of the schema that describe the computation and keep fp32 where the schema lets them.
    "BatchNormalization": frozenset(("T1", "T2", "U")),  # scale, bias, mean, variance
    "Dropout": frozenset(("T1",)),  # ratio
    "GridSample": frozenset(("T2",)),  # sampling coordinates
    "LayerNormalization": frozenset(("U",)),  # mean and inverse deviation, of the type stash_type
    "Resize": frozenset(("T2",)),  # roi
    "RoiAlign": frozenset(("T2",)),
    "DFT": frozenset(("T2",)),
}

DTYPE_ATTRIBUTE: dict[str, str] = {
    # Operators whose result type is an attribute.
    "BlackmanWindow": "output_datatype",
    "Cast": "to",
    "EyeLike": "dtype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
}
