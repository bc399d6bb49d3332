"""Each finding is true of the figures it rests on: its tone, its reason, the layers it names, and the fix it offers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.graphs import INT64, model, node, value, weight

import explorer
from explorer.plan import Plan
from explorer.report.layers import Layers
from explorer.report.story import verdict
from explorer.reporting import report_data

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((16, 64)).astype(np.float32)


def square(*shape):
    return (RANDOM.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def opened(layers, weights, **inputs):
    """An exploration of layers ``(op, inputs, name)``, each of which makes the value of its name; the last one is y."""
    nodes = [node(op, reads, [name], name, **(rest[0] if rest else {})) for op, reads, name, *rest in layers]
    nodes[-1].output[0] = "y"
    inputs = inputs or {"x": X}
    proto = model(
        nodes, [value(name, each.shape) for name, each in inputs.items()], [value("y", None)],
        [weight(name, each) for name, each in weights.items()],
    )  # fmt: skip
    return explorer.open(proto, inputs=inputs, target=None)


def by_id(found):
    return {each.id: each for each in found}


def mended(x, finding):
    """The least SQNR of an output after the fix of a finding."""
    x.plan = finding.fix.apply(x.plan)
    return x.output_error()["sqnr_db"].min(skipna=False)


# -- weights beyond the range ------------------------------------------------------------------------------------------


def one_large_weight():
    large = square(64, 64)
    large[3, 4] = 1e6
    layers = [("MatMul", ["x", "w"], "fc"), ("Tanh", ["fc"], "tanh"), ("MatMul", ["tanh", "v"], "head")]
    return opened(layers, {"w": large, "v": square(64, 10)})


def test_a_large_weight_that_harms_no_output_is_told_once_with_its_layer_and_a_fix():
    x = one_large_weight()
    found = x.findings()
    assert not [each for each in found if each.tone == "stop"]
    told = by_id(found)["weight-harmless"]
    assert (told.tone, told.layers) == ("warn", ("fc",))
    assert "'fc' reads 'w', of whose 4,096 values 1 is beyond 65,504, the largest 1e+06" in told.evidence
    assert "overflow" not in by_id(found).get("weights", told).evidence
    assert found[0].fix.block == told.fix.block
    assert mended(x, told) > 60
    assert not [each for each in x.findings() if each.tone in ("stop", "warn")]


@pytest.mark.parametrize(("op", "value_of", "back"), [("Mul", 1e6, 1e-6), ("Div", 1e6, 1e6)])
def test_a_large_weight_that_spoils_the_output_stops_and_is_no_mask(op, value_of, back):
    """A product with it is infinite; divided by it, all becomes zero and nothing is infinite at all."""
    x = opened([(op, ["x", "w"], "large"), ("Mul", ["large", "v"], "y")], {"w": value_of, "v": back}, x=X * 100)
    found = by_id(x.findings())
    assert found["weight"].tone == "stop"
    assert not {"mask", "range"} & set(found)
    assert mended(x, found["weight"]) > 60


def test_a_weight_that_was_clamped_as_asked_is_no_reason_to_stop():
    told = by_id(one_large_weight().findings(clamp=True))["weight-harmless"]
    assert told.tone == "warn"
    assert "clamped, as asked" in told.text
    x = opened([("Mul", ["x", "w"], "large"), ("Mul", ["large", "v"], "y")], {"w": 1e6, "v": 1e-6})
    assert by_id(x.findings(clamp=True))["weight"].tone == "warn"


def test_the_constant_of_a_mask_is_not_told_as_a_weight_too():
    x = explorer.open(SAMPLES / "digits_transformer_mask.onnx", inputs=SAMPLES / "digits_transformer_mask.npz")
    found = by_id(x.findings())
    assert found["mask"].tone == "stop"
    assert found["weights"].tone == "note"
    assert "overflow" not in found["weights"].evidence
    assert "infinite" not in found["weights"].text


# -- overflow that does no harm ----------------------------------------------------------------------------------------


def test_a_mask_that_is_an_input_is_a_mask():
    hidden = np.where(RANDOM.random((16, 64)) < 0.3, -1e9, 0).astype(np.float32)
    layers = [("MatMul", ["x", "w"], "fc"), ("Add", ["fc", "hide"], "masked"), ("Softmax", ["masked"], "soft"),
              ("MatMul", ["soft", "v"], "head")]  # fmt: skip
    weights = {"w": square(64, 64), "v": square(64, 10)}
    x = opened(layers, weights, x=X, hide=hidden)
    told = by_id(x.findings())["mask-harmless"]
    assert (told.tone, told.fix, told.layers) == ("note", None, ("masked",))
    assert "'soft' (Softmax), gives the right result" in told.text
    assert "must stay" not in told.text
    hidden[3] = -1e9  # a row that is masked throughout
    x = opened(layers, weights, x=X, hide=hidden)
    told = by_id(x.findings())["mask"]
    assert told.tone == "stop"
    assert mended(x, told) > 40


def test_harmless_overflow_names_what_reads_it_and_asks_for_nothing():
    layers = [("Mul", ["x", "k"], "large"), ("Tanh", ["large"], "tanh"), ("MatMul", ["tanh", "v"], "head")]
    x = opened(layers, {"k": 6e4, "v": square(64, 10)}, x=np.sign(X) * (np.abs(X) + 1))
    found = x.findings()
    told = by_id(found)["range-harmless"]
    assert (told.tone, told.fix) == ("note", None)
    assert "'tanh' (Tanh), gives the right result" in told.text
    assert "softmax" not in told.text.lower()
    assert "must" not in told.text
    assert (found[0].id, found[0].tone, found[0].fix) == ("breaks", "warn", None)
    assert "Nothing has to change" in found[0].text


def test_infinities_that_make_an_output_zero_break_the_model_though_it_is_finite():
    """No labels are needed to see it."""
    layers = [("Mul", ["x", "x"], "squared"), ("ReduceMean", ["squared"], "mean", {"axes": [1]}),
              ("Sqrt", ["mean"], "root"), ("Div", ["x", "root"], "y")]  # fmt: skip
    x = opened(layers, {}, x=X * 1000)
    lead = x.findings()[0]
    assert (lead.id, lead.tone) == ("breaks", "stop")
    assert "0.0 dB SQNR" in lead.text
    shown = report_data(x, runs=1)
    assert verdict(shown, Layers.of(shown)).icon == "stop"
    assert mended(x, lead) > 60


def test_a_logarithm_of_what_became_zero_is_mended_with_what_made_it_zero():
    x = opened([("Relu", ["x"], "relu"), ("Log", ["relu"], "log")], {}, x=np.full((2, 4), 1e-9, np.float32))
    told = by_id(x.findings())["inside"]
    assert told.layers == ("relu", "log")
    assert mended(x, told) > 60


def test_an_exponential_that_no_sum_follows_is_no_softmax_and_cannot_be_scaled():
    x = opened([("Exp", ["x"], "grown"), ("MatMul", ["grown", "v"], "head")], {"v": square(64, 10)}, x=np.abs(X) + 11)
    found = by_id(x.findings())
    assert "range" in found
    assert not {"softmax", "scaled"} & set(found)


# -- rounding alone ----------------------------------------------------------------------------------------------------

OFFSET = [("MatMul", ["x", "w"], "fc"), ("Mul", ["fc", "k"], "up"), ("Add", ["up", "c"], "offset")]
WEIGHTS = {"w": square(64, 64), "k": 50.0, "c": 6e4, "v": square(64, 10)}
BACK = [("Sub", ["offset", "c"], "back"), ("MatMul", ["back", "v"], "head")]
MOVED = [("Mul", ["offset", "h"], "halved"), ("Transpose", ["halved"], "turned"), ("Transpose", ["turned"], "again"),
         ("Sub", ["again", "d"], "back"), ("MatMul", ["back", "v"], "head")]  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "weights", "named"),
    [
        (OFFSET + BACK, {}, ("offset", "back")),
        (OFFSET + MOVED, {"h": 0.4, "d": 24e3}, ("offset", "halved", "turned", "again", "back")),
        ([("Mul", ["x", "k"], "up"), ("Sin", ["up"], "sine"), ("MatMul", ["sine", "v"], "head")], {"k": 1000.0},
         ("up", "sine")),
    ],
    ids=["subtracted", "moved in between", "a steep function"],
)  # fmt: skip
def test_where_the_error_comes_in_at_once_is_named_and_its_fix_mends_it(layers, weights, named):
    used = {name: each for name, each in (WEIGHTS | weights).items() if any(name in reads for _, reads, *_ in layers)}
    x = opened(layers, used)
    lead = x.findings()[0]
    assert (lead.id, lead.tone, lead.layers) == ("far-off", "warn", named)
    assert lead.fix.label.startswith("Try")
    assert mended(x, lead) > 60


def test_the_search_that_a_finding_names_is_one_call_and_keeps_its_promise():
    x = opened(OFFSET + BACK, WEIGHTS)
    call = next(each.text for each in x.findings() if each.id == "far-off")
    call = call[call.index("x.search") : call.index(" finds a plan")]
    x.plan = eval(call, {"x": x})
    assert x.output_error()["rel_l2"].max() < 0.01


def test_an_error_that_grows_little_by_little_names_no_layer():
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz", plan=Plan(format="fp8e5m2"))
    lead = x.findings()[0]
    assert (lead.id, lead.tone, lead.layers, lead.fix) == ("accuracy", "stop", (), None)
    assert "little by little" in lead.text
    assert "--format fp8e5m2" in lead.text


def test_what_a_subtraction_loses_is_not_told_as_small_values_that_vanish():
    """Its result is small, but its error is far larger than the smallest numbers: keeping it alone mends nothing."""
    near = square(64, 64)
    layers = [("MatMul", ["x", "w"], "one"), ("MatMul", ["x", "u"], "other"), ("Sub", ["one", "other"], "difference"),
              ("Relu", ["difference"], "relu")]  # fmt: skip
    x = opened(layers, {"w": near, "u": near * (1 + 1e-4 * square(64, 64))})
    found = by_id(x.findings())
    assert "vanish" not in found
    assert found["far-off"].layers == ("one", "other", "difference")


# -- plans that change nothing -----------------------------------------------------------------------------------------


def quantised():
    """A product between DequantizeLinear and QuantizeLinear, and nothing else."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"), node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "d"),
        node("DequantizeLinear", ["w", "s", "z"], ["wd"], "dw"), node("MatMul", ["xd", "wd"], ["a"], "product"),
        node("QuantizeLinear", ["a", "s", "z"], ["aq"], "qa"), node("DequantizeLinear", ["aq", "s", "z"], ["y"], "da"),
    ]  # fmt: skip
    weights = [weight("s", 0.05), weight("z", np.int8(0)), weight("w", np.ones((64, 4), np.int8))]
    return model(nodes, [value("x", (16, 64))], [value("y", (16, 4))], weights)


def test_a_model_that_came_quantised_is_not_said_to_hold():
    x = explorer.open(quantised(), inputs={"x": X})
    found = x.findings()
    assert (found[0].id, found[0].tone) == ("nothing-low", "note")
    assert "those of the model as it was given" in found[0].text
    shown = report_data(x, runs=1)
    told = verdict(shown, Layers.of(shown))
    assert (told.icon, told.title) == ("note", "Nothing runs in fp16 under this plan")
    assert "exactly" not in told.body


def test_a_model_without_floats_is_told_to_have_no_format_to_choose():
    nodes = [onnx.helper.make_node("Add", ["x", "c"], ["y"], "add")]
    proto = model(nodes, [value("x", (2, 4), INT64)], [value("y", (2, 4), INT64)], [weight("c", np.arange(4))])
    found = explorer.open(proto).findings()
    assert found[0].id == "nothing-low"
    assert "no format to choose" in found[0].text
