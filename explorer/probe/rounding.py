"""Nodes that round a float32 tensor to a low format and bring it back to float32.

ONNX Runtime's CPU provider has no low-precision arithmetic: it would run a real fp16 graph in float32 and drop the
casts that it inserts itself, and with them every rounding and overflow. *Explicit* pairs of Cast nodes are honoured at
every optimization level, so a pair is what emulation is made of.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from explorer.convert.weights import low_weight
from explorer.formats import get_format

__all__ = ["rounded_weight", "rounding_nodes"]

_CAST_FORMATS = ("fp16", "bf16")


def rounding_nodes(value: str, out: str, low_format: str) -> list[onnx.NodeProto]:
    """Return nodes that compute ``out`` = ``value`` rounded to the format, both float32."""
    if low_format not in _CAST_FORMATS:
        raise ValueError(f"no rounding nodes for {low_format}")  # formats that a plan may have are checked before
    low = int(onnx.TensorProto.DataType.Value(get_format(low_format).onnx_dtype))
    stored = f"{out}::stored"
    return [
        onnx.helper.make_node("Cast", [value], [stored], name=f"{out}::down", to=low),
        onnx.helper.make_node("Cast", [stored], [out], name=f"{out}::up", to=onnx.TensorProto.FLOAT),
    ]


def rounded_weight(values: npt.NDArray[np.float32], low_format: str) -> npt.NDArray[np.float32]:
    """Return the weight as low layers see it: stored in the format, read as float32."""
    return low_weight(values, low_format).astype(np.float32)
