"""How a quantised layer reads and stores each tensor: the facts that conversion and emulation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from explorer.convert.quantised_typing import PRODUCTS
from explorer.errors import ConversionError
from explorer.formats import get_format

if TYPE_CHECKING:
    from explorer.convert.typing import Typing
    from explorer.model import Layer, Model

__all__ = ["Quantisation", "bias_input", "quantisation_of", "quantised_bias", "weight_axis"]

_UNSIGNED_CODES: Final = 255
_FIRST_CHANNEL_OPSET: Final = 13  # QuantizeLinear and DequantizeLinear take an axis from this opset on
_BIAS: Final = 2  # its place among the inputs of Conv and Gemm
_MOST_CODES: Final = 2.0**31 - 1


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a tensor is stored: ``code * scale``, the code rounded to nearest even and saturated.

    Attributes:
        scale: the step, one for the whole tensor.
        dtype: of the codes, as numpy or ml_dtypes has it; the zero point is 0.
    """

    scale: np.float32
    dtype: np.dtype[Any]


def quantisation_of(typing: Typing, tensor: str) -> Quantisation:
    """Return how a quantised typing stores an activation or a model input.

    Args:
        typing: of int8, with its calibration, or of fp8, which needs none: its scale is 1.
        tensor: name of the value in the model.

    Raises:
        ConversionError: there is no calibration.
        CalibrationError: the calibration does not know the tensor.
    """
    if typing.format != "int8":
        return Quantisation(np.float32(1), get_format(typing.format).storage_dtype)
    if typing.calibration is None:
        raise ConversionError(
            "There is no calibration, and int8 needs the range of every tensor.",
            fix="Calibrate first: x.calibrate(), or convert(..., calibration=...).",
        )
    root = typing.roots.get(tensor, tensor)
    scale = np.float32(typing.calibration.scale(root))
    if tensor not in typing.unsigned:
        return Quantisation(scale, np.dtype(np.int8))
    largest = typing.calibration.amax[root]
    return Quantisation(np.float32(largest / _UNSIGNED_CODES) or np.float32(1), np.dtype(np.uint8))


def weight_axis(model: Model, layer: Layer, index: int) -> int | None:
    """Return along which axis the weight that a product reads has a scale of its own; None for one scale in all.

    Args:
        model: the model.
        layer: the layer; only a product reads weights by channel.
        index: which of its inputs is the weight.
    """
    rank = len(model.weights[layer.inputs[index]].shape)
    if (
        layer.op not in PRODUCTS or index != 1 or model.opset < _FIRST_CHANNEL_OPSET or rank < 2
    ):  # a vector has no channels
        return None
    attributes = model.attributes(layer.id)
    if layer.op == "Conv":
        return 0
    if layer.op == "ConvTranspose":
        return 1 if int(attributes.get("group", 1)) == 1 else None
    if layer.op == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return 1 if rank == 2 else None


def bias_input(typing: Typing, layer: Layer) -> int | None:
    """Return which input of a product is a bias that int8 stores as int32; None where there is none.

    TensorRT takes no int32 there, and adds the bias as it is.

    Its scale is that of the product, so integers can be added before any rounding. It has to be a vector of weights
    behind a weight, and nothing may scale it or the product.
    """
    if typing.format != "int8" or typing.backend == "tensorrt":
        return None
    if layer.op not in ("Conv", "Gemm") or len(layer.inputs) <= _BIAS or not layer.inputs[_BIAS]:
        return None
    model = typing.model
    fed = {spec.name for spec in model.inputs}
    weight, bias = (model.weights.get(name) if name not in fed else None for name in layer.inputs[1 : _BIAS + 1])
    attributes = model.attributes(layer.id)
    plain = all(float(attributes.get(name, 1.0)) == 1.0 for name in ("alpha", "beta"))
    if weight is None or bias is None or len(bias.shape) != 1 or not plain or model.opset < _FIRST_CHANNEL_OPSET:
        return None
    return _BIAS


def quantised_bias(
    bias: npt.NDArray[np.float32], x_scale: np.float32, w_scales: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
    """Return a bias as int32 codes and their scales, one for each channel; None where int32 cannot hold the codes.

    Args:
        bias: float32, one for each channel.
        x_scale: scale of the activation that the product reads.
        w_scales: of the weight: a scalar, or one for each channel.
    """
    scales = np.broadcast_to(np.asarray(x_scale * w_scales, np.float32), bias.shape).copy()
    if not (scales > 0).all():
        return None
    codes = np.rint(bias.astype(np.float64) / scales)
    if not np.isfinite(codes).all() or (np.abs(codes) > _MOST_CODES).any():
        return None
    return codes.astype(np.int32), scales
