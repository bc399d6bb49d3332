"""Rounding to a number format: a scalar reference to read, its vectorised twin to use, and the cast for weights.

The reference is exact rational arithmetic and follows the definition word by word; tests hold the twin to it on every
code of the small formats and on every midpoint between two codes. All of them round to nearest, ties to even, as ONNX
Cast and QuantizeLinear do. Note that a GPU may feed its tensor cores tf32 by truncation or by ties away from zero, so
tf32 here is what the format can hold, not what a given kernel does.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from explorer.errors import InputError
from explorer.formats.table import FORMATS, Format, get_format

__all__ = ["cast_array", "round_array", "round_scalar", "ulp"]

_FP32 = FORMATS["fp32"]
_TF32 = FORMATS["tf32"]

CHUNK_ELEMENTS = 1 << 16  # 256 KiB of float32: fits a core's L2; measured: equal from 2^14 to 2^17, slower above

_TF32_DROPPED_BITS = _FP32.mantissa_bits - _TF32.mantissa_bits
_TF32_KEPT = np.uint32(0xFFFFFFFF >> _TF32_DROPPED_BITS << _TF32_DROPPED_BITS)
_TF32_BELOW_HALF = np.uint32((1 << (_TF32_DROPPED_BITS - 1)) - 1)

Float32Array = npt.NDArray[np.float32]


def round_scalar(x: float, fmt: Format | str, *, saturate: bool = True, scale: float = 1.0) -> float:
    """Return the value of the format that is nearest to ``x``, ties to even: the reference, slow and exact.

    Args:
        x: any float64, taken as it is: it is not first rounded to float32.
        fmt: the format, or its name.
        saturate: what Cast's attribute of that name says, for FP8 only: values beyond the range, infinities included,
            become the largest finite value (True, the ONNX default), or infinity, or NaN where there is none (False).
            The other floating-point formats never saturate and an int8 always does, whatever is asked here.
        scale: the format holds ``x / scale`` and the result is multiplied back, in float32 as QuantizeLinear and
            DequantizeLinear do it; with it, ``x`` counts as a float32.

    Returns:
        The rounded value. NaN stays NaN even for int8, which cannot hold one, so that it is seen.

    Raises:
        InputError: the scale is not a positive finite float32.

    Source:
        IEEE 754-2019, section 4.3.1 (roundTiesToEven); ONNX operators, Cast and QuantizeLinear.

    >>> round_scalar(65519.9, "fp16"), round_scalar(65520.0, "fp16")
    (65504.0, inf)
    >>> round_scalar(1e4, "fp8e4m3"), round_scalar(1e4, "fp8e4m3", saturate=False)
    (448.0, nan)
    >>> round_scalar(0.8, "int8", scale=0.5)
    1.0
    """
    fmt = get_format(fmt)
    clamp = fmt.saturates and (saturate or not fmt.is_float)
    if scale == 1.0:
        return _nearest_float(x, fmt, clamp=clamp)
    step = float(_checked_scale(scale))
    x = _nearest_float(x, _FP32, clamp=False)
    quotient = _nearest(Fraction(x) / Fraction(step), _FP32, clamp=False) if math.isfinite(x) and x else x
    code = _nearest_float(quotient, fmt, clamp=clamp)
    return _nearest(Fraction(code) * Fraction(step), _FP32, clamp=False) if math.isfinite(code) and code else code


def _nearest_float(x: float, fmt: Format, *, clamp: bool) -> float:
    """Return the nearest value of the format to a float, the special ones included."""
    if math.isnan(x):
        return math.nan
    if math.isinf(x):
        return _beyond(x, fmt, clamp=clamp)
    if x == 0:
        return x if fmt.is_float else 0.0
    return _nearest(Fraction(x), fmt, clamp=clamp)


def _nearest(x: Fraction, fmt: Format, *, clamp: bool) -> float:
    """Return the nearest value of the format to a rational number other than zero."""
    step = Fraction(2) ** (max(_exponent(x), fmt.min_exponent) - fmt.mantissa_bits)
    rounded = round(x / step) * step  # round() of a Fraction is half to even
    if rounded == 0:  # a Fraction has no negative zero; a float has, and keeps the sign that the value had
        return -0.0 if x < 0 and fmt.is_float else 0.0
    return float(rounded) if fmt.min <= rounded <= fmt.max else _beyond(x, fmt, clamp=clamp)


def _exponent(x: Fraction) -> int:
    """Return the e with ``2**e <= |x| < 2**(e + 1)``."""
    guess = abs(x.numerator).bit_length() - x.denominator.bit_length()
    return guess if abs(x) >= Fraction(2) ** guess else guess - 1


def _beyond(x: float | Fraction, fmt: Format, *, clamp: bool) -> float:
    """Return what stands for a number beyond the range of the format."""
    if clamp:
        return fmt.max if x > 0 else fmt.min
    if fmt.has_infinity:
        return math.inf if x > 0 else -math.inf
    return math.nan


def round_array(
    x: Float32Array, fmt: Format | str, *, saturate: bool = True, scale: float | Float32Array | None = None
) -> Float32Array:
    """Return ``x`` with every element rounded to the format, as float32: the vectorised twin of `round_scalar`.

    Args:
        x: any shape, float32; it is not modified.
        fmt: the format, or its name.
        saturate: as in `round_scalar`; it matters to FP8 only.
        scale: the format holds ``x / scale``; one value, or an array that broadcasts to the shape of ``x`` (give it
            the shape (C, 1, 1) for one scale a channel). None is 1.

    Returns:
        A new array of the shape of ``x``. NaN stays NaN, also for int8.

    Raises:
        InputError: ``x`` is not float32, or a scale is not positive and finite or does not fit the shape.

    >>> round_array(np.float32([0.1, 1e-8, -70000.0]), "fp16")
    array([0.09997559, 0.        ,       -inf], dtype=float32)
    >>> round_array(np.float32([0.1, 500.0]), "fp8e4m3")
    array([1.015625e-01, 4.480000e+02], dtype=float32)
    """
    fmt = get_format(fmt)
    check_float32(x)
    if scale is not None:
        step = _checked_scale(scale, x.shape)
        with np.errstate(all="ignore"):
            return np.asarray(round_array(_divided(x, step), fmt, saturate=saturate) * step)
    if fmt == _FP32:
        return x.copy()
    out = np.empty_like(x, subok=False)
    scratch = np.empty(CHUNK_ELEMENTS, fmt.storage_dtype)
    with _chunks(x, out) as pieces:
        for source, target in pieces:
            if fmt == _TF32:
                _round_tf32(source, target)
            elif not fmt.is_float:
                _round_integer(source, target, fmt)
            else:
                stored = scratch[: source.size]
                _store(source, stored, fmt, saturate=saturate)
                target[...] = stored
    return out


def cast_array(
    x: Float32Array, fmt: Format | str, *, saturate: bool = True, scale: float | Float32Array | None = None
) -> npt.NDArray[Any]:
    """Return ``x`` in the format's storage type, as weights are written into a model.

    Nothing is clamped but what ONNX itself clamps (FP8 under ``saturate``, int8); use `census` to count what is lost.

    Args:
        x: any shape, float32; it is not modified.
        fmt: the format, or its name.
        saturate: as in `round_scalar`; it matters to FP8 only.
        scale: as in `round_array`; the result holds the codes, that is, ``x / scale`` rounded.

    Returns:
        An array of the shape of ``x`` and of the type ``fmt.storage_dtype``; float32 for tf32. For fp32 it is ``x``
        itself, not a copy.

    Raises:
        InputError: ``x`` is not float32, a scale is not positive and finite or does not fit the shape, or a NaN would
            have to become an int8.

    >>> cast_array(np.float32([1.5, 1e6]), "fp16")
    array([1.5, inf], dtype=float16)
    >>> cast_array(np.float32([-1.0, 0.26]), "int8", scale=0.01)
    array([-100,   26], dtype=int8)
    """
    fmt = get_format(fmt)
    check_float32(x)
    if scale is not None:
        x = _divided(x, _checked_scale(scale, x.shape))
    if fmt == _FP32:
        return x
    if fmt == _TF32:
        return round_array(x, fmt)
    out = np.empty_like(x, dtype=fmt.storage_dtype, subok=False)
    with _chunks(x, out) as pieces:
        for source, target in pieces:
            if fmt.is_float:
                _store(source, target, fmt, saturate=saturate)
            else:
                _store_integer(source, target, fmt)
    return out


@overload
def ulp(x: float, fmt: Format | str) -> float: ...
@overload
def ulp(x: npt.NDArray[np.floating[Any]], fmt: Format | str) -> npt.NDArray[np.float64]: ...
def ulp(x: float | npt.NDArray[np.floating[Any]], fmt: Format | str) -> float | npt.NDArray[np.float64]:
    """Return the unit in the last place: the distance between neighbouring values of the format around ``x``.

    Rounding to nearest errs by at most half of it. At a power of two it is the distance upwards.

    Args:
        x: a number, or an array of any shape and floating-point type.
        fmt: the format, or its name; for int8 it is 1, in units of the scale.

    Returns:
        A float for a float, else a float64 array of the shape of ``x``. Infinity where ``x`` lies beyond the range
        (the error has no bound there), NaN where ``x`` is NaN.

    >>> ulp(1.0, "fp16") == 2**-10, ulp(3000.0, "fp16"), ulp(1e5, "fp16")
    (True, 2.0, inf)
    """
    fmt = get_format(fmt)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = np.asarray(x, np.float64)
    top = max(fmt.min_exponent, fmt.max_exponent)
    exponent = np.where(values == 0, fmt.min_exponent, np.clip(np.frexp(values)[1] - 1, fmt.min_exponent, top))
    distance = np.ldexp(1.0, exponent - fmt.mantissa_bits)
    beyond = (values >= fmt.overflow_threshold) | (values < fmt.min - (fmt.overflow_threshold - fmt.max))
    if fmt.is_float:
        beyond = np.abs(values) >= fmt.overflow_threshold
    distance = np.where(np.isnan(values), np.nan, np.where(beyond, np.inf, distance))
    return distance if isinstance(x, np.ndarray) else float(distance)


def _store(source: Float32Array, target: npt.NDArray[Any], fmt: Format, *, saturate: bool) -> None:
    """Write a chunk into an array of the format's type."""
    with np.errstate(all="ignore"):  # overflow is the result here, and the caller counts it
        if fmt.saturates and saturate:
            source = np.clip(source, np.float32(fmt.min), np.float32(fmt.max))
        target[...] = source


def _round_tf32(source: Float32Array, target: Float32Array) -> None:
    """Round a chunk to tf32 on its bits; subnormals need no care, since tf32 has the exponents of float32."""
    bits = source.view(np.uint32)
    rounded = target.view(np.uint32)
    # Adding just under a half carries when above a half; adding the last kept bit sends a tie to the even neighbour.
    np.right_shift(bits, _TF32_DROPPED_BITS, out=rounded)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, _TF32_BELOW_HALF, out=rounded)
    np.add(rounded, bits, out=rounded)
    np.bitwise_and(rounded, _TF32_KEPT, out=rounded)
    is_nan = np.isnan(source)  # the carry would run through a NaN into its sign
    if is_nan.any():
        np.copyto(target, source, where=is_nan)


def _round_integer(source: Float32Array, target: Float32Array, fmt: Format) -> None:
    """Round a chunk to integers, still as float32."""
    with np.errstate(invalid="ignore"):  # a signalling NaN warns on its way through; it stays a NaN
        np.rint(source, out=target)
    np.clip(target, np.float32(fmt.min), np.float32(fmt.max), out=target)
    np.add(target, np.float32(0), out=target)  # an integer has no negative zero


def _store_integer(source: Float32Array, target: npt.NDArray[Any], fmt: Format) -> None:
    """Write a chunk into an array of integers."""
    if np.isnan(source).any():
        raise InputError(
            f"The array has a NaN, which {fmt.name} cannot hold.",
            why="Whatever number took its place would hide the error.",
            fix="Keep this tensor in a floating-point format, or find where the NaN comes from.",
        )
    rounded = np.empty_like(source)
    _round_integer(source, rounded, fmt)
    target[...] = rounded


def _chunks(x: Float32Array, out: npt.NDArray[Any]) -> np.nditer:
    """Return an iterator over pairs of flat chunks that go together; no array is copied whole."""
    return np.nditer(
        [x, out],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["writeonly"]],
        buffersize=CHUNK_ELEMENTS,
    )


def check_float32(x: npt.NDArray[Any]) -> None:
    """Refuse an array that is not float32."""
    if x.dtype != np.float32:
        raise InputError(
            f"The array is {x.dtype}, not float32.",
            why="Rounding is from float32; a float64 would be rounded twice.",
            fix="Convert it first: x.astype(np.float32).",
        )


def _checked_scale(scale: float | Float32Array, shape: tuple[int, ...] = ()) -> Float32Array:
    """Return the scale as float32, or refuse it."""
    with np.errstate(all="ignore"):
        step = np.asarray(scale, np.float32)
    if not (np.isfinite(step) & (step > 0)).all():
        raise InputError(
            f"The scale {scale} is not positive and finite as a float32.",
            why="Values are divided by it before they are rounded.",
            fix="A range of zero has no scale: use 1 for a tensor that is all zero.",
        )
    try:
        np.broadcast_to(step, shape)
    except ValueError as error:
        raise InputError(
            f"A scale of shape {step.shape} does not fit an array of shape {shape}.",
            fix="Reshape it so that it broadcasts, for example to (C, 1, 1) for one scale a channel.",
        ) from error
    return step


def _divided(x: Float32Array, step: Float32Array) -> Float32Array:
    """Return ``x / step`` in float32, in an array even when ``x`` has no dimensions."""
    with np.errstate(all="ignore"):
        return np.asarray(np.divide(x, step), np.float32)
