"""The table of formats: derived limits against the literature and against ml_dtypes."""

import dataclasses
import math
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest

import explorer.formats
from explorer.errors import PlanError
from explorer.formats import FORMATS, Format, get_format

WITH_DTYPE = [fmt for fmt in FORMATS.values() if fmt.is_float and fmt.numpy_dtype is not None]


def test_the_formats_are_those_of_the_design():
    assert list(FORMATS) == ["fp32", "tf32", "bf16", "fp16", "fp8e4m3", "fp8e5m2", "int8"]
    assert all(name == fmt.name for name, fmt in FORMATS.items())


@pytest.mark.parametrize("fmt", WITH_DTYPE, ids=lambda f: f.name)
def test_derived_limits_agree_with_ml_dtypes(fmt):
    info = ml_dtypes.finfo(fmt.numpy_dtype)
    assert fmt.bits == fmt.storage_bits == info.bits
    assert fmt.max == float(info.max)
    assert fmt.min == float(info.min)
    assert fmt.epsilon == float(info.eps)
    assert fmt.min_normal == float(info.smallest_normal)
    assert fmt.min_subnormal == float(info.smallest_subnormal)
    assert (fmt.min_exponent, fmt.mantissa_bits, fmt.exponent_bits) == (info.minexp, info.nmant, info.nexp)


@pytest.mark.parametrize(
    ("name", "maximum", "min_normal", "min_subnormal", "overflow", "bits", "storage_bits"),
    [
        ("fp16", 65504.0, 2**-14, 2**-24, 65520.0, 16, 16),
        ("bf16", (2 - 2**-7) * 2.0**127, 2**-126, 2**-133, (2 - 2**-8) * 2.0**127, 16, 16),
        ("tf32", (2 - 2**-10) * 2.0**127, 2**-126, 2**-136, (2 - 2**-11) * 2.0**127, 19, 32),
        ("fp8e4m3", 448.0, 2**-6, 2**-9, float(np.nextafter(np.float32(464), np.float32(1e9))), 8, 8),
        ("fp8e5m2", 57344.0, 2**-14, 2**-16, 61440.0, 8, 8),
        ("fp32", (2 - 2**-23) * 2.0**127, 2**-126, 2**-149, (2 - 2**-24) * 2.0**127, 32, 32),
    ],
)
def test_limits_as_printed_in_the_standards(name, maximum, min_normal, min_subnormal, overflow, bits, storage_bits):
    fmt = get_format(name)
    assert fmt.max == maximum
    assert fmt.min == -maximum
    assert fmt.min_normal == min_normal
    assert fmt.min_subnormal == min_subnormal
    assert fmt.flush_threshold == min_subnormal / 2
    assert fmt.overflow_threshold == overflow
    assert (fmt.bits, fmt.storage_bits) == (bits, storage_bits)


def test_int8_is_a_grid_of_step_one():
    int8 = get_format("int8")
    assert (int8.bits, int8.min, int8.max) == (8, -128, 127)
    assert int8.epsilon == int8.min_subnormal == int8.min_normal == 1.0
    assert (int8.flush_threshold, int8.overflow_threshold) == (0.5, 127.5)
    assert not int8.is_float
    assert not int8.has_infinity


def test_storage_types_are_those_of_onnx():
    for fmt in FORMATS.values():
        stored = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(fmt.onnx_dtype))
        assert np.dtype(stored) == fmt.storage_dtype
    assert get_format("tf32").numpy_dtype is None


def test_only_the_formats_that_onnx_clamps_saturate():
    assert {fmt.name for fmt in FORMATS.values() if fmt.saturates} == {"fp8e4m3", "fp8e5m2", "int8"}
    assert {fmt.name for fmt in FORMATS.values() if not fmt.has_infinity} == {"fp8e4m3", "int8"}


def test_a_format_is_a_frozen_hashable_value():
    fp16 = get_format("fp16")
    with pytest.raises(dataclasses.FrozenInstanceError):
        fp16.mantissa_bits = 3
    with pytest.raises(TypeError):
        FORMATS["fp16"] = fp16
    assert pickle.loads(pickle.dumps(fp16)) == fp16
    assert len(set(FORMATS.values())) == len(FORMATS)


def test_get_format_passes_a_format_through():
    assert get_format(FORMATS["bf16"]) is FORMATS["bf16"]


def test_an_unknown_format_names_the_nearest_and_all():
    with pytest.raises(PlanError, match=r"'fp8e4m2'.*Did you mean .*'fp8e4m3'.*Known formats: fp32, tf32"):
        get_format("fp8e4m2")
    with pytest.raises(PlanError, match=r"'half'\. Known formats: fp32"):
        get_format("half")


def test_overflow_threshold_is_the_first_float32_that_overflows():
    for fmt in FORMATS.values():
        if fmt.name == "fp32":
            continue
        threshold = np.float32(fmt.overflow_threshold)
        assert float(threshold) == fmt.overflow_threshold
        below = np.nextafter(threshold, np.float32(0))
        both = explorer.formats.round_array(np.array([below, threshold]), fmt)
        assert both[0] == fmt.max
        assert both[1] == (fmt.max if fmt.saturates else math.inf)


def test_the_namespace_is_all():
    public = {name for name in vars(explorer.formats) if not name.startswith("_")}
    assert public - {"counting", "quantise", "rounding", "table"} == set(explorer.formats.__all__)


def test_importing_the_room_imports_no_heavy_library():
    code = "import sys, explorer.formats; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"onnx", "onnxruntime", "onnx_ir", "pandas", "plotly", "scipy", "torch", "ipywidgets", "rich", "typer"}
    assert not heavy & set(loaded)
    assert isinstance(FORMATS["fp16"], Format)
