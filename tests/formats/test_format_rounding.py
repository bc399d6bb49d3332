"""Rounding: the scalar reference and the vectorised twin are one function, and it is that of ml_dtypes and ONNX."""

import math
from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from explorer.errors import InputError
from explorer.formats import FORMATS, cast_array, get_format, round_array, round_scalar, ulp

FLOATS = [fmt for fmt in FORMATS.values() if fmt.is_float]
SMALL = [fmt for fmt in FLOATS if fmt.storage_bits <= 16]
FP8 = [fmt for fmt in SMALL if fmt.storage_bits == 8]

by_name = pytest.mark.parametrize("fmt", list(FORMATS.values()), ids=lambda f: f.name)
by_float = pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
by_small = pytest.mark.parametrize("fmt", SMALL, ids=lambda f: f.name)
by_fp8 = pytest.mark.parametrize("fmt", FP8, ids=lambda f: f.name)
by_saturate = pytest.mark.parametrize("saturate", [True, False])

EDGES = np.array(
    [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0,
        -1.0,
        3.4028235e38,
        -3.4028235e38,
        1.17549435e-38,
        1e-45,
        -1e-45,
        65504.0,
    ],
    np.float32,
)


def all_values(fmt):
    """Every value of a format of at most 16 bits, in the order of its codes, as float32."""
    codes = np.arange(2**fmt.storage_bits, dtype=f"u{fmt.storage_bits // 8}")
    with np.errstate(invalid="ignore"):  # signalling NaN
        return codes.view(fmt.storage_dtype).astype(np.float32)


def around(points):
    """The points and their float32 neighbours, of both signs."""
    points = np.asarray(points, np.float32)
    with np.errstate(all="ignore"):
        up, down = np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))
    every = np.concatenate([points, up, down])
    return np.concatenate([every, -every])


def hard_values(fmt):
    """Every midpoint between neighbouring values of a small format with its neighbours, and around its limits."""
    values = all_values(fmt)
    values = np.unique(values[np.isfinite(values)]).astype(np.float64)
    limits = [fmt.max, fmt.overflow_threshold, fmt.min_normal, fmt.subnormal_threshold, fmt.flush_threshold]
    return np.concatenate([around((values[1:] + values[:-1]) / 2), around(limits), EDGES])


def assert_same_bits(actual, expected):
    """Equal in every bit, signs of zero and of infinity included; any NaN equals any NaN."""
    actual, expected = np.asarray(actual, np.float32), np.asarray(expected, np.float32)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(actual[known].view(np.uint32), expected[known].view(np.uint32))


def by_reference(x, fmt, **options):
    return np.array([round_scalar(value, fmt, **options) for value in x.tolist()], np.float32)


def sample_of(x, count=20_000):
    """At most about ``count`` elements, evenly spread: the exact reference is slow."""
    return x[:: max(1, len(x) // count)]


@pytest.mark.parametrize(
    ("fmt", "saturate"),
    [(fmt, saturate) for fmt in SMALL for saturate in (True, False) if saturate or fmt.saturates],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_code_is_a_fixed_point_of_both_twins(fmt, saturate):
    values = all_values(fmt)
    finite = values[np.isfinite(values)]
    assert_same_bits(round_array(finite, fmt, saturate=saturate), finite)
    assert_same_bits(by_reference(finite, fmt, saturate=saturate), finite)


@by_small
def test_every_code_survives_the_cast_bit_for_bit(fmt):
    values = all_values(fmt)
    codes = np.arange(2**fmt.storage_bits, dtype=f"u{fmt.storage_bits // 8}")
    stored = cast_array(values, fmt, saturate=False)
    assert stored.dtype == fmt.storage_dtype
    known = ~np.isnan(values)
    np.testing.assert_array_equal(stored.view(codes.dtype)[known], codes[known])
    assert np.isnan(stored.astype(np.float32)[~known]).all()


@by_fp8
@by_saturate
def test_twins_agree_on_every_midpoint_and_its_neighbours_in_fp8(fmt, saturate):
    x = hard_values(fmt)
    assert_same_bits(round_array(x, fmt, saturate=saturate), by_reference(x, fmt, saturate=saturate))


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_twins_agree_on_every_midpoint_in_16_bits(name):
    fmt = get_format(name)
    values = all_values(fmt)
    values = np.unique(values[np.isfinite(values)]).astype(np.float64)
    midpoints = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    assert_same_bits(round_array(midpoints, fmt), by_reference(midpoints, fmt))
    rest = np.concatenate([sample_of(hard_values(fmt)), around([fmt.overflow_threshold, fmt.flush_threshold]), EDGES])
    assert_same_bits(round_array(rest, fmt), by_reference(rest, fmt))


@by_small
def test_a_tie_goes_to_the_even_code(fmt):
    codes = np.arange(2 ** (fmt.storage_bits - 1), dtype=f"u{fmt.storage_bits // 8}")
    values = all_values(fmt)[: len(codes)]
    codes, values = codes[np.isfinite(values)], values[np.isfinite(values)].astype(np.float64)
    midpoints = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    even = np.where(codes[:-1] % 2 == 0, values[:-1], values[1:])
    assert_same_bits(round_array(midpoints, fmt), even)


@by_small
def test_vectorised_twin_is_the_cast_of_ml_dtypes_bit_for_bit(fmt):
    rng = np.random.default_rng(3)
    any_bits = rng.integers(0, 2**32, 500_000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([hard_values(fmt), any_bits])
    with np.errstate(all="ignore"):
        expected = x.astype(fmt.storage_dtype)
    assert_same_bits(round_array(x, fmt, saturate=False), expected.astype(np.float32))
    if not fmt.saturates:
        assert_same_bits(round_array(x, fmt, saturate=True), expected.astype(np.float32))
    stored = cast_array(x, fmt, saturate=False)
    np.testing.assert_array_equal(stored.view(np.uint8), expected.view(np.uint8))


@given(st.lists(st.floats(width=32), min_size=1, max_size=50), st.sampled_from(FLOATS), st.booleans())
@settings(max_examples=300, deadline=None)
def test_twins_agree_on_any_float32(values, fmt, saturate):
    x = np.array(values, np.float32)
    rounded = round_array(x, fmt, saturate=saturate)
    assert_same_bits(rounded, by_reference(x, fmt, saturate=saturate))
    assert_same_bits(round_array(rounded, fmt, saturate=saturate), rounded)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=50),
    st.sampled_from([get_format("int8"), *FP8]),
    st.floats(min_value=2.0**-100, max_value=2.0**100, width=32, allow_subnormal=False),
)
@settings(max_examples=300, deadline=None)
def test_twins_agree_with_a_scale(values, fmt, scale):
    x = np.array(values, np.float32)
    assert_same_bits(round_array(x, fmt, scale=scale), by_reference(x, fmt, scale=scale))


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.sampled_from(list(FORMATS.values())))
@settings(max_examples=300, deadline=None)
def test_rounding_is_monotone_and_never_flips_a_sign(a, b, fmt):
    low, high = sorted([a, b])
    rounded = round_scalar(low, fmt), round_scalar(high, fmt)
    assert rounded[0] <= rounded[1]
    assert rounded[0] * math.copysign(1, low) >= 0
    assert round_scalar(-low, fmt) == -rounded[0] or not fmt.is_float


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(FLOATS))
@settings(max_examples=300, deadline=None)
def test_error_is_at_most_half_an_ulp(x, fmt):
    if abs(x) >= fmt.overflow_threshold:
        assert ulp(x, fmt) == math.inf
        return
    assert abs(Fraction(round_scalar(x, fmt)) - Fraction(x)) <= Fraction(ulp(x, fmt)) / 2


def test_tf32_twins_agree_on_ties_and_edges():
    tf32 = get_format("tf32")
    rng = np.random.default_rng(7)
    kept = rng.integers(0, 2**19, 4000, dtype=np.uint32) << np.uint32(13)
    ties = (kept | np.uint32(1 << 12)).view(np.float32)
    x = np.concatenate([kept.view(np.float32), ties, around(ties[np.isfinite(ties)]), around([tf32.max]), EDGES])
    assert_same_bits(round_array(x, tf32), by_reference(x, tf32))
    assert (round_array(x, tf32).view(np.uint32)[~np.isnan(x)] % 2**13 == 0).all()


def test_tf32_keeps_every_nan_a_nan_and_both_infinities():
    nans = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFFC00000], np.uint32).view(np.float32)
    np.testing.assert_array_equal(round_array(nans, "tf32").view(np.uint32), nans.view(np.uint32))
    np.testing.assert_array_equal(round_array(np.float32([np.inf, -np.inf]), "tf32"), [np.inf, -np.inf])


def test_tf32_of_fp16_values_is_exact():
    values = all_values(get_format("fp16"))
    values = values[np.isfinite(values)]
    assert_same_bits(round_array(values, "tf32"), values)


@by_fp8
@by_saturate
def test_fp8_is_the_cast_of_onnx(fmt, saturate):
    to = onnx.TensorProto.DataType.Value(fmt.onnx_dtype)
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["low"], to=to, saturate=int(saturate)),
        onnx.helper.make_node("Cast", ["low"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    x = hard_values(fmt)
    expected = _run_onnx(nodes, x)
    assert_same_bits(round_array(x, fmt, saturate=saturate), expected)


def test_fp8_saturates_unless_asked_not_to():
    x = np.float32([464, 465, -1e9, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(round_array(x, "fp8e4m3"), [448, 448, -448, 448, -448, np.nan])
    np.testing.assert_array_equal(round_array(x, "fp8e4m3", saturate=False), [448] + [np.nan] * 5)
    x = np.float32([61439, 61440, -np.inf])
    np.testing.assert_array_equal(round_array(x, "fp8e5m2"), [57344, 57344, -57344])
    np.testing.assert_array_equal(round_array(x, "fp8e5m2", saturate=False), [57344, np.inf, -np.inf])


def test_saturate_does_not_touch_formats_that_onnx_does_not_clamp():
    x = np.float32([1e5, -1e5])
    np.testing.assert_array_equal(round_array(x, "fp16", saturate=True), [np.inf, -np.inf])


def test_int8_is_quantize_linear_of_onnx():
    rng = np.random.default_rng(11)
    scale = np.float32(0.037)
    x = np.concatenate([rng.normal(0, 3, 5000), np.arange(-140, 140) * 0.5 * scale, [1e6, -1e6]]).astype(np.float32)
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    initializers = {"scale": scale, "zero": np.int8(0)}
    assert_same_bits(round_array(x, "int8", scale=scale), _run_onnx(nodes, x, initializers))
    np.testing.assert_array_equal(cast_array(x, "int8", scale=scale), _run_onnx(nodes[:1], x, initializers, result="q"))


def test_int8_rounds_ties_to_even_and_has_no_negative_zero():
    x = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 127.5, -128.5, -129, 1e30, np.inf, -np.inf])
    assert_same_bits(round_array(x, "int8"), [0.0, 2, 2, 0.0, -2, 127, -128, -128, 127, 127, -128])
    assert_same_bits(by_reference(x, "int8"), round_array(x, "int8"))


def test_one_scale_a_channel():
    x = np.float32([[1.0, 2.0], [100.0, 200.0]])
    scale = np.float32([[0.1], [10.0]])
    rows = [round_array(row, "int8", scale=s.item()) for row, s in zip(x, scale, strict=True)]
    np.testing.assert_array_equal(round_array(x, "int8", scale=scale), rows)
    np.testing.assert_array_equal(cast_array(x, "int8", scale=scale), [[10, 20], [10, 20]])


def test_a_nan_is_seen_and_never_becomes_an_int8():
    assert np.isnan(round_array(np.float32([np.nan]), "int8", scale=0.5)).all()
    assert math.isnan(round_scalar(math.nan, "int8"))
    with pytest.raises(InputError, match="NaN, which int8 cannot hold"):
        cast_array(np.float32([np.nan]), "int8")


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, 1e-50])
def test_a_scale_must_be_positive_and_finite(scale):
    for function in (round_array, cast_array):
        with pytest.raises(InputError, match="not positive and finite"):
            function(np.float32([1]), "int8", scale=scale)
    with pytest.raises(InputError, match="not positive and finite"):
        round_scalar(1.0, "int8", scale=scale)


def test_a_scale_must_fit_the_shape():
    with pytest.raises(InputError, match=r"\(3,\) does not fit an array of shape \(2, 2\)"):
        round_array(np.ones((2, 2), np.float32), "int8", scale=np.ones(3, np.float32))
    with pytest.raises(InputError, match="does not fit"):
        cast_array(np.ones(2, np.float32), "int8", scale=np.ones((2, 2), np.float32))


@by_name
def test_shape_is_kept_and_the_input_untouched(fmt):
    rng = np.random.default_rng(5)
    base = rng.normal(0, 10, (70, 60, 40)).astype(np.float32)
    for x in (base, base.T, base[::3, ::-2, 1:], base[0, 0, 0:0], np.array(3.3, np.float32), np.asfortranarray(base)):
        x.flags.writeable = False
        before = x.copy()
        for scale in (None, 0.25):
            rounded = round_array(x, fmt, scale=scale)
            stored = cast_array(x, fmt, scale=scale)
            assert isinstance(rounded, np.ndarray)
            assert rounded.dtype == np.float32
            assert rounded.shape == stored.shape == x.shape
            assert not np.shares_memory(rounded, x)
            assert stored.dtype == fmt.storage_dtype
            assert_same_bits(stored.astype(np.float32) * np.float32(scale or 1), rounded)
        assert_same_bits(round_array(x, fmt), round_array(x.flatten(), fmt).reshape(x.shape))
        np.testing.assert_array_equal(x, before)


def test_fp32_is_the_identity():
    x = np.random.default_rng(1).integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    np.testing.assert_array_equal(round_array(x, "fp32").view(np.uint32), x.view(np.uint32))
    assert cast_array(x, "fp32") is x


@pytest.mark.parametrize("function", [round_array, cast_array])
def test_other_types_are_refused(function):
    with pytest.raises(InputError, match="float64, not float32"):
        function(np.array([1.0]), "fp16")


def test_the_reference_rounds_a_float64_once():
    """1 + 2**-11 is a tie in fp16; a hair above it, which float32 cannot see, must go up."""
    assert round_scalar(1 + 2**-11, "fp16") == 1.0
    assert round_scalar(1 + 2**-11 + 2**-40, "fp16") == 1 + 2**-10
    assert round_scalar(1e300, "fp32") == math.inf


@by_small
def test_ulp_is_the_gap_between_neighbouring_codes(fmt):
    values = all_values(fmt)
    values = np.unique(np.abs(values[np.isfinite(values)]))
    gaps = np.diff(values.astype(np.float64))
    np.testing.assert_array_equal(ulp(values[:-1], fmt), gaps)
    np.testing.assert_array_equal(ulp(-values[:-1], fmt), gaps)
    assert ulp(fmt.max, fmt) == gaps[-1]


@by_name
def test_ulp_at_one_beyond_the_range_and_of_nan(fmt):
    assert ulp(1.0, fmt) == fmt.epsilon
    assert isinstance(ulp(1.0, fmt), float)
    assert ulp(0.0, fmt) == fmt.min_subnormal
    assert ulp(math.inf, fmt) == ulp(-math.inf, fmt) == math.inf
    assert math.isnan(ulp(math.nan, fmt))


def test_ulp_of_fp32_is_spacing():
    x = np.float32([1e-45, 1.0, 3.0, 1e30])
    np.testing.assert_array_equal(ulp(x, "fp32"), np.spacing(x))


def test_ulp_of_int8_reaches_one_further_below_zero():
    np.testing.assert_array_equal(ulp(np.float32([127.4, 127.5, -128.5, -128.6]), "int8"), [1, np.inf, 1, np.inf])


def _run_onnx(nodes, x, initializers=None, result="y"):
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (initializers or {}).items()]
    kind = onnx.TensorProto.FLOAT if result == "y" else onnx.TensorProto.INT8
    graph = onnx.helper.make_graph(
        nodes,
        "rounding",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])],
        [onnx.helper.make_tensor_value_info(result, kind, [None])],
        tensors,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, {"x": x})[0]
