"""docs/int8.md says what the record of the samples says, and the record is what the samples give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import explorer
from explorer.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, RECORD, PAGE = ROOT / "sample_models", ROOT / "benchmarks" / "results" / "int8.json", ROOT / "docs" / "int8.md"
NAMES = ("lenet5_digits", "digits_transformer", "misaligned_cnn")

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture
def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_page_is_what_the_record_says(record, monkeypatch):
    """Nobody has edited a figure by hand, or changed the script without writing the page again."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import int8_samples  # noqa: PLC0415 - a script, not installed

    page = PAGE.read_text(encoding="utf-8")
    assert int8_samples.placed(page, record) == page


def test_rows_for_calibration_are_none_of_the_test_set():
    with np.load(SAMPLES / "digits_train.npz") as train, np.load(SAMPLES / "lenet5_digits.npz") as test:
        known = {image.tobytes() for image in test["image"]}
        assert train["image"].shape == (400, 1, 8, 8)
        assert train["image"].dtype == np.float32
        assert not [image for image in train["image"] if image.tobytes() in known]
        assert np.bincount(train["labels"], minlength=10).min() > 20


@pytest.mark.parametrize("name", NAMES)
def test_the_record_is_what_the_sample_gives(name, record):
    """The emulated accuracy after calibration on the training set, which no machine changes by more than an image."""
    found = next(each for each in record["models"] if each["name"] == name)
    path = SAMPLES / f"{name}.onnx"
    x = explorer.open(path, inputs=path.with_suffix(".npz"), target="onnxruntime-cpu")
    with np.load(SAMPLES / "digits_train.npz") as arrays:
        images = np.repeat(arrays["image"], x.model.inputs[0].shape[1], axis=1)
    assert x.calibrate({"image": images}, cache=False).description == found["calibration"]
    x.plan = Plan(format="int8")
    accuracy = x.accuracy()
    one = 1.5 / found["test_rows"]
    assert accuracy.exact == pytest.approx(found["fp32"])
    assert accuracy.plan == pytest.approx(found["emulated"]["percentile"]["accuracy"], abs=one)
    assert found["run"] == pytest.approx(accuracy.plan, abs=one)
    assert found["fp32"] - found["run"] < 0.01
    assert len(x.decisions().low_layers) == found["int8_layers"]
    assert found["bytes"]["int8"] < found["bytes"]["fp32"]


@pytest.mark.parametrize("name", NAMES)
def test_latencies_are_told_with_where_they_were_measured(name, record):
    found = next(each for each in record["models"] if each["name"] == name)
    for each in found["latency"]:
        for plan in ("fp32", "int8"):
            assert each[plan]["us"] > 0
            assert each[plan]["provenance"].startswith("measured on ")
