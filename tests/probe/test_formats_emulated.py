"""fp8 and tf32 in emulation: rounding bit for bit, and the operands of products alone."""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.graphs import graph, model, node, run, value, weight
from support.probing import entries, same
from support.twin import Twin, stored

from explorer.convert import type_layers
from explorer.formats import census, get_format, round_array
from explorer.model import load_model
from explorer.plan import Plan
from explorer.probe.rounding import rounding_nodes
from explorer.probe.weave import EmulationGraph

PRODUCTS_ONLY = ("tf32", "fp8e4m3", "fp8e5m2")
EVERY = ("fp16", "bf16", *PRODUCTS_ONLY)
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rounder(low_format: str, opset: int):
    """A function that runs the rounding nodes in ONNX Runtime."""
    proto = model([node("Identity", ["x"], ["y"])], [value("x", ["n"])], [value("y", ["n"])], opset=opset)
    loaded = load_model(proto)
    graph = EmulationGraph(loaded)
    graph.nodes += rounding_nodes("x", "rounded", SimpleNamespace(model=loaded, format=low_format), "x")
    graph.outputs.append(helper.make_tensor_value_info("rounded", TensorProto.FLOAT, None))
    made = type(proto).FromString(graph.finish({})[0])
    return lambda x: run(made, {"x": x})[0]


def neighbourhoods(low_format: str) -> np.ndarray:
    """Every code of an 8-bit format, or many of tf32, the midpoints between neighbours, and one step beside each."""
    if low_format == "tf32":
        bits = np.random.default_rng(1).integers(0, 1 << 19, 1 << 14, dtype=np.uint32) << np.uint32(13)
        bits = np.concatenate([bits, np.arange(0, 1 << 13, dtype=np.uint32) << np.uint32(13)])  # subnormals, too
        codes = bits.view(np.float32)
        between = (bits | np.uint32(1 << 12)).view(np.float32)
    else:
        codes = np.arange(256, dtype=np.uint8).view(get_format(low_format).storage_dtype).astype(np.float32)
        codes = np.sort(codes[np.isfinite(codes)])
        between = ((codes[1:].astype(np.float64) + codes[:-1]) / 2).astype(np.float32)
    some = np.concatenate([codes, between, -codes, -between])
    return with_neighbours(some)


def with_neighbours(some: np.ndarray) -> np.ndarray:
    """The numbers, and one float32 to either side of each."""
    with np.errstate(all="ignore"):  # signalling NaN, and steps that lead to infinity
        return np.concatenate([some, np.nextafter(some, np.float32(np.inf)), np.nextafter(some, np.float32(-np.inf))])


def edges(low_format: str) -> np.ndarray:
    fmt = get_format(low_format)
    limits = [fmt.max, fmt.overflow_threshold, 2 * min(fmt.max, 1e38), fmt.min_normal, fmt.min_subnormal]
    limits += [fmt.flush_threshold, np.finfo(np.float32).max, np.inf, np.nan, 0.0, 2.0**64, 2.0**-126, 2.0**-149]
    some = with_neighbours(np.float32(limits))
    return np.concatenate([some, -some])


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
@pytest.mark.parametrize("low_format", EVERY)
def test_rounding_is_that_of_the_reference(low_format, opset):
    """All 65,536 patterns of fp16 and of bf16, every neighbourhood of the format, edges and random bits."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    bits = np.random.default_rng(7).integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    parts = [patterns.view(np.float16).astype(np.float32), patterns.view(ml_dtypes.bfloat16).astype(np.float32), bits]
    parts += [edges(low_format)]
    if low_format in PRODUCTS_ONLY:
        parts.append(neighbourhoods(low_format))
    x = np.concatenate(parts)
    assert same(rounder(low_format, opset)(x), round_array(x, low_format))


def test_rounding_at_the_oldest_opset():
    """At opset 9, where Cast knows none of these formats."""
    for low_format in PRODUCTS_ONLY:
        x = np.concatenate([neighbourhoods(low_format), edges(low_format)])
        assert same(rounder(low_format, 9)(x), round_array(x, low_format))


@FEW
@given(st.integers(0, 2**32 - 1), st.sampled_from(PRODUCTS_ONLY), st.sampled_from((17, 19)))
def test_rounding_of_random_bits(seed, low_format, opset):
    x = np.random.default_rng(seed).integers(0, 1 << 32, 1 << 14, dtype=np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    got = rounder(low_format, opset)(x)
    assert same(got, round_array(x, low_format))
    assert same(got + np.float32(0), stored(x, low_format) + np.float32(0))  # a second account of the format


# -- products ------------------------------------------------------------------------------------------------------


def network(*, opset: int = 17, seed: int = 0):
    """A convolution with a bias, a residual sum, a product of two activations, and a matrix product at the end."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], "relu"),
        node("Add", ["r", "x"], ["s"], "sum"),
        node("Reshape", ["s", "flat"], ["rows"], "rows"),
        node("Transpose", ["rows"], ["columns"], "columns", perm=[0, 2, 1]),
        node("MatMul", ["rows", "columns"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["shares"], "shares"),
        node("MatMul", ["shares", "rows"], ["mixed"], "mixed"),
        node("MatMul", ["mixed", "m"], ["y"], "last"),
    ]
    weights = [
        weight("w", rng.standard_normal((3, 3, 3, 3)) / 3),
        weight("b", rng.standard_normal(3)),
        weight("m", rng.standard_normal((16, 5))),
        weight("flat", np.array([-1, 3, 16])),
    ]
    proto = model(nodes, [value("x", ["n", 3, 4, 4])], [value("y", ["n", 3, 5])], weights, opset=opset)
    return proto, {"x": rng.standard_normal((2, 3, 4, 4)).astype(np.float32)}


@pytest.mark.parametrize("opset", [13, 19])
@pytest.mark.parametrize("low_format", PRODUCTS_ONLY)
def test_a_network_equals_its_twin(low_format, opset):
    """Operands of products are rounded, and nothing else: every tensor bit for bit, and every sum of errors."""
    proto, feeds = network(opset=opset)
    twin = Twin.of(proto, feeds, low_format)
    assert twin.layers == ["conv", "scores", "mixed", "last"]
    for plan in (Plan(format=low_format), twin.plan(conv=low_format), twin.plan(scores=low_format, last=low_format)):
        found, wanted = twin.emulated(plan), twin.values(plan)
        assert same(found.plan_outputs["y"], wanted["y"])
        exact = twin.values(twin.plan())
        for name, sums in entries(found).items():
            error = wanted[name].astype(np.float64) - exact[name]
            assert sums["max_error"] == pytest.approx(np.abs(error).max(), rel=1e-6), name
            assert sums["error_squares"] == pytest.approx((error**2).sum(), rel=1e-4), name


@pytest.mark.parametrize("low_format", PRODUCTS_ONLY)
def test_the_local_error_is_that_of_the_layer_alone(low_format):
    proto, feeds = network(seed=3)
    twin = Twin.of(proto, feeds, low_format)
    local = entries(twin.emulator.local())
    assert set(local) == {"c", "scores", "mixed", "y"}
    for layer, name in (("conv", "c"), ("scores", "scores"), ("mixed", "mixed"), ("last", "y")):
        alone = entries(twin.emulated(twin.plan(**{layer: low_format})))[name]
        assert local[name]["error_squares"] == pytest.approx(alone["error_squares"], rel=1e-6)
        assert local[name]["error_squares"] > 0


@pytest.mark.parametrize("low_format", PRODUCTS_ONLY)
def test_ranges_count_what_the_census_counts(low_format):
    magnitudes = 10.0 ** np.random.default_rng(5).integers(-12, 8, (4, 64))
    x = (np.random.default_rng(6).standard_normal((4, 64)) * magnitudes).astype(np.float32)
    proto = model([node("Neg", ["x"], ["y"], "neg")], [value("x", [4, 64])], [value("y", [4, 64])])
    found = entries(Twin.of(proto, {"x": x}, low_format).emulator.ranges())["y"]
    wanted = census(-x, low_format)
    assert (found["overflow"], found["subnormal"], found["flushed"]) == (
        wanted.overflow, wanted.subnormal, wanted.flushed,
    )  # fmt: skip
    assert low_format == "tf32" or wanted.overflow * wanted.flushed > 0


def test_what_saturates_stays_finite():
    """A product of operands beyond the range of fp8 is wrong, and finite; the range tells how many were cut."""
    proto = model([node("MatMul", ["x", "w"], ["y"], "p")], [value("x", [1, 2])], [value("y", [1, 1])],
                  [weight("w", [[1.0], [1.0]])])  # fmt: skip
    twin = Twin.of(proto, {"x": np.float32([[1e6, 8.0]])}, "fp8e4m3")
    found = twin.emulated(Plan(format="fp8e4m3"))
    assert found.plan_outputs["y"].tolist() == [[448.0 + 8.0]]
    assert found.sums.finite.all()


def test_tied_weights_keep_fp32_for_who_reads_them_so():
    """A Gather of the matrix that a product reads low takes it as it is."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Gather", ["w", "ids"], ["rows"], "embed", axis=0),
        node("Transpose", ["w"], ["t"], "turn", perm=[1, 0]),
        node("MatMul", ["rows", "t"], ["y"], "logits"),
    ]
    proto = model(nodes, [value("ids", [3], TensorProto.INT64)], [value("y", [3, 7])],
                  [weight("w", rng.standard_normal((7, 4)))])  # fmt: skip
    twin = Twin.of(proto, {"ids": np.array([0, 3, 6])}, "tf32")
    found, wanted = twin.emulated(Plan(format="tf32")), twin.values(Plan(format="tf32"))
    assert same(found.plan_outputs["y"], wanted["y"])
    assert entries(found).keys() == {"y"}
    assert type_layers(twin.model, "tf32").layers["embed"].blocked


def test_products_in_bodies_take_tf32_too():
    """A mode of matrix units does not ask where a product stands; nothing is stored, so fp8 alone stays outside."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4096, 4096, (3, 4)) / 8).astype(np.float32), np.eye(4, dtype=np.float32)
    then = graph([node("MatMul", ["x", "w"], ["t"], "inside")], [], [value("t", None)], name="then")
    other = graph([node("Neg", ["x"], ["o"], "other")], [], [value("o", None)], name="else")
    nodes = [node("If", ["c"], ["y"], "choose", then_branch=then, else_branch=other)]
    proto = model(nodes, [value("x", [3, 4]), value("c", [], TensorProto.BOOL)], [value("y", [3, 4])], [weight("w", w)])
    for low_format in PRODUCTS_ONLY:
        twin = Twin.of(proto, {"x": x, "c": np.array(True)}, low_format, amax={"x": 1.0})
        got = twin.emulated(Plan(format=low_format)).plan_outputs["y"]
        assert same(got, stored(x, low_format) if low_format == "tf32" else x)
        assert len(twin.emulator.local().values) == (low_format == "tf32")
