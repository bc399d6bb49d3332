"""int8 and fp8 from the plan to the file: laws, and what the exported model computes against the emulation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from support import faithful
from support.graphs import (
    BOOL,
    FLOAT,
    FLOAT16,
    disagreements,
    graph,
    inserted_casts,
    model,
    node,
    nodes_of,
    run,
    types_of,
    value,
    weight,
)
from support.probing import same
from support.twin import Twin, channel_steps, ranges_of, stepped

import explorer
from explorer.backends.runtime import create_session
from explorer.calibrate.calibration import Calibration
from explorer.convert import Conversion, convert, type_layers
from explorer.errors import ConversionError, InputError
from explorer.export import save_onnx
from explorer.model import load_model
from explorer.plan import Plan

INT8 = Plan(format="int8")
RNG_SHAPE = (2, 3, 8, 8)
SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def weights_of(seed: int = 0, **shapes) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    return [weight(name, rng.standard_normal(shape) / 2) for name, shape in shapes.items()]


def image(seed: int = 9, shape=RNG_SHAPE) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def built(nodes, weights, *, shape=RNG_SHAPE, outputs=("y",), opset: int = 17) -> onnx.ModelProto:
    infos = [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    proto = model(nodes, [value("x", ["n", *shape[1:]])], infos, weights, opset=opset)
    return onnx.shape_inference.infer_shapes(proto)


def convolutional(kind: str, *, opset: int = 17) -> onnx.ModelProto:
    """A small network with what its name says, between two convolutions."""
    first = [node("Conv", ["x", "w1", "b1"], ["c"], "conv", pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"], "relu")]
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,)}
    more: dict[str, tuple[int, ...]] = {}
    last = node("Conv", ["m", "w9"], ["y"], "last")
    channels = 4
    if kind == "plain":
        middle = [node("Conv", ["r", "w2", "b2"], ["m"], "mid")]
        more = {"w2": (4, 4, 3, 3), "b2": (4,)}
    elif kind == "transpose":
        middle = [node("ConvTranspose", ["r", "w2", "b2"], ["m"], "mid", strides=[2, 2])]
        more = {"w2": (4, 6, 2, 2), "b2": (6,)}
        channels = 6
    elif kind == "grouped transpose":
        middle = [node("ConvTranspose", ["r", "w2"], ["m"], "mid", group=2)]
        more, channels = {"w2": (4, 3, 2, 2)}, 6
    elif kind == "grouped":
        middle, more = [node("Conv", ["r", "w2", "b2"], ["m"], "mid", group=2)], {"w2": (4, 2, 3, 3), "b2": (4,)}
    elif kind == "depthwise":
        middle, more = [node("Conv", ["r", "w2", "b2"], ["m"], "mid", group=4)], {"w2": (4, 1, 3, 3), "b2": (4,)}
    elif kind == "residual":
        middle = [node("Conv", ["r", "w2"], ["d"], "mid", pads=[1, 1, 1, 1]), node("Add", ["d", "r"], ["m"], "sum")]
        more = {"w2": (4, 4, 3, 3)}
    elif kind == "concat":
        middle = [
            node("Conv", ["r", "w2"], ["d"], "mid"),
            node("Conv", ["r", "w3"], ["e"], "other"),
            node("Concat", ["d", "e", "d"], ["m"], "join", axis=1),
        ]
        more, channels = {"w2": (2, 4, 1, 1), "w3": (3, 4, 1, 1)}, 7
    elif kind == "pools":
        middle = [
            node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("MaxPool", ["p"], ["q"], "pool2", kernel_shape=[2, 2]),
            node("AveragePool", ["q"], ["m"], "mean", kernel_shape=[2, 2]),
        ]
    elif kind == "split":
        middle = [node("Split", ["r"], ["a", "b"], "split", axis=1), node("Add", ["a", "b"], ["m"], "sum")]
        channels = 2
    elif kind == "shared":
        middle = [node("Conv", ["r", "w2", "b2"], ["d"], "mid", pads=[1, 1, 1, 1]),
                  node("Conv", ["d", "w2", "b2"], ["m"], "again", pads=[1, 1, 1, 1])]  # fmt: skip
        more = {"w2": (4, 4, 3, 3), "b2": (4,)}
    elif kind == "dense":
        middle = [
            node("GlobalAveragePool", ["r"], ["g"], "mean"),
            node("Flatten", ["g"], ["f"], "flat"),
            node("Gemm", ["f", "w2", "b2"], ["h"], "dense", transB=1),
            node("Relu", ["h"], ["i"], "relu2"),
            node("Gemm", ["i", "w3", "b3"], ["y"], "out", alpha=0.5, beta=2.0),
        ]
        more = {"w2": (6, 4), "b2": (6,), "w3": (6, 5), "b3": (5,)}
        return built([*first, *middle], weights_of(**shapes, **more), opset=opset)
    else:
        raise AssertionError(kind)
    if kind == "split" and opset >= 18:
        middle[0].attribute.append(onnx.helper.make_attribute("num_outputs", 2))
    return built([*first, *middle, last], weights_of(**shapes, **more, w9=(2, channels, 1, 1)), opset=opset)


def matrices(kind: str, *, opset: int = 17) -> onnx.ModelProto:
    """Products of matrices: with weights on either side, of activations, batched."""
    if kind == "both activations":
        nodes = [
            node("MatMul", ["x", "w"], ["a"], "one"),
            node("Transpose", ["a"], ["t"], "turn", perm=[0, 2, 1]),
            node("MatMul", ["x", "t"], ["y"], "two"),
        ]
        return built(nodes, weights_of(w=(8, 8)), shape=(2, 4, 8), opset=opset)
    if kind == "weight first":
        return built([node("MatMul", ["w", "x"], ["y"], "one")], weights_of(w=(5, 4)), shape=(2, 4, 8), opset=opset)
    if kind == "batched weight":
        return built([node("MatMul", ["x", "w"], ["y"], "one")], weights_of(w=(2, 8, 3)), shape=(2, 4, 8), opset=opset)
    if kind == "transA":
        nodes = [node("Gemm", ["x", "w", "b"], ["y"], "one", transA=1)]
        proto = model(nodes, [value("x", [4, 6])], [value("y", [6, 3])], weights_of(w=(4, 3), b=(3,)), opset=opset)
        return onnx.shape_inference.infer_shapes(proto)
    raise AssertionError(kind)


CONVOLUTIONAL = ("plain", "transpose", "grouped transpose", "grouped", "depthwise", "residual", "concat", "pools",
                 "split", "shared", "dense")  # fmt: skip
MATRICES = ("both activations", "weight first", "batched weight", "transA")


def case(kind: str, opset: int = 17) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    if kind in CONVOLUTIONAL:
        return convolutional(kind, opset=opset), image()
    return matrices(kind, opset=opset), image(shape=(4, 6) if kind == "transA" else (2, 4, 8))


def converted(proto: onnx.ModelProto, feeds, plan: Plan = INT8, **settings_) -> Conversion:
    scales = Calibration(ranges_of(proto, feeds), "minmax", rows=1)
    return convert(load_model(proto), plan, calibration=scales, **settings_)


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low_format", ["int8", "fp8e4m3", "fp8e5m2", "tf32"])
@pytest.mark.parametrize("kind", [*CONVOLUTIONAL, *MATRICES])
def test_the_fp32_plan_is_the_identity(kind, low_format):
    proto, feeds = case(kind, 19)
    made = convert(load_model(proto), Plan.preset("fp32", format=low_format))
    assert made.casts == ()
    assert made.weights.weights == ()
    assert same(run(made.proto, feeds)[0], run(proto, feeds)[0])


@pytest.mark.parametrize("kind", [*CONVOLUTIONAL, *MATRICES])
def test_every_conversion_holds_to_the_laws(kind):
    proto, feeds = case(kind)
    before = proto.SerializeToString(deterministic=True)
    loaded = load_model(proto)
    normal = loaded.proto().SerializeToString(deterministic=True)
    scales = Calibration(ranges_of(proto, feeds), "minmax", rows=1)
    one, two = (convert(loaded, INT8, calibration=scales) for _ in range(2))
    assert one.low_share > 0
    assert proto.SerializeToString(deterministic=True) == before
    assert loaded.proto().SerializeToString(deterministic=True) == normal
    assert one.proto.SerializeToString(deterministic=True) == two.proto.SerializeToString(deterministic=True)
    names = [each.name for each in one.proto.graph.node]
    assert len(names) == len(set(names))
    assert {layer.id for layer in loaded.layers} <= set(names)
    assert disagreements(one.proto) == []
    for before_, after in zip(
        (*proto.graph.input, *proto.graph.output), (*one.proto.graph.input, *one.proto.graph.output), strict=True
    ):
        assert (after.name, after.type.tensor_type.elem_type) == (before_.name, FLOAT)
    quantising = [each for each in one.proto.graph.node if each.op_type == "QuantizeLinear"]
    assert {each.name for each in quantising} == {cast.name for cast in one.casts}
    read = Counter(each.input[0] for each in quantising)
    assert max(read.values()) == 1, "one pair for each tensor"


@given(st.data())
@SLOW
def test_what_is_in_int8_in_the_decisions_is_so_in_the_graph(data):
    """Under any plan each layer reads pairs where the typing says so if it runs in int8; the outputs are emulated."""
    kind = data.draw(st.sampled_from(CONVOLUTIONAL))
    proto, feeds = case(kind)
    twin = Twin.of(proto, feeds)
    chosen = data.draw(st.dictionaries(st.sampled_from(twin.layers), st.sampled_from(["fp32", "int8"])))
    plan = replace(INT8, base=data.draw(st.sampled_from(["fp32", "int8"]))).set(chosen)
    decisions = twin.decisions(plan)
    made = convert(twin.model, plan, decisions=decisions, calibration=twin.scales)
    makers = {name: each for each in made.proto.graph.node for name in each.output}
    nodes = {each.name: each for each in made.proto.graph.node}
    for layer in twin.model.layers:
        low = twin.typing.layers[layer.id].low_inputs
        for index, name in enumerate(nodes[layer.id].input):
            if layer.id in decisions.low_layers and low[index]:
                maker = makers[name]
                moved = maker.name in decisions.low_layers  # it hands on what is stored already
                assert maker.op_type == "DequantizeLinear" or moved, (layer.id, name)
    assert same(run(made.proto, feeds)[0], twin.emulated(plan).plan_outputs["y"])


# -- truth -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*CONVOLUTIONAL, *MATRICES])
@pytest.mark.parametrize("opset", [10, 12, 13, 17, 19, 21, 23])
def test_the_exported_model_computes_what_was_emulated(kind, opset):
    """Bit for bit, with fusion off: every pair is where the emulation rounds, and nowhere else."""
    if opset < 13 and kind == "split":
        pytest.skip("Split took its sizes otherwise")
    proto, feeds = case(kind, opset)
    twin = Twin.of(proto, feeds)
    made = convert(twin.model, INT8, calibration=twin.scales)
    assert made.low_share > 0
    assert same(run(made.proto, feeds)[0], twin.emulated(INT8).plan_outputs["y"])


@pytest.mark.parametrize("kind", [*CONVOLUTIONAL, *MATRICES])
def test_integer_kernels_stay_within_their_steps(kind):
    """Integers are summed exactly, and rounded where floats lie on the other side of a tie: a step or two."""
    proto, feeds = case(kind)
    twin = Twin.of(proto, feeds)
    made = convert(twin.model, INT8, calibration=twin.scales)
    emulated = twin.emulated(INT8).plan_outputs["y"]
    fused = run(made.proto, feeds, optimize=True)[0]
    largest = np.abs(emulated).max()
    assert np.abs(fused - emulated).max() <= 3 / 127 * largest
    exact = run(proto, feeds)[0]
    assert np.abs(emulated - exact).max() < 0.15 * np.abs(exact).max(), "int8 with min-max ranges is near fp32"


@pytest.mark.parametrize("kind", ["plain", "residual", "dense", "both activations"])
def test_the_reference_evaluator_agrees(kind):
    """onnx's own evaluator sums in another order, so a value near a tie may fall to the next step."""
    proto, feeds = case(kind, 21)
    made = converted(proto, feeds)
    got, wanted = ReferenceEvaluator(made.proto).run(None, feeds)[0], run(made.proto, feeds)[0]
    close = np.isclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert close.mean() > 0.98
    assert np.abs(got - wanted).max() <= 2 / 127 * np.abs(wanted).max()


def fused_ops(conversion: Conversion, tmp_path) -> Counter:
    create_session(conversion.proto.SerializeToString(), threads=1, optimized_to=tmp_path / "o.onnx")
    return Counter(each.op_type for each in onnx.load(tmp_path / "o.onnx").graph.node)


@pytest.mark.parametrize(
    ("kind", "kernel", "number"),
    [("plain", "QLinearConv", 2), ("depthwise", "QLinearConv", 2), ("grouped", "QLinearConv", 2),
     ("residual", "QLinearAdd", 1), ("shared", "QLinearConv", 3), ("both activations", "MatMulIntegerToFloat", 1),
     ("concat", "QLinearConcat", 1)],
)  # fmt: skip
def test_onnx_runtime_runs_it_in_integers(kind, kernel, number, tmp_path):
    """The pairs stand where ONNX Runtime's CPU provider looks for them."""
    proto, feeds = case(kind)
    found = fused_ops(converted(proto, feeds), tmp_path)
    assert found[kernel] >= number, found
    assert found["MatMul"] == 0
    assert found["Conv"] == (kind != "both activations"), "only the one whose result is the model's is left in fp32"


# -- weights and biases ------------------------------------------------------------------------------------------------


def stored_weights(made: Conversion) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.proto.graph.initializer}


def test_weights_have_a_scale_for_each_channel_and_biases_the_scale_of_the_product():
    proto, feeds = case("plain")
    made, scales = converted(proto, feeds), ranges_of(proto, feeds)
    arrays = stored_weights(made)
    w = numpy_helper.to_array(proto.graph.initializer[0])
    assert arrays["w1_codes"].dtype == np.int8
    assert np.abs(arrays["w1_codes"].astype(int)).max() == 127
    steps = channel_steps(w, 0)
    assert (arrays["w1_scale"] == steps.ravel()).all()
    back = arrays["w1_codes"] * arrays["w1_scale"].reshape(-1, 1, 1, 1)
    assert same(back.astype(np.float32), stepped(w, steps, least=-127))
    assert arrays["b1_codes"].dtype == np.int32
    assert same(arrays["b1_scale"], (np.float32(scales["x"] / 127) * steps.ravel()).astype(np.float32))
    assert not {"w1", "b1"} & set(arrays), "the fp32 ones are gone"


def test_a_weight_that_an_fp32_layer_reads_too_is_kept_for_it():
    nodes = [node("MatMul", ["x", "w"], ["a"], "low"), node("MatMul", ["a", "w"], ["y"], "high")]
    proto = built(nodes, weights_of(w=(8, 8)), shape=(2, 8))
    feeds = image(shape=(2, 8))
    made = converted(proto, feeds, INT8.set({"high": "fp32"}))
    assert {"w", "w_codes"} <= set(stored_weights(made))
    x, w = feeds["x"], numpy_helper.to_array(proto.graph.initializer[0])
    low = stepped(x, np.float32(np.abs(x).max() / 127)) @ stepped(w, channel_steps(w, 1), least=-127)
    np.testing.assert_allclose(run(made.proto, feeds)[0], low @ w, rtol=1e-4, atol=1e-5)


def test_a_bias_that_two_products_share_is_stored_for_each():
    """Its step is that of the product, and theirs differ."""
    proto, feeds = case("shared")
    arrays = stored_weights(converted(proto, feeds))
    stored = [name for name in arrays if name.startswith("b2_codes")]
    assert len(stored) == 2
    twin = Twin.of(proto, feeds)
    assert same(run(converted(proto, feeds).proto, feeds)[0], twin.values(INT8)["y"])


@pytest.mark.parametrize("bias", [1e30, 3e9])
def test_a_bias_that_int32_cannot_hold_stays_fp32(bias):
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], "g")]
    weights = [weight("w", np.full((8, 4), 1e-3)), weight("b", np.full(4, bias))]
    proto, feeds = built(nodes, weights, shape=(2, 8)), image(shape=(2, 8))
    made = converted(proto, feeds)
    assert "b" in stored_weights(made)
    np.testing.assert_allclose(run(made.proto, feeds)[0], bias, rtol=1e-5)


def test_a_channel_of_zeros_stays_zero():
    w = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    w[:, 2] = 0
    proto, feeds = built([node("MatMul", ["x", "w"], ["y"], "m")], [weight("w", w)], shape=(2, 8)), image(shape=(2, 8))
    got = run(converted(proto, feeds).proto, feeds)[0]
    assert (got[:, 2] == 0).all()
    assert np.abs(got - feeds["x"] @ w).max() < 0.1


# -- borders -----------------------------------------------------------------------------------------------------------


def test_an_input_and_an_output_that_are_read_elsewhere_keep_their_values():
    """The model's input goes to a product and to a sum: only the product reads it rounded; so with its first output."""
    nodes = [
        node("MatMul", ["x", "w"], ["y"], "one"),
        node("MatMul", ["y", "w"], ["z"], "two"),
        node("Sub", ["z", "x"], ["d"], "rest"),
    ]
    proto = built(nodes, weights_of(w=(8, 8)), shape=(2, 8), outputs=("y", "d"))
    feeds = image(shape=(2, 8))
    twin = Twin.of(proto, feeds)
    made = convert(twin.model, INT8, calibration=twin.scales)
    y, d = run(made.proto, feeds)
    wanted = twin.values(INT8)
    assert same(y, wanted["y"])
    assert same(d, wanted["d"])
    assert [info.name for info in made.proto.graph.output] == ["y", "d"]


def test_an_output_of_the_model_is_never_rounded():
    proto, feeds = case("plain")
    made = converted(proto, feeds)
    (last,) = [each for each in made.proto.graph.node if each.name == "last"]
    assert list(last.output) == ["y"]


def test_shapes_may_be_dynamic():
    proto, _ = case("residual")
    made = converted(proto, image())
    for rows in (1, 5):
        assert run(made.proto, image(shape=(rows, 3, 8, 8)))[0].shape[0] == rows


def test_bodies_of_control_flow_are_left_alone():
    then = graph([node("MatMul", ["a", "w"], ["t"], "inner")], [], [value("t", None)], name="then")
    other = graph([node("Neg", ["a"], ["e"], "neg")], [], [value("e", None)], name="other")
    nodes = [node("MatMul", ["x", "w"], ["a"], "outer"),
             node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other)]  # fmt: skip
    proto = model(nodes, [value("x", [2, 8]), value("c", [], BOOL)], [value("y", [2, 8])], weights_of(w=(8, 8)))
    feeds = {**image(shape=(2, 8)), "c": np.array(True)}
    scales = Calibration({"x": 3.0, "a": 3.0}, "minmax", rows=1)
    made = convert(load_model(proto), INT8, calibration=scales)
    formats = {each.layer_id: each.format for each in made.decisions}
    assert formats["outer"] == "int8"
    assert formats["inner"] == "fp32"
    assert "body" in made.decisions["inner"].reason
    (body,) = [each for each in nodes_of(made.proto) if each.name == "inner"]
    assert list(body.input) == ["a", "w"]
    assert run(made.proto, feeds)[0].shape == (2, 8)


@pytest.mark.parametrize("keep_io", [True, False])
def test_a_mixed_plan_stores_both_formats(keep_io):
    """int8 convolutions, fp16 around them: casts to fp16 and pairs stand beside each other, and the types agree."""
    proto, feeds = case("dense")
    plan = Plan(keep_io=keep_io).use("int8", op_types=["Conv"])
    twin = Twin.of(proto, feeds, "fp16", int8=True)
    made = convert(twin.model, plan, calibration=twin.scales)
    formats = Counter(each.format for each in made.decisions)
    assert formats["int8"] >= 2
    assert formats["fp16"] >= 2
    assert disagreements(made.proto) == []
    wanted = FLOAT if keep_io else FLOAT16
    assert types_of(made.proto)["y"] == types_of(made.proto)["x"] == wanted
    assert {each.op_type for each in inserted_casts(made)} == {"Cast", "QuantizeLinear"}
    got = faithful.evaluate(made.proto, feeds)["y"]
    assert same(got, twin.emulated(plan).plan_outputs["y"])


# -- files -------------------------------------------------------------------------------------------------------------


def test_weights_beside_the_file_are_written_beside_it(tmp_path):
    rng = np.random.default_rng(0)
    proto = built([node("MatMul", ["x", "w"], ["y"], "m")], [weight("w", rng.standard_normal((64, 64)))], shape=(2, 64))
    onnx.save(proto, tmp_path / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=16)
    source, feeds = load_model(tmp_path / "big.onnx"), image(shape=(2, 64))
    made = convert(source, INT8, calibration=Calibration({"x": 3.0, "y": 30.0}, "minmax", rows=1))
    before = (tmp_path / "big.bin").read_bytes()
    written = save_onnx(made, source, tmp_path / "low.onnx")
    assert [path.name for path in written] == ["low.onnx", "low.onnx.data"]
    assert written[1].stat().st_size < len(before) / 3
    assert (tmp_path / "big.bin").read_bytes() == before
    session = ort.InferenceSession(tmp_path / "low.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feeds)[0], run(made.proto, feeds)[0], rtol=1e-4, atol=1e-4)


def test_an_opset_without_int8_is_refused():
    proto = built([node("MatMul", ["x", "w"], ["y"], "m")], weights_of(w=(8, 8)), shape=(2, 8), opset=9)
    with pytest.raises(ConversionError, match="opset 9, and int8 needs opset 10") as caught:
        converted(proto, image(shape=(2, 8)))
    assert "convert_version" in caught.value.fix


def test_an_opset_without_fp8_is_no_file(tmp_path):
    """It is emulated all the same: the rounding needs no operator of the model's opset."""
    proto, feeds = case("plain", 18)
    plan, source = Plan(format="fp8e4m3"), load_model(proto)
    made = convert(source, plan)
    assert "19" in made.refusal
    with pytest.raises(ConversionError, match="No ONNX file can hold this plan"):
        save_onnx(made, source, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    exact = run(proto, feeds)[0]
    assert 0 < np.abs(Twin.of(proto, feeds, "fp8e4m3").emulated(plan).plan_outputs["y"] - exact).max() < 1


def test_without_calibration_it_is_refused():
    proto, _ = case("plain")
    with pytest.raises(ConversionError, match="no calibration"):
        convert(load_model(proto), INT8)


# -- other formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "dense", "both activations"])
@pytest.mark.parametrize("low_format", ["fp8e4m3", "fp8e5m2"])
@pytest.mark.parametrize("opset", [19, 21])
def test_fp8_runs_and_equals_the_emulation(kind, low_format, opset):
    proto, feeds = case(kind, opset)
    twin = Twin.of(proto, feeds, low_format)
    plan = Plan(format=low_format)
    made = convert(twin.model, plan)
    kinds = {tensor.data_type for tensor in made.proto.graph.initializer}
    assert {"fp8e4m3": TensorProto.FLOAT8E4M3FN, "fp8e5m2": TensorProto.FLOAT8E5M2}[low_format] in kinds
    assert same(run(made.proto, feeds)[0], twin.emulated(plan).plan_outputs["y"])


def test_tensorrt_takes_no_fp8e5m2(tmp_path):
    proto, _ = case("plain", 19)
    source = load_model(proto)
    made = convert(source, Plan(format="fp8e5m2"), backend="tensorrt")
    with pytest.raises(ConversionError, match="TensorRT takes no fp8e5m2"):
        save_onnx(made, source, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    assert not convert(source, Plan(format="fp8e4m3"), backend="tensorrt").refusal


def test_tf32_is_a_mode_of_the_whole_model(tmp_path):
    proto, feeds = case("plain")
    source = load_model(proto)
    whole = convert(source, Plan(format="tf32"))
    assert any("TF32" in note for note in whole.notes)
    save_onnx(whole, source, tmp_path / "m.onnx")
    assert same(run(onnx.load(tmp_path / "m.onnx"), feeds)[0], run(proto, feeds)[0])
    part = convert(source, Plan(format="tf32").block(layers=["last"]))
    with pytest.raises(ConversionError, match="mode of the whole model"):
        save_onnx(part, source, tmp_path / "part.onnx")
    assert not (tmp_path / "part.onnx").exists()


def test_every_layer_of_another_backend_is_signed():
    proto, feeds = case("plain")
    typing = type_layers(load_model(proto), "int8", "tensorrt")
    assert not typing.unsigned
    arrays = stored_weights(converted(proto, feeds, backend="tensorrt"))
    assert np.dtype(np.uint8) not in {array.dtype for array in arrays.values()}


def test_a_nan_in_a_weight_is_named_and_the_layer_can_be_kept():
    """It is seen in the emulation, of all plans; a file that would hold some number for it is refused."""
    weights = weights_of(w=(8, 6), v=(6, 4))
    broken = numpy_helper.to_array(weights[1]).copy()
    broken[1, 1] = np.nan
    nodes = [node("MatMul", ["x", "w"], ["m"], "first"), node("MatMul", ["m", "v"], ["y"], "second")]
    proto = built(nodes, [weights[0], weight("v", broken)], shape=(2, 8))
    x = explorer.open(proto, inputs=image(shape=(2, 8)), target=None)
    x.calibrate(cache=False)
    x.plan = INT8
    assert np.isnan(x.outputs()[1]["y"][:, 1]).all()
    with pytest.raises(InputError, match="weight 'v' of the layer 'second' has a NaN"):
        x.convert()
    x.plan = INT8.block(layers=["second"])
    assert x.convert().decisions.low_layers == {"first"}
    assert np.isfinite(x.errors().set_index("id").loc["first", "local_sqnr_db"])
