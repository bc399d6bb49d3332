"""The search as its user sees it, on the sample models: budgets are kept, and what was measured is remembered."""

import itertools

import numpy as np
import pytest
from support.searching import SAMPLES, opened

import explorer
from explorer.backends.runtime import Cancel, RunCancelled
from explorer.errors import InputError
from explorer.results.searching import search_settings
from explorer.search.agree import agreeing
from explorer.search.plans import plan_with

BROKEN = {f"*norm*/{name}" for name in ("Pow", "ReduceMean_1", "Add", "Sqrt")}


@pytest.fixture(scope="module")
def searched():
    x = opened("digits_transformer")
    return x, x.search(gpu_model="")


def test_the_front_is_one_and_every_plan_on_it_was_run(searched):
    x, front = searched
    assert x.front is front
    assert x.plan == explorer.Plan()
    assert x.tried == ()  # what a search runs, nobody asked for
    assert len(front.points) > 5
    for one, other in itertools.pairwise(front.points):
        assert one.error < other.error
        assert one.cost > other.cost
    for point in front.points[::4]:
        fork = x.fork()
        fork.plan = point.plan
        assert fork.output_error()["rel_l2"].max() == pytest.approx(point.error)
        assert len(fork.decisions().low_layers) == point.low


def test_layers_that_overflow_stay_in_fp32_and_say_why(searched):
    front = searched[1]
    blocked = opened("digits_transformer", plan=explorer.Plan().block(layers=sorted(BROKEN)))
    assert set(front.pinned) == {row.layer_id for row in blocked.decisions() if row.format == "fp32"}
    assert all("beyond the range of fp16" in reason for reason in front.pinned.values())
    assert "20 layers keep fp32" in front.summary


@pytest.mark.parametrize("budget", [1e-4, 3e-4, 1e-3, 0.5])
def test_a_budget_is_kept_and_used(searched, budget):
    x, front = searched
    point = front.take(max_error=budget)
    fork = x.fork()
    fork.plan = point.plan
    assert fork.output_error()["rel_l2"].max() == pytest.approx(point.error)
    assert point.error <= budget
    better = [each for each in front.run if each.error <= budget]
    assert point.cost == min(each.cost for each in better)
    assert point.error > 0.8 * budget or point.low == 93


def test_a_preview_runs_nothing_and_keeps_the_predicted_budget(searched):
    _, front = searched
    runs = len(front.run)
    low, high = front.budget
    shares = []
    for budget in np.geomspace(low, high, 12):
        found = front.preview(budget)
        assert found.predicted_error <= budget * (1 + 1e-9)
        assert found.predicted_error == pytest.approx(front.predicted_error(found.low))
        shares.append(found.low_share)
    assert shares == sorted(shares)
    assert len(front.run) == runs


def test_a_metric_decides(searched):
    x, _ = searched
    front = x.search(metric="top1", max_drop=0.005, gpu_model="")
    point = front.take(max_drop=0.005)
    fork = x.fork()
    fork.plan = point.plan
    assert fork.accuracy().plan == point.metric >= fork.accuracy().exact - 0.005
    assert point.low == 93
    assert all(each.metric is not None for each in front.points)


def test_a_metric_on_other_data(searched):
    x, _ = searched
    with np.load(SAMPLES / "digits_transformer.npz") as data:
        part = {name: data[name][:40] for name in data.files}
    seen = []

    def metric(outputs, labels):
        (scores,) = outputs.values()
        seen.append(len(scores))
        return float((scores.argmax(axis=1) == labels).mean())

    front = x.search(metric=metric, data=part, gpu_model="")
    assert set(seen) == {40}
    assert front.judge.exact_score > 0.9


@pytest.mark.parametrize("exact", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_refused(searched, exact):
    with pytest.raises(InputError, match=f"metric of the fp32 model is {exact}"):
        searched[0].search(metric=lambda outputs, labels: exact, gpu_model="")


def test_the_blacklist_is_kept_and_overrides_are_not():
    x = opened("digits_transformer")
    x.plan = x.plan.block(op_types=["Softmax"]).set({"embed/Add": "fp32"})
    point = x.search(gpu_model="").take(max_error=0.5)
    assert point.plan.rules == x.plan.rules
    assert "embed/Add" not in point.plan.overrides
    x.plan = point.plan
    formats = {row.layer_id: row.format for row in x.decisions()}
    assert {formats[layer.id] for layer in x.model.layers if layer.op == "Softmax"} == {"fp32"}
    sentence = x.front.explain(x.decisions()).sentence(
        next(index for index, layer in enumerate(x.model.layers) if layer.op == "Softmax")
    )
    assert "blacklist" in sentence


def test_latency_on_a_gpu():
    x = opened("digits_transformer", batch_size=360)
    front = x.search(gpu_model="T4")
    assert front.device == "T4"
    assert front.latency_provenance == "predicted (roofline, T4), batch of 360"
    assert front.latency_provenance in str(front)
    for point in front.points:
        fork = x.fork()
        fork.plan = point.plan
        assert fork.predicted_latency("T4").result.plan_us == pytest.approx(point.latency_us)
    slowest, fastest = front.points[0], front.points[-1]
    assert fastest.latency_us < slowest.latency_us
    middle = (slowest.latency_us + fastest.latency_us) / 2
    assert front.take(max_latency_us=middle).latency_us <= middle
    with pytest.raises(InputError, match="No plan takes at most"):
        front.best(max_latency_us=fastest.latency_us / 10)


def test_what_was_measured_is_remembered(searched):
    front = searched[1]
    again = opened("digits_transformer")
    measured = []
    made = again.search(gpu_model="", progress=lambda stage, done, total, left: measured.append((stage, done, total)))
    np.testing.assert_array_equal(made.noise.noise, front.noise.noise)
    assert {"noise of each tensor", "plans of the front"} == {stage for stage, _, _ in measured}


def test_a_search_that_is_cancelled_leaves_what_it_found():
    x = opened("digits_transformer_mask")
    token = Cancel()
    with pytest.raises(RunCancelled):
        x.search(gpu_model="", cancel=token, found=lambda _: token.cancel())
    assert x.front is not None
    assert x.front.points
    x.search(gpu_model="")
    assert x.front.complete


def test_a_front_comes_before_everything_is_measured():
    x = opened("digits_transformer_mask")
    fronts = []
    x.search(gpu_model="", resume=False, found=lambda front: fronts.append((front.noise.complete, len(front.points))))
    assert fronts[0][0] is False
    assert fronts[0][1] > 1
    assert fronts[-1][0] is True


def test_no_time_gives_a_front_all_the_same():
    x = opened("digits_transformer")
    front = x.search(gpu_model="", seconds=0.0, resume=False)
    point = front.take(max_error=1e-3)
    assert point.error <= 1e-3
    assert point.low > 10


def test_settings_that_changed_are_told(searched):
    x, front = searched
    other = x.fork()
    assert front.differs(front.settings) == ""
    other.plan = other.plan.block(op_types=["Softmax"])
    told = front.differs(search_settings(other.plan, other.target, "H100"))
    assert "the blacklist changed" in told
    assert "it is for no GPU" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "was given 0 budgets"),
        ({"max_error": 1e-3, "max_latency_us": 5}, "was given 2 budgets"),
        ({"max_error": float("nan")}, "max_error is nan"),
        ({"max_error": "little"}, "max_error is 'little'"),
        ({"max_drop": 0.1}, "had no metric"),
        ({"max_latency_us": 5}, "made without a GPU"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused(searched, arguments, words):
    with pytest.raises(InputError, match=words):
        searched[1].best(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_drop": 0.1}, "max_drop was given, and no metric"),
        ({"data": {}}, "data was given, and no metric"),
        ({"agree": ["kqv"]}, "no layers that agree by 'kqv'"),
    ],
)
def test_what_cannot_be_searched_is_refused(searched, arguments, words):
    with pytest.raises(InputError, match=words):
        searched[0].search(gpu_model="", **arguments)


def test_without_latency_none_is_told(searched):
    x, front = searched
    for point in front.points[:: len(front.points) - 1]:
        found = front.explain(front.decisions(point.plan))
        assert np.isnan(found.saves_us).all()
        words = [found.sentence(index) for index in range(len(x.model.layers))]
        assert not any(" us" in each or "latency" in each or "()" in each for each in words)


def test_layers_that_agree_run_in_one_format(searched):
    x, front = searched
    layers = {layer.id: layer for layer in x.model.layers}
    groups = agreeing(front.typing, ("qkv", "tied"), front.costs)
    assert any(len(group) == 3 for group in groups)  # Q, K and V
    for budget in np.geomspace(*front.budget, 8):
        low = {layer_id for layer_id, is_low in zip(layers, front.preview(budget).low, strict=True) if is_low}
        for group in groups:
            assert len(low & set(group)) in (0, len(group))


def test_prediction_is_within_a_factor_of_one_and_a_half(searched):
    x, front = searched
    rng = np.random.default_rng(5)
    free = np.flatnonzero(front.free)
    ratios = []
    for share in np.linspace(0.05, 0.95, 20):
        low = np.zeros(len(x.model.layers), bool)
        low[free[rng.random(len(free)) < share]] = True
        ids = [layer.id for layer, is_low in zip(x.model.layers, low, strict=True) if is_low]
        plan, _ = plan_with(ids, x.plan, front.typing)
        ratios.append(front.predicted_error(low) / x.trial(plan).after.error)
    assert np.mean([1 / 1.5 <= ratio <= 1.5 for ratio in ratios]) >= 0.95
