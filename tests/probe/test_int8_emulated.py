"""int8 in emulation: codes bit for bit, and networks equal to their twins in numpy and to the exported model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.graphs import model, node, run, value, weight
from support.probing import entries, same
from support.twin import Twin, stepped

from explorer.calibrate.calibration import Calibration
from explorer.convert import convert, decide, type_layers
from explorer.errors import CalibrationError, ExplorerError
from explorer.formats import round_array
from explorer.measure.tables import by_layer
from explorer.model import load_model, load_samples
from explorer.plan import Plan
from explorer.probe import Emulator
from explorer.probe.noise import NoiseRuns
from explorer.probe.rounding import rounding_nodes
from explorer.probe.sources import rounding_sources
from explorer.probe.weave import EmulationGraph
from explorer.search.noise import sweep

LAW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FULL = Plan(format="int8")


def rounder(amax: float, opset: int, *, unsigned: bool = False):
    """A function that runs the rounding nodes of a tensor of this range in ONNX Runtime."""
    proto = model([node("Identity", ["x"], ["y"])], [value("x", ["n"])], [value("y", ["n"])], opset=opset)
    loaded = load_model(proto)
    graph = EmulationGraph(loaded)
    typing = SimpleNamespace(
        model=loaded,
        format="int8",
        calibration=Calibration({"x": amax}, "minmax", rows=1),
        unsigned=frozenset(["x"] if unsigned else ()),
        roots={},
    )
    graph.nodes += rounding_nodes("x", "rounded", typing, "x")
    graph.outputs.append(helper.make_tensor_value_info("rounded", TensorProto.FLOAT, None))
    made = type(proto).FromString(graph.finish({})[0])
    return lambda x: run(made, {"x": x})[0]


def numbers(scale: float) -> np.ndarray:
    """Every pattern of fp16 and bf16, random bits, every code and tie and what lies just beside them."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    bits = np.random.default_rng(7).integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    ties = (np.arange(-260, 261) / 2 * scale).astype(np.float32)
    beside = [np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))]
    edge = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38])
    halves = [patterns.view(np.float16).astype(np.float32), patterns.view(ml_dtypes.bfloat16).astype(np.float32)]
    return np.concatenate([*halves, bits, ties, *beside, edge])


@pytest.mark.parametrize("opset", [9, 10, 13, 19, 21])
@pytest.mark.parametrize("amax", [1.0, 127.0, 0.0371, 5e4, 1e-30, 0.0])
def test_rounding_is_that_of_the_reference(amax, opset):
    scale = np.float32(amax / 127) or np.float32(1)
    x = numbers(float(scale))
    assert same(rounder(amax, opset)(x), round_array(x, "int8", scale=float(scale)))


@pytest.mark.parametrize("opset", [9, 17])
def test_values_without_a_sign_have_codes_up_to_255(opset):
    x = numbers(0.01)
    got = rounder(2.55, opset, unsigned=True)(x)
    fine = ~np.isnan(x)
    with np.errstate(over="ignore"):
        assert same(got[fine], stepped(x[fine], np.float32(2.55 / 255), least=0, most=255))
    assert np.isnan(got[~fine]).all()


# -- networks ------------------------------------------------------------------------------------------------------


def convolutions(*, opset: int = 17, seed: int = 0):
    """Convolutions with biases and activations, a residual sum, pools, a join, movement, and two matrix products."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["s"], "sum"),
        node("Relu", ["s"], ["r2"], "relu2"),
        node("MaxPool", ["r2"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w3"], ["c3"], "conv3"),
        node("Concat", ["c3", "p"], ["j"], "join", axis=1),
        node("GlobalAveragePool", ["j"], ["g"], "mean"),
        node("Flatten", ["g"], ["f"], "flat"),
        node("Gemm", ["f", "w4", "b4"], ["h"], "dense"),
        node("Tanh", ["h"], ["t"], "tanh"),
        node("MatMul", ["t", "w5"], ["y"], "last"),
    ]
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (2, 4, 1, 1), "w4": (6, 5),
              "b4": (5,), "w5": (5, 3)}  # fmt: skip
    weights = [weight(name, rng.standard_normal(shape) / 2) for name, shape in shapes.items()]
    proto = model(nodes, [value("x", ["n", 3, 6, 6])], [value("y", ["n", 3])], weights, opset=opset)
    return proto, {"x": rng.standard_normal((2, 3, 6, 6)).astype(np.float32)}


def attention(*, opset: int = 17, seed: int = 0):
    """Products of activations with weights and with each other."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("MatMul", ["x", "wq"], ["q"], "query"),
        node("MatMul", ["x", "wk"], ["k"], "key"),
        node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["shares"], "shares"),
        node("MatMul", ["shares", "x"], ["mixed"], "mixed"),
        node("Add", ["mixed", "x"], ["y"], "residual"),
    ]
    weights = [weight(name, rng.standard_normal((8, 8)) / 3) for name in ("wq", "wk")]
    proto = model(nodes, [value("x", ["n", 4, 8])], [value("y", ["n", 4, 8])], weights, opset=opset)
    return proto, {"x": rng.standard_normal((2, 4, 8)).astype(np.float32)}


NETWORKS = {"convolutions": convolutions, "attention": attention}


@pytest.mark.parametrize("backend", [None, "tensorrt"])
@pytest.mark.parametrize("opset", [10, 13, 19])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_equals_its_twin(network, opset, backend):
    """Every tensor and every sum under the full plan; TensorRT stores everything with a sign."""
    proto, feeds = NETWORKS[network](opset=opset)
    twin = Twin.of(proto, feeds, backend=backend)
    assert bool(twin.typing.unsigned) == (backend is None)
    found, wanted, exact = twin.emulated(FULL), twin.values(FULL), twin.values(twin.plan())
    assert same(found.plan_outputs["y"], wanted["y"])
    assert same(found.exact_outputs["y"], exact["y"])
    assert not same(found.plan_outputs["y"], exact["y"])
    for name, sums in entries(found).items():
        error = wanted[name].astype(np.float64) - exact[name]
        assert sums["max_error"] == pytest.approx(np.abs(error).max(), rel=1e-6), name
        assert sums["error_squares"] == pytest.approx((error**2).sum(), rel=1e-4), name


@LAW
@given(st.data())
def test_any_plan_equals_the_twin_and_the_exported_model(data):
    """The emulator, numpy, and the Q/DQ model that conversion writes give one and the same result."""
    proto, feeds = NETWORKS[data.draw(st.sampled_from(sorted(NETWORKS)))](seed=data.draw(st.integers(0, 9)))
    twin = Twin.of(proto, feeds)
    chosen = {layer: data.draw(st.sampled_from(("fp32", "int8"))) for layer in twin.layers}
    plan = twin.plan(**chosen)
    got = twin.emulated(plan).plan_outputs["y"]
    assert same(got, twin.values(plan)["y"])
    exported = convert(twin.model, plan, decisions=twin.decisions(plan), calibration=twin.scales)
    assert same(got, run(exported.proto, feeds)[0])


@LAW
@given(st.data())
def test_toggling_a_layer_changes_nothing_before_it(data):
    proto, feeds = NETWORKS[data.draw(st.sampled_from(sorted(NETWORKS)))]()
    twin = Twin.of(proto, feeds)
    chosen = {layer: data.draw(st.sampled_from(("fp32", "int8"))) for layer in twin.layers}
    toggled = data.draw(st.sampled_from(twin.layers))
    other = chosen | {toggled: "fp32" if chosen[toggled] == "int8" else "int8"}
    before, after = entries(twin.emulated(twin.plan(**chosen))), entries(twin.emulated(twin.plan(**other)))
    ids = [layer.id for layer in twin.model.layers]
    upstream = {name for layer in twin.model.layers[: ids.index(toggled)] for name in layer.outputs}
    for name in upstream & before.keys():
        assert repr(before[name]) == repr(after[name])


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_in_int8_is_the_exact_model(network):
    proto, feeds = NETWORKS[network]()
    found = Twin.of(proto, feeds).emulated(Plan(format="int8", base="fp32"))
    assert (found.sums.error_squares == 0).all()
    assert same(found.plan_outputs["y"], run(proto, feeds)[0])


def test_the_local_error_is_that_of_the_layer_alone():
    proto, feeds = convolutions()
    twin = Twin.of(proto, feeds)
    local = entries(twin.emulator.local())
    for layer in twin.layers:
        name = twin.model.layer(layer).outputs[0]
        alone = entries(twin.emulated(twin.plan(**{layer: "int8"})))[name]
        assert alone["error_squares"] == pytest.approx(local[name]["error_squares"], rel=1e-6), layer
    assert sum(sums["error_squares"] > 0 for sums in local.values()) > 8


def test_ranges_count_what_is_cut_and_what_vanishes():
    """Beyond the calibrated range values are cut to it; below half a step they are zero; nothing is subnormal."""
    x = np.float32([[0.0, 0.49, 0.5, 0.51, 100.0, 127.4, 127.6, -128.0, 500.0]])
    proto = model([node("Neg", ["x"], ["y"], "neg")], [value("x", [1, 9])], [value("y", [1, 9])])
    found = entries(Twin.of(proto, {"x": x}, amax={"x": 127.0, "y": 127.0}).emulator.ranges())["y"]
    assert (found["overflow"], found["flushed"], found["subnormal"], found["nonfinite"]) == (3, 2, 0, 0)


def test_nan_is_seen_and_infinity_is_cut():
    x = np.float32([[-1.0, 0.0, 0.0], [4.0, np.finfo(np.float32).max, 1.0], [9.0, 1.0, 1.0]])
    nodes = [
        node("Split", ["x"], ["a", "b", "c"], "split", axis=1),
        node("Sqrt", ["a"], ["root"], "root"),  # NaN in the first row
        node("Mul", ["b", "b"], ["square"], "square"),  # infinite in the second
        node("Concat", ["root", "square", "c"], ["j"], "join", axis=1),
        node("MatMul", ["j", "w"], ["y"], "product"),
    ]
    proto = model(nodes, [value("x", [3, 3])], [value("y", [3, 2])], [weight("w", np.ones((3, 2)))], opset=13)
    amax = {"x": 1.0, **dict.fromkeys(("a", "b", "c", "root", "square", "j", "y"), 127.0)}
    got = Twin.of(proto, {"x": x}, amax=amax).emulated(FULL).plan_outputs["y"]
    assert np.isnan(got[0]).all()
    assert got[1:].tolist() == [[2.0 + 127.0 + 1.0] * 2, [3.0 + 1.0 + 1.0] * 2]


def test_without_a_calibration_it_says_so():
    proto, feeds = attention()
    loaded = load_model(proto)
    samples, typing = load_samples(loaded, feeds), type_layers(loaded, "int8")
    with pytest.raises(CalibrationError, match=r"no calibration.*x\.calibrate\(\)"):
        Emulator(typing, samples)
    with pytest.raises(CalibrationError, match=r"no calibration.*x\.calibrate\(\)"):
        Emulator(type_layers(loaded, "fp16"), samples, int8=typing)


def test_a_calibration_that_lacks_a_tensor_names_it():
    proto, feeds = attention()
    twin = Twin.of(proto, feeds)
    known = {name: amax for name, amax in twin.scales.amax.items() if name != "shares"}
    typing = replace(twin.typing, calibration=replace(twin.scales, amax=known))
    emulator = Emulator(typing, twin.emulator.samples)
    with pytest.raises(ExplorerError, match="shares"):
        emulator.accumulated(decide(FULL, typing))


def test_a_weight_is_rounded_as_each_reader_wants_it():
    """A matrix that one product reads as it is and another turned has its channels along different axes."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((4, 4)) * [[1], [10], [100], [1000]]).astype(np.float32)
    nodes = [
        node("Gemm", ["x", "w"], ["a"], "straight"),
        node("Gemm", ["x", "w"], ["b"], "turned", transB=1),
        node("Add", ["a", "b"], ["y"], "sum"),
    ]
    proto = model(nodes, [value("x", [2, 4])], [value("y", [2, 4])], [weight("w", w)])
    x = rng.standard_normal((2, 4)).astype(np.float32)
    twin = Twin.of(proto, {"x": x})
    low = stepped(x, np.abs(x).max() / np.float32(127))
    columns = stepped(w, np.abs(w).max(axis=0) / np.float32(127), least=-127)
    rows = stepped(w, np.abs(w).max(axis=1, keepdims=True) / np.float32(127), least=-127)
    got = twin.emulated(FULL).plan_outputs["y"]
    np.testing.assert_allclose(got, low @ columns + low @ rows.T, rtol=1e-5)
    exported = convert(twin.model, FULL, decisions=twin.decisions(FULL), calibration=twin.scales)
    assert same(got, run(exported.proto, {"x": x})[0])


def test_values_are_shown_with_the_tensors_own_borders():
    proto, feeds = convolutions()
    twin = Twin.of(proto, feeds)
    bare = decide(FULL, type_layers(twin.model, "int8"))  # decisions need no calibration
    shown = twin.emulator.values(bare, "conv2")
    scale = twin.scales.amax["c2"] / 127
    assert shown.format == "int8"
    assert shown.bands.overflow == pytest.approx(127.5 * scale)
    assert shown.bands.subnormal == pytest.approx(scale / 2)
    assert shown.plan.elements == shown.exact.elements == 2 * 4 * 36
    assert len(np.unique(shown.scatter.plan)) <= 256
    assert "int8 storage rounding" in shown.provenance
    assert sum(each.elements for each in twin.emulator.histograms().values()) > 0


# -- noise ---------------------------------------------------------------------------------------------------------


def test_every_tensor_is_a_source_once_and_weights_once_for_each_reader():
    proto, feeds = convolutions()
    sources = rounding_sources(Twin.of(proto, feeds).typing)
    named = {layer: {sources.names[index] for index in found} for layer, found in sources.touched.items()}
    assert named["conv1"] == {"x", "w1::in::conv1", "b1::in::conv1"}
    assert named["relu1"] == {"r1"}
    assert named["conv2"] == {"r1", "w2::in::conv2", "b2::in::conv2", "c2"}
    assert named["pool"] == {"r2"}
    assert named["conv3"] == {"r2", "w3::in::conv3", "c3"}, "what only moves keeps the scale of what it moves"
    assert named["join"] == {"c3", "r2", "j"}
    assert sources.outputs.size == 0


@pytest.mark.parametrize("low_format", ["int8", "fp8e4m3", "tf32"])
@pytest.mark.parametrize("network", NETWORKS)
def test_noise_of_all_sources_of_a_layer_is_the_error_of_that_layer_alone(network, low_format):
    """Rounding what one layer rounds gives the error that the emulator has with that layer alone in low."""
    proto, feeds = NETWORKS[network]()
    twin = Twin.of(proto, feeds, low_format)
    sources = rounding_sources(twin.typing)
    runs = NoiseRuns(twin.typing, sources, twin.emulator.samples, threads=1)
    readers = {name: sum(name in layer.inputs for layer in twin.model.layers) for name in twin.model.types}
    measured = []
    for layer in twin.layers:
        names = {sources.tensor(index) for index in sources.touched[layer]}
        stored = {
            name
            for name, low in zip(twin.model.layer(layer).outputs, twin.typing.layers[layer].low_outputs, strict=True)
            if low
        }
        if any(readers[name] > 1 or name not in twin.model.layer(layer).inputs for name in names - stored):
            continue  # others that may run low would see it rounded, too
        measured.append(layer)
        found = runs.measure([list(sources.touched[layer])])[0, 0]
        # All are named, as an activation else runs in int8 when what stands before it does.
        alone = dict.fromkeys(twin.layers, "fp32") | {layer: low_format}
        wanted = twin.emulated(twin.plan(**alone)).output_sums.error_squares[0]
        assert found == pytest.approx(wanted, rel=1e-4), layer
    assert measured


def test_a_tensor_is_not_rounded_for_who_reads_it_exactly():
    """A product takes it rounded, the sum around it does not: only what really is rounded counts."""
    rng = np.random.default_rng(0)
    nodes = [node("MatMul", ["x", "w"], ["a"], "product"), node("Add", ["a", "x"], ["y"], "residual")]
    w = (rng.standard_normal((8, 8)) / 100).astype(np.float32)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    proto = model(nodes, [value("x", [3, 8])], [value("y", [3, 8])], [weight("w", w)])
    for low_format in ("tf32", "fp8e5m2"):
        twin = Twin.of(proto, {"x": x}, low_format)
        sources = rounding_sources(twin.typing)
        runs = NoiseRuns(twin.typing, sources, twin.emulator.samples, threads=1)
        low = round_array(x, low_format).astype(np.float64)
        found = runs.measure([[sources.names.index("x")]])[0, 0]
        assert found == pytest.approx(np.square((low - x) @ w.astype(np.float64)).sum(), rel=1e-2)


@pytest.mark.parametrize("low_format", ["int8", "fp8e4m3", "fp8e5m2", "tf32"])
@pytest.mark.parametrize("network", NETWORKS)
def test_predicted_errors_are_near_the_measured_ones(network, low_format):
    """The search's noise model works in these formats, as it does in fp16: squared errors add up."""
    proto, feeds = NETWORKS[network](seed=1)
    twin = Twin.of(proto, feeds, low_format)
    layers, emulator = twin.model.layers, twin.emulator

    def sums(found):
        return by_layer(layers, found.values, found.sums)

    *_, noise = sweep(
        twin.typing, emulator.samples, lambda: sums(emulator.local()), lambda: sums(emulator.ranges()), threads=1
    )
    assert noise.complete
    assert not noise.pinned
    plan = Plan(format=low_format)
    low = np.array([layer.id in twin.decisions(plan).low_layers for layer in layers])
    measured = twin.emulated(plan).output_sums.rel_l2[0] ** 2
    assert measured / 4 < noise.predict(low)[0] < measured * 4
    assert noise.predict(np.zeros_like(low))[0] == 0
