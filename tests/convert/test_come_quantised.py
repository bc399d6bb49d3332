"""Models that come quantised: their layers are shown as int8, and plans convert around them."""

from __future__ import annotations

import json
import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import faithful
from support.graphs import disagreements, feeds_for, model, node, nodes_of, run, value, weight
from support.probing import same

import explorer
from explorer.cli.app import app
from explorer.convert import convert, type_layers
from explorer.formats import get_format
from explorer.model import load_model
from explorer.model.quantised import source_layers, source_quantisation
from explorer.plan import Plan
from explorer.scene.details import layer_details

QUANTISERS = [
    (form, kind, opset)
    for form in ("QDQ", "QOperator")
    for kind, opset in (("QInt8", 13), ("QInt8", 17), ("QInt8", 19), ("QInt8", 21), ("QUInt8", 17))
]
PLANS = [
    Plan(),
    Plan(format="int8"),
    Plan(format="tf32"),
    Plan(base="fp32"),
    Plan().use("int8", op_types=["*"]),
    Plan(keep_io=False),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path))


def network(opset: int = 17) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("MaxPool", ["r1"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "p"], ["s"], "sum"),
        node("Sigmoid", ["s"], ["g"], "gate"),
        node("GlobalAveragePool", ["g"], ["a"], "mean"),
        node("Flatten", ["a"], ["f"], "flat"),
        node("Gemm", ["f", "w3", "b3"], ["h"], "dense", transB=1),
        node("Softmax", ["h"], ["y"], "shares"),
    ]
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (5, 4), "b3": (5,)}
    weights = [weight(name, rng.standard_normal(shape) / 2) for name, shape in shapes.items()]
    return model(nodes, [value("x", ["n", 3, 6, 6])], [value("y", ["n", 5])], weights, opset=opset)


@pytest.fixture(scope="module")
def quantise(tmp_path_factory):
    """Quantises the network as onnxruntime.quantization does, each way once."""
    from onnxruntime import quantization as tool  # noqa: PLC0415 - heavy

    folder, made = tmp_path_factory.mktemp("quantised"), {}

    class Reader(tool.CalibrationDataReader):
        def __init__(self, source):
            self.feeds = iter([feeds_for(source, seed) for seed in range(3)])

        def get_next(self):
            return next(self.feeds, None)

    def quantised(form, kind, opset):
        if (form, kind, opset) not in made:
            source, target = folder / "a.onnx", folder / f"{form}_{kind}_{opset}.onnx"
            onnx.save(network(opset), source)
            logging.disable(logging.WARNING)
            try:
                tool.quantize_static(
                    source, target, Reader(network(opset)), quant_format=tool.QuantFormat[form], per_channel=True,
                    activation_type=tool.QuantType[kind], weight_type=tool.QuantType.QInt8,
                )  # fmt: skip
            finally:
                logging.disable(logging.NOTSET)
            made[form, kind, opset] = onnx.load(target)
        return made[form, kind, opset]

    return quantised


def pair(name: str, codes: str, out: str, *, scale: str = "s", zero: str = "z") -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", [name, scale, zero], [codes], f"{codes}_q"),
        node("DequantizeLinear", [codes, scale, zero], [out], f"{out}_dq"),
    ]


def by_hand(opset: int = 17) -> onnx.ModelProto:
    """As PaddleSlim exports: weights dequantised along axis 1, pairs around activations; the rest came as it was."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Tanh", ["x"], ["t"], "tanh"),
        *pair("t", "tc", "td"),
        node("DequantizeLinear", ["wc", "ws", "wz"], ["wd"], "w_dq", axis=1),
        node("MatMul", ["td", "wd"], ["m"], "product"),
        *pair("m", "mc", "md", scale="s2"),
        node("MatMul", ["md", "v"], ["n"], "free"),
        node("Relu", ["n"], ["r"], "relu"),
        node("DequantizeLinear", ["uc", "us", "uz"], ["ud"], "u_dq", axis=1),
        node("MatMul", ["r", "ud"], ["y"], "weights_only"),
    ]
    weights = [
        weight("s", np.float32(1 / 127)), weight("s2", np.float32(0.05)), weight("z", np.int8(0)),
        weight("wc", rng.integers(-127, 128, (8, 6)).astype(np.int8)), weight("ws", np.full(6, 0.01, np.float32)),
        weight("wz", np.zeros(6, np.int8)), weight("v", rng.standard_normal((6, 8)) / 3),
        weight("uc", rng.integers(-127, 128, (8, 4)).astype(np.int8)),
        weight("us", np.linspace(0.01, 0.02, 4).astype(np.float32)), weight("uz", np.zeros(4, np.int8)),
    ]  # fmt: skip
    return model(nodes, [value("x", ["n", 8])], [value("y", ["n", 4])], weights, opset=opset)


def opened(proto: onnx.ModelProto, rows: int = 4) -> explorer.Exploration:
    feeds = {info.name: np.concatenate([feeds_for(proto, seed)[info.name] for seed in range(rows // 2)])
             for info in proto.graph.input}  # fmt: skip
    return explorer.open(proto, inputs=feeds, target=None)


def pairs_of(proto: onnx.ModelProto) -> dict[str, tuple]:
    """Every Q and DQ node with what it reads as numbers, so that nothing about it can change unseen."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    kept = ("QuantizeLinear", "DequantizeLinear")
    return {
        each.name: (
            each.op_type,
            [onnx.numpy_helper.to_array(weights[name]).tolist() for name in each.input[1:] if name in weights],
            sorted((item.name, item.i) for item in each.attribute),
        )
        for each in nodes_of(proto)
        if each.op_type in kept
    }


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize(("form", "kind", "opset"), QUANTISERS)
def test_a_quantised_model_stays_as_it_is_under_any_plan(quantise, form, kind, opset, plan):
    """Every layer of it is int8 already; what conversion gives computes the same, bit for bit."""
    proto = quantise(form, kind, opset)
    loaded = load_model(proto)
    calibration = opened(proto).calibrate(cache=False)
    made = convert(loaded, plan, calibration=calibration)
    assert made.low_share == 0
    shown = {each.layer_id: each for each in made.decisions if each.format == "int8"}
    assert len(shown) >= 7
    assert all(each.reason.startswith("quantised in the source model") for each in shown.values())
    assert not any(made.decisions.typing.layers[name].switchable for name in shown)
    before, after = pairs_of(proto), pairs_of(made.proto)
    assert {name: after[name] for name in before} == before
    if plan.keep_io:
        feeds = feeds_for(proto)
        assert same(run(made.proto, feeds)[0], run(proto, feeds)[0])


@pytest.mark.parametrize("opset", [13, 17, 19, 21, 23])
def test_plans_convert_around_the_pairs(opset):
    """In fp16 casts stand around the pairs, whose scales stay fp32; the layer between them is int8."""
    proto = by_hand(opset)
    made = convert(load_model(proto), Plan())
    formats = {each.layer_id: each.format for each in made.decisions}
    assert formats["product"] == "int8"
    assert {formats[name] for name in ("tanh", "free", "relu", "weights_only")} == {"fp16"}
    assert {formats[name] for name in ("tc_q", "td_dq", "w_dq", "u_dq")} == {"fp32"}
    assert pairs_of(made.proto) == pairs_of(proto)
    assert disagreements(made.proto) == []
    feeds = feeds_for(proto)
    exact, low = run(proto, feeds)[0], faithful.evaluate(made.proto, feeds)["y"]
    assert 0 < np.abs(low - exact).max() < 0.02 * np.abs(exact).max()


def test_the_emulation_of_what_stands_around_equals_the_exported_model():
    proto = by_hand()
    x = opened(proto)
    x.plan = Plan()
    _, found = x.outputs()
    wanted = faithful.evaluate(x.convert().proto, x.samples.feeds[0])
    assert same(found["y"], wanted["y"])
    errors = x.errors().set_index("id")
    assert errors.loc["product", "format"] == "int8"
    assert errors.loc["free", "local_sqnr_db"] > 40
    assert x.accuracy() is None


def test_int8_plans_quantise_the_others_and_no_weight_twice():
    proto = by_hand()
    x = opened(proto)
    x.plan = Plan(format="int8")
    decisions = x.decisions()
    assert decisions.low_layers == {"free"}
    assert decisions["product"].format == "int8"
    assert decisions["weights_only"].format == "fp32"
    assert "quantised in the source model" in decisions["weights_only"].reason
    made = x.convert()
    before = pairs_of(proto)
    after = pairs_of(made.proto)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3, "one pair on the data and one dequantised weight"
    _, found = x.outputs()
    assert same(found["y"], run(made.proto, x.samples.feeds[0])[0])


def test_the_search_works_around_them():
    x = opened(by_hand())
    x.plan = Plan()
    front = x.search(seconds=5)
    assert front.points
    for point in front.points:
        x.plan = point.plan
        decisions = x.decisions()
        assert decisions["product"].format == "int8"
        assert "product" not in decisions.low_layers | decisions.int8_layers


def test_findings_tell_of_them_once_and_nothing_else_of_them(quantise):
    x = opened(quantise("QDQ", "QInt8", 17))
    for plan in (Plan(), Plan(format="int8")):
        x.plan = plan
        found = {each.id: each for each in x.findings()}
        assert found["came-quantised"].title == "8 layers come in int8 from the source model"
        about = {layer for name, each in found.items() if name != "came-quantised" for layer in each.layers}
        assert not about & set(found["came-quantised"].layers)
    assert "came-quantised" not in {each.id for each in opened(network()).findings()}


# -- what does not run in int8 -----------------------------------------------------------------------------------------


def test_weights_alone_in_int8_leave_the_layer_free_for_fp16():
    found = source_layers(load_model(by_hand()))
    assert dict(found.formats) == {"product": "int8"}
    assert found.stored == {"wd": "int8", "ud": "int8"}


def trained() -> onnx.ModelProto:
    """As training with quantisation exports: weights are fp32, and quantised in the graph, one after it was moved."""
    rng = np.random.default_rng(2)
    nodes = [
        *pair("x", "xc", "xd"),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wc"], "w_q", axis=1),
        node("DequantizeLinear", ["wc", "ws", "wz"], ["wd"], "w_dq", axis=1),
        node("MatMul", ["xd", "wd"], ["m"], "product"),
        node("Tanh", ["m"], ["t"], "tanh"),
        node("Transpose", ["u"], ["ut"], "turn", perm=[1, 0]),
        *pair("ut", "uc", "ud"),
        node("MatMul", ["t", "ud"], ["y"], "weights_only"),
    ]
    weights = [
        weight("s", np.float32(1 / 127)), weight("z", np.int8(0)), weight("w", rng.standard_normal((8, 6))),
        weight("ws", np.linspace(0.02, 0.03, 6).astype(np.float32)), weight("wz", np.zeros(6, np.int8)),
        weight("u", rng.uniform(-1, 1, (4, 6))),
    ]  # fmt: skip
    return model(nodes, [value("x", ["n", 8])], [value("y", ["n", 4])], weights)


def test_weights_that_the_graph_itself_quantises_are_quantised_weights():
    found = source_layers(load_model(trained()))
    assert dict(found.formats) == {"product": "int8"}
    assert found.stored == {"wd": "int8", "ud": "int8"}


def test_rows_that_inputs_choose_from_a_weight_are_data():
    """What an embedding gives is an activation, though its first operand is a weight."""
    nodes = [
        node("Gather", ["table", "ids"], ["g"], "embed"),
        *pair("g", "gc", "gd"),
        node("DequantizeLinear", ["wc", "s", "z"], ["wd"], "w_dq"),
        node("MatMul", ["gd", "wd"], ["y"], "product"),
    ]
    weights = [
        weight("table", np.ones((9, 4), np.float32)), weight("s", np.float32(0.1)), weight("z", np.int8(0)),
        weight("wc", np.eye(4, dtype=np.int8)),
    ]  # fmt: skip
    proto = model(nodes, [value("ids", ["n"], TensorProto.INT64)], [value("y", ["n", 4])], weights)
    found = source_layers(load_model(proto))
    assert dict(found.formats) == {"product": "int8"}
    assert found.stored == {"wd": "int8"}


def test_no_weight_that_the_graph_quantises_is_quantised_twice():
    proto = trained()
    x = opened(proto)
    x.plan = Plan(format="int8")
    assert x.decisions()["weights_only"].reason.startswith("its weight is quantised in the source model")
    assert pairs_of(x.convert().proto) == pairs_of(proto)


@pytest.mark.parametrize("codes", ["int4", "uint4"])
def test_blocks_of_four_bits_load_and_are_left_alone(codes):
    kind = TensorProto.INT4 if codes == "int4" else TensorProto.UINT4
    rng = np.random.default_rng(0)
    packed = helper.make_tensor("wc", kind, [8, 4], rng.integers(0, 8, 32).tolist())
    nodes = [
        node("DequantizeLinear", ["wc", "ws"], ["wd"], "dq", axis=0, block_size=4),
        node("MatMul", ["x", "wd"], ["m"], "product"),
        node("Exp", ["m"], ["y"], "exp"),
    ]
    weights = [packed, weight("ws", np.full((2, 4), 0.01, np.float32))]
    proto = model(nodes, [value("x", ["n", 8])], [value("y", ["n", 4])], weights, opset=21)
    loaded = load_model(proto)
    scale = source_quantisation(loaded)["wd"]
    assert (scale.dtype, scale.axis, scale.block, scale.scale.shape) == (codes, 0, 4, (2, 4))
    assert {each.layer_id: each.format for each in convert(loaded, Plan()).decisions} == {
        "dq": "fp32", "product": "fp16", "exp": "fp16",
    }  # fmt: skip
    assert type_layers(loaded, "int8").layers["product"].blocked.startswith("its weight is quantised")
    feeds = feeds_for(proto)
    assert same(run(convert(loaded, Plan(base="fp32")).proto, feeds)[0], run(proto, feeds)[0])
    x = opened(proto)
    x.plan = Plan()
    assert x.errors().set_index("id").loc["product", "local_sqnr_db"] > 40
    (entry,) = layer_details(loaded, "product", "fp16")["quantisation"]
    assert (entry["scales"], entry["block"], entry["zero"]) == (8, 4, "0")


def test_sixteen_bits_are_left_alone_and_not_called_int8():
    nodes = [
        *pair("x", "xc", "xd"),
        node("DequantizeLinear", ["wc", "s", "z"], ["wd"], "w_dq"),
        node("MatMul", ["xd", "wd"], ["y"], "product"),
    ]
    weights = [weight("s", np.float32(1e-3)), weight("z", np.int16(0)), weight("wc", np.eye(4, dtype=np.int16))]
    loaded = load_model(model(nodes, [value("x")], [value("y")], weights, opset=21))
    for plan in (Plan(), Plan(format="int8")):
        decision = convert(loaded, plan).decisions["product"]
        assert decision.format == "fp32"
        assert "int16" in decision.reason


@pytest.mark.parametrize(("kind", "shown"), [("FLOAT8E4M3FN", "fp8e4m3"), ("FLOAT8E5M2", "fp8e5m2")])
def test_fp8_in_the_source_model_is_shown_as_such(kind, shown):
    dtype = getattr(TensorProto, kind)
    zero = helper.make_tensor("z", dtype, [], [0.0])
    codes = helper.make_tensor("wc", dtype, [4, 4], np.eye(4).ravel().tolist())
    nodes = [
        *pair("x", "xc", "xd"),
        node("DequantizeLinear", ["wc", "s", "z"], ["wd"], "w_dq"),
        node("MatMul", ["xd", "wd"], ["y"], "product"),
    ]
    proto = model(nodes, [value("x")], [value("y")], [weight("s", np.float32(1)), zero, codes], opset=19)
    made = convert(load_model(proto), Plan())
    assert made.decisions["product"].format == shown == get_format(shown).name
    x = opened(proto)
    x.plan = Plan(format="tf32")
    assert x.errors().set_index("id").loc["product", "format"] == shown


def test_a_layer_without_integer_kernel_between_pairs_stays_free():
    nodes = [*pair("x", "xc", "xd"), node("Erf", ["xd"], ["e"], "erf"), *pair("e", "ec", "y")]
    proto = model(nodes, [value("x")], [value("y")], [weight("s", np.float32(0.1)), weight("z", np.int8(0))])
    assert convert(load_model(proto), Plan()).decisions["erf"].format == "fp16"


@pytest.mark.parametrize("returned", [True, False])
def test_a_sum_is_int8_only_where_all_that_read_it_quantise_it(returned):
    nodes = [*pair("x", "xc", "xd"), node("Add", ["xd", "xd"], ["e"], "sum"), *pair("e", "ec", "y")]
    outputs = [value("y"), *([value("e")] if returned else [])]
    proto = model(nodes, [value("x")], outputs, [weight("s", np.float32(0.1)), weight("z", np.int8(0))])
    assert dict(source_layers(load_model(proto)).formats) == ({} if returned else {"sum": "int8"})


# -- scales are shown --------------------------------------------------------------------------------------------------


def test_scales_of_the_source_are_read(quantise):
    proto = quantise("QDQ", "QUInt8", 17)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = source_quantisation(load_model(proto))
    assert found["x"].dtype == "uint8"
    assert found["x"].scale == weights["x_scale"]
    assert found["x"].zero_point == weights["x_zero_point"]
    assert not found["x"].symmetric
    channels = found["w1_DequantizeLinear_Output"]
    assert (channels.dtype, channels.axis, channels.symmetric) == ("int8", 0, True)
    assert (channels.scale == weights["w1_scale"]).all()


def test_scales_of_integer_operators_are_read(quantise):
    found = source_quantisation(load_model(quantise("QOperator", "QInt8", 17)))
    assert found["w1_quantized"].axis == 0
    assert found["w1_quantized"].scale.shape == (4,)
    assert found["w3_quantized"].scale.shape == (5,)
    assert {found[name].dtype for name in ("c1_quantized", "s_quantized", "y")} == {"int8"}


def test_scales_that_are_computed_while_the_model_runs_are_not_told():
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["c", "s", "z"], "q"),
        node("DequantizeLinear", ["c", "s", "z"], ["y"], "dq"),
    ]
    proto = model(nodes, [value("x")], [value("y")])
    assert source_quantisation(load_model(proto)) == {}
    x = opened(proto)
    assert {each.format for each in x.decisions()} == {"fp32"}


def test_inspect_tells_them(tmp_path, quantise):
    from typer.testing import CliRunner  # noqa: PLC0415 - with the command line only

    path = tmp_path / "m.onnx"
    onnx.save(quantise("QDQ", "QInt8", 17), path)
    told = CliRunner().invoke(app, ["inspect", str(path), "--match", "conv1"], env={"COLUMNS": "200"})
    assert "w1_DequantizeLinear_Output" in told.output
    assert "axis 0: 4" in told.output
    whole = CliRunner().invoke(app, ["inspect", str(path)], env={"COLUMNS": "200"})
    assert "8 layers in int8" in whole.output
    document = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout)
    assert document["quantisation"]["layers"]["conv1"] == "int8"
    assert {"tensor", "dtype", "axis", "block", "scales", "least", "largest", "zero"} == set(
        document["quantisation"]["tensors"][0]
    )
