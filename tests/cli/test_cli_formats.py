"""`precision-explorer search --formats`: among three formats, and int8 measured on the processor here."""

import onnx
import pytest
from cli_support import SAMPLES, cli, sample

import explorer
from explorer.plan import Plan

BOTH = ("--formats", "fp16,int8", "--count-layers")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test alone."""
    monkeypatch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path / "cache"))


def test_a_budget_among_three_formats_gives_a_model_of_three(tmp_path):
    out, name = tmp_path / "results", "lenet5_digits"
    done = cli("search", *sample(name), *BOTH, "--max-error", "1e-2", "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document()
    assert found["formats"] == ["fp32", "fp16", "int8"]
    assert found["taken"]["layers"]["int8"] > 0
    plan = Plan.load(out / "plan.json")
    assert plan.formats == ("fp16", "int8")
    x = explorer.open(SAMPLES / f"{name}.onnx", inputs=SAMPLES / f"{name}.npz", plan=plan)
    assert len(x.decisions().int8_layers) == found["taken"]["layers"]["int8"]
    assert len(x.decisions().low_layers) == found["taken"]["layers"]["fp16"]
    assert x.output_error()["rel_l2"].max() == pytest.approx(found["taken"]["error"])
    model = onnx.load(out / "model.fp16-int8.onnx")
    assert {"Cast", "QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}


def test_the_table_has_a_column_for_each_low_format(tmp_path):
    done = cli("search", *sample("lenet5_digits"), *BOTH, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    header = next(line for line in done.out.splitlines() if "predicted" in line)
    assert header.split()[-3:] == ["fp16", "int8", "share"]


def test_int8_is_measured_on_the_processor(tmp_path):
    given = [*sample("lenet5_digits"), "--formats", "int8", "--gpu-model", "cpu"]
    done = cli("search", *given, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert done.document()["latency_provenance"].startswith("measured on")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--formats", "fp16,fp8e4m3"], "cannot choose among"),
        (["--formats", "fp17"], "no format 'fp17'"),
        (["--gpu-model", "cpu"], "cannot be measured on the CPU"),
    ],
)
def test_formats_that_do_not_go_together_are_refused(tmp_path, options, words):
    done = cli("search", *sample("lenet5_digits"), *options, "--out", tmp_path / "out")
    assert done.code == 2
    assert words in " ".join(done.err.split())
