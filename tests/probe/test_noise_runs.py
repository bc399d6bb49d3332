"""Sources of noise, and runs in which single ones are rounded, against numpy."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import explorer
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.probe.noise import NoiseRuns
from explorer.probe.sources import rounding_sources

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
RNG = np.random.default_rng(3)
W = RNG.normal(size=(6, 6)).astype(np.float32)
X = RNG.normal(size=(4, 6)).astype(np.float32)


def half(values):
    return values.astype(np.float16).astype(np.float32)


def opened(nodes, *, weights=None, outputs=("y",), x=X):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {"w": W}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return explorer.open(model, inputs={"x": x}, target=None)


def runs_of(x, **options):
    typing = x.results.typing("fp16", None)
    sources = rounding_sources(typing)
    return sources, NoiseRuns(typing, sources, x.samples, **options)


def test_each_tensor_is_rounded_alone_as_numpy_rounds_it():
    x = opened([helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Tanh", ["a"], ["y"])])
    sources, runs = runs_of(x)
    exact = np.tanh(X @ W)
    expected = {
        "x": np.tanh(half(X) @ W) - exact,
        "w": np.tanh(X @ half(W)) - exact,
        "a": np.tanh(half(X @ W)) - exact,
        "y": half(exact) - exact,
    }
    assert set(sources.names) == set(expected)
    found = runs.measure([[index] for index in range(len(sources.names))])[:, 0]
    for name, squares in zip(sources.names, found, strict=True):
        assert squares == pytest.approx(np.square(expected[name].astype(np.float64)).sum(), rel=1e-3), name
    together = runs.measure([range(len(sources.names))])[0, 0]
    low = half(np.tanh(half(half(X) @ half(W)))) - exact
    assert together == pytest.approx(np.square(low.astype(np.float64)).sum(), rel=1e-3)
    assert runs.exact_squares[0] == pytest.approx(np.square(exact.astype(np.float64)).sum())


def test_what_copies_elements_is_no_source_and_touches_those_it_copies():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Concat", ["b", "x"], ["c"], name="join", axis=1),
        helper.make_node("Transpose", ["c"], ["d"], name="turn"),
        helper.make_node("Exp", ["d"], ["y"], name="exp"),
    ]
    sources, _ = runs_of(opened(nodes))
    assert set(sources.names) == {"x", "w", "a", "y"}
    named = {key: {sources.names[index] for index in found} for key, found in sources.touched.items()}
    assert named["product"] == {"x", "w", "a"}
    assert named["relu"] == {"a"}
    assert named["join"] == named["turn"] == {"a", "x"}
    assert named["exp"] == {"a", "x", "y"}
    kinds = dict(zip(sources.names, sources.kinds, strict=True))
    assert kinds == {"x": "input", "w": "weight", "a": "activation", "y": "activation"}
    assert {sources.names[index] for index in sources.outputs} == {"x", "y"}


def test_a_tied_weight_is_one_source():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="two"),
    ]
    sources, runs = runs_of(opened(nodes))
    assert sources.names.count("w") == 1
    exact, low = X @ W @ W, X @ half(W) @ half(W)
    found = runs.measure([[sources.names.index("w")]])[0, 0]
    assert found == pytest.approx(np.square((low - exact).astype(np.float64)).sum(), rel=1e-2)


def test_a_small_weight_that_several_layers_read_is_a_source_for_each():
    nodes = [
        helper.make_node("Mul", ["x", "e"], ["a"], name="one"),
        helper.make_node("Exp", ["a"], ["b"], name="between"),
        helper.make_node("Mul", ["b", "e"], ["y"], name="two"),
    ]
    e = np.float32([1.0001])
    sources, runs = runs_of(opened(nodes, weights={"e": e}))
    named = {key: {sources.names[index] for index in found} for key, found in sources.touched.items()}
    assert named["one"] == {"x", "e::in::one", "a"}
    assert named["two"] == {"b", "e::in::two", "y"}
    exact = np.exp(X * e) * e
    low = {"e::in::one": np.exp(X * half(e)) * e, "e::in::two": np.exp(X * e) * half(e)}
    for name, values in low.items():
        found = runs.measure([[sources.names.index(name)]])[0, 0]
        assert found == pytest.approx(np.square((values - exact).astype(np.float64)).sum(), rel=1e-2), name


def test_what_overflows_is_infinite_and_what_the_exact_model_lacks_is_left_out():
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Sub", ["a", "a"], ["b"]),
        helper.make_node("Log", ["x"], ["logs"]),
    ]
    x = opened(nodes, weights={"w": np.float32([1e6])}, outputs=("b", "logs"))
    sources, runs = runs_of(x)
    found = runs.measure([[sources.names.index("a")], [sources.names.index("x")]])
    assert found[0, 0] == np.inf  # inf - inf
    assert np.isfinite(found[1, 1])  # the logarithm of what is negative is NaN in fp32, too


def test_parts_give_the_very_bits_of_the_whole():
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    typing = x.results.typing("fp16", x.target)
    sources = rounding_sources(typing)
    runs = NoiseRuns(typing, sources, x.samples, batches=1)
    groups = [[index] for index in range(0, len(sources.names), 5)] + [list(range(30, 90))]
    runs.starts = [0]
    whole = runs.measure(groups)
    runs.starts = runs.possible_starts
    assert len(runs.starts) > 2
    np.testing.assert_array_equal(runs.measure(groups), whole)


def test_a_cancelled_token_stops_the_runs():
    x = opened([helper.make_node("MatMul", ["x", "w"], ["y"])])
    token = Cancel()
    _, runs = runs_of(x, cancel=token)
    token.cancel()
    with pytest.raises(RunCancelled):
        runs.measure([[0]])


def test_layers_in_bodies_are_no_sources():
    body = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["inner"], name="inside")],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["outer"], name="beside")],
        "other",
        [],
        [helper.make_tensor_value_info("outer", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["a"], name="if", then_branch=body, else_branch=other),
        helper.make_node("Exp", ["a"], ["y"], name="exp"),
    ]
    weights = {"w": np.ones(6, np.float32), "yes": np.array(True)}
    sources, runs = runs_of(opened(nodes, weights=weights))
    assert set(sources.touched) == {"exp"}
    assert set(sources.names) == {"a", "x", "y"}  # x is rounded where the model's inputs are low
    exact = np.exp(X)
    found = runs.measure([[sources.names.index("a")]])[0, 0]
    assert found == pytest.approx(np.square((np.exp(half(X)) - exact).astype(np.float64)).sum(), rel=1e-3)


def test_what_rounding_leaves_is_no_source_and_a_clip_within_such_bounds_only_picks():
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"], name="double"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], name="relu6"),
        helper.make_node("Clip", ["b", "zero", "third"], ["y"], name="odd"),
    ]
    values = {"two": 2.0, "zero": 0.0, "six": 6.0, "third": 1 / 3}
    weights = {name: np.array(value, np.float32) for name, value in values.items()}
    sources, _ = runs_of(opened(nodes, weights=weights))
    assert set(sources.names) == {"x", "a", "y", "third"}
    named = {key: {sources.names[index] for index in found} for key, found in sources.touched.items()}
    assert named == {"double": {"x", "a"}, "relu6": {"a"}, "odd": {"a", "third", "y"}}
