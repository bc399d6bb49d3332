"""The census: counts equal those of what rounding does, and memory stays flat."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import InputError
from explorer.formats import FORMATS, Census, census, get_format, round_array, round_scalar

by_name = pytest.mark.parametrize("fmt", list(FORMATS.values()), ids=lambda f: f.name)


def counted_one_by_one(x, fmt):
    """The census by its definition: round each element exactly, and look at what came out."""
    counts = dict.fromkeys(["elements", "overflow", "nan", "subnormal", "flushed", "infinite"], 0)
    max_abs = 0.0
    for value in x.tolist():
        counts["elements"] += 1
        if math.isnan(value):
            counts["nan"] += 1
        elif math.isinf(value):
            counts["infinite"] += 1
        else:
            max_abs = max(max_abs, abs(value))
            stored = round_scalar(value, fmt, saturate=False)
            # A clamped value tells nothing by itself: an int8 overflows when it misses by more than half a step.
            overflows = not math.isfinite(stored) or (not fmt.is_float and not -128 <= round(value) <= 127)
            counts["overflow"] += overflows
            counts["flushed"] += stored == 0 and value != 0
            counts["subnormal"] += 0 < abs(stored) < fmt.min_normal
    return Census(**counts, max_abs=max_abs)


@by_name
def test_counts_at_every_limit(fmt):
    limits = [
        fmt.max,
        fmt.overflow_threshold,
        fmt.min_normal,
        fmt.subnormal_threshold,
        fmt.min_subnormal,
        fmt.flush_threshold,
        1.0,
        127.5,
        128.5,
    ]
    with np.errstate(all="ignore"):
        points = np.array(limits, np.float32)
        around = np.concatenate([points, np.nextafter(points, np.float32(0)), np.nextafter(points, np.float32(np.inf))])
    specials = np.float32([0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, 3.4028235e38])
    x = np.concatenate([around, -around, specials])
    assert census(x, fmt) == counted_one_by_one(x, fmt)


@given(st.lists(st.floats(width=32), max_size=60), st.sampled_from(list(FORMATS.values())))
@settings(max_examples=300, deadline=None)
def test_counts_of_any_float32(values, fmt):
    x = np.array(values, np.float32)
    assert census(x, fmt) == counted_one_by_one(x, fmt)


@by_name
def test_counts_of_a_large_array_are_those_of_rounding(fmt):
    x = np.random.default_rng(2).integers(0, 2**32, 300_001, dtype=np.uint32).view(np.float32)
    found = census(x, fmt)
    rounded = round_array(x, fmt, saturate=False)
    assert found.elements == x.size
    assert found.nan == np.isnan(x).sum()
    assert found.infinite == np.isinf(x).sum()
    assert found.flushed == ((rounded == 0) & (x != 0)).sum()
    assert found.subnormal == ((np.abs(rounded) < fmt.min_normal) & (rounded != 0)).sum()
    if fmt.is_float:
        assert found.overflow == (~np.isfinite(rounded) & np.isfinite(x)).sum()
    assert found.max_abs == np.abs(x[np.isfinite(x)]).max()


def test_an_fp8_that_would_saturate_counts_as_overflow():
    assert census(np.float32([464, 465, -1e9]), "fp8e4m3").overflow == 2


def test_census_of_parts_adds_up_to_that_of_the_whole():
    x = np.random.default_rng(4).integers(0, 2**32, 1000, dtype=np.uint32).view(np.float32)
    assert census(x[:300], "fp16") + census(x[300:], "fp16") == census(x, "fp16")
    assert census(x, "fp16") + Census() == census(x, "fp16")


def test_any_shape_and_stride():
    x = np.random.default_rng(6).normal(0, 1e5, (50, 40, 60)).astype(np.float32)
    for view in (x.T, x[::2, ::-1, 3:], np.asfortranarray(x)):
        assert census(view, "fp16") == census(view.flatten(), "fp16")
    assert census(np.zeros((0, 3), np.float32), "fp16") == Census()
    assert census(np.array(1e6, np.float32), "fp16") == Census(elements=1, overflow=1, max_abs=1e6)


def test_max_abs_is_of_finite_values():
    assert census(np.float32([-2.5, np.inf, np.nan]), "fp16").max_abs == 2.5
    assert census(np.float32([np.nan]), "fp16").max_abs == 0.0


def test_memory_stays_flat(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (8_000_000,))
    x[:] = 1e5
    tracemalloc.start()
    found = census(x, "fp16")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.overflow == x.size
    assert peak_bytes < 2_000_000


def test_the_array_is_not_modified():
    x = np.float32([1, np.nan, -1e9])
    x.flags.writeable = False
    census(x, get_format("bf16"))


def test_other_types_are_refused():
    with pytest.raises(InputError, match="float16, not float32"):
        census(np.ones(3, np.float16), "fp16")
