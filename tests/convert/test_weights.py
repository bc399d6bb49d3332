"""Law 3: nothing of the user's weights changes silently, and what does change is counted."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.graphs import model, node, value, weight

from explorer.convert import Conversion, convert
from explorer.convert.weights import low_weight
from explorer.model import load_model
from explorer.plan import Plan

TYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
LARGE = (1 << 20) + 7  # from 2**20 elements on another path casts: ONNX Runtime's


def converted(w, plan: Plan | None = None, **more) -> Conversion:
    w = np.asarray(w, np.float32)
    nodes = [node("Add", ["x", "w"], ["y"], "a")]
    source = model(nodes, [value("x", w.shape)], [value("y", w.shape)], [weight("w", w)])
    return convert(load_model(source), plan or Plan(), **more)


def stored(conversion: Conversion) -> np.ndarray:
    return onnx.numpy_helper.to_array(conversion.proto.graph.initializer[0])


def test_harm_is_counted_and_nothing_is_clamped():
    got = converted([1e6, -1e6, 65504, 65519.99, 65520, 1e-30, -1e-30, 3e-8, -2e-8, 1e-5, 0, -0.0, np.inf, np.nan, 1])
    total = got.weights.total
    assert (total.overflow, total.flushed, total.subnormal, total.infinite, total.nan) == (3, 3, 2, 1, 1)
    with np.errstate(all="ignore"):
        wanted = np.float32(
            [1e6, -1e6, 65504, 65519.99, 65520, 1e-30, -1e-30, 3e-8, -2e-8, 1e-5, 0, -0.0, np.inf, np.nan, 1]
        ).astype(np.float16)
    np.testing.assert_array_equal(stored(got).view(np.uint16), wanted.view(np.uint16))
    assert got.weights.clamped == 0


def test_clamping_is_only_on_request_only_downward_and_counted():
    w = [1e6, -1e6, 1e-30, -1e-30, 65504, np.inf, 1]
    got = converted(w, clamp=True)
    np.testing.assert_array_equal(stored(got), np.float16([65504, -65504, 0, -0.0, 65504, 65504, 1]))
    assert got.weights.clamped == 3
    assert got.weights.total.overflow == 2
    assert stored(converted([1e38], Plan(format="bf16"), clamp=True)).astype(np.float32)[0] > 9.9e37


@pytest.mark.parametrize("tiny", [1e-30, -1e-30, 1e-9, -1e-9, 2.9e-8, -2.9e-8, 2.0**-25, 6e-8, -6e-8])
def test_tiny_weights_are_what_numpy_makes_of_them_and_keep_their_sign(tiny):
    got = stored(converted([tiny]))
    assert got.view(np.uint16)[0] == np.float32(tiny).astype(np.float16).view(np.uint16)
    assert np.signbit(got[0]) == (tiny < 0)


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)), st.sampled_from(["fp16", "bf16"]))
@settings(max_examples=80, deadline=None)
def test_bytes_are_numpys_for_any_values(values, low):
    with np.errstate(all="ignore"):
        wanted = values.astype(TYPES[low])
        got = low_weight(values, low)
    same = got.view(np.uint16) == wanted.view(np.uint16)
    assert (same | (np.isnan(values) & np.isnan(got))).all()
    signs = np.signbit(got.astype(np.float32)) == np.signbit(values)
    assert (signs | np.isnan(values)).all()


@pytest.mark.parametrize("low", ["fp16", "bf16"])
def test_bytes_are_numpys_on_the_path_of_large_weights(low):
    bits = np.random.default_rng(0).integers(0, 2**32, LARGE, dtype=np.uint64).astype(np.uint32)
    every_half = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = bits.view(np.float32).copy()
    values[: every_half.size] = every_half
    with np.errstate(all="ignore"):
        halves = np.nextafter(every_half, np.float32(np.inf))
    values[every_half.size : 2 * every_half.size] = halves  # just beyond every value
    values = values[~np.isnan(values)]
    with np.errstate(all="ignore"):
        wanted = values.astype(TYPES[low])
    got = low_weight(values, low)
    np.testing.assert_array_equal(got.view(np.uint16), wanted.view(np.uint16))
    assert got.dtype == wanted.dtype


def test_the_large_path_keeps_shape_and_counts():
    w = np.full((2, LARGE), 1e-9, np.float32)
    w[0, 5] = 1e6
    got = converted(w)
    assert stored(got).shape == (2, LARGE)
    assert (got.weights.total.overflow, got.weights.total.flushed) == (1, 2 * LARGE - 1)
    clamped = converted(w, clamp=True)
    assert stored(clamped)[0, 5] == np.float16(65504)


def test_the_worst_weights_are_named_first():
    names = ("fine", "flushed", "overflows", "subnormal")
    ws = [weight(name, np.float32(number)) for name, number in zip(names, (1, 1e-9, 1e6, 1e-6), strict=True)]
    nodes, previous = [], "x"
    for name in names:
        nodes.append(node("Mul", [previous, name], [f"y_{name}"]))
        previous = f"y_{name}"
    got = convert(load_model(model(nodes, [value("x")], [value(previous)], ws)), Plan())
    assert [report.name for report in got.weights.worst()] == ["overflows", "flushed", "subnormal"]
    assert [report.name for report in got.weights.worst(1)] == ["overflows"]
    assert len(got.weights.weights) == 4


def test_weights_of_fp32_layers_are_neither_converted_nor_counted():
    got = converted([1e6], Plan.preset("fp32"))
    assert got.weights.weights == ()
    assert stored(got).dtype == np.float32


def test_the_weights_of_the_model_are_not_writable():
    w = np.ones((4, 4), np.float32)
    source = model([node("MatMul", ["x", "w"], ["y"])], [value("x")], [value("y")], [weight("w", w)])
    for given_model in (source, source.SerializeToString()):
        array = load_model(given_model).ir.graph.initializers["w"].const_value.numpy()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2
