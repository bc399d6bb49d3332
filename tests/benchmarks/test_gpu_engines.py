"""The GPU suite with TensorRT, on stand-ins for its bindings and for the driver: rows, the record, the page."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from pathlib import Path

import pytest
from support.fake_driver import FakeDriver
from support.gpu_record import record_of
from support.tensorrt_here import Here

from explorer.backends.tensorrt import device, layer_latency, versions
from explorer.errors import BackendError
from explorer.plan import Plan
from explorer.results import engine_builds

ROOT = Path(__file__).resolve().parents[2]
PLANS = {"fp32": Plan(base="fp32"), "fp16": Plan(), "searched": Plan().block(layers=["classifier/fc3/Gemm"])}

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not in the source distribution"
)


@pytest.fixture(autouse=True)
def path(monkeypatch, tmp_path):
    """The scripts' own packages, which are not installed; engines are kept in a folder of this test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def driver():
    return FakeDriver()


@pytest.fixture(params=["10.13.3.9", "11.4.0.12"])
def here(request, monkeypatch, driver):
    """A machine that has TensorRT, and a GPU behind a stand-in for the driver's library."""
    made = Here(monkeypatch, request.param, gpu="NVIDIA H200")
    loads = engine_builds.load_tensorrt
    monkeypatch.setattr(versions, "load_tensorrt", loads)
    opened = lambda index: device.Device(device._Driver(driver), index)  # noqa: E731
    monkeypatch.setattr(engine_builds, "open_device", opened)
    return made


@pytest.fixture
def case():
    from gpu import measuring  # noqa: PLC0415

    return next(iter(measuring.cases({"lenet5_digits": (2,)})))


def measured(case, **parts):
    """Returns the record after all engines of one model were measured."""
    from gpu import engines, run_gpu_suite  # noqa: PLC0415

    record = record_of(plans={case.name: PLANS}, tensorrt=engines.find_tensorrt(0), **parts)
    run_gpu_suite.measure_engines(case, record, {"device": 0, "runs": 5})
    return record


def test_an_engine_of_every_plan_is_a_row(here, driver, case):
    record = measured(case)
    assert record["failed"] == []
    assert record["tensorrt"]["version"] == here.fake.trt.__version__
    assert [(row["plan"], row["batch"], row["device"]) for row in record["engines"]] == [
        (label, 2, "NVIDIA H200") for label in PLANS
    ]
    assert here.builds == 3
    for row in record["engines"]:
        assert row["whole_us"] == 1500.0  # the stand-in's clock
        assert row["runs"] == 5
        assert row["layers_us"] > 0
        assert row["slowest"]
        assert f"TensorRT {here.fake.trt.__version__}" in row["provenance"]
        assert "batch of 2" in row["provenance"]
    shares = [row["low_share"] for row in record["engines"]]
    assert shares[0] == 0 < shares[2] < shares[1]
    assert driver.open == {"memory": 0, "events": 0, "streams": 0}
    json.dumps(record["engines"], allow_nan=False)


def test_layers_that_ran_in_another_format_are_rows_of_the_record_and_counted_on_the_page(here, case, monkeypatch):
    """The stand-in's engines run what the file says, so one kernel is told to have run in fp32."""
    from gpu.page import gpu_page  # noqa: PLC0415

    plain = layer_latency._kernel

    def in_fp32(each):
        kernel = plain(each)
        return layer_latency.replace(kernel, format="fp32") if "features/conv2/Conv" in kernel.layer_ids else kernel

    monkeypatch.setattr(layer_latency, "_kernel", in_fp32)
    record = measured(case)
    found = {row["plan"]: row["mismatches"] for row in record["engines"]}
    wrong = [{"layer": "features/conv2/Conv", "asked": "fp16", "ran": "fp32"}]
    assert found == {"fp32": [], "fp16": wrong, "searched": wrong}
    assert "- Asked fp16, ran fp32: 1: `features/conv2/Conv`" in gpu_page(record)


def test_the_page_tells_engines_beside_the_same_plan_on_cuda(here, case):
    from gpu.page import gpu_page  # noqa: PLC0415

    row = {
        "model": case.title, "batch": 2, "plan": "fp16", "whole_us": 321.0, "spread_us": 1.0, "provenance": "by hand",
    }  # fmt: skip
    tests = {"gpu": None, "tensorrt": {"returncode": 0, "summary": "2 passed", "lines": []}}
    page = gpu_page(measured(case, latency=[row], tests=tests))
    assert f"TensorRT {here.fake.trt.__version__} on NVIDIA H200" in page
    (line,) = [
        line for line in page.splitlines() if line.startswith("| lenet5 digits | 2 | fp16 | ") and "1500" in line
    ]
    assert "| 1500 ± 0 | 1.00x | 321 |" in line
    assert "| TensorRT: engines, their times | 3 measurements |" in page
    assert "| TensorRT: outputs, values inside engines | tests: 2 passed |" in page
    assert "Tests that need TensorRT: 2 passed" in page


def test_an_engine_that_fails_is_a_row_that_says_why_and_the_others_go_on(here, case):
    here.fake.faults["build"] = "[layer conv1] out of ideas"
    record = measured(case)
    assert record["engines"] == []
    assert [item["what"].rpartition(", ")[0] for item in record["failed"]] == [
        f"lenet5 digits, batch 2, {label}" for label in PLANS
    ]
    assert all("out of ideas" in item["why"] for item in record["failed"])


def test_a_machine_without_tensorrt_measures_no_engine_and_says_why():
    from gpu import engines  # noqa: PLC0415
    from gpu.page import gpu_page  # noqa: PLC0415

    if versions.backend_status()[2].state == "ready":
        pytest.skip("TensorRT is here")
    found = engines.find_tensorrt(0)
    assert found["version"] is None
    page = gpu_page(record_of(tensorrt=found))
    assert f"**Not run.** {found['why']}" in page
    assert "tensorrt is not ready" in found["why"]


@pytest.mark.parametrize("with_tensorrt", [True, False])
def test_the_suite_runs_tests_and_engines_of_tensorrt_where_it_loads(monkeypatch, tmp_path, with_tensorrt):
    """TensorRT comes last, and the record is written before it: a crash there costs nothing else."""
    from gpu import run_gpu_suite  # noqa: PLC0415

    done, out = [], tmp_path / "gpu.json"
    monkeypatch.setattr(run_gpu_suite, "run_tests", lambda marks: done.append(marks) or {"summary": marks})
    monkeypatch.setattr(run_gpu_suite.measuring, "fidelity_rows", lambda *_, **__: [])

    def on_cuda(case, record, settings, gpu_model):
        done.append((case.name, case.batch, "cuda"))

    def on_tensorrt(case, record, settings):
        assert out.exists()
        done.append((case.name, case.batch, "tensorrt"))

    monkeypatch.setattr(run_gpu_suite, "measure_case", on_cuda)
    monkeypatch.setattr(run_gpu_suite, "measure_engines", on_tensorrt)
    version = "11.4.0" if with_tensorrt else None
    record = record_of(tests=dict.fromkeys(run_gpu_suite.MARKS)) | {"tensorrt": {"version": version, "why": "none"}}
    run_gpu_suite.measure_all(record, argparse.Namespace(quick=True, no_tests=False, device=0, out=out))
    marks = list(run_gpu_suite.MARKS.values())
    assert done[: 1 + with_tensorrt] == marks[: 1 + with_tensorrt]
    rest = done[1 + with_tensorrt :]
    cuda = [item for item in rest if item[2] == "cuda"]
    engines = [(name, batch, "tensorrt") for name, batch, _ in cuda] if with_tensorrt else []
    assert len(cuda) == 4
    assert rest == cuda + engines
    assert json.loads(out.read_text(encoding="utf-8")) == record


def test_the_suite_runs_the_tests_that_make_test_gpu_runs():
    from gpu import run_gpu_suite  # noqa: PLC0415

    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (make,) = re.findall(r"^test-gpu:.*\n\t.*pytest .*-m \"(.*)\"$", text, re.MULTILINE)
    for gpu, tensorrt in itertools.product((True, False), repeat=2):
        names = {"gpu": gpu, "tensorrt": tensorrt}
        ours = [eval(marks, {}, names) for marks in run_gpu_suite.MARKS.values()]
        assert sum(ours) == eval(make, {}, names)  # each of its tests, and each once


def test_the_suite_does_not_start_without_cupti_unless_isolated_times_are_accepted(monkeypatch, capsys):
    from gpu import run_gpu_suite  # noqa: PLC0415

    from explorer.backends import cupti  # noqa: PLC0415

    def broken():
        raise cupti.CuptiUnavailable("The package 'cupti-python' does not load: No module named 'elftools'.", fix="Do.")

    monkeypatch.setattr(cupti, "find_cupti", broken)
    with pytest.raises(BackendError, match=r"elftools.*Every layer would be timed alone.*--isolated"):
        run_gpu_suite.check_cupti(isolated=False)
    assert "elftools" in run_gpu_suite.check_cupti(isolated=True)
    assert "Every layer will be timed alone" in capsys.readouterr().out


def test_a_blank_record_has_all_that_the_pages_read():
    from gpu import run_gpu_suite  # noqa: PLC0415

    blank = run_gpu_suite.blank_record(quick=True)
    assert set(blank) | {"device", "cupti", "tensorrt"} == set(record_of())
    assert blank["tests"] == {"gpu": None, "tensorrt": None}
    assert blank["versions"]["onnx"]


@pytest.mark.parametrize("given", [["--wheels", "folder"], ["--wheels=folder"]])
def test_after_installing_the_suite_goes_on_in_a_fresh_process(monkeypatch, given):
    from gpu import run_gpu_suite  # noqa: PLC0415

    installed, commands = [], []
    monkeypatch.setattr(run_gpu_suite.wheels, "install", installed.append)
    ended = run_gpu_suite.subprocess.CompletedProcess([], 3)
    monkeypatch.setattr(run_gpu_suite.subprocess, "run", lambda command, **_: commands.append(command) or ended)
    monkeypatch.setattr(run_gpu_suite.sys, "argv", ["run_gpu_suite.py", "--quick", *given, "--device", "1"])
    with pytest.raises(SystemExit) as caught:
        run_gpu_suite.main()
    assert caught.value.code == 3
    assert installed == [Path("folder")]
    assert [command[2:] for command in commands] == [["--quick", "--device", "1"]]
