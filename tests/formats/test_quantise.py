"""Quantisation to int8 is that of QuantizeLinear and DequantizeLinear, in ONNX's reference and in ONNX Runtime."""

import functools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from explorer.errors import InputError
from explorer.formats import (
    activation_scale,
    dequantised,
    quantised,
    round_array,
    rounded_int8,
    weight_scales,
)

FLOATS = st.floats(width=32, allow_nan=False)
SCALES = st.floats(2.0**-100, 2.0**100, width=32)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5), elements=FLOATS)


@functools.cache
def pair(rank: int, axis: int | None) -> onnx.ModelProto:
    """A model of QuantizeLinear and DequantizeLinear that returns the codes and what they stand for."""
    scales = helper.make_tensor_value_info("s", TensorProto.FLOAT, [] if axis is None else [None])
    zero = helper.make_tensor_value_info("z", TensorProto.INT8, [] if axis is None else [None])
    more = {} if axis is None else {"axis": axis}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **more),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **more),
        ],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank), scales, zero],
        [
            helper.make_tensor_value_info("q", TensorProto.INT8, [None] * rank),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@functools.cache
def runtime(rank: int, axis: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(pair(rank, axis).SerializeToString(), options, providers=["CPUExecutionProvider"])


def assert_as_onnx(values, scales, axis):
    codes = quantised(values, scales, axis)
    rounded = rounded_int8(values, scales, axis)
    assert codes.dtype == np.int8
    assert rounded.dtype == np.float32
    feeds = {"x": values, "s": np.asarray(scales), "z": np.zeros(np.shape(scales), np.int8)}
    want_codes, want = runtime(values.ndim, axis).run(None, feeds)
    np.testing.assert_array_equal(codes, want_codes)
    np.testing.assert_array_equal(rounded.view(np.uint32), want.view(np.uint32))  # signs of zero too
    with np.errstate(all="ignore"):
        want_codes, want = ReferenceEvaluator(pair(values.ndim, axis)).run(None, feeds)
        steps = scales if axis is None else np.reshape(scales, [-1 if dim == axis else 1 for dim in range(values.ndim)])
        sane = np.abs(values / steps) < 2**31  # the reference goes through int32, and wraps around there
    np.testing.assert_array_equal(codes[sane], want_codes[sane])
    np.testing.assert_array_equal(rounded[sane].view(np.uint32), want[sane].view(np.uint32))


@given(ARRAYS, SCALES)
@settings(max_examples=150, deadline=None)
def test_one_scale_is_as_in_onnx(values, scale):
    assert_as_onnx(values, np.float32(scale), None)


@given(st.data(), ARRAYS)
@settings(max_examples=100, deadline=None)
def test_a_scale_for_each_channel_is_as_in_onnx(data, values):
    axis = data.draw(st.integers(0, values.ndim - 1))
    scales = data.draw(hnp.arrays(np.float32, values.shape[axis], elements=SCALES))
    assert_as_onnx(values, scales, axis)
    np.testing.assert_array_equal(quantised(values, scales, axis), quantised(values, scales, axis - values.ndim))


def test_every_tie_goes_to_the_even_code():
    scale = np.float32(0.25)
    halves = (np.arange(-260, 261, dtype=np.float32) / 2) * scale
    around = [np.nextafter(halves, np.float32(way)) for way in (-np.inf, np.inf)]
    assert_as_onnx(np.concatenate([halves, *around]), scale, None)
    assert quantised(np.float32([0.125, 0.375, -0.125, -0.375]), scale, None).tolist() == [0, 2, 0, -2]


def test_many_values_of_every_size_are_as_in_onnx():
    bits = np.random.default_rng(3).integers(0, 2**32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    for scale in (1.0, 0.1, 3e-5, 7e30):
        assert_as_onnx(values, np.float32(scale), None)


@given(ARRAYS, SCALES)
@settings(max_examples=50, deadline=None)
def test_it_is_the_int8_of_the_format_table(values, scale):
    np.testing.assert_array_equal(rounded_int8(values, scale, None), round_array(values, "int8", scale=scale))


@given(st.data(), hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
@settings(max_examples=100, deadline=None)
def test_weights_fit_their_scales(data, values):
    """With its own scales a weight neither saturates nor errs by more than half a step, and the largest is 127."""
    axis = data.draw(st.sampled_from([None, 0, 1, 2, -1]))
    largest = (
        np.abs(values).max()
        if axis is None
        else np.abs(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)).max(1)
    )
    assume(np.all((largest == 0) | (largest > 1e-30)))  # below, steps are subnormal and not exact
    scales = weight_scales(values, axis)
    assert scales.dtype == np.float32
    assert scales.shape == np.shape(largest)
    np.testing.assert_array_equal(scales, np.where(largest > 0, largest / np.float32(127), np.float32(1)))
    codes = quantised(values, scales, axis, least=-127)
    np.testing.assert_array_equal(codes, quantised(values, scales, axis))
    steps = (
        scales
        if axis is None
        else np.moveaxis(np.broadcast_to(scales, (*np.delete(values.shape, axis), scales.size)), -1, axis)
    )
    errors = np.abs(dequantised(codes, scales, axis).astype(np.float64) - values)
    assert np.all(errors <= 0.5001 * steps.astype(np.float64))
    most = np.abs(codes).max() if axis is None else np.abs(np.moveaxis(codes, axis, 0).reshape(scales.size, -1)).max(1)
    np.testing.assert_array_equal(most, np.where(largest > 0, 127, 0))


@given(ARRAYS)
@settings(max_examples=50, deadline=None)
def test_rounding_twice_is_rounding_once(values):
    values = np.clip(values, -1e30, 1e30)
    scales = weight_scales(values, 0)
    once = rounded_int8(values, scales, 0, least=-127)
    np.testing.assert_array_equal(rounded_int8(once, scales, 0, least=-127), once)


def test_scales_of_nothing_are_one():
    assert weight_scales(np.zeros((2, 3), np.float32), 1).tolist() == [1, 1, 1]
    assert weight_scales(np.zeros((2, 0), np.float32), 0).tolist() == [1, 1]
    assert weight_scales(np.zeros((), np.float32), None).shape == ()
    assert activation_scale(0.0) == 1
    assert activation_scale(1e-45) == 1  # 1e-45 / 127 is no float32
    assert activation_scale(127.0).dtype == np.float32


def test_values_that_are_not_finite_count_for_nothing_in_scales():
    assert weight_scales(np.float32([[np.nan, 127, -254], [np.inf, -np.inf, 0]]), 0).tolist() == [2, 1]


def test_codes_stop_where_they_are_told():
    values = np.float32([-1e9, -np.inf, np.inf, 3.4e38])
    assert quantised(values, 1.0, None).tolist() == [-128, -128, 127, 127]
    assert quantised(values, 1.0, None, least=-127).tolist() == [-127, -127, 127, 127]
    assert quantised(np.float32([3e38]), 1e-30, None).tolist() == [127]  # the quotient is beyond float32


def test_codes_of_other_types_stand_for_values_too():
    np.testing.assert_array_equal(dequantised(np.int32([100_000, -4]), 0.5, None), np.float32([50_000, -2]))
    np.testing.assert_array_equal(dequantised(np.uint8([255, 0]), 0.5, None), np.float32([127.5, 0]))


def test_arrays_are_not_modified_and_may_be_views():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    values.flags.writeable = False
    turned = values.T[::-1]
    scales = weight_scales(turned, 1)
    np.testing.assert_array_equal(quantised(turned, scales, 1), quantised(turned.copy(), scales, 1))


def test_a_number_alone():
    assert quantised(np.array(3.0, np.float32), 2.0, None).shape == ()
    assert rounded_int8(np.array(3.0, np.float32), 2.0, None) == 4.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantised(np.ones(3), 1.0, None), "float64, not float32"),
        (lambda: quantised(np.float32([np.nan]), 1.0, None), "NaN"),
        (lambda: quantised(np.ones((2, 3), np.float32), np.ones(2), 1), r"shape \(2,\) do not fit .* axis 1"),
        (lambda: quantised(np.ones((2, 3), np.float32), np.ones(2), None), "do not fit"),
        (lambda: quantised(np.ones((2, 3), np.float32), 1.0, 2), "no axis 2"),
        (lambda: weight_scales(np.ones((2, 3), np.float32), -3), "no axis -3"),
        (lambda: weight_scales(np.ones(3, np.float16), None), "float16"),
        (lambda: quantised(np.ones(3, np.float32), 0.0, None), "not positive"),
        (lambda: dequantised(np.ones(3, np.int8), np.float32(np.inf), None), "finite"),
        (lambda: dequantised(np.ones(3, np.int8), 1e-60, None), "not positive"),
        (lambda: activation_scale(-1.0), "range of -1.0"),
        (lambda: activation_scale(float("nan")), "range of nan"),
        (lambda: activation_scale(float("inf")), "range of inf"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
