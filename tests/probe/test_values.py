"""The values of a layer: those that the errors are summed of, and refusals in words where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import BOOL, FLOAT, INT64, graph, model, node, value, weight
from support.probing import Bench, entries, rounded, same

import explorer
from explorer.errors import ModelError, PlanError
from explorer.measure import Histogram
from explorer.plan import Plan
from explorer.probe import emulator as emulator_module
from explorer.probe import values as values_module
from explorer.probe.sampling import POINTS, merge_pairs, sample_pairs

FEW = settings(max_examples=25, deadline=None)


def chain(opset=17, shape=(2, 4)):
    """Three layers, of which every result is an output of the model."""
    nodes = [
        node("Mul", ["x", "w"], ["a"], "scale"),
        node("Exp", ["a"], ["b"], "exp"),
        node("Sub", ["b", "x"], ["y"], "sub"),
    ]
    outputs = [value(name, ["n", shape[1]]) for name in "aby"]
    return model(nodes, [value("x", ["n", shape[1]])], outputs, [weight("w", [1.3])], opset=opset)


def numbers(rows=6, columns=4, seed=0):
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * 3).astype(np.float32)


def look(bench: Bench, layer_id: str, plan: Plan | None = None, output: int = 0):
    return bench.emulator.values(bench.decisions(plan), layer_id, output)


def assert_values(found, exact, planned):
    """All elements are counted, and few enough that each is in the scatter."""
    assert found.exact == Histogram.of(exact)
    assert found.plan == Histogram.of(planned)
    assert same(np.sort(found.scatter.exact), np.sort(exact.ravel()))
    assert same(np.sort(found.scatter.plan), np.sort(planned.ravel()))
    pairs = set(map(repr, zip(exact.ravel().tolist(), planned.ravel().tolist(), strict=True)))
    shown = zip(found.scatter.exact.tolist(), found.scatter.plan.tolist(), strict=True)
    assert pairs.issuperset(map(repr, shown))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("low_format", "opset"), [("fp16", 9), ("fp16", 13), ("fp16", 24), ("bf16", 13), ("bf16", 17)])
def test_values_are_the_outputs(monkeypatch, low_format, opset, cached):
    """Bit for bit what the errors are made of, with the exact values in memory and without, on several batches."""
    if not cached:
        monkeypatch.setattr(emulator_module, "_EXACT_CACHE_BYTES", 0)
    bench = Bench.of(chain(opset), {"x": numbers()}, Plan(format=low_format), batch_size=2, threads=2)
    for plan in (bench.plan, bench.plan.block(layers=["exp"]), bench.plan.block(layers=["scale", "exp", "sub"])):
        before = bench.accumulated(plan)
        for layer_id, name in (("scale", "a"), ("exp", "b"), ("sub", "y")):
            found = look(bench, layer_id, plan)
            assert_values(found, before.exact_outputs[name], before.plan_outputs[name])
            sums = entries(before)[name]
            error = found.scatter.plan.astype(np.float64) - found.scatter.exact
            assert sums["max_error"] == pytest.approx(np.abs(error).max(), rel=1e-6)
            assert sums["error_squares"] == pytest.approx((error**2).sum(), rel=1e-5)
        after = bench.accumulated(plan)
        assert all(same(after.plan_outputs[name], before.plan_outputs[name]) for name in "aby")
        assert repr(entries(after)) == repr(entries(before))


def test_a_first_look_needs_nothing_before():
    bench = Bench.of(chain(), {"x": numbers()})
    assert look(bench, "exp").exact.elements == 24


def test_looking_compiles_once(monkeypatch):
    """After the first look a look and a toggle are runs."""
    bench = Bench.of(chain(), {"x": numbers()})
    bench.accumulated()
    look(bench, "exp")
    monkeypatch.setattr("explorer.probe.runs.create_session", None)
    look(bench, "sub", Plan().block(layers=["exp"]))
    bench.accumulated(Plan().block(layers=["sub"]))


def test_nothing_but_what_is_looked_at_leaves_the_runtime():
    """Graph outputs are kept until the end of a run; a tensor that one may look at must be none."""
    wide = model(
        [node("Relu", ["x"], ["v0"], "l0"), *(node("Neg", [f"v{i}"], [f"v{i + 1}"], f"l{i + 1}") for i in range(20))],
        [value("x")], [value("v20")],
    )  # fmt: skip
    bench = Bench.of(wide)
    look(bench, "l3")
    _, session = bench.emulator._compiled_switchable(pickable=True)
    tensors = [name for name in session.output_names if name.startswith("v")]
    assert {name.partition("::")[0] for name in tensors} <= {"v20"}


# -- what cannot be shown ----------------------------------------------------------------------------------------------


def test_layers_without_float_results():
    nodes = [node("Shape", ["x"], ["s"], "shape"), node("Cast", ["s"], ["y"], "cast", to=FLOAT)]
    bench = Bench.of(model(nodes, [value("x")], [value("y", [2])]))
    with pytest.raises(ModelError, match="makes no float32 tensor"):
        look(bench, "shape")
    found = look(bench, "cast")
    assert found.exact.elements == 2


def test_layers_and_results_that_do_not_exist():
    bench = Bench.of(chain())
    with pytest.raises(PlanError, match="no layer 'exq'"):
        look(bench, "exq")
    for output in (-1, 1):
        with pytest.raises(PlanError, match="1 float32 result"):
            look(bench, "exp", output=output)


def test_layers_in_bodies():
    """A layer in a branch is refused; the one that holds it is shown."""
    then = graph([node("Mul", ["x", "x"], ["p"], "p")], [], [value("p")])
    other = graph([node("Exp", ["x"], ["q"], "q")], [], [value("q")])
    nodes = [node("If", ["c"], ["y"], "choose", then_branch=then, else_branch=other)]
    bench = Bench.of(model(nodes, [value("x"), value("c", [], BOOL)], [value("y")]), None)
    inner = next(layer.id for layer in bench.model.layers if layer.op == "Mul")
    with pytest.raises(ModelError, match="body of a control-flow layer"):
        look(bench, inner)
    found = look(bench, "choose")
    assert_values(found, bench.exact()["y"], bench.planned()["y"])


def test_a_model_without_layers():
    bench = Bench.of(model([], [value("x")], [value("x")]))
    with pytest.raises(PlanError, match="no layer"):
        look(bench, "x")
    assert bench.emulator.histograms() == {}


# -- values of every kind ----------------------------------------------------------------------------------------------


def test_a_layer_that_no_switch_reaches():
    """What is drawn at random is the same on both sides, and is said to be."""
    nodes = [node("RandomNormalLike", ["x"], ["r"], "draw"), node("Mul", ["r", "x"], ["y"], "mul")]
    bench = Bench.of(model(nodes, [value("x")], [value("y")]), {"x": numbers(2)})
    found = look(bench, "draw")
    assert not found.reached
    assert "No plan changes" in found.note
    assert found.exact == found.plan
    assert same(found.scatter.exact, found.scatter.plan)
    assert look(bench, "mul").reached


@pytest.mark.parametrize("cached", [True, False])
def test_nan_infinities_and_zeros(monkeypatch, cached):
    if not cached:
        monkeypatch.setattr(emulator_module, "_EXACT_CACHE_BYTES", 0)
    x, w = np.float32([[0, -0.0, 0, 1], [-1, 7e4, 1e-9, -2]]), np.float32([[1, 1, 0, 0], [0, 1, 1, 1]])
    proto = model([node("Div", ["x", "w"], ["y"], "div")], [value("x")], [value("y")], [weight("w", w)])
    bench = Bench.of(proto, {"x": x})
    with np.errstate(divide="ignore", invalid="ignore"):
        exact, planned = x / w, rounded(rounded(x) / w)
    found = look(bench, "div")
    assert_values(found, exact, planned)
    assert (found.exact.zeros, found.exact.nonfinite) == (2, 3)
    assert (found.plan.zeros, found.plan.nonfinite) == (3, 4)
    first, counts, plan_counts = found.axis
    assert (first, sum(counts), sum(plan_counts)) == (-30, 3, 1)


def test_bands_are_those_of_the_format():
    """Each border is where a cast begins to lose."""
    bands = look(Bench.of(chain()), "exp").bands
    assert np.isinf(rounded(bands.overflow))
    assert np.isfinite(rounded(np.nextafter(np.float32(bands.overflow), np.float32(0))))
    assert rounded(bands.normal) == 2.0**-14 > rounded(bands.normal - 2.0**-26)
    assert rounded(bands.subnormal) == 0 < rounded(np.nextafter(np.float32(bands.subnormal), np.float32(1)))


def test_several_results_of_one_layer():
    """Only float32 ones are offered, and each is itself."""
    nodes = [node("TopK", ["x", "k"], ["v", "i"], "top"), node("Split", ["v"], ["a", "b"], "split", axis=1)]
    outputs = [value("v", [2, 2]), value("i", [2, 2], INT64), value("a", [2, 1]), value("b", [2, 1])]
    proto = model(nodes, [value("x")], outputs, [weight("k", np.array([2]))])
    bench = Bench.of(proto, {"x": numbers(2)})
    assert look(bench, "top").outputs == ("v",)
    for output, name in enumerate("ab"):
        found = look(bench, "split", output=output)
        assert (found.output, found.outputs) == (name, ("a", "b"))
        assert_values(found, bench.exact()[name], bench.planned()[name])


def test_empty_tensors_and_scalars():
    nodes = [
        node("Compress", ["x", "none"], ["e"], "empty", axis=0),
        node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
        node("Mul", ["s", "s"], ["y"], "square"),
    ]
    outputs = [value("e", ["k", 4]), value("y", [])]
    proto = model(nodes, [value("x")], outputs, [weight("none", np.array([False, False]))])
    bench = Bench.of(proto, {"x": numbers(2)})
    found = look(bench, "empty")
    assert found.exact == found.plan == Histogram()
    assert found.scatter.total == found.scatter.exact.size == 0
    assert look(bench, "square").exact.elements == 1
    assert bench.emulator.histograms()["e"] == Histogram()


def test_a_plan_that_changes_the_number_of_elements():
    nodes = [
        node("Greater", ["x", "limit"], ["c"], "compare"),
        node("Compress", ["x", "c"], ["a"], "compress"),
        node("Mul", ["a", "a"], ["y"], "mul"),
    ]
    x = np.float32([1, 1 + 2**-12, 1 + 2**-9])
    proto = model(nodes, [value("x", [3])], [value("y", ["k"])], [weight("limit", np.float32([1]))])
    bench = Bench.of(proto, {"x": x}, Plan(keep_io=False))
    found = look(bench, "mul")
    assert found.scatter is None
    assert "number of elements" in found.note
    assert (found.exact.elements, found.plan.elements) == (2, 1)


# -- the sample --------------------------------------------------------------------------------------------------------


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(1, 30_000), st.integers(1, 9))
def test_the_sample_of_pairs(seed, size, batches):
    """Few points, each a true pair, the largest errors among them; the same every time."""
    rng = np.random.default_rng(seed)
    exact = np.arange(size, dtype=np.float32)
    plan = exact + rng.standard_normal(size).astype(np.float32) * (rng.random(size) < 0.3)
    plan[rng.integers(0, size, 2)] = np.inf

    def sample():
        both = zip(np.array_split(exact, batches), np.array_split(plan, batches), strict=True)
        return merge_pairs([sample_pairs(*pair, elements=size, batch=i) for i, pair in enumerate(both)])

    found = sample()
    assert found.total == size
    assert found.exact.size == (size if size <= POINTS else min(found.exact.size, POINTS))
    where = found.exact.astype(int)
    assert np.unique(where).size == where.size
    assert (found.plan == plan[where]).all()
    error = np.abs(plan - exact)
    worst = np.sort(error)[::-1][:300]
    assert (np.sort(error[where])[::-1][: worst.size] == worst)[worst > 0].all()
    even = found.exact.size - found.extremes
    assert even >= min(size, POINTS) * 0.4
    again = sample()
    assert same(again.exact, found.exact)
    assert same(again.plan, found.plan)


def test_the_even_sample_covers_every_part():
    """No stretch of the tensor is left out, and no channel is preferred."""
    exact = np.arange(768 * 1000, dtype=np.float32)
    found = merge_pairs([sample_pairs(exact, exact, elements=exact.size, batch=0)])
    assert found.extremes == 0
    assert np.diff(found.exact).max() < 2 * exact.size / 3000
    assert np.unique(found.exact.astype(int) % 768).size > 700


def test_the_note_says_how_the_sample_is_biased():
    bench = Bench.of(chain(), {"x": numbers(4000)}, batch_size=1000)
    found = look(bench, "exp")
    assert found.scatter.exact.size <= POINTS < found.scatter.total == 16_000
    assert 0 < found.scatter.extremes <= 400
    assert "16,000" in found.note
    assert "look more frequent than they are" in found.note


# -- histograms of everything ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [1, 64, 1 << 20])
@pytest.mark.parametrize("warm", [True, False])
def test_histograms_of_all_exact_values(monkeypatch, part_bytes, warm):
    """Whether values are in memory or leave the runtime in parts, the histograms are those of the outputs."""
    monkeypatch.setattr(values_module, "_PICKED_BYTES", part_bytes)
    bench = Bench.of(chain(), {"x": numbers()}, batch_size=4)
    if warm:
        bench.accumulated()
    found = bench.emulator.histograms()
    exact = bench.exact()
    assert found == {name: Histogram.of(exact[name]) for name in "aby"}


def test_the_exploration_answers_by_layer():
    proto = model(
        [node("TopK", ["x", "k"], ["v", "i"], "top"), node("Shape", ["v"], ["s"], "shape"), node("Neg", ["v"], ["y"])],
        [value("x")], [value("y", [2, 2]), value("s", [2], INT64)], [weight("k", np.array([2]))],
    )  # fmt: skip
    x = explorer.open(proto)
    assert set(x.histograms()) == {"top", x.model.layers[-1].id}
    found = x.values("top")
    assert found.exact == x.histograms()["top"]
    assert "random" in found.note
    assert found.provenance.endswith("fp16 storage rounding, fp32 accumulation")
    x.plan = x.plan.block(layers=[layer.id for layer in x.model.layers])
    assert x.values("top").plan == found.exact
