"""Quantisation to 8 bits as ONNX defines it: the scales, the codes, and the values that the codes stand for.

It is symmetric: a code stands for itself times the scale, and zero for zero. Arithmetic is that of QuantizeLinear and
DequantizeLinear on float32, step by step: divide, round half to even, saturate; multiply. Tests hold it bit for bit to
ONNX's reference and to ONNX Runtime.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from explorer.errors import InputError
from explorer.formats.rounding import check_float32

__all__ = ["activation_scale", "dequantised", "quantised", "rounded_int8", "weight_scales"]

_LARGEST: Final = 127  # code of the largest |value|: the range is symmetric, so -128 stands for nothing of its own
_LEAST: Final = -128

Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]


def activation_scale(amax: float, *, largest: int = _LARGEST) -> np.float32:
    """Return the scale with which the code ``largest`` stands for ``amax``.

    Args:
        amax: the largest |value| that is to be held, not negative and finite.
        largest: the code for it; 255 for values without a sign.

    Returns:
        ``amax / largest`` as a float32; 1.0 where that is zero, so that it can be divided by.

    Raises:
        InputError: ``amax`` is negative or not finite.

    >>> activation_scale(63.5), activation_scale(0.0), activation_scale(51.0, largest=255)
    (np.float32(0.5), np.float32(1.0), np.float32(0.2))
    """
    with np.errstate(over="ignore"):
        scale = np.float32(amax / largest)
    if not (np.isfinite(scale) and amax >= 0):
        raise InputError(
            f"A range of {amax} has no scale.",
            why="Values are divided by the scale before they are rounded to integers.",
            fix="Give the largest |value|, which is finite and not negative.",
        )
    return scale if scale > 0 else np.float32(1)


def weight_scales(values: Float32Array, axis: int | None) -> Float32Array:
    """Return the scale of each channel of a weight: its largest |value| / 127.

    Args:
        values: any shape, float32; values that are not finite count for nothing.
        axis: the channels' dimension, which may be negative; None gives all elements one scale.

    Returns:
        One scale a channel, shape ``(values.shape[axis],)``, or one of no dimensions. 1.0 where all is zero.

    Raises:
        InputError: ``values`` is not float32, or has no such axis.

    >>> weight_scales(np.float32([[-127, 3], [0, 0]]), 0)
    array([1., 1.], dtype=float32)
    >>> weight_scales(np.float32([[-254, 3], [0, 0]]), None)
    array(2., dtype=float32)
    """
    check_float32(values)
    others = None if axis is None else tuple(dim for dim in range(values.ndim) if dim != _position(values, axis))
    finite = np.isfinite(values)
    most = np.max(values, axis=others, initial=0.0, where=finite)
    least = np.min(values, axis=others, initial=0.0, where=finite)
    scales = np.asarray(np.maximum(most, -least) / np.float32(_LARGEST), np.float32)
    return np.asarray(np.where(scales > 0, scales, np.float32(1)))


def quantised(
    values: Float32Array, scales: npt.ArrayLike, axis: int | None, *, least: int = _LEAST, name: str = "The array"
) -> Int8Array:
    """Return the codes of values, as QuantizeLinear with a zero point of 0 gives them.

    Args:
        values: any shape, float32. An infinity saturates, as it does in ONNX: look for it before.
        scales: one positive scale, or, along ``axis``, one a channel.
        axis: the channels' dimension, which may be negative; None for a single scale.
        least: the lowest code; -127 keeps the codes symmetric, as weights have them.
        name: what the values are, for the message where they cannot be quantised.

    Returns:
        Codes from ``least`` to 127, in the shape of ``values``.

    Raises:
        InputError: ``values`` is not float32 or holds a NaN, or the scales are not positive and finite or do not fit.

    >>> quantised(np.float32([0.5, 1.5, -1e9]), 1.0, None)
    array([   0,    2, -128], dtype=int8)
    """
    check_float32(values)
    steps = _steps(values, scales, axis)
    with np.errstate(all="ignore"):  # a quotient beyond float32 saturates
        codes = np.asarray(np.divide(values, steps), np.float32)
    if np.isnan(codes).any():
        raise InputError(
            f"{name} has a NaN, which int8 cannot hold.",
            why="Whatever number took its place would hide the error.",
            fix="Keep what reads it in a floating-point format, or find where the NaN comes from.",
        )
    np.rint(codes, out=codes)
    np.clip(codes, np.float32(least), np.float32(_LARGEST), out=codes)
    return codes.astype(np.int8)


def dequantised(codes: npt.NDArray[np.integer[Any]], scales: npt.ArrayLike, axis: int | None) -> Float32Array:
    """Return the values that codes stand for, as DequantizeLinear with a zero point of 0 gives them.

    Args:
        codes: integers of any type and shape.
        scales: as for `quantised`.
        axis: as for `quantised`.

    Returns:
        ``codes * scales`` in float32, in the shape of ``codes``.

    Raises:
        InputError: the scales are not positive and finite or do not fit.

    >>> dequantised(np.int8([[1, -2], [3, 4]]), [0.5, 0.25], 0)
    array([[ 0.5 , -1.  ],
           [ 0.75,  1.  ]], dtype=float32)
    """
    steps = _steps(codes, scales, axis)
    values = np.asarray(codes.astype(np.float32))
    with np.errstate(all="ignore"):
        np.multiply(values, steps, out=values)
    return values


def rounded_int8(values: Float32Array, scales: npt.ArrayLike, axis: int | None, *, least: int = _LEAST) -> Float32Array:
    """Return what is left of values when they are stored as int8; arguments and errors as for `quantised`.

    >>> rounded_int8(np.float32([0.3, 0.8, -100]), 0.5, None)
    array([  0.5,   1. , -64. ], dtype=float32)
    """
    return dequantised(quantised(values, scales, axis, least=least), scales, axis)


def _position(values: npt.NDArray[Any], axis: int) -> int:
    """Return the axis counted from the front."""
    if not -values.ndim <= axis < values.ndim:
        raise InputError(f"An array of shape {values.shape} has no axis {axis}.", fix="Use None for a single scale.")
    return axis % values.ndim


def _steps(values: npt.NDArray[Any], scales: npt.ArrayLike, axis: int | None) -> Float32Array:
    """Return the scales in a shape that broadcasts to the values', or refuse them."""
    with np.errstate(all="ignore"):
        steps = np.asarray(scales, np.float32)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise InputError(
            "A scale is not positive and finite as a float32.",
            why="Values are divided by it before they are rounded.",
            fix="A range of zero has no scale: use 1 for what is all zero.",
        )
    wanted: tuple[int, ...] = () if axis is None else (values.shape[_position(values, axis)],)
    if steps.shape != wanted:
        raise InputError(
            f"Scales of shape {steps.shape} do not fit an array of shape {values.shape} along axis {axis}.",
            fix="Give one scale for each index along the axis, or a single one and no axis.",
        )
    if axis is None:
        return steps
    return steps.reshape([-1 if dim == _position(values, axis) else 1 for dim in range(values.ndim)])
