"""TensorRT's calibration cache: what is written is what its documentation shows, and what is read is told in full."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import chain

from explorer.calibrate import Calibration, calibrate, read_tensorrt_cache, write_tensorrt_cache
from explorer.errors import CalibrationError, ExportError
from explorer.model import load_model, load_samples

# From the README of TensorRT's sampleINT8, its tensors named as those of the test's model.
DOCUMENTED = "TRT-7000-EntropyCalibration2\nx: 3c008912\nv0: 3c88edfc\nv1: 3ddc858b\nv2: 3c010a14\n"


@pytest.fixture(scope="module")
def model():
    return load_model(chain(3))


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "trt.cache"
    path.write_bytes(text.encode(encoding))
    return path


def test_the_documented_form_is_read(tmp_path, model):
    found = read_tensorrt_cache(written(tmp_path, DOCUMENTED), model)
    assert found.scale("x") == struct.unpack(">f", bytes.fromhex("3c008912"))[0] == pytest.approx(0.00784518)
    assert found.scale("v1").tobytes()[::-1].hex() == "3ddc858b"
    assert found.amax["x"] == pytest.approx(0.00784518 * 127)
    assert (found.method, found.rows, found.warnings, found.model_hash) == ("tensorrt cache", 0, (), model.digest)


def test_reading_and_writing_gives_the_same_text(tmp_path, model):
    found = read_tensorrt_cache(written(tmp_path, DOCUMENTED), model)
    path = write_tensorrt_cache(found, tmp_path / "again.cache", version="7000")
    assert path.read_bytes() == DOCUMENTED.encode()


@given(st.lists(st.floats(2.0**-120, 2.0**120, width=32), min_size=4, max_size=4))
@settings(max_examples=100, deadline=None)
def test_every_scale_survives(scales):
    model = load_model(chain(3))
    lines = [
        f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in zip(("x", "v0", "v1", "v2"), scales, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "\n".join(["TRT-8601-EntropyCalibration2", *lines, ""]))
        found = read_tensorrt_cache(path, model)
        assert [float(found.scale(name)) for name in ("x", "v0", "v1", "v2")] == scales
        assert write_tensorrt_cache(found, path, version="8601").read_text(encoding="utf-8").split("\n")[1:-1] == lines


def test_what_was_calibrated_here_is_written(tmp_path, model):
    samples = load_samples(model, {"x": np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32)})
    found = calibrate(model, samples, method="entropy", cache=False)
    path = write_tensorrt_cache(found, tmp_path / "trt.cache")
    assert path.read_text(encoding="utf-8").startswith("TRT-101300-EntropyCalibration2\nx: ")
    read = read_tensorrt_cache(path, model)
    assert {name: read.scale(name) for name in read.amax} == {name: found.scale(name) for name in found.amax}


def test_the_algorithm_of_the_first_line_can_be_chosen(tmp_path, model):
    found = Calibration({"x": 127.0}, "minmax", 1)
    path = write_tensorrt_cache(found, tmp_path / "trt.cache", version="8601", algorithm="MinMaxCalibration")
    assert path.read_text(encoding="utf-8") == "TRT-8601-MinMaxCalibration\nx: 3f800000\n"
    assert read_tensorrt_cache(path, model).scale("x") == 1


def test_tensors_that_are_not_in_the_model_or_the_cache_are_told(tmp_path, model):
    text = (
        "TRT-8601-EntropyCalibration2\nx: 3c008912\n(Unnamed Layer* 48) [Constant]_output: 3bbecd3a\na: b: 3c008912\n"
    )
    found = read_tensorrt_cache(written(tmp_path, text), model)
    assert list(found.amax) == ["x"]
    assert "'(Unnamed Layer* 48) [Constant]_output', 'a: b'" in found.warnings[0]
    assert "no scale for: 'v0', 'v1', 'v2'" in found.warnings[1]


def test_a_long_list_is_told_by_number(tmp_path):
    model = load_model(chain(30))
    found = read_tensorrt_cache(written(tmp_path, "TRT-8601-EntropyCalibration2\nx: 3c008912\n"), model)
    assert found.warnings[0].endswith("'v4' and 25 more.")


def test_lines_of_other_systems_short_codes_and_ranges_of_zero(tmp_path, model):
    found = read_tensorrt_cache(written(tmp_path, "TRT-8601-MinMaxCalibration\r\nx: 0\r\n\r\nv0: 3F800000\r\n"), model)
    assert (found.amax["x"], found.scale("x"), found.scale("v0")) == (0, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("1\nx: 3c008912\n", "begins with '1'"),
        ("x: 3c008912\n", "begins with 'x: 3c008912'"),
        ("TRT-7000-EntropyCalibration2\nx 3c008912\n", "Line 2 of .* is 'x 3c008912'"),
        ("TRT-7000-EntropyCalibration2\nx: 3c00891g\n", "Line 2"),
        ("TRT-7000-EntropyCalibration2\nx: 3c008912ab\n", "Line 2"),
        ("TRT-7000-EntropyCalibration2\nx: \n", "Line 2"),
        ("TRT-7000-EntropyCalibration2\nx: 3c008912\nv0: 7f800000\n", "Line 3"),
        ("TRT-7000-EntropyCalibration2\nx: 7fc00000\n", "Line 2"),
        ("TRT-7000-EntropyCalibration2\nx: bf800000\n", "Line 2"),
        ("TRT-7000-EntropyCalibration2\nx: 3c008912\nx: 3c008913\n", "two scales for 'x', the second in line 3"),
        ("TRT-7000-EntropyCalibration2\nV0: 3c008912\n", "None of the 1 tensors .* Did you mean 'v0'"),
    ],
)
def test_a_file_that_is_something_else_is_refused(text, message, tmp_path, model):
    with pytest.raises(CalibrationError, match=message):
        read_tensorrt_cache(written(tmp_path, text), model)


def test_no_file_and_no_text(tmp_path, model):
    with pytest.raises(CalibrationError, match="No such file"):
        read_tensorrt_cache(tmp_path / "none.cache", model)
    (tmp_path / "binary.cache").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="not text"):
        read_tensorrt_cache(tmp_path / "binary.cache", model)


@pytest.mark.parametrize(
    ("amax", "more", "message"),
    [
        ({"a\nb": 1.0}, {}, "line break"),
        ({"x": 1.0}, {"version": "10.13"}, "TRT-10.13-"),
        ({"x": 1.0}, {"algorithm": "Entropy"}, "cannot begin with"),
    ],
)
def test_what_cannot_be_written_is_refused(amax, more, message, tmp_path):
    with pytest.raises(CalibrationError, match=message):
        write_tensorrt_cache(Calibration(amax, "minmax", 1), tmp_path / "trt.cache", **more)
    assert not (tmp_path / "trt.cache").exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ExportError):
        write_tensorrt_cache(Calibration({"x": 1.0}, "minmax", 1), tmp_path / "none" / "trt.cache")
