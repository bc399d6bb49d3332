"""`precision-explorer search`: the front, and the best plan within a budget, exported."""

import csv

import numpy as np
import onnx
import pytest
from cli_support import SAMPLES, cli, sample

import explorer
from explorer.plan import Plan


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test alone."""
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results"


def test_a_budget_of_error_is_kept_by_the_exported_model(out):
    name = "digits_transformer"
    done = cli("search", *sample(name), "--max-error", "5e-4", "--count-layers", "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document()
    assert found["command"] == "search"
    assert 0 < found["taken"]["error"] <= 5e-4
    plan = Plan.load(out / "plan.json")
    x = explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", plan=plan)
    assert x.output_error()["rel_l2"].max() == pytest.approx(found["taken"]["error"])
    assert len(x.decisions().low_layers) == found["taken"]["low_layers"]
    onnx.checker.check_model(str(out / "model.fp16.onnx"))
    errors = [each["error"] for each in found["points"]]
    low = [each["low_layers"] for each in found["points"]]
    assert errors == sorted(errors)
    assert low == sorted(low)
    with (out / "front.csv").open() as file:
        assert [float(row["error"]) for row in csv.DictReader(file)] == pytest.approx(errors)


def test_without_a_budget_the_front_is_shown_and_no_model_written(out):
    done = cli("search", *sample("lenet5_digits"), "--gpu-model", "T4", "--out", out)
    assert done.code == 0, done.err
    assert "best plan" in done.out
    assert "latency on T4" in done.out
    assert "emulated" in done.out
    assert "predicted (roofline" in done.out
    assert {path.name for path in out.iterdir()} == {"front.csv"}


def test_a_drop_of_accuracy_that_is_allowed(out, tmp_path):
    data = dict(np.load(SAMPLES / "digits_transformer.npz"))
    labels = data.pop("labels")
    np.savez(tmp_path / "inputs.npz", **data)
    np.save(tmp_path / "labels.npy", labels)
    given = [SAMPLES / "digits_transformer.onnx", "--inputs", tmp_path / "inputs.npz"]
    more = ["--metric", "top1", "--labels", tmp_path / "labels.npy", "--max-drop", "0.005", "--count-layers"]
    done = cli("search", *given, *more, "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document()
    assert found["taken"]["metric"] >= found["exact_metric"] - 0.005
    assert found["taken"]["low_share"] > 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-error", "1e-3", "--max-latency-us", "9"], "--max-error and --max-latency-us are given"),
        (["--max-drop", "0.01"], "--max-drop is given without --metric"),
        (["--metric", "top2"], "There is no metric 'top2'"),
        (["--metric", "top1", "--labels", "labels.npy", "--data", "x.npz"], "Both --labels and --data"),
        (["--metric", "top1", "--labels", "nothing.npy"], "cannot be read"),
        (["--max-error", "nan"], "--max-error is nan"),
        (["--gpu-model", "H1"], "H1"),
        (["--gpu-model", "H100", "--count-layers"], "--count-layers is given with --gpu-model"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_runs(out, options, words):
    done = cli("search", *sample("lenet5_digits"), "--out", out, *options)
    assert done.code == 2
    assert words in " ".join(done.err.split())
    assert not out.exists()


def test_a_latency_that_no_plan_has_is_refused(out):
    done = cli("search", *sample("lenet5_digits"), "--max-latency-us", "0.001", "--out", out)
    assert done.code == 2
    assert "No plan takes at most 0.001 us" in " ".join(done.err.split())
    assert not out.exists()
