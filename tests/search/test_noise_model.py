"""The noise model: its predictions against runs of plans, what it says of tensors that break, and the way there."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import explorer
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.probe.sources import rounding_sources
from explorer.search.noise import sweep
from explorer.search.plans import plan_with
from explorer.search.store import Store

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def models_of(x, **options):
    results, low_format = x.results, x.plan.format
    return sweep(
        results.typing(low_format, x.target),
        x.samples,
        lambda: results.local(low_format, x.target),
        lambda: results.ranges(low_format, x.target),
        **options,
    )


def last_of(x, **options):
    return list(models_of(x, **options))[-1]


def opened(nodes, weights, x, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", x.shape[1]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return explorer.open(model, inputs={"x": x}, target=None)


@pytest.fixture(scope="module", params=["lenet5_digits", "digits_transformer", "misaligned_cnn"])
def sample(request):
    x = explorer.open(SAMPLES / f"{request.param}.onnx", inputs=SAMPLES / f"{request.param}.npz")
    return x, last_of(x)


def test_random_plans_err_as_predicted(sample):
    x, noise = sample
    assert noise.complete
    layers = x.model.layers
    free = [layer.id for layer in layers if layer.id in noise.sources.touched and layer.id not in noise.pinned]
    generator = np.random.default_rng(1)
    within = []
    for share in generator.uniform(0.05, 0.95, 12):
        low = {layer_id for layer_id in free if generator.random() < share}
        fork = x.fork()
        fork.plan, decisions = plan_with(low, x.plan, noise.typing)
        mask = np.array([layer.id in decisions.low_layers for layer in layers])
        predicted = np.sqrt(noise.predict(mask).max())
        measured = fork.output_error()["rel_l2"].max()
        within.append(predicted <= 1.5 * measured and measured <= 1.5 * predicted)
    assert np.mean(within) >= 0.95


def test_one_layer_alone_errs_as_its_sensitivity_says(sample):
    x, noise = sample
    sensitivity = noise.sensitivity()
    for index, layer in enumerate(x.model.layers):
        mask = np.arange(len(sensitivity)) == index
        if layer.id in noise.sources.touched:
            assert sensitivity[index] == noise.predict(mask).max()
        else:
            assert np.isnan(sensitivity[index])
            assert noise.predict(mask).max() == 0


def test_a_tensor_that_overflows_pins_what_rounds_it_and_nothing_else():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["large"], name="blow"),
        helper.make_node("Mul", ["large", "small"], ["back"], name="shrink"),
        helper.make_node("MatMul", ["back", "w"], ["y"], name="product"),
    ]
    weights = {"big": [3e5], "small": [1 / 3e5], "w": rng.normal(size=(6, 6))}
    noise = last_of(opened(nodes, weights, rng.normal(size=(4, 6)).astype(np.float32)))
    assert noise.pinned.keys() == {"blow", "shrink"}
    assert noise.pinned["shrink"] == "'large' holds values beyond the range of fp16"
    assert np.isinf(noise.sensitivity()[:2]).all()
    assert 0 < noise.sensitivity()[2] < 1e-5


def test_a_mask_that_overflows_harmlessly_pins_nothing():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Where", ["keep", "x", "far"], ["masked"], name="mask"),
        helper.make_node("Softmax", ["masked"], ["y"], name="softmax", axis=1),
    ]
    keep = np.array([True, True, True, False])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(keep, "keep"), numpy_helper.from_array(np.float32(-1e9), "far")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feed = {"x": rng.normal(size=(3, 4)).astype(np.float32)}
    noise = last_of(explorer.open(model, inputs=feed, target=None))
    assert "far" in noise.sources.names
    assert not noise.pinned


def test_what_vanishes_and_is_divided_by_is_found_though_nothing_overflows():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Mul", ["x", "tiny"], ["little"], name="shrink"),
        helper.make_node("Div", ["x", "little"], ["y"], name="divide"),
    ]
    x = opened(nodes, {"tiny": [1e-9]}, (1 + rng.random(size=(4, 6))).astype(np.float32))
    noise = last_of(x)
    assert noise.pinned.keys() == {"shrink", "divide"}
    assert all("makes an output inf or NaN" in reason for reason in noise.pinned.values())


def test_what_was_not_measured_for_want_of_time_counts_as_breaking():
    rng = np.random.default_rng(0)
    nodes, last = [], "x"
    for index in range(40):  # the whole breaks, by what is divided in the last place
        nodes.append(helper.make_node("Sin", [last], [f"s{index}"], name=f"sin{index}"))
        last = f"s{index}"
    nodes += [
        helper.make_node("Mul", [last, "tiny"], ["little"], name="shrink"),
        helper.make_node("Div", [last, "little"], ["y"], name="divide"),
    ]
    x = opened(nodes, {"tiny": [1e-9]}, (1 + rng.random(size=(4, 6))).astype(np.float32))
    early = list(models_of(x, seconds=0.0))
    assert early
    assert not early[-1].complete
    assert np.isinf(early[-1].noise).all()
    assert np.isfinite(last_of(x).noise[:, 0]).sum() >= 40


def test_every_model_on_the_way_is_whole_and_a_later_one_knows_more(monkeypatch):
    monkeypatch.setattr("explorer.search.noise._SHOW_EVERY_S", 0.0)
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    found = list(models_of(x))
    assert len(found) > 10
    for one, other in itertools.pairwise(found):
        assert (one.basis == 2).sum() <= (other.basis == 2).sum()
    assert all((model.noise >= 0).all() for model in found)
    assert found[-1].complete
    assert "measured alone" in found[-1].summary


def test_a_later_sweep_measures_nothing_again(tmp_path):
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz")
    path = tmp_path / "store.json"
    first = last_of(x, store=Store(path))
    before = path.read_bytes()
    again = last_of(x, store=Store(path))
    np.testing.assert_array_equal(first.noise, again.noise)
    assert path.read_bytes() == before


def test_a_cancelled_sweep_keeps_what_it_measured(tmp_path):
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    token, store = Cancel(), Store(tmp_path / "store.json")

    def cancel_soon(done, *_):
        if done == 10:
            token.cancel()

    with pytest.raises(RunCancelled):
        last_of(x, store=store, cancel=token, progress=cancel_soon)
    kept = Store(tmp_path / "store.json")
    assert kept.batches == store.batches is not None
    names = rounding_sources(x.results.typing("fp16", x.target)).names
    assert sum(kept.get([name]) is not None for name in names) >= 8
