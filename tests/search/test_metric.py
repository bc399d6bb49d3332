"""The user's own metric, and what another plan would change."""

from pathlib import Path

import numpy as np
import pytest

import explorer
from explorer.errors import InputError
from explorer.model import Samples
from explorer.results.metric import metric_named

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)


def samples(labels=None):
    return Samples((), 3, "user", labels)


def test_top1_counts_labels_and_a_nan_is_no_prediction():
    metric = metric_named("top1", samples(np.array([1, 0, 0])))
    assert metric({"y": SCORES}, {"y": SCORES}) == pytest.approx(2 / 3)
    broken = SCORES.copy()
    broken[0, 0] = np.nan
    assert metric({"y": SCORES}, {"y": broken}) == pytest.approx(1 / 3)


def test_agreement_needs_no_labels():
    metric = metric_named("agreement", samples())
    other = SCORES.copy()
    other[1] = [0.2, 0.8]
    assert metric({"y": SCORES}, {"y": SCORES}) == 1
    assert metric({"y": SCORES}, {"y": other}) == pytest.approx(2 / 3)
    other[0, 1] = np.nan
    assert metric({"y": SCORES}, {"y": other}) == pytest.approx(1 / 3)


def test_a_function_of_the_user_gets_outputs_and_labels():
    labels = np.array([1, 0, 0])
    metric = metric_named(lambda outputs, given: float((given == labels).all() and outputs["y"][0, 1]), samples(labels))
    assert metric({"y": SCORES * 0}, {"y": SCORES}) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("metric", "labels", "words"),
    [
        ("top2", None, "no metric 'top2'"),
        ("top1", None, "needs labels"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, labels, words):
    with pytest.raises(InputError, match=words):
        metric_named(metric, samples(labels))


def test_a_function_that_fails_is_told_in_words():
    metric = metric_named(lambda outputs, labels: outputs["nothing"], samples())
    with pytest.raises(InputError, match=r"The metric failed: KeyError: 'nothing'"):
        metric({"y": SCORES}, {"y": SCORES})


def test_agreement_of_a_model_without_scores_is_refused():
    with pytest.raises(InputError, match="No output of the model is a table of scores"):
        metric_named("agreement", samples())({"y": SCORES[:, 0]}, {"y": SCORES[:, 0]})


def test_a_trial_runs_both_plans_and_changes_nothing():
    x = explorer.open(SAMPLES / "digits_transformer.onnx", inputs=SAMPLES / "digits_transformer.npz")
    plan = x.plan
    other = plan.block(layers=["*norm*/Pow", "*norm*/ReduceMean_1", "*norm*/Add", "*norm*/Sqrt"])
    found = x.trial(other, gpu_model="H100")
    assert (x.plan, x.tried) == (plan, ())
    assert found.before.metric < 0.2 < 0.98 < found.after.metric
    assert found.after.error < found.before.error
    x.plan = other
    worst = x.output_error()["rel_l2"].max()
    assert found.after.error == pytest.approx(worst)
    assert found.after.latency_us == pytest.approx(x.predicted_latency("H100").result.plan_us)
    assert "accuracy 9.7 % → 98.9 %" in found.text
    assert "emulated" in found.text
    assert "predicted (roofline, H100" in str(found)
    assert [each.plan for each in x.tried] == [other]


def test_a_trial_of_a_plan_that_names_nothing_is_refused():
    x = explorer.open(SAMPLES / "lenet5_digits.onnx", inputs=SAMPLES / "lenet5_digits.npz")
    with pytest.raises(explorer.errors.PlanError, match="names the layer"):
        x.trial(x.plan.block(layers=["nothing"]))
