"""The GPU suite without a GPU: its pages are what the record, or its absence, says; its rows with a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.gpu_record import record_of

from explorer.backends import cuda_isolated, onnxruntime_cuda
from explorer.backends.runtime import create_session
from explorer.backends.status import BackendStatus, backend_status
from explorer.errors import BackendError
from explorer.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
RECORD, ACCUMULATION = (ROOT / "benchmarks" / "results" / f"{name}.json" for name in ("gpu", "accumulation"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """The scripts' own packages, which are not installed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_the_pages_are_what_the_records_say():
    from gpu.page import fidelity_page, gpu_page, read  # noqa: PLC0415

    record = read()
    assert (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8") == gpu_page(record)
    accumulation = json.loads(ACCUMULATION.read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") == fidelity_page(record, accumulation)
    if record is not None:
        assert not record["quick"]
        assert str(ROOT) not in json.dumps(record)


def test_without_a_record_both_pages_say_plainly_that_nothing_ran():
    from gpu.page import fidelity_page, gpu_page  # noqa: PLC0415

    page = gpu_page(None)
    assert "Nothing of this has run on a GPU so far" in page
    parts = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(parts) >= 9
    assert all("| not run |" in line for line in parts)
    assert "run_gpu_suite.py" in page
    assert "nothing has run on a GPU" in fidelity_page(None, json.loads(ACCUMULATION.read_text(encoding="utf-8")))


def test_the_commands_that_the_page_shows_are_there():
    from gpu.page import HOW  # noqa: PLC0415

    for line in HOW.splitlines():
        words = line.split()
        if words[:1] == ["python"]:
            assert (ROOT / words[1]).exists()


def test_the_record_of_summation_is_what_the_script_computes():
    """Made again for the shortest sums; longer ones grow as sums of fp16 must, and fp32 sums do not."""
    from gpu import accumulation  # noqa: PLC0415

    stored = json.loads(ACCUMULATION.read_text(encoding="utf-8"))["rows"]
    assert len(stored) == len(accumulation.OPS) * len(accumulation.LENGTHS)
    x, w = accumulation.operands("MatMul", 64)
    truth = accumulation.exact("MatMul", x, w)
    row = next(item for item in stored if (item["op"], item["terms"]) == ("MatMul", 64))
    assert accumulation.error(accumulation.emulated("MatMul", x, w), truth) == pytest.approx(row["emulated"], rel=0.02)
    half = accumulation.product(x, w, accumulation.HALF, accumulation.HALF)
    assert accumulation.error(half, truth) == pytest.approx(row["fp16_sums"], rel=0.02)
    for op in accumulation.OPS:
        rows = [item for item in stored if item["op"] == op]
        assert [item["fp16_sums"] for item in rows] == sorted(item["fp16_sums"] for item in rows)
        for item in rows:
            assert item["emulated"] == pytest.approx(item["storage"], rel=0.02)
            assert item["fp32_sums"] == pytest.approx(item["storage"], rel=0.02)
            assert item["fp16_sums"] > 2 * item["storage"]


@pytest.fixture
def stand_in(monkeypatch):
    """Let the CUDA backend run on this CPU."""
    ready = BackendStatus("onnxruntime-cuda", "ready", devices=("Test GPU",))
    monkeypatch.setattr(onnxruntime_cuda, "backend_status", lambda: (ready,))

    def on_cpu(source, *, provider="cpu", device=0, provider_options=None, **settings):
        return create_session(source, **settings)

    for module in (onnxruntime_cuda, cuda_isolated):
        monkeypatch.setattr(module, "create_session", on_cpu)


def test_a_run_fills_the_record_and_the_record_the_pages(stand_in):
    """The whole suite for one model, with the CPU in the GPU's place; what cannot be had is a row that says why."""
    from gpu import measuring, run_gpu_suite  # noqa: PLC0415
    from gpu.page import fidelity_page, gpu_page  # noqa: PLC0415

    case = next(iter(measuring.cases({"lenet5_digits": (2,)})))
    record = record_of(
        plans={"lenet5_digits": {"fp32": Plan(base="fp32"), "fp16": Plan(), "searched": "No such plan."}}
    )
    run_gpu_suite.measure_case(case, record, {"runs": 5, "warmup": 0}, "H100")
    assert [(row["plan"], row["batch"]) for row in record["latency"]] == [("fp32", 2), ("fp16", 2)]
    assert record["latency"][1]["casts"] == 2
    assert all("isolated" in row["provenance"] for row in record["latency"])
    assert {item["what"].rpartition(", ")[2] for item in record["failed"]} == {"searched", "AutoCast"}
    assert [row["plan"] for row in record["roofline"]] == ["fp32", "fp16"]
    assert all(row["predicted_us"] > 0 and row["layers"] for row in record["roofline"])
    record["fidelity"] = measuring.fidelity_rows(case, case.open(), provider="cpu")
    assert [row["scope"] for row in record["fidelity"]] == ["local", "accumulated"]
    json.dumps(record["fidelity"], allow_nan=False)

    page = gpu_page(record)
    assert "Measured on one **Test GPU**" in page
    assert "19 passed" in page
    assert "isolated in 2 of 2 measurements" in page
    assert "No CUPTI here." in page
    assert "| isolated times by CUDA events | 2 measurements |" in page
    assert "| times by layer through CUPTI | not run |" in page
    assert "| kernel list, live | tests: 19 passed |" in page
    assert "**Not run.** TensorRT is not installed." in page
    assert "No such plan." in page
    assert "A quick run" in page
    assert "Nothing of this has run" not in page
    pages = fidelity_page(record, json.loads(ACCUMULATION.read_text(encoding="utf-8")))
    assert "Measured on one Test GPU" in pages
    assert "each layer alone" in pages
    assert "nothing has run on a GPU" not in pages


def test_a_batch_repeats_the_samples_where_there_are_too_few():
    from gpu import measuring  # noqa: PLC0415

    case = measuring.Case("lenet5_digits", 2000, ROOT / "sample_models" / "lenet5_digits.onnx")
    (array,) = case.feeds().values()
    assert array.shape == (2000, 1, 8, 8)
    assert array[: len(array) // 2].any()


def test_a_model_that_is_not_there_is_told_with_how_to_make_it():
    from gpu import measuring  # noqa: PLC0415

    assert list(measuring.cases({"no_such_model": (1,)})) == [
        "no_such_model: not there; python sample_models/make.py no_such_model"
    ]


def test_the_script_refuses_before_it_measures_where_there_is_no_gpu(monkeypatch):
    if next(item for item in backend_status() if item.name == "onnxruntime-cuda").state == "ready":
        pytest.skip("there is a GPU here")
    from gpu import run_gpu_suite  # noqa: PLC0415

    monkeypatch.setattr(sys, "argv", ["run_gpu_suite.py"])
    monkeypatch.setattr(run_gpu_suite, "run_tests", lambda: pytest.fail("it began"))
    with pytest.raises(BackendError, match="onnxruntime-cuda is not ready"):
        run_gpu_suite.main()
