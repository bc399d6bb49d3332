"""Nodes that round a float32 tensor to a low format and bring it back to float32.

ONNX Runtime's CPU provider has no low-precision arithmetic: it would run a real fp16 graph in float32 and drop the
casts that it inserts itself, and with them every rounding and overflow. *Explicit* pairs of Cast nodes, and of
QuantizeLinear and DequantizeLinear, are honoured at every optimization level that emulation uses (it uses none), so
pairs are what emulation is made of. Where the model's opset has no such pair, arithmetic does the same, bit for bit:
:func:`explorer.formats.round_array` is what tests hold both to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import onnx

from explorer.convert.quantise import bias_input, quantisation_of, quantised_bias, weight_axis
from explorer.convert.weights import low_weight
from explorer.errors import CalibrationError
from explorer.formats import dequantised, get_format, quantised, round_array, weight_scales
from explorer.probe.weave import CONTRIB, Nodes, number

if TYPE_CHECKING:
    from collections.abc import Hashable

    from explorer.convert import Typing
    from explorer.formats import Format
    from explorer.model import Layer

__all__ = [
    "STORED",
    "check_calibrated",
    "reads_rounded",
    "rounded_elements",
    "rounded_weight",
    "rounding_nodes",
    "way_of_reading",
]

STORED: Final = frozenset(("fp16", "bf16"))  # formats that whole tensors are stored in, the model's own I/O among them
_CAST_SINCE: Final = {"fp16": 6, "bf16": 13, "fp8e4m3": 19, "fp8e5m2": 19}  # first opset whose Cast makes the format
_QUANTIZE_SINCE: Final = 10  # QuantizeLinear and DequantizeLinear; before, ONNX Runtime's own
_FLOAT_BITS: Final = 23  # of a float32's mantissa, the hidden one not counted (IEEE 754: binary32)
_LARGE: Final = 2.0**64  # beyond it, what rounding adds might overflow, so larger values are scaled by it
_HUGE: Final = 2.0**100  # times this twice, every float32 but zero is 1 at least


def check_calibrated(typing: Typing) -> None:
    """Refuse a typing of int8 that has no calibration.

    Raises:
        CalibrationError: it has none.
    """
    if typing.format == "int8" and typing.calibration is None:
        raise CalibrationError(
            "There is no calibration.",
            why="int8 stores every tensor in steps of its own, which follow from the range of its values.",
            fix="Calibrate first: x.calibrate().",
        )


def rounding_nodes(value: str, out: str, typing: Typing, tensor: str) -> Nodes:
    """Return nodes that compute ``out`` = ``value`` rounded to the format, both float32.

    NaN stays NaN in every format, so that it is seen; infinities saturate where the format does (fp8, int8).

    Args:
        value: name in the emulation graph.
        out: likewise.
        typing: what each layer may be; its format is rounded to, for int8 with the scales of its calibration.
        tensor: name of the value in the model.

    Raises:
        CalibrationError: int8 is asked for, and there is no range of the tensor.
    """
    fmt = get_format(typing.format)
    if not fmt.is_float:
        nodes = _quantising(value, out, typing, tensor)
    elif typing.model.opset >= _CAST_SINCE.get(fmt.name, np.inf):
        nodes = _casting(value, out, fmt)
    else:
        nodes = _arithmetic(value, out, fmt)
    nodes[-1].name = f"{out}::back"  # the value may be called like the layer
    return nodes


def _casting(value: str, out: str, fmt: Format) -> Nodes:
    nodes = Nodes()
    low = int(onnx.TensorProto.DataType.Value(fmt.onnx_dtype))
    nodes.add("Cast", [value], f"{out}::stored", to=low)
    nodes.add("Cast", [f"{out}::stored"], out, to=onnx.TensorProto.FLOAT)
    return nodes


def _quantising(value: str, out: str, typing: Typing, tensor: str) -> Nodes:
    check_calibrated(typing)
    nodes, how = Nodes(), quantisation_of(typing, tensor)
    step = [number(float(how.scale)), number(0, how.dtype.name)]
    domain = "" if typing.model.opset >= _QUANTIZE_SINCE else CONTRIB
    codes = nodes.add("QuantizeLinear", [value, *step], f"{out}::codes", domain=domain)
    finite = nodes.add("DequantizeLinear", [codes, *step], f"{out}::stored", domain=domain)
    # The code of NaN is some number. Zero is added, and NaN where the value is: Min and Max hand it on.
    least = nodes.add("Min", [value, number(0.0)], f"{out}::least")
    nodes.add("Add", [finite, nodes.add("Max", [least, number(0.0)], f"{out}::nan")], out)
    return nodes


def _arithmetic(value: str, out: str, fmt: Format) -> Nodes:
    """Return nodes that round to nearest, ties to even, by adding and taking away a power of two.

    A sum of float32 numbers is rounded to a multiple of its unit in the last place. What is added to |x| is the power
    of two whose unit is that of the format at |x|; it follows from the leading bit of |x|, which is q - (1 - u) q with
    q = (2^23 + 1) |x| and u = 2^-24.

    Source:
        Rump, Ogita, Oishi, "Accurate floating-point summation part I", SIAM J. Sci. Comput. 31 (2008), algorithm 3.5.
    """
    nodes = Nodes()

    def add(op: str, inputs: list[str], name: str) -> str:
        return nodes.add(op, inputs, f"{out}::{name}")

    size = add("Abs", [value], "size")
    reaches_far = fmt.max > _LARGE
    if reaches_far:
        large = add("Less", [number(_LARGE), size], "large")
        size = add("Mul", [size, add("Where", [large, number(1 / _LARGE), number(1.0)], "down")], "near")
    size = add("Min", [size, number(_LARGE if reaches_far else fmt.max)], "within")  # infinity, too
    dropped = 2.0 ** (_FLOAT_BITS - fmt.mantissa_bits)
    product = add("Mul", [size, number((2.0**_FLOAT_BITS + 1) * dropped)], "product")
    less = add("Mul", [product, number(1 - 2.0 ** -(_FLOAT_BITS + 1))], "less")
    lead = add("Sub", [product, less], "lead")
    lead = add("Max", [lead, number(2.0**_FLOAT_BITS * fmt.min_subnormal)], "unit")
    near = add("Sub", [add("Add", [size, lead], "sum"), lead], "rounded")
    if reaches_far:
        near = add("Mul", [near, add("Where", [large, number(_LARGE), number(1.0)], "up")], "far")
    # The sign of a zero, too, comes by multiplication with 1, -1, or the zero itself.
    sign = add("Mul", [add("Mul", [value, number(_HUGE)], "huge"), number(_HUGE)], "huger")
    sign = add("Max", [add("Min", [sign, number(1.0)], "most"), number(-1.0)], "sign")
    nodes.add("Mul", [near, sign], out)
    return nodes


def reads_rounded(typing: Typing, layer: Layer) -> tuple[bool, ...]:
    """Return for each input of a layer whether it is rounded when the layer runs low, the bias of an int8 one too."""
    takes = typing.layers[layer.id].low_inputs
    bias = bias_input(typing, layer)
    if bias is None or not takes[1]:
        return takes
    return tuple(low or index == bias for index, low in enumerate(takes))


def way_of_reading(typing: Typing, layer: Layer, index: int) -> Hashable:
    """Return what tells apart the ways in which low layers read one and the same weight."""
    if typing.format != "int8":
        return None
    return layer.id if index == bias_input(typing, layer) else weight_axis(typing.model, layer, index)


def rounded_weight(
    values: npt.NDArray[np.float32], typing: Typing, layer: Layer, index: int
) -> npt.NDArray[np.float32]:
    """Return a weight as a low layer sees it: stored in the format, read as float32.

    NaN stays NaN in every format, so that it is seen; conversion refuses to store it in int8.

    Args:
        values: of the weight.
        typing: what each layer may be; for int8 with its calibration.
        layer: which reads the weight.
        index: which of its inputs the weight is.

    Raises:
        CalibrationError: a bias of int8, in steps that depend on the layer's data, is asked for, and the range of that
            is not known.
    """
    if typing.format != "int8":
        return rounded_elements(values, typing.format)
    if index == bias_input(typing, layer):
        return _rounded_bias(values, typing, layer)
    axis = weight_axis(typing.model, layer, index)
    scales, lost = weight_scales(values, axis), np.isnan(values)
    stored = dequantised(quantised(np.where(lost, np.float32(0), values), scales, axis, least=-127), scales, axis)
    np.copyto(stored, values, where=lost)
    return stored


def rounded_elements(values: npt.NDArray[np.float32], low_format: str) -> npt.NDArray[np.float32]:
    """Return values stored in a format that knows no scales, any but int8, and read as float32."""
    if low_format in STORED:
        return low_weight(values, low_format).astype(np.float32)
    return round_array(values, low_format)


def _rounded_bias(values: npt.NDArray[np.float32], typing: Typing, layer: Layer) -> npt.NDArray[np.float32]:
    check_calibrated(typing)
    tensor = typing.model.ir.graph.initializers[layer.inputs[1]].const_value
    assert tensor is not None
    scales = weight_scales(tensor.numpy(), weight_axis(typing.model, layer, 1))
    found = quantised_bias(values, quantisation_of(typing, layer.inputs[0]).scale, scales)
    return values if found is None else dequantised(*found, axis=0)
