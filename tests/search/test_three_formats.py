"""The search among fp32, fp16 and int8 as its user sees it, on the sample models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.searching import opened

import explorer
from explorer.errors import BackendError, InputError
from explorer.scene import FrontColumns, ShownFront, known_accuracy
from explorer.search.agree import following

BOTH = ("fp16", "int8")


@pytest.fixture(scope="module")
def searched():
    x = opened("digits_transformer")
    return x, x.search(formats=BOTH, gpu_model="")


@pytest.fixture(scope="module")
def on_a_gpu():
    x = opened("lenet5_digits", batch_size=360)
    return x, x.search(formats=BOTH, gpu_model="T4")


def check_plans(x, front, points):
    """Each plan is what decide() makes of it, and was run."""
    for point in points:
        fork = x.fork()
        fork.plan = point.plan
        decisions = fork.decisions()
        for layer_id, label in zip(front.choice.layer_ids, point.choice, strict=True):
            assert label == 0 or decisions[layer_id].format == front.formats[label]
        np.testing.assert_array_equal(front.choice_of(decisions), point.choice)
        np.testing.assert_array_equal(front.choice_of(front.decisions(point.plan)), point.choice)
        assert fork.output_error()["rel_l2"].max() == pytest.approx(point.error)


def test_every_plan_of_the_front_is_what_is_decided_and_was_run(searched):
    x, front = searched
    assert x.front is front
    assert front.complete
    assert front.formats == ("fp32", "fp16", "int8")
    for one, other in itertools.pairwise(front.points):
        assert one.error < other.error
        assert one.cost > other.cost
    check_plans(x, front, front.points[::4])
    mixed = [point for point in front.points if {1, 2} <= set(point.choice.tolist())]
    assert mixed
    assert mixed[-1].plan.formats == BOTH


def test_the_front_is_never_worse_than_either_front_of_two_formats(on_a_gpu):
    x, front = on_a_gpu
    for formats in (("fp16",), ("int8",)):
        other = x.search(formats=formats, gpu_model="T4")
        assert other.formats == ("fp32", *formats)
        assert other.settings.plan.format == formats[0]
        for point in other.points:
            assert any(
                each.error <= point.error * (1 + 1e-6) and each.cost <= point.cost * (1 + 1e-9) for each in front.points
            )
        for budget in np.geomspace(*front.budget, 4):
            assert front.take(max_error=budget).cost <= other.take(max_error=budget).cost * (1 + 1e-9)


def test_latency_is_that_of_the_roofline(on_a_gpu):
    x, front = on_a_gpu
    check_plans(x, front, front.points[-1:])
    for point in front.points:
        fork = x.fork()
        fork.plan = point.plan
        assert fork.predicted_latency("T4").result.plan_us == pytest.approx(point.latency_us)
    exact, fastest = front.points[0], front.points[-1]
    middle = (exact.latency_us + fastest.latency_us) / 2
    assert front.take(max_latency_us=middle).latency_us <= middle
    with pytest.raises(InputError, match="No plan takes at most"):
        front.best(max_latency_us=fastest.latency_us / 10)


def test_the_sum_over_layers_follows_the_roofline(on_a_gpu):
    _, front = on_a_gpu
    for point in front.run:
        us, noise = front.choice.evaluate(point.choice)
        assert us == pytest.approx(point.latency_us, rel=0.1)
        assert np.sqrt(noise) == pytest.approx(point.predicted_error, abs=1e-12)


def test_casts_between_low_formats_go_through_fp32():
    x = opened("lenet5_digits", batch_size=360)
    x.plan = explorer.Plan().set({"features/conv1/Conv": "int8", "features/conv2/Conv": "int8"})
    found = x.predicted_latency("T4").result
    casts = {(cast.value, cast.source, cast.target) for cast in found.casts}
    pool = "/features/pool1/MaxPool_output_0"
    made = {value for value, *_ in casts}
    assert all("fp32" in (source, target) for _, source, target in casts)
    assert {("int8", "fp32"), ("fp32", "fp16")} <= {(source, target) for _, source, target in casts}
    assert len(made) < len(casts)  # one tensor goes from int8 to fp32 to fp16
    assert pool not in made


@pytest.mark.parametrize("budget", [5e-4, 3e-3, 2e-2])
def test_a_budget_is_kept_and_used(searched, budget):
    x, front = searched
    point = front.take(max_error=budget)
    check_plans(x, front, [point])
    assert point.error <= budget
    assert point.cost == min(each.cost for each in front.run if each.error <= budget)
    assert point.error > 0.7 * budget


def test_predictions_of_random_plans_are_near_their_runs(searched):
    x, front = searched
    rng = np.random.default_rng(5)
    ratios = []
    for share in np.linspace(0.1, 0.9, 12):
        allowed = front.choice.allowed
        labels = np.where(rng.random(allowed.shape[1]) < share, rng.integers(1, 3, allowed.shape[1]), 0)
        labels = np.where(allowed[labels, np.arange(labels.size)], labels, 0).astype(np.int8)
        for tied in np.unique(front.choice.tied):
            group = front.choice.tied == tied
            if group.sum() > 1:
                labels[group] = 0
        ratios.append(front.predicted_error(labels) / x.trial(front.point(labels).plan).after.error)
    assert np.mean([1 / 1.5 <= ratio <= 1.5 for ratio in ratios]) >= 0.9


def test_a_preview_runs_nothing_and_keeps_the_predicted_budget(searched):
    _, front = searched
    runs = len(front.run)
    for budget in np.geomspace(*front.budget, 6):
        found = front.preview(budget)
        assert found.predicted_error <= budget * (1 + 1e-9)
        assert found.predicted_error == pytest.approx(front.predicted_error(found.labels))
        assert found.low.dtype == np.bool_
        assert front.choice.fits(found.labels)
        np.testing.assert_array_equal(found.low, found.labels > 0)
    assert len(front.run) == runs


def test_the_table_counts_layers_by_format(searched):
    _, front = searched
    table = front.table()
    assert (table["fp16_layers"] + table["int8_layers"] == table["low_layers"]).all()
    assert table["int8_layers"].max() > 0
    assert "layers in int8" in str(front)
    assert "fp16 and int8 storage rounding (scales: " in front.error_provenance


def test_a_view_tells_plans_of_the_same_low_layers_apart(searched):
    x, front = searched
    shown = ShownFront.of(front, known_accuracy(x.results))
    points = front.points
    mixed = next(index for index, point in enumerate(points) if (point.choice == 2).any())
    fork = x.fork()
    fork.plan = points[mixed].plan
    assert np.flatnonzero(shown.runs(fork.decisions(), x.target)).tolist() == [mixed]
    columns = FrontColumns.of(front, fork.decisions(), x.target)
    assert len(columns.costs) == len(x.model.layers)
    assert len(shown.facts) == len(points)


def test_each_layer_says_what_each_other_format_would_change(on_a_gpu):
    x, front = on_a_gpu
    for point in front.points[:: max(1, len(front.points) // 3)]:
        told = front.explained(point.choice)
        us, _ = front.choice.evaluate(point.choice)
        for index, layer in enumerate(x.model.layers):
            words = told.sentence(index)
            assert words.startswith(("runs in", "stays in fp32", "has no format"))
            for label, name in enumerate(front.formats):
                if label == point.choice[index]:
                    continue
                after = point.choice.copy()
                unit = front.choice.units(point.choice, label)
                after[unit == unit[index]] = label
                if not front.choice.fits(after):
                    assert np.isnan(told.us[label, index])
                    continue
                assert told.us[label, index] == pytest.approx(front.choice.evaluate(after)[0] - us, abs=1e-6)
                assert told.errors[label, index] == pytest.approx(front.predicted_error(after), rel=1e-6, abs=1e-12)
                assert f"{name} would be" in words, layer.id
    fork = x.fork()
    fork.plan = front.points[-1].plan
    np.testing.assert_array_equal(front.explain(fork.decisions()).labels, front.points[-1].choice)


def test_without_latency_none_is_told(searched):
    x, front = searched
    found = front.explained(front.points[-1].choice)
    assert np.isnan(found.saves_us).all()
    assert not any(" us" in found.sentence(index) for index in range(len(x.model.layers)))


def test_the_blacklist_holds_and_a_front_of_two_formats_refuses_a_plan_of_three():
    x = opened("lenet5_digits")
    x.plan = explorer.Plan().block(op_types=["Gemm"]).use("int8", layers=["features/conv1/Conv"])
    front = x.search(gpu_model="")  # the plan names int8
    assert front.formats == ("fp32", "fp16", "int8")
    gemms = [index for index, layer in enumerate(x.model.layers) if layer.op == "Gemm"]
    assert all((point.choice[gemms] == 0).all() for point in front.points)
    assert all(point.plan.rules == x.plan.rules for point in front.points)
    assert "blacklist" in front.explained(front.points[-1].choice).sentence(gemms[0])
    two = x.search(formats=["fp16"], gpu_model="")
    with pytest.raises(InputError, match="the front is of fp32 and fp16"):
        two.explain(front.decisions(front.points[-1].plan))


def test_a_metric_decides():
    x = opened("lenet5_digits")
    front = x.search(formats=BOTH, metric="top1", max_drop=0.01, gpu_model="")
    point = front.take(max_drop=0.01)
    fork = x.fork()
    fork.plan = point.plan
    assert fork.accuracy().plan == point.metric >= fork.accuracy().exact - 0.01
    assert (point.choice == 2).sum() > 5


def test_layers_of_one_int8_kernel_go_together():
    """An activation runs in int8 exactly when its convolution does, and what moves data follows it."""
    x = opened("lenet5_digits", plan=explorer.Plan(format="int8"))
    front = x.search(gpu_model="")
    index = {layer.id: number for number, layer in enumerate(x.model.layers)}
    pairs = following(front.typing)
    assert ["features/conv1/Conv", "features/relu1/Relu"] in pairs
    for point in front.run:
        for one, other in pairs:
            assert point.mask[index[one]] == point.mask[index[other]]
        assert len(point.plan.overrides) <= (~point.mask).sum()


@pytest.mark.parametrize("low", ["int8", "tf32", "fp8e4m3", "bf16"])
def test_other_low_formats_are_a_choice_of_two(low):
    x = opened("digits_transformer", plan=explorer.Plan(format=low))
    front = x.search(gpu_model="")
    assert front.formats == ("fp32", low)
    assert len(front.points) > 4
    middle = float(np.sqrt(np.prod(front.budget)))
    point = front.take(max_error=middle)
    fork = x.fork()
    fork.plan = point.plan
    assert fork.output_error()["rel_l2"].max() == pytest.approx(point.error)
    assert point.error <= middle
    assert len(fork.decisions().low_layers) == point.low > 0


def test_tf32_is_faster_than_fp32_without_it_and_splits_no_kernel():
    x = opened("digits_transformer", batch_size=360, plan=explorer.Plan(format="tf32"))
    found = x.predicted_latency("A100").result
    assert found.plan_us == pytest.approx(found.uniform_us["tf32"])
    assert found.plan_us < found.uniform_us["fp32"] * (1 - 1e-3)
    front = x.search(gpu_model="A100")
    assert front.points[-1].latency_us == pytest.approx(found.plan_us)
    for point in front.run:
        assert front.costs.total(point.mask) == pytest.approx(point.latency_us)


def test_int8_on_this_machine_is_measured():
    x = opened("lenet5_digits", batch_size=360)
    front = x.search(formats=("int8",), gpu_model="cpu")
    assert front.settings.gpu_model == "cpu"
    assert "measured on" in front.latency_provenance
    assert "added up" in front.latency_provenance
    for point in front.points:
        assert point.latency_us == pytest.approx(front.costs.total(point.mask))
    assert front.points[0].latency_us > 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"formats": ("fp16", "bf16")}, InputError, "cannot choose among fp32, .*bf16"),
        ({"formats": ("fp8e4m3", "int8")}, InputError, "cannot choose among"),
        ({"formats": ("fp32",)}, InputError, "cannot choose among fp32"),
        ({"formats": ("int9",)}, InputError, "no format 'int9'"),
        ({"formats": BOTH, "gpu_model": "cpu"}, InputError, "fp16 cannot be measured on the CPU"),
        ({"formats": BOTH, "gpu_model": "H1000"}, BackendError, "H1000"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        opened("lenet5_digits").search(**{"gpu_model": "", **arguments})
