"""Findings about the sample models are what their authors broke on purpose, and every fix mends it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

import explorer
from explorer.advise import Finding, Fix
from explorer.plan import Plan

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NORMS = ("blocks/0/norm1", "blocks/0/norm2", "blocks/1/norm1", "blocks/1/norm2", "norm")
MASKED = {
    "blocks/0/norm1/Add", "blocks/0/norm1/Sqrt", "bias/Where", "blocks/0/attention/Add", "blocks/0/attention/Softmax",
    "blocks/1/attention/Add", "blocks/1/attention/Softmax",
}  # fmt: skip
F = onnx.TensorProto.FLOAT


def opened(name, plan=None):
    return explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", plan=plan)


def by_id(found):
    return {each.id: each for each in found}


def net(nodes, weights, shape=(4, 8), values=None, outputs=("y",)):
    """An exploration of a graph with one input x."""
    h = onnx.helper
    graph = h.make_graph(
        nodes, "net", [h.make_tensor_value_info("x", F, shape)],
        [h.make_tensor_value_info(name, F, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9)
    data = np.linspace(0.5, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape) if values is None else values
    return explorer.open(proto, inputs={"x": data}, target=None)


def node(op, inputs, output, name=None, **attributes):
    return onnx.helper.make_node(op, inputs, [output], name=name or output, **attributes)


@pytest.mark.parametrize(
    ("name", "layers", "kinds"),
    [
        ("digits_transformer", {f"{n}/{o}" for n in NORMS for o in ("Pow", "ReduceMean_1", "Add", "Sqrt")}, {"norm"}),
        ("digits_transformer_mask", MASKED, {"mask", "epsilon"}),
    ],
)
def test_fix_of_the_first_finding_restores_every_prediction(name, layers, kinds):
    """It names exactly the layers that must stay, and no other runs high after it."""
    x = opened(name)
    before = x.decisions().low_layers
    found = x.findings()
    assert found[0].tone == "stop"
    assert set(found[0].layers) == layers
    assert kinds <= {each.id for each in found}
    assert set().union(*(each.layers for each in found if each.id in kinds)) == layers
    x.plan = found[0].fix.apply(x.plan)
    assert before - x.decisions().low_layers == layers
    assert x.accuracy().agreement == 1
    after = x.findings()
    assert after[0].tone == "good"
    assert not [each for each in after if each.tone in ("stop", "warn")]


def test_fix_reads_well_and_its_code_does_the_same():
    x = opened("digits_transformer")
    fix = x.findings()[0].fix
    assert fix.block == ("*norm*/Pow", "*norm*/ReduceMean_1", "*norm*/Add", "*norm*/Sqrt")
    wanted = fix.apply(x.plan)
    exec(fix.code, {"x": x, "explorer": explorer})
    assert x.plan == wanted
    assert fix.options.startswith("--block '*norm*/Pow' --block")


def test_a_plan_half_way_is_told_the_rest():
    """With the squares blocked, the mean, the sum and the root behind them are still named."""
    x = opened("digits_transformer", Plan().block(layers=["*norm*/Pow"]))
    found = x.findings()[0]
    assert {layer.rpartition("/")[2] for layer in found.layers} == {"ReduceMean_1", "Add", "Sqrt"}
    x.plan = found.fix.apply(x.plan)
    assert x.accuracy().agreement == 1


def test_an_override_that_asks_for_fp16_does_not_undo_the_fix():
    x = opened("digits_transformer", Plan().set({"norm/Pow": "fp16"}))
    x.plan = x.findings()[0].fix.apply(x.plan)
    assert x.accuracy().agreement == 1


@pytest.mark.parametrize("name", ["lenet5_digits", "misaligned_cnn"])
def test_where_nothing_breaks_that_is_said_first(name):
    found = opened(name).findings()
    assert (found[0].id, found[0].tone) == ("holds", "good")
    assert not [each for each in found if each.fix]


def test_bf16_fix_gives_a_plan_that_runs():
    x = opened("digits_transformer")
    fix = by_id(x.findings())["bf16"].fix
    x.plan = fix.apply(x.plan)
    assert x.plan.format == "bf16"
    assert x.output_error()["sqnr_db"].min() > 20


def test_every_finding_is_told_with_figures_and_ids_are_unique():
    found = opened("digits_transformer_mask").findings()
    assert len({each.id for each in found}) == len(found)
    assert all(each.evidence for each in found)
    assert "1e-12" in by_id(found)["epsilon"].evidence
    assert "3.4e+38" in by_id(found)["mask"].evidence


def test_softmax_in_parts_is_recognised_by_its_exponentials():
    big = np.full((4, 8), 12, np.float32)
    x = net([node("Exp", ["x"], "e"), node("ReduceSum", ["e"], "s"), node("Div", ["e", "s"], "y")], {}, values=big)
    found = x.findings()
    assert "softmax" in by_id(found)
    x.plan = found[0].fix.apply(x.plan)
    assert x.output_error()["sqnr_db"].min() > 40


def test_mask_that_hides_only_some_positions_is_harmless():
    mask = np.zeros((4, 8), np.float32)
    mask[:, ::2] = -3.4e38
    x = net([node("Add", ["x", "m"], "a"), node("Softmax", ["a"], "y")], {"m": mask})
    found = by_id(x.findings())
    assert found["mask-harmless" if "mask-harmless" in found else "range-harmless"].fix is None


def test_input_beyond_the_range_is_told():
    x = net([node("Mul", ["x", "w"], "y")], {"w": np.float32(1e-4)}, values=np.full((4, 8), 1e5, np.float32))
    found = x.findings()
    assert "input" in by_id(found)
    x.plan = found[0].fix.apply(x.plan)
    assert x.output_error()["sqnr_db"].min() > 40


def test_long_sum_is_told():
    x = net([node("ReduceSum", ["x", "a"], "y")], {"a": np.int64([1])}, shape=(1, 4096))
    assert "4,096 terms" in by_id(x.findings())["long-sums"].evidence


@pytest.mark.parametrize("name", ["<script>x</script>", "a\nb", "*[?]", "y" * 10_000, "it's"])
def test_hostile_names_stay_short_plain_text_and_the_fix_names_them(name):
    big = np.full((4, 8), 1000, np.float32)
    x = net([node("Mul", ["x", "x"], "p", name), node("Sqrt", ["p"], "y", name + "2")], {}, values=big)
    found = x.findings()
    assert all(len(each.text) + len(each.evidence) < 2000 for each in found)
    assert all("\n" not in each.text for each in found)
    x.plan = found[0].fix.apply(x.plan)
    assert not x.decisions().low_layers


def test_a_plan_that_keeps_all_in_fp32_is_not_praised():
    assert opened("digits_transformer", Plan.preset("fp32")).findings()[0].id == "nothing-low"


def test_values_are_frozen():
    fix = Fix(label="x", formats={"a": "fp32"})
    with pytest.raises(AttributeError):
        fix.label = "y"
    with pytest.raises(TypeError):
        fix.formats["b"] = "fp16"
    assert Finding(id="a", tone="note", title="t", text="x").fix is None


# -- what breaks, cause by cause ---------------------------------------------------------------------------------------


def normed(scale=1.0, epsilon=1e-5, *, size=300.0):
    """A decomposed LayerNorm over values of about ``size``, divided by ``scale`` before the square."""
    nodes = [
        node("ReduceMean", ["x", "a"], "mean"), node("Sub", ["x", "mean"], "centred"),
        node("Mul", ["centred", "k"], "small"), node("Pow", ["small", "two"], "square"),
        node("ReduceMean", ["square", "a"], "variance"), node("Add", ["variance", "e"], "sum"),
        node("Sqrt", ["sum"], "root"), node("Div", ["small", "root"], "y"),
    ]  # fmt: skip
    values = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32) * size
    weights = {"a": np.int64([1]), "k": np.float32(1 / scale), "two": np.float32(2), "e": np.float32(epsilon)}
    return net(nodes, weights, values=values, shape=(4, 64))


def test_variance_written_out_is_a_norm_and_a_small_one_is_not_told():
    assert "norm" in by_id(normed(size=3000).findings())
    calm = by_id(normed(size=3).findings())
    assert not {"norm", "scaled-norm", "path", "bf16"} & set(calm)


@pytest.mark.parametrize(
    ("op", "size", "told"),
    [("ReduceL2", 3e4, True), ("ReduceL2", 3, False), ("ReduceSumSquare", 3e3, True), ("ReduceSumSquare", 3, False)],
)
def test_l2_norm_that_overflows_is_a_norm(op, size, told):
    big = np.full((4, 64), size, np.float32)
    tail = [node("Sqrt", ["n"], "r")] if op == "ReduceSumSquare" else [node("Identity", ["n"], "r")]
    x = net([node(op, ["x", "a"], "n"), *tail, node("Div", ["x", "r"], "y")], {"a": np.int64([1])}, values=big,
            shape=(4, 64))  # fmt: skip
    assert ("norm" in by_id(x.findings())) == told


def test_the_scale_that_is_proposed_holds():
    """What is predicted from ranges is what the scaled model gives when it is run."""
    x = normed(size=3000)
    told = by_id(x.findings())["scaled-norm"]
    assert "was not run" in told.evidence
    factor = int(told.title.split("1/")[1].split(",")[0])
    scaled = normed(factor, 1e-5 / factor**2, size=3000)
    assert scaled.findings()[0].id == "holds"
    assert scaled.output_error()["sqnr_db"].min() > 40
    assert normed(factor / 4, 1e-5, size=3000).findings()[0].id == "breaks"  # much less would not have been enough


def test_a_scaled_range_names_the_values_that_would_become_too_small():
    nodes = [node("Mul", ["x", "k"], "m"), node("Mul", ["m", "l"], "y")]
    weights = {"k": np.float32(1e6), "l": np.float32(1e-6)}
    found = by_id(net(nodes, weights | {"k": np.float32(5e4)}).findings())
    assert "1/4," in found["scaled"].title  # 2 * 5e4 = 1e5 fits 65,504 with a factor of two to spare at a quarter
    assert "0.000244 would lose digits" in found["scaled"].evidence
    assert "scaled" not in by_id(net(nodes, weights | {"k": np.float32(2)}).findings())


def test_the_path_goes_layer_by_layer_from_the_first_broken_to_an_output():
    x = normed(size=3000)
    path = by_id(x.findings())["path"].layers
    assert path == ("square", "variance", "sum", "root", "y")
    assert path[0] == x.first_nonfinite()
    for layer, following in itertools.pairwise(path):
        assert set(x.model.layer(layer).outputs) & set(x.model.layer(following).inputs)


def test_weights_beyond_the_range_are_told_and_others_are_not():
    for value, told in ((1e6, True), (2.0, False)):
        x = net([node("Mul", ["x", "w"], "m"), node("Mul", ["m", "v"], "y")],
                {"w": np.float32(value), "v": np.float32(1 / value)})  # fmt: skip
        found = by_id(x.findings())
        assert ("weights" in found) == told
        assert (x.findings()[0].tone == "stop") == told


def test_layers_full_of_subnormals_are_told_and_others_are_not():
    values = np.linspace(0.5, 1, 32, dtype=np.float32).reshape(4, 8)
    mixed = np.tile(np.float32([1e-7, 1]), 4)
    for weight, told in ((mixed, True), (np.ones(8, np.float32), False)):
        found = by_id(net([node("Mul", ["x", "w"], "y")], {"w": weight}, values=values).findings())
        assert bool({"subnormal", "vanish"} & set(found)) == told


def test_a_pool_over_a_large_image_is_a_long_sum():
    pool = [node("GlobalAveragePool", ["x"], "y")]
    assert "long-sums" in by_id(net(pool, {}, shape=(1, 2, 64, 64)).findings())
    assert "long-sums" not in by_id(net(pool, {}, shape=(1, 2, 16, 16)).findings())
