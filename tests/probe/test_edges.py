"""Where measuring gets hard: what is not finite, huge, tiny, empty, of unknown size, or no tensor at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.graphs import BOOL, FLOAT, INT64, feeds_for, graph, helper, model, node, run, value, weight
from support.probing import Bench, rounded, same

import explorer
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.errors import BackendError, ModelError
from explorer.model import load_model
from explorer.plan import Plan


def opened(proto, feeds=None, plan=None, **more):
    """An exploration that asks only what ONNX allows."""
    return explorer.open(proto, inputs=feeds_for(proto) if feeds is None else feeds, plan=plan, target=None, **more)


def row(table, layer_id):
    return table.set_index("id").loc[layer_id]


def assert_complete(x):
    """A row for every layer, and a note wherever a figure is missing."""
    table = x.errors()
    assert list(table["id"]) == [layer.id for layer in x.model.layers]
    missing = table[table["local_rel_l2"].isna() & (table["nan"] == 0)]
    assert (missing["note"] != "").all(), missing
    return table


# -- not finite ----------------------------------------------------------------------------------------------------


def test_the_first_layer_that_overflows_is_named():
    """Not the first by name or by size of error: the first in execution order whose result is lost."""
    nodes = [
        node("Relu", ["x"], ["a"], "fine"),
        node("Mul", ["a", "big"], ["b"], "overflows"),
        node("Sub", ["b", "b"], ["c"], "makes_nan"),
        node("Add", ["c", "x"], ["y"], "spreads"),
    ]
    proto = model(nodes, [value("x")], [value("y")], [weight("big", 60000.0)])
    x = opened(proto, {"x": np.full((2, 4), 3.0, np.float32)})
    assert x.first_nonfinite() == "overflows"
    table = assert_complete(x)
    assert row(table, "overflows")["overflow"] == 8
    assert row(table, "overflows")["local_sqnr_db"] == -np.inf
    assert np.isnan(row(table, "makes_nan")["acc_sqnr_db"])
    assert row(table, "makes_nan")["nan"] == 8  # inf - inf: its inputs are beyond the format even when exact
    out = x.output_error().iloc[0]
    assert out["nan"] == 8
    assert out["overflow"] == 0
    x.plan = x.plan.block(layers=["overflows", "makes_nan"])
    assert x.first_nonfinite() is None
    assert x.output_error().iloc[0]["nan"] == 0


def test_lost_elements_are_counted_wherever_it_is_asked_first():
    """Counts of what the plan loses do not depend on whether local errors were measured before."""
    nodes = [node("Mul", ["x", "big"], ["a"], "mul"), node("Sub", ["a", "a"], ["y"], "sub")]
    proto = model(nodes, [value("x")], [value("y"), value("a")], [weight("big", 60000.0)])
    feeds = {"x": np.full((2, 4), 3.0, np.float32)}
    one, other = opened(proto, feeds), opened(proto, feeds)
    other.errors()
    for x in (one, other):
        table = x.output_error().set_index("output")
        assert table.loc["y", "nan"] == 8
        assert table.loc["a", "overflow"] == 8
        assert table.loc["a", "sqnr_db"] == -np.inf
    assert one.output_error().equals(other.output_error())


def masked_attention(mask):
    nodes = [
        node("MatMul", ["x", "w"], ["s"], "scores"),
        node("Add", ["s", "mask"], ["m"], "mask"),
        node("Softmax", ["m"], ["y"], "softmax", axis=-1),
    ]
    weights = [weight("w", np.eye(4)), weight("mask", np.float32([0, mask, 0, mask]))]
    return model(nodes, [value("x")], [value("y")], weights)


@pytest.mark.parametrize("mask", [-np.inf, -3.4e38, -1e30])
@pytest.mark.parametrize("low_format", ["fp16", "bf16"])
def test_masks_of_the_reference(mask, low_format):
    """Infinities of the exact model itself are no errors, and huge values leave sums finite and right."""
    x = opened(masked_attention(mask), plan=Plan(format=low_format))
    table = assert_complete(x)
    ranges = row(x.ranges(), "mask")
    assert ranges["nonfinite"] == (4 if np.isinf(mask) else 0)
    assert row(table, "softmax")["local_sqnr_db"] > 30
    assert row(table, "softmax")["acc_sqnr_db"] > 30
    masked = row(table, "mask")
    if np.isinf(mask):
        assert masked["local_sqnr_db"] > 30, "what is infinite in both is no error"
        assert masked["overflow"] == 0
        assert ranges["max_abs"] < 10, "the largest finite value"
        assert x.first_nonfinite() is None
    elif low_format == "fp16":
        assert masked["overflow"] == 4
        assert masked["local_sqnr_db"] == -np.inf
        assert x.first_nonfinite() == "mask"
    else:
        finite = rounded(mask, "bf16")
        assert masked["overflow"] == (0 if np.isfinite(finite) else 4)
        if np.isfinite(finite):
            wanted = abs(float(finite) - float(np.float32(mask))) / abs(float(np.float32(mask)))
            assert masked["local_rel_l2"] == pytest.approx(wanted, rel=1e-3, abs=1e-7)
        assert ranges["max_abs"] == pytest.approx(-mask, rel=1e-6)


def test_an_all_infinite_tensor():
    """A tensor without a single finite element has no error and no norm."""
    nodes = [node("Add", ["x", "m"], ["a"], "add"), node("Exp", ["a"], ["y"], "exp")]
    x = opened(model(nodes, [value("x")], [value("y")], [weight("m", -np.inf)]))
    table = assert_complete(x)
    assert row(table, "add")["local_rel_l2"] == 0
    assert row(x.ranges(), "add")["nonfinite"] == 8
    assert row(x.ranges(), "add")["max_abs"] == 0
    assert x.first_nonfinite() is None


def test_nan_of_the_reference_is_no_error():
    """0/0 in the exact model: those elements are left out, the others are measured."""
    nodes = [node("Div", ["x", "x"], ["a"], "div"), node("Mul", ["a", "w"], ["y"], "mul")]
    feeds = {"x": np.float32([[0, 1, 2, 3], [4, 5, 6, 0]])}
    x = opened(model(nodes, [value("x")], [value("y")], [weight("w", 0.1)]), feeds)
    table = assert_complete(x)
    assert row(x.ranges(), "div")["nonfinite"] == 2
    assert row(table, "mul")["nan"] == 0
    assert 60 < row(table, "mul")["local_sqnr_db"] < 120
    assert 60 < x.output_error().iloc[0]["sqnr_db"] < 120
    assert x.first_nonfinite() is None


# -- huge and tiny -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-20, 1e-16, 1e-3, 1.0, 1e12, 1e18, 1e25, 1e38])
def test_squares_beyond_float32(size):
    """Sums of squares neither overflow nor vanish: bf16's relative error is the same at every magnitude."""
    rng = np.random.default_rng(0)
    x = (rng.uniform(1, 2, (4, 64)) * size).astype(np.float32)
    nodes = [node("Neg", ["x"], ["a"], "neg"), node("Abs", ["a"], ["y"], "abs")]
    proto = model(nodes, [value("x", x.shape)], [value("y", x.shape)])
    found = opened(proto, {"x": x}, Plan(format="bf16"))
    exact, low = x.astype(np.float64), rounded(x, "bf16").astype(np.float64)
    wanted = np.sqrt(((low - exact) ** 2).sum() / (exact**2).sum())
    table = assert_complete(found)
    for layer in ("neg", "abs"):
        assert row(table, layer)["local_rel_l2"] == pytest.approx(wanted, rel=1e-4)
        assert row(table, layer)["acc_rel_l2"] == pytest.approx(wanted, rel=1e-4)
        assert row(found.ranges(), layer)["rms"] == pytest.approx(np.sqrt((exact**2).mean()), rel=1e-4)
    output = found.output_error().iloc[0]
    assert output["rel_l2"] == pytest.approx(wanted, rel=1e-4)
    assert output["cosine"] == pytest.approx((low * exact).sum() / np.sqrt((low**2).sum() * (exact**2).sum()), abs=1e-6)


def test_tiny_values_are_flushed_and_counted():
    x = np.full((2, 4), 1e-30, np.float32)
    found = opened(model([node("Neg", ["x"], ["y"], "neg")], [value("x")], [value("y")]), {"x": x})
    table = found.errors()
    assert row(table, "neg")["flushed"] == 8
    assert row(table, "neg")["local_rel_l2"] == pytest.approx(1.0)
    assert row(table, "neg")["local_max_abs"] == pytest.approx(1e-30)


def test_an_error_that_dwarfs_the_exact_values_is_large_and_finite():
    """The plan's values are finite: nothing overflowed, even where squares of their error leave float32."""
    nodes = [
        node("Add", ["x", "one"], ["a"], "add"),  # loses x
        node("Sub", ["a", "one"], ["b"], "sub"),
        node("Sub", ["b", "x"], ["c"], "rest"),  # exactly zero in fp32, -x under the plan
        node("Mul", ["c", "huge"], ["y"], "enlarge"),
    ]
    feeds = {"x": np.full((2, 4), 2.0**-12, np.float32)}
    proto = model(nodes, [value("x")], [value("y")], [weight("one", 1.0), weight("huge", 1e25)])
    x = opened(proto, feeds, Plan().block(layers=["enlarge", "rest"]))
    assert np.abs(x.outputs()[1]["y"]).max() == pytest.approx(2.0**-12 * 1e25)
    assert x.first_nonfinite() is None
    table = assert_complete(x)
    assert row(table, "enlarge")["acc_max_abs"] == pytest.approx(2.0**-12 * 1e25)
    assert row(table, "enlarge")["acc_sqnr_db"] == -np.inf  # the exact value is zero
    assert x.output_error().iloc[0]["overflow"] == 0


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_empty_tensors():
    """Layers whose tensors have no elements are measured as what they are: without error, without crash."""
    nodes = [
        node("Slice", ["x", "four", "ten"], ["a"], "empty"),
        node("Mul", ["a", "w"], ["b"], "mul"),
        node("Concat", ["b", "x"], ["y"], "join", axis=0),
    ]
    weights = [weight("four", np.array([4])), weight("ten", np.array([10])), weight("w", 3.0)]
    x = opened(model(nodes, [value("x")], [value("y")], weights))
    table = assert_complete(x)
    assert row(table, "mul")["elements"] == 0
    assert row(table, "mul")["local_rel_l2"] == 0
    assert row(table, "join")["elements"] == 8
    assert x.first_nonfinite() is None


def test_a_tensor_that_is_empty_in_the_last_batch_only():
    """Shapes follow the batch: a slice behind the first row is empty in a batch of one."""
    nodes = [
        node("Slice", ["x", "one", "many"], ["a"], "behind"),
        node("Mul", ["a", "w"], ["b"], "mul"),
        node("ReduceSum", ["b", "axes"], ["s"], "sum", keepdims=1),
        node("Add", ["x", "s"], ["y"], "add"),
    ]
    weights = [weight("one", np.array([1])), weight("many", np.array([1000])), weight("w", 0.1)]
    weights.append(weight("axes", np.array([0])))
    proto = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], weights)
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    x = opened(proto, feeds, batch_size=2)
    table = assert_complete(x)
    assert row(table, "mul")["elements"] == 8  # two batches of two rows, one of one
    assert np.isfinite(row(table, "mul")["local_sqnr_db"])
    assert x.output_error().iloc[0]["elements"] == 20


def test_a_partial_last_batch():
    nodes = [node("MatMul", ["x", "w"], ["a"], "mm"), node("Softmax", ["a"], ["y"], "soft")]
    rng = np.random.default_rng(0)
    proto = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [weight("w", rng.standard_normal((4, 4)))])
    x = opened(proto, {"x": rng.standard_normal((10, 4)).astype(np.float32)}, batch_size=4)
    assert [len(feed["x"]) for feed in x.samples.feeds] == [4, 4, 2]
    table = assert_complete(x)
    assert set(table["elements"]) == {40}
    exact, planned = x.outputs()
    assert exact["y"].shape == planned["y"].shape == (10, 4)
    assert same(exact["y"][8:], run(proto, {"x": x.samples.feeds[2]["x"]})[0])


def test_a_tensor_of_zeros():
    """Zeros are stored exactly; their error is none, not NaN."""
    x = opened(
        model([node("Neg", ["x"], ["y"], "neg")], [value("x")], [value("y")]), {"x": np.zeros((2, 4), np.float32)}
    )
    out = x.output_error().iloc[0]
    assert out["rel_l2"] == 0
    assert out["sqnr_db"] == np.inf
    assert row(x.errors(), "neg")["local_sqnr_db"] == np.inf


def test_a_scalar_model():
    """Rank 0 throughout."""
    proto = model([node("Mul", ["x", "w"], ["y"], "mul")], [value("x", ())], [value("y", ())], [weight("w", 0.1)])
    x = opened(proto, {"x": np.float32(3.3)})
    assert row(assert_complete(x), "mul")["elements"] == 1
    assert same(x.outputs()[1]["y"], rounded(rounded(3.3) * rounded(0.1)))


# -- shapes that depend on values ----------------------------------------------------------------------------------


def test_compress_by_values_that_the_plan_changes():
    """fp16 rounds 2049 to 2048: fewer elements pass the threshold, and the results cannot be compared."""
    nodes = [
        node("Mul", ["x", "one"], ["a"], "mul"),
        node("Greater", ["a", "limit"], ["c"], "greater"),
        node("Compress", ["a", "c"], ["b"], "compress", axis=0),
        node("Mul", ["b", "half"], ["y"], "after"),
    ]
    weights = [weight("one", 1.0), weight("limit", 2048.5), weight("half", 0.5)]
    proto = model(nodes, [value("x", [4])], [value("y", [None])], weights)
    x = opened(proto, {"x": np.float32([1.0, 2049.0, 3000.0, 4000.0])}, Plan().block(op_types=["Greater"]))
    table = assert_complete(x)
    exact, planned = x.outputs()
    assert exact["y"].shape == (3,)
    assert planned["y"].shape == (2,)
    for layer in ("compress", "after"):
        assert "not compared" in row(table, layer)["note"]
        assert np.isnan(row(table, layer)["acc_sqnr_db"])
        assert np.isfinite(row(table, layer)["local_rel_l2"])
    assert np.isnan(x.output_error().iloc[0]["sqnr_db"])
    assert x.first_nonfinite() is None
    x.plan = x.plan.block(op_types=["Mul", "Compress"])
    table = assert_complete(x)
    assert row(table, "after")["acc_sqnr_db"] == np.inf
    assert not row(table, "compress")["note"]


def test_nonzero_of_values_that_flush():
    """What is nonzero in fp32 and zero in fp16 is not found: other indices, and what they gather differs in size."""
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node("NonZero", ["a"], ["at"], "nonzero"),
        node("Transpose", ["at"], ["where"], "turn"),
        node("GatherND", ["a", "where"], ["y"], "gather"),
    ]
    proto = model(nodes, [value("x", [4])], [value("y", [None])], [weight("w", 1.0)])
    x = opened(proto, {"x": np.float32([1.0, 1e-9, 0.0, 2.0])})
    table = assert_complete(x)
    assert x.outputs()[0]["y"].shape == (3,)
    assert x.outputs()[1]["y"].shape == (2,)
    assert "not compared" in row(table, "gather")["note"]
    assert "no float32" in row(table, "nonzero")["note"]


def trip_counts():
    """Halves its state until it is below a limit, and collects what it saw: the limit decides how often."""
    body = graph(
        [node("Mul", ["state", "half"], ["next"], "halve"), node("ReduceMax", ["next"], ["top"], "top", keepdims=0),
         node("Greater", ["top", "limit"], ["going"], "more"), node("Identity", ["next"], ["seen"], "see")],
        [value("i", (), INT64), value("go", (), BOOL), value("state", [4])],
        [value("going", (), BOOL), value("next", [4]), value("seen", [4])],
    )  # fmt: skip
    nodes = [
        node("Mul", ["x", "one"], ["a"], "scale"),
        node("Loop", ["", "yes", "a"], ["last", "all"], "loop", body=body),
        node("Mul", ["all", "half"], ["y"], "after"),
        node("Add", ["last", "half"], ["z"], "end"),
    ]
    weights = [weight("half", 0.5), weight("limit", 1.0001), weight("one", 1.0), weight("yes", np.array(True))]
    return model(nodes, [value("x", [4])], [value("y", [None, 4]), value("z", [4])], weights)


def test_a_loop_whose_trip_count_changes():
    """1.0002 * 2^k is rounded down in fp16: the loop ends earlier, and its scan output is shorter."""
    x = opened(trip_counts(), {"x": np.float32([8.0016, 1, 2, 3])})
    table = assert_complete(x)
    assert x.outputs()[0]["y"].shape[0] > x.outputs()[1]["y"].shape[0]
    assert "not compared" in row(table, "loop")["note"]
    assert "not compared" in row(table, "after")["note"]
    assert row(table, "end")["acc_rel_l2"] > 0
    inside = table[table["note"].str.startswith("inside")]
    assert set(inside["id"]) == {"halve", "top", "more", "see"}


def test_batches_of_different_output_sizes():
    """An output whose size depends on values is returned for every batch, whatever its sizes."""
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node("NonZero", ["a"], ["at"], "nz"),
        node("Relu", ["a"], ["y"], "relu"),
    ]
    proto = model(
        nodes, [value("x", ["n", 4])], [value("at", [2, None], INT64), value("y", ["n", 4])], [weight("w", 0.1)]
    )
    feeds = {"x": np.float32([[1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0]])}
    x = opened(proto, feeds, batch_size=1)
    exact, planned = x.outputs()
    assert exact["y"].shape == planned["y"].shape == (3, 4)
    assert exact["at"].size == planned["at"].size == 2 * 6
    assert_complete(x)


def test_outputs_without_batch_axis_are_kept_for_every_batch():
    """A scalar output has one value per batch; none is dropped."""
    nodes = [node("Mul", ["x", "w"], ["a"], "mul"), node("ReduceMax", ["a"], ["y"], "max", keepdims=0)]
    proto = model(nodes, [value("x", ["n", 4])], [value("y", ())], [weight("w", 60000.0)])
    feeds = {"x": np.float32([[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]])}
    x = opened(proto, feeds, batch_size=1)
    exact, planned = x.outputs()
    assert exact["y"].tolist() == [60000.0, 120000.0, 180000.0]
    assert planned["y"].tolist() == [rounded(60000.0), np.inf, np.inf]
    assert x.output_error().iloc[0]["overflow"] == 2


# -- kinds of layers and graphs ------------------------------------------------------------------------------------


def test_a_layer_with_several_outputs_is_one_row():
    nodes = [
        node("Split", ["x", "sizes"], ["a", "b"], "split", axis=1),
        node("Concat", ["b", "a"], ["y"], "join", axis=1),
    ]
    proto = model(nodes, [value("x")], [value("y")], [weight("sizes", np.array([1, 3]))])
    x = opened(proto, plan=Plan().set({"split": "fp16"}))
    table = assert_complete(x)
    assert row(table, "split")["elements"] == 8
    assert row(table, "split")["local_rel_l2"] == pytest.approx(row(table, "join")["acc_rel_l2"])


def test_integer_results_have_a_note():
    nodes = [
        node("Mul", ["x", "x"], ["a"], "mul"),
        node("ArgMax", ["a"], ["i"], "argmax", axis=1, keepdims=0),
        node("Cast", ["i"], ["y"], "cast", to=FLOAT),
    ]
    x = opened(model(nodes, [value("x")], [value("y", [2])]))
    table = assert_complete(x)
    assert row(table, "argmax")["note"] == "makes no float32 tensor: nothing to compare"
    assert not row(table, "argmax")["provenance"]
    assert row(table, "mul")["note"] == ""


def test_a_model_whose_only_results_are_integers():
    """Nothing to compare, and the outputs are there all the same."""
    nodes = [node("Greater", ["x", "w"], ["c"], "compare"), node("ArgMax", ["x"], ["i"], "best", axis=1)]
    proto = model(nodes, [value("x")], [value("c", (2, 4), BOOL), value("i", (2, 1), INT64)], [weight("w", 0.3)])
    x = opened(proto)
    table = assert_complete(x)
    assert (table["note"] == "makes no float32 tensor: nothing to compare").all()
    assert len(x.output_error()) == 0
    exact, planned = x.outputs()
    for name, wanted in zip(("c", "i"), run(proto, x.samples.feeds[0]), strict=True):
        assert same(exact[name], wanted)
        assert planned[name].shape == wanted.shape


def test_sequences():
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node("SplitToSequence", ["a"], ["parts"], "cut", axis=0),
        node("ConcatFromSequence", ["parts"], ["y"], "join", axis=0),
    ]
    proto = model(nodes, [value("x")], [value("y")], [weight("w", 0.3)])
    x = opened(proto)
    table = assert_complete(x)
    assert "sequence" in row(table, "cut")["note"]
    assert row(table, "join")["acc_rel_l2"] == pytest.approx(row(table, "mul")["acc_rel_l2"])


def test_a_sequence_as_output():
    nodes = [node("Mul", ["x", "w"], ["a"], "mul"), node("SplitToSequence", ["a"], ["y"], "cut", axis=0)]
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    proto = model(nodes, [value("x")], [helper.make_value_info("y", kind)], [weight("w", 0.3)])
    x = opened(proto)
    assert_complete(x)
    assert len(x.output_error()) == 0
    exact, planned = x.outputs()
    assert len(exact["y"]) == len(planned["y"]) == 2
    assert same(planned["y"][1], rounded(rounded(x.samples.feeds[0]["x"]) * rounded(0.3))[1:])


def test_a_model_without_float_inputs():
    """Integer ids into an embedding."""
    nodes = [node("Gather", ["table", "ids"], ["e"], "embed"), node("Add", ["e", "e"], ["y"], "add")]
    rng = np.random.default_rng(0)
    proto = model(
        nodes, [value("ids", ["n"], INT64)], [value("y", ["n", 4])], [weight("table", rng.standard_normal((6, 4)))]
    )
    x = opened(proto, {"ids": np.array([0, 3, 5])})
    table = assert_complete(x)
    assert row(table, "embed")["local_rel_l2"] > 0
    assert x.output_error().iloc[0]["rel_l2"] > 0


def test_a_model_without_inputs():
    proto = model([node("Exp", ["w"], ["y"], "exp")], [], [value("y", [3])], [weight("w", [0.1, 0.2, 0.3])])
    x = opened(proto, {})
    assert row(assert_complete(x), "exp")["local_rel_l2"] > 0


def test_a_model_without_layers():
    """An output that is an input, and nothing between."""
    proto = model([], [value("x")], [value("x")])
    x = opened(proto)
    assert len(x.errors()) == 0
    assert x.output_error().iloc[0]["rel_l2"] == 0


@pytest.mark.parametrize("keep_io", [True, False])
def test_outputs_that_are_inputs_weights_or_listed_twice(keep_io):
    nodes = [node("Mul", ["x", "w"], ["y"], "mul")]
    outputs = [value("y"), value("y"), value("x"), value("w", [4])]
    proto = model(nodes, [value("x")], outputs, [weight("w", [0.1, 0.2, 0.3, 0.4])])
    feeds = feeds_for(proto)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        pytest.skip("onnx's checker refuses an output that is listed twice")
    x = opened(proto, feeds, Plan(keep_io=keep_io))
    assert_complete(x)
    table = x.output_error().set_index("output")
    assert list(table.index) == ["y", "x", "w"]
    for name, exact in (("x", feeds["x"]), ("w", np.float32([0.1, 0.2, 0.3, 0.4]))):
        low = rounded(exact) if not keep_io else exact
        wanted = np.sqrt(((low - exact).astype(np.float64) ** 2).sum() / (exact.astype(np.float64) ** 2).sum())
        assert table.loc[name, "rel_l2"] == pytest.approx(wanted, rel=1e-4)
        assert table.loc[name, "elements"] == exact.size
        assert same(x.outputs()[1][name], low)


def test_overridable_initializers():
    """A weight that the caller may replace keeps its value here, large or small, and is rounded where it is used."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 64))
    nodes = [node("MatMul", ["x", "w"], ["a"], "mm"), node("Add", ["a", "b"], ["y"], "add")]
    inputs = [value("x", [2, 64]), value("w", [64, 64]), value("b", [64])]
    proto = model(nodes, inputs, [value("y", [2, 64])], [weight("w", w), weight("b", rng.standard_normal(64))])
    x = opened(proto, {"x": rng.standard_normal((2, 64)).astype(np.float32)})
    table = assert_complete(x)
    assert (table["local_rel_l2"] > 0).all()
    assert x.output_error().iloc[0]["sqnr_db"] > 40


def test_quantized_weights_of_four_bits():
    """Weights that numpy has no type for stay inside the graph."""
    packed = np.random.default_rng(0).integers(0, 256, 64 * 64 // 2, dtype=np.uint8)
    tensor = helper.make_tensor("q", TensorProto.INT4, [64, 64], packed.tobytes(), raw=True)
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"], "dq"), node("MatMul", ["x", "w"], ["y"], "mm")]
    proto = model(nodes, [value("x", [2, 64])], [value("y", [2, 64])], [tensor, weight("s", 0.01)], opset=21)
    x = opened(proto)
    table = assert_complete(x)
    assert row(table, "mm")["local_rel_l2"] > 0
    assert "never low" in row(table, "dq")["note"]


def test_values_of_other_float_types():
    """A model that computes in double and in half precision in places."""
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node("Cast", ["a"], ["d"], "to_double", to=TensorProto.DOUBLE),
        node("Exp", ["d"], ["e"], "exp"),
        node("Cast", ["e"], ["f"], "to_float", to=FLOAT),
        node("Cast", ["a"], ["b"], "to_bf16", to=TensorProto.BFLOAT16),
        node("Cast", ["b"], ["g"], "from_bf16", to=FLOAT),
        node("Add", ["f", "g"], ["y"], "add"),
    ]
    x = opened(model(nodes, [value("x")], [value("y")], [weight("w", 0.3)]))
    table = assert_complete(x)
    assert row(table, "exp")["format"] == "none"
    assert row(table, "add")["acc_rel_l2"] > 0


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike"])
def test_random_layers_draw_once(op):
    """What a random layer draws is no error of the plan: both paths see the same numbers."""
    nodes = [
        node("Mul", ["x", "w"], ["a"], "mul"),
        node(op, ["a"], ["r"], "random"),
        node("Add", ["r", "r"], ["y"], "add"),
    ]
    x = opened(model(nodes, [value("x")], [value("y")], [weight("w", 0.3)]), plan=Plan().block(layers=["add"]))
    table = assert_complete(x)
    assert row(table, "random")["acc_rel_l2"] == 0
    assert x.output_error().iloc[0]["rel_l2"] == 0


def test_unique_whose_values_merge_in_the_format():
    """Two values that round to one: the low layer finds fewer."""
    nodes = [node("Unique", ["x"], ["u"], "unique"), node("Neg", ["u"], ["y"], "neg")]
    proto = model(nodes, [value("x", [4])], [value("y", [None])])
    x = opened(proto, {"x": np.float32([1.0, 1.00001, 2.0, 3.0])}, Plan().set({"unique": "fp16"}))
    table = assert_complete(x)
    assert "not compared" in row(table, "unique")["note"]
    assert x.outputs()[1]["y"].size == 3


# -- opsets and refusals -------------------------------------------------------------------------------------------


def test_opset_8_is_refused_in_words():
    proto = model([node("Relu", ["x"], ["y"], "relu")], [value("x")], [value("y")], opset=8)
    x = opened(proto)
    with pytest.raises(ModelError, match=r"opset 8.*from opset 9"):
        x.errors()


@pytest.mark.parametrize("opset", range(9, 25))
def test_every_sum_at_every_opset(opset):
    """Guards, masks and counts too: each uses operators whose form changed over the opsets."""
    nodes = [
        node("Add", ["x", "m"], ["a"], "mask"),
        node("Softmax", ["a"], ["b"], "soft", axis=1),
        node("NonZero", ["b"], ["i"], "nonzero"),
        node("Compress", ["b", "c"], ["d"], "compress", axis=0),
        node("Mul", ["d", "d"], ["y"], "mul"),
    ]
    weights = [weight("m", [0, -np.inf, 0, -1e6]), weight("c", np.array([True, False]))]
    proto = model(nodes, [value("x")], [value("y", None), value("i", None, INT64)], weights, opset=opset)
    x = opened(proto)
    table = assert_complete(x)
    assert row(table, "mask")["overflow"] == 2
    assert row(x.ranges(), "mask")["nonfinite"] == 2
    assert row(table, "mul")["elements"] == 4
    assert x.first_nonfinite() == "mask"


def test_samples_that_fp32_fails_on():
    """The model itself does not run on these inputs: said in the user's terms, before anything is measured."""
    nodes = [node("Gather", ["table", "ids"], ["e"], "embed"), node("Add", ["e", "e"], ["y"], "add")]
    proto = model(nodes, [value("ids", ["n"], INT64)], [value("y", ["n", 4])], [weight("table", np.ones((6, 4)))])
    x = opened(proto, {"ids": np.array([0, 3, 99])})
    for ask in (x.errors, x.output_error, x.ranges, x.outputs, x.first_nonfinite):
        with pytest.raises(ModelError, match="does not run in fp32"):
            ask()
    assert x.convert().decisions["add"].format == "fp16", "converting needs no run"


def test_a_second_batch_that_fp32_fails_on():
    nodes = [node("Gather", ["table", "ids"], ["e"], "embed"), node("Add", ["e", "e"], ["y"], "add")]
    proto = model(nodes, [value("ids", ["n"], INT64)], [value("y", ["n", 4])], [weight("table", np.ones((6, 4)))])
    x = opened(proto, {"ids": np.array([0, 3, 99])}, batch_size=1)
    with pytest.raises(ModelError, match="does not run in fp32"):
        x.errors()


def test_an_operator_without_kernel():
    """A custom operator that this ONNX Runtime does not have."""
    nodes = [node("Mul", ["x", "x"], ["a"], "mul"), node("Magic", ["a"], ["y"], "magic", domain="my.ops")]
    proto = model(nodes, [value("x")], [value("y")], domains=["my.ops"])
    x = opened(proto)
    with pytest.raises((ModelError, BackendError), match="fp32"):
        x.errors()


def test_a_run_can_be_cancelled():
    """A token stops what runs, and what would run next."""
    bench = Bench.of(masked_attention(-1e30))
    token = Cancel()
    bench.emulator.cancel = token
    token.cancel()
    with pytest.raises(RunCancelled):
        bench.emulator.ranges()


def test_progress_is_told():
    told = []
    x = opened(masked_attention(-1.0), {"x": np.ones((2, 4), np.float32)})
    x.progress = lambda stage, done, count: told.append((stage, done, count))
    x.errors()
    assert {stage for stage, _, _ in told} >= {"ranges of the exact values", "local errors", "errors of the plan"}
    assert all(0 < done <= count for _, done, count in told)


def test_nothing_of_the_model_is_modified():
    """Law 6: measuring leaves the model as it was given."""
    proto = masked_attention(-np.inf)
    before = proto.SerializeToString(deterministic=True)
    loaded = load_model(proto)
    digest = loaded.digest
    x = opened(proto)
    x.errors()
    x.output_error()
    assert proto.SerializeToString(deterministic=True) == before
    assert load_model(proto).digest == x.model.digest == digest


def test_names_that_a_sum_has_too():
    """A model may call its tensors and layers what the emulator calls its sums."""
    nodes = [
        node("Mul", ["x", "elements"], ["error_squares"], "nonzero"),
        node("Add", ["error_squares", "x"], ["nan"], "kept"),
        node("Neg", ["nan"], ["output/error_squares"], "aten::neg"),
        node("Abs", ["output/error_squares"], ["max_abs"], "max_abs"),
    ]
    outputs = [value("max_abs"), value("nan"), value("error_squares")]
    x = opened(model(nodes, [value("x")], outputs, [weight("elements", 0.3)]))
    table = assert_complete(x)
    assert set(table["elements"]) == {8}
    assert len(x.output_error()) == 3
    assert (x.output_error()["rel_l2"] > 0).all()


def test_infinite_inputs_that_are_outputs():
    """A mask that is fed and returned: what is infinite on both sides is no error."""
    proto = model([node("Add", ["x", "m"], ["y"], "add")], [value("x"), value("m")], [value("m"), value("y")])
    feeds = {"x": np.full((2, 4), 0.1, np.float32), "m": np.float32([[0, -np.inf, 1e-3, 1e30]] * 2)}
    for keep_io in (True, False):
        x = opened(proto, feeds, Plan(format="bf16", keep_io=keep_io))
        table = x.output_error().set_index("output")
        assert table.loc["m", "nan"] == 0
        assert (table["rel_l2"] < 0.01).all()
        assert (table.loc["m", "rel_l2"] > 0) == (not keep_io)


@pytest.mark.filterwarnings("error")
def test_values_that_are_subnormal_in_float32_are_measured():
    """The power of two that would bring them to 1 is beyond float32."""
    proto = model([node("Relu", ["x"], ["y"], "tiny")], [value("x", [4])], [value("y", [4])])
    x = explorer.open(proto, inputs={"x": np.array([1e-40, 2e-42, 3e-45, 0], np.float32)}, target=None)
    ranges = x.ranges()
    assert ranges["max_abs"].item() == pytest.approx(1e-40, rel=1e-4)
    assert ranges["flushed"].item() == 3
    assert x.errors()["local_max_abs"].item() == pytest.approx(1e-40, rel=1e-4)
