"""Calibration runs the samples and finds the ranges that a plain run of the model shows, whatever the model."""

import dataclasses
import pickle
import weakref

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from support.graphs import BOOL, FLOAT, FLOAT16, INT64, chain, graph, model, node, run, value, weight

import explorer.calibrate.run as calibration_run
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.calibrate import METHODS, Calibration, calibrate
from explorer.calibrate.activations import Activations, float_values
from explorer.errors import CalibrationError, InputError
from explorer.model import Samples, load_model, load_samples

RNG = np.random.default_rng(8)


def ranges(proto, feeds, **settings_) -> Calibration:
    loaded = load_model(proto)
    return calibrate(loaded, load_samples(loaded, feeds), cache=False, **settings_)


def truth(proto, feeds) -> dict[str, float]:
    """The largest finite |value| of every float32 input and result, by a run with all of them as outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.output[:]
    types = {info.name: info.type for info in onnx.shape_inference.infer_shapes(proto).graph.value_info}
    types |= {info.name: info.type for info in proto.graph.output}
    names = [name for each in proto.graph.node for name in each.output if name in types]
    names = [name for name in names if types[name].tensor_type.elem_type == FLOAT]
    for name in names:
        shown.graph.output.append(helper.make_value_info(name, types[name]))
    arrays = dict(zip(names, run(shown, feeds), strict=True))
    arrays |= {name: array for name, array in feeds.items() if array.dtype == np.float32}
    return {name: float(np.abs(array[np.isfinite(array)]).max(initial=0)) for name, array in arrays.items()}


@pytest.mark.parametrize("rows", [1, 32, 37, 100])
def test_minmax_is_what_a_plain_run_shows(rows):
    """In batches or at once; 37 and 100 rows leave a short last batch."""
    proto, feeds = chain(12), {"x": RNG.normal(size=(rows, 8)).astype(np.float32)}
    found = ranges(proto, feeds, method="minmax")
    assert dict(found.amax) == truth(proto, feeds)
    assert (found.rows, found.method, found.random, found.warnings) == (rows, "minmax", False, ())


@pytest.mark.parametrize("method", METHODS)
def test_batches_and_threads_and_groups_do_not_matter(method, monkeypatch):
    loaded = load_model(chain(9))
    feeds = {"x": RNG.normal(size=(64, 8)).astype(np.float32)}
    found = [
        calibrate(loaded, load_samples(loaded, feeds, batch_size=size), method=method, cache=False, threads=threads)
        for size, threads in [(64, 1), (1, 3), (7, 2)]
    ]
    monkeypatch.setattr(calibration_run, "GROUP_BYTES", 1)  # a pass for each value
    found.append(calibrate(loaded, load_samples(loaded, feeds), method=method, cache=False))
    for each in found[1:]:
        assert each.amax == found[0].amax
    assert list(found[0].amax) == ["x", *(f"v{index}" for index in range(9))]


def test_a_group_holds_no_more_bytes_than_it_may():
    sizes = {"a": (8, 100), "b": (8, 300), "c": (8, 50), "d": (8, 40)}
    nodes = [node("MatMul", ["x", f"w_{name}"], [name]) for name in sizes]
    weights = [weight(f"w_{name}", np.ones((4, columns))) for name, (_, columns) in sizes.items()]
    loaded = load_model(model(nodes, [value("x", ["n", 4])], [value(name, ["n", None]) for name in sizes], weights))
    samples = load_samples(loaded, {"x": np.ones((8, 4), np.float32)})
    runner = Activations(loaded, samples.feeds, workers=1, threads=1, cancel=Cancel())
    values = float_values(loaded)
    assert values == list(sizes)
    assert runner.groups(values, 8 * 4 * 150) == [["a"], ["b"], ["c", "d"]]  # b alone is larger than a group
    assert runner.groups(values, 8 * 4 * 490) == [["a", "b", "c", "d"]]
    assert runner.groups(values, 8 * 4 * 150, extra_bytes=8 * 4 * 100) == [["a"], ["b"], ["c"], ["d"]]
    two = Activations(loaded, samples.feeds, workers=2, threads=1, cancel=Cancel())
    assert two.groups(values, 8 * 4 * 490) == [["a"], ["b"], ["c", "d"]]


def test_activations_do_not_pile_up(monkeypatch):
    """What was handed over in one batch is gone in the next."""
    made, alive = [], []

    class Watched(calibration_run.StreamedHistogram):
        def add(self, values):
            super().add(values)
            if values.shape == (1, 200):
                made.append(weakref.ref(values))
                alive.append(sum(each() is not None for each in made))

    monkeypatch.setattr(calibration_run, "StreamedHistogram", Watched)
    proto = model([node("Concat", ["x", "x"], ["y"], axis=1)], [value("x", ["n", 100])], [value("y", ["n", 200])])
    loaded = load_model(proto)
    samples = load_samples(loaded, {"x": RNG.normal(size=(20, 100)).astype(np.float32)}, batch_size=1)
    calibrate(loaded, samples, cache=False, threads=1)
    assert len(made) == 20
    assert max(alive) == 1


def test_shapes_that_depend_on_values():
    proto = model(
        [
            node("Greater", ["x", "half"], ["over"]),
            node("Abs", ["x"], ["some"]),
            node("NonZero", ["some"], ["where"]),
            node("Cast", ["where"], ["where_float"], to=FLOAT),
            node("ReduceMax", ["where_float"], ["y"], keepdims=0),
        ],
        [value("x", ["n", 4])],
        [value("y", []), value("over", ["n", 4], BOOL)],
        [weight("half", np.float32(0.5))],
    )
    feeds = {"x": np.eye(6, 4, dtype=np.float32) * 3}
    found = ranges(proto, feeds, method="minmax")
    assert dict(found.amax) == truth(proto, feeds)
    assert found.amax["where_float"] == 3
    assert "over" not in found.amax
    assert "where" not in found.amax


def test_ragged_batches():
    """Samples of other lengths: every batch has its own shape."""
    proto = model([node("Mul", ["x", "two"], ["y"])], [value("x", ["n", "t"])], [value("y", ["n", "t"])],
                  [weight("two", np.float32(2))])  # fmt: skip
    loaded = load_model(proto)
    feeds = tuple({"x": np.full((1, length), length, np.float32)} for length in (3, 9, 1, 5))
    found = calibrate(loaded, Samples(feeds, 4, "user"), method="minmax", cache=False)
    assert (found.amax["y"], found.rows) == (18, 4)


def test_only_float32_tensors_of_the_main_graph_have_ranges():
    body = graph([node("Relu", ["x"], ["inside"], "inner"), node("Neg", ["inside"], ["then"])], [], [value("then")])
    other = graph([node("Neg", ["x"], ["else"])], [], [value("else")], name="other")
    proto = model(
        [
            node("If", ["choose"], ["chosen"], then_branch=body, else_branch=other),
            node("Cast", ["chosen"], ["half"], to=FLOAT16),
            node("Cast", ["half"], ["y"], to=FLOAT),
            node("Gather", ["table", "index"], ["row"]),
        ],
        [value("x"), value("choose", [], BOOL), value("index", [1], INT64)],
        [value("y"), value("row", [1, 3])],
        [weight("table", np.float32([[1, 2, 3], [4, 5, -6]]))],
    )
    feeds = {"x": np.full((2, 4), -3, np.float32), "choose": np.array(False), "index": np.array([1])}
    assert ranges(proto, feeds, method="minmax").amax == {"x": 3, "chosen": 3, "y": 3, "row": 6}


@pytest.mark.parametrize("most_bytes", [1, 1 << 20])
def test_what_a_body_captures_is_there(most_bytes, monkeypatch):
    """In the pass that looks at the If alone, too, and two bodies deep."""
    monkeypatch.setattr(calibration_run, "GROUP_BYTES", most_bytes)
    inner = graph([node("Add", ["deep", "w"], ["sum"])], [], [value("sum")], name="inner")
    inner_else = graph([node("Identity", ["deep"], ["same"])], [], [value("same")], name="inner_else")
    then = graph([node("If", ["choose"], ["then"], then_branch=inner, else_branch=inner_else)], [], [value("then")])
    other = graph([node("Neg", ["x"], ["else"])], [], [value("else")], name="other")
    proto = model(
        [
            node("Relu", ["x"], ["deep"]),
            node("If", ["choose"], ["chosen"], then_branch=then, else_branch=other),
            node("Neg", ["chosen"], ["y"]),
        ],
        [value("x"), value("choose", [], BOOL)],
        [value("y")],
        [weight("w", np.full((2, 4), 5.0))],
    )
    feeds = {"x": np.full((2, 4), 3, np.float32), "choose": np.array(True)}
    assert ranges(proto, feeds, method="minmax").amax == {"x": 3, "deep": 3, "chosen": 8, "y": 8}


def test_large_weights_and_weights_that_are_inputs():
    proto = model(
        [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"])],
        [value("x", ["n", 64]), value("b", [64])],
        [value("y", ["n", 64])],
        [weight("w", RNG.normal(size=(64, 64))), weight("b", RNG.normal(size=64))],
    )
    feeds = {"x": RNG.normal(size=(5, 64)).astype(np.float32)}
    assert dict(ranges(proto, feeds, method="minmax").amax) == truth(proto, feeds)


@pytest.mark.parametrize("opset", [9, 11, 17, 21])
def test_old_and_new_opsets(opset):
    proto, feeds = chain(6, opset=opset), {"x": RNG.normal(size=(3, 8)).astype(np.float32)}
    assert dict(ranges(proto, feeds, method="minmax").amax) == truth(proto, feeds)


def test_a_model_without_float_layers():
    proto = model([node("Neg", ["x"], ["y"])], [value("x", [2], INT64)], [value("y", [2], INT64)])
    assert ranges(proto, {"x": np.array([1, 2])}).amax == {}


def test_values_that_are_not_finite_are_left_out_and_told():
    proto = model([node("Log", ["x"], ["y"]), node("Exp", ["y"], ["z"])], [value("x", ["n"])], [value("z", ["n"])])
    found = ranges(proto, {"x": np.float32([0, -1, 1, 20])}, method="minmax")
    assert found.amax["y"] == pytest.approx(np.log(20))
    assert found.warnings == ("Values that are infinite or NaN were left out: 2 in 'y', 1 in 'z'.",)
    nothing = ranges(proto, {"x": np.float32([-1, -2])}, method="minmax")
    assert (nothing.amax["y"], nothing.scale("y")) == (0, 1)
    assert "No finite value was seen, so the scale is 1: 'y', 'z'." in nothing.warnings


def test_random_samples_are_flagged():
    loaded = load_model(chain(2))
    found = calibrate(loaded, load_samples(loaded), cache=False)
    assert found.random
    assert "not to be trusted" in found.warnings[0]
    assert found.description == "percentile 99.99 over 1 random sample"


@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_at_most_so_many_rows_from_all_over(rows, batch, most):
    proto = model([node("Neg", ["x"], ["y"])], [value("x", ["n"])], [value("y", ["n"])])
    loaded = load_model(proto)
    samples = load_samples(loaded, {"x": np.arange(rows, dtype=np.float32) + 1}, batch_size=batch)
    feeds, count = calibration_run._spread(samples, most)
    used = np.concatenate([feed["x"] for feed in feeds])
    assert count == used.size
    assert count <= max(most, batch)
    assert np.all(np.diff(used) > 0)
    if rows <= most:
        assert count == rows
    elif len(feeds) > 1:
        assert used[0] == 1
        assert used[-1] == rows  # from the first to the last, however they are sorted
        assert count > most - 2 * batch


def test_the_model_is_not_changed():
    proto, feeds = chain(5), {"x": RNG.normal(size=(3, 8)).astype(np.float32)}
    loaded = load_model(proto)
    before = loaded.proto().SerializeToString(deterministic=True)
    calibrate(loaded, load_samples(loaded, feeds), cache=False)
    assert loaded.proto().SerializeToString(deterministic=True) == before


def test_progress_goes_from_one_to_all(monkeypatch):
    monkeypatch.setattr(calibration_run, "GROUP_BYTES", 1)
    loaded = load_model(chain(3))
    told = []
    samples = load_samples(loaded, {"x": np.ones((6, 8), np.float32)}, batch_size=2)
    calibrate(loaded, samples, cache=False, progress=lambda *step: told.append(step))
    assert told == [("calibration", done, 9) for done in range(1, 10)]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancel_stops_it_and_keeps_nothing(after, tmp_path):
    loaded = load_model(chain(3))
    samples = load_samples(loaded, {"x": np.ones((8, 8), np.float32)}, batch_size=1)
    token, file = Cancel(), tmp_path / "kept.json"
    if not after:
        token.cancel()

    def progress(_stage, done, _count):
        if done == after:
            token.cancel()

    with pytest.raises(RunCancelled):
        calibrate(loaded, samples, cache=file, cancel=token, progress=progress)
    assert not file.exists()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"method": "kld"}, "no calibration method 'kld'"),
        ({"percentile": 120}, "percentile is 120"),
        ({"most": 0}, "over 0 samples"),
    ],
)
def test_what_cannot_be_is_refused(settings_, message):
    with pytest.raises(CalibrationError, match=message):
        ranges(chain(1), {"x": np.ones((2, 8), np.float32)}, **settings_)


def test_json_brings_everything_back(tmp_path):
    found = Calibration(
        {"a b": 0.1, "ü": 3.4028234663852886e38, "z": 0.0}, "percentile", 7, "m", "d", 99.9, True, ("w",)
    )
    assert Calibration.from_json(found.to_json()) == found
    path = found.save(tmp_path / "one.json")
    loaded = Calibration.load(path)
    assert loaded == found
    assert loaded.found_in == str(path)
    assert hash(loaded) == hash(found)
    assert pickle.loads(pickle.dumps(found)) == found
    assert dataclasses.replace(found, rows=8).amax == found.amax


@given(st.dictionaries(st.text(), st.floats(0, 3e38)), st.integers(0, 10**9), st.floats(0.1, 100))
@settings(max_examples=50, deadline=None)
def test_any_calibration_survives_json(amax, rows, percentile):
    found = Calibration(amax, "entropy", rows, percentile=percentile)
    assert Calibration.from_json(found.to_json()) == found


GOOD = Calibration({"x": 1.0}, "minmax", 3).to_data()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no calibration of Precision Explorer"),
        ('{"kind": "other"}', "no calibration of Precision Explorer"),
    ],
)
def test_a_file_that_is_something_else_is_refused(text, message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "version 9"),
        ({"amax": {"x": -1}}, "as its 'amax'"),
        ({"amax": {"x": "1"}}, "as its 'amax'"),
        ({"amax": {"x": True}}, "as its 'amax'"),
        ({"amax": [1]}, "as its 'amax'"),
        ({"amax": {"x": float("inf")}}, "as its 'amax'"),
        ({"rows": -1}, "-1 as its 'rows'"),
        ({"rows": 1.5}, "1.5 as its 'rows'"),
        ({"percentile": None}, "None as its 'percentile'"),
        ({"warnings": "w"}, "as its 'warnings'"),
        ({"method": 3}, "as its 'method'"),
    ],
)
def test_a_file_with_a_wrong_part_is_refused(change, message):
    with pytest.raises(CalibrationError, match=message):
        Calibration.from_data({**GOOD, **change})


@pytest.mark.parametrize("missing", sorted(set(GOOD) - {"kind", "version"}))
def test_a_file_that_lacks_a_part_is_refused(missing):
    with pytest.raises(CalibrationError, match=f"lacks '{missing}'"):
        Calibration.from_data({key: part for key, part in GOOD.items() if key != missing})


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(CalibrationError, match="cannot be read: No such file"):
        Calibration.load(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CalibrationError, match="not text"):
        Calibration.load(tmp_path / "bytes.json")


def test_scales_and_tensors_without_a_range():
    found = Calibration({"conv1_out": 12.7, "flat": 0.0}, "entropy", 500)
    assert found.scale("conv1_out") == np.float32(12.7 / 127)
    assert found.scale("conv1_out").dtype == np.float32
    assert found.scale("flat") == 1
    assert "conv1_out" in found
    with pytest.raises(CalibrationError, match=r"entropy over 500 samples.*'conv1_uot'.*Did you mean 'conv1_out'"):
        found.scale("conv1_uot")


@pytest.mark.parametrize("amax", [-1.0, float("nan"), float("inf")])
def test_ranges_that_are_none_are_refused(amax):
    with pytest.raises(CalibrationError, match="range of 'x'"):
        Calibration({"x": amax}, "minmax", 1)


def test_ranges_cannot_be_changed():
    given_ = {"x": 1.0}
    found = Calibration(given_, "minmax", 1)
    given_["x"] = 2.0
    assert found.amax["x"] == 1
    with pytest.raises(TypeError):
        found.amax["x"] = 3.0


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Calibration({}, "percentile", 500, percentile=99.9), "percentile 99.9 over 500 samples"),
        (Calibration({}, "minmax", 1), "minmax over 1 sample"),
        (Calibration({}, "tensorrt cache", 0), "tensorrt cache"),
    ],
)
def test_descriptions(found, words):
    assert found.description == words


def test_samples_that_do_not_fit_are_refused():
    loaded = load_model(chain(1))
    with pytest.raises(InputError, match="float64, not float32"):
        calibrate(loaded, Samples(({"x": np.ones((1, 8))},), 1, "user"), cache=False)
