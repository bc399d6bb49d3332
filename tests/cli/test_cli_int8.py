"""int8 on the command line: the formats, what calibrates, and what is written."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cli_support import SAMPLES, cli

import explorer
from explorer.calibrate import Calibration
from explorer.plan import Plan

NAME = "lenet5_digits"


@pytest.fixture
def files(tmp_path):
    """The sample in a folder of its own: a calibration is kept beside the model."""
    for suffix in (".onnx", ".npz"):
        shutil.copy(SAMPLES / f"{NAME}{suffix}", tmp_path)
    return tmp_path / f"{NAME}.onnx", tmp_path / f"{NAME}.npz"


def test_an_int8_model_is_explored_measured_and_written(files, tmp_path):
    """The accuracy that is told is that of the file that is written, run by ONNX Runtime's integer kernels."""
    model, data = files
    out = tmp_path / "out"
    done = cli("explore", model, "--inputs", data, "--format", "int8", "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document()
    formats = {row["id"]: row["format"] for row in found["layers"]}
    assert list(formats.values()).count("int8") == 10
    assert all("percentile 99.99 over 360 samples" in row["error_provenance"] for row in found["layers"])
    times = [row["cpu_int8_us"] for row in found["layers"]]
    assert sum(each > 0 for each in times) >= 5
    written = onnx.load(out / "model.int8.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in written.graph.node}
    samples = dict(np.load(data))
    labels = samples.pop("labels")
    session = ort.InferenceSession(str(out / "model.int8.onnx"), providers=["CPUExecutionProvider"])
    scores = session.run(None, samples)[0]
    assert (scores.argmax(1) == labels).mean() == pytest.approx(found["accuracy"]["plan"], abs=0.003)
    assert Plan.load(out / "plan.json").format == "int8"


def test_int8_layers_in_an_fp16_plan(files, tmp_path):
    model, data = files
    done = cli("convert", model, tmp_path / "mixed.onnx", "--int8-op", "Conv", "--calibrate-on", data, "--json")
    assert done.code == 0, done.err
    formats = {each["id"]: each["format"] for each in done.document()["decisions"]}
    assert formats["features/conv1/Conv"] == formats["features/relu1/Relu"] == "int8"
    assert formats["classifier/fc1/Gemm"] == "fp16"
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "mixed.onnx").graph.initializer}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16} <= types


def test_an_operator_that_no_int8_kernel_takes_is_told_and_the_file_is_called_fp16(files, tmp_path):
    """What is named is what the layers got, not what was asked for; what was asked in vain is told, with why."""
    model, data = files
    given = ["--int8-op", "MaxPool", "--block-op", "Conv", "--calibrate-on", data]
    done = cli("convert", model, tmp_path / "mixed.onnx", *given, env={"COLUMNS": "200"})
    assert done.code == 0, done.err
    assert "converted to fp16, checked" in done.out
    assert "10 of 12 in fp16 (" in done.out
    assert "values stored in fp16:" in done.out
    assert "fp16 and int8" not in done.out
    told = "the rule 'operator MaxPool in int8' gives no layer int8; features/pool1/MaxPool: "
    assert told in " ".join(done.out.split())
    found = cli("explore", model, "--inputs", data, *given, "--out", tmp_path / "out", "--json").document()
    told_by_layer = {row["error_provenance"] for row in found["layers"]}
    assert told_by_layer == {"emulated: fp16 storage rounding, fp32 accumulation"}
    assert any(told in each for each in found["warnings"])


def test_int8_for_an_operator_that_the_model_does_not_have_is_refused(files, tmp_path):
    """Softmax stands in a preset, whose own rules may name nothing; one that the user wrote may not."""
    model, data = files
    done = cli("convert", model, tmp_path / "mixed.onnx", "--int8-op", "Softmax", "--calibrate-on", data)
    assert done.code == 2
    assert "operator type 'Softmax', and the model has none" in " ".join(done.err.split())


def test_a_search_of_int8_calibrates_as_it_is_told(files, tmp_path):
    """The plan that a search starts from names no int8 yet; its formats do."""
    model, data = files
    train = SAMPLES / "digits_train.npz"
    given = ["--calibrate-on", train, "--calibration-method", "minmax"]
    more = ["--calibration-samples", 64, "--gpu-model", "T4", "--formats", "fp16, int8"]
    done = cli("search", model, "--inputs", data, *given, *more, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    asked = explorer.open(model, inputs=data).calibrate(train, method="minmax", samples=64, cache=False)
    assert f"(scales: {asked.description})" in done.document()["error_provenance"]


def test_int8_beside_a_format_that_allows_none_is_refused_in_plain_words(files, tmp_path):
    model, _ = files
    done = cli("convert", model, tmp_path / "mixed.onnx", "--format", "tf32", "--int8-op", "Conv")
    assert done.code == 2
    assert "Use 'fp32' or 'tf32'." in " ".join(done.err.split())


def test_a_calibration_file_is_used_and_its_scales_are_the_ones_written(files, tmp_path):
    model, data = files
    x = explorer.open(model, inputs=data)
    known = x.calibrate(method="minmax", cache=False)
    known.save(tmp_path / "ranges.json")
    done = cli(
        "convert", model, tmp_path / "m.onnx", "--format", "int8", "--calibration", tmp_path / "ranges.json", "--json"
    )
    assert done.code == 0, done.err
    graph = onnx.load(tmp_path / "m.onnx").graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
    assert weights[first.input[1]] in (known.scale("image"), np.float32(known.amax["image"] / 255))


def test_int8_without_ranges_is_refused(files, tmp_path):
    done = cli("convert", files[0], tmp_path / "m.onnx", "--format", "int8")
    assert done.code == 2
    assert "--calibrate-on" in done.err
    assert not (tmp_path / "m.onnx").exists()


def test_two_sources_of_ranges_are_refused(files, tmp_path):
    model, data = files
    (tmp_path / "c.json").write_text(json.dumps({}))
    done = cli(
        "convert", model, tmp_path / "m.onnx", "--format", "int8", "--calibration", tmp_path / "c.json",
        "--calibrate-on", data,
    )  # fmt: skip
    assert done.code == 2
    assert "Leave one of them out" in done.err


@pytest.mark.parametrize("low", ["tf32", "fp8e4m3", "fp8e5m2"])
def test_formats_of_products_are_emulated(files, low):
    model, data = files
    done = cli("measure", model, "--inputs", data, "--format", low, "--json")
    assert done.code == 0, done.err
    layers = {row["id"]: row for row in done.document()["layers"]}
    assert layers["classifier/fc1/Gemm"]["format"] == low
    assert layers["features/relu1/Relu"]["format"] == "fp32"
    assert "products" in layers["features/relu1/Relu"]["reason"]
    worst = min(row["acc_sqnr_db"] for row in layers.values() if row["acc_sqnr_db"] not in (None, "inf"))
    assert {"tf32": 50, "fp8e4m3": 15, "fp8e5m2": 8}[low] < worst < 80


def test_the_reason_of_a_loss_is_that_of_the_data_where_the_result_is_not_stored(files, tmp_path):
    """The result of a matrix product is not stored in int8; whether it would saturate explains nothing."""
    model, data = files
    ranges = dict(explorer.open(model, inputs=data).calibrate(cache=False).amax)
    fc = next(layer for layer in explorer.open(model).model.layers if layer.id == "classifier/fc1/Gemm")
    Calibration(ranges | {fc.inputs[0]: 0.01, fc.outputs[0]: 1e-3}, "minmax", 10).save(tmp_path / "small.json")
    done = cli("explore", model, "--inputs", data, "--format", "int8", "--calibration", tmp_path / "small.json",
               "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if "fc1" in line and "dB" in line and "reads values" in line]
    assert "saturate" not in line
    assert "reads values beyond the range" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
