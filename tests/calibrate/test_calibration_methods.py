"""How a range is chosen: by the definition, one candidate after another, and as ONNX Runtime's calibrators choose."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime.quantization.calibrate import HistogramCollector

from explorer.calibrate.histogram import StreamedHistogram
from explorer.calibrate.methods import amax_of, entropy_bins
from explorer.errors import CalibrationError

VALUES = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-(2.0**60), 2.0**60, width=32))


def seen(values) -> StreamedHistogram:
    histogram = StreamedHistogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def one_by_one(counts, levels: int) -> int:
    """Entropy calibration as its authors tell it (Migacz, GTC 2017, slide 35), a histogram for each candidate.

    Ours alone: no candidate cuts off more than 1 % of the values.
    """
    counts = [counts[1], *counts[1:]]
    found = {}
    for size in range(levels, len(counts) + 1):
        beyond = sum(counts[size:])
        if sum(counts[:size]) < 0.99 * sum(counts):
            continue
        reference = [*counts[: size - 1], counts[size - 1] + beyond]
        spread = [0.0] * size
        for level in range(levels):
            group = [each for each in range(size) if each * levels // size == level]
            filled = [each for each in group if counts[each]]
            for each in filled:
                spread[each] = sum(counts[one] for one in group) / len(filled)
        if beyond and not counts[size - 1]:
            spread[-1] = 1e-4
        shares = [(p / sum(reference), q / sum(spread)) for p, q in zip(reference, spread, strict=True) if p]
        found[size] = sum(p * math.log(p / q) for p, q in shares)
    return max(size for size, divergence in found.items() if divergence <= min(found.values()) + 1e-10)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_minmax_is_the_largest(values):
    assert amax_of(seen(values), "minmax", 99) == np.abs(values).max()
    assert amax_of(seen(values), "percentile", 100) == np.abs(values).max()


@given(VALUES, st.floats(0.1, 100))
@settings(max_examples=200, deadline=None)
def test_a_percentile_represents_its_share_and_hardly_more(values, percentile):
    histogram = seen(values)
    amax = amax_of(histogram, "percentile", percentile)
    magnitudes = np.sort(np.abs(values))
    exact = magnitudes[math.ceil(round(percentile / 100 * values.size, 6)) - 1]  # the smallest range with that share
    assert exact <= amax <= min(exact + histogram.width, magnitudes[-1])


def test_percentile_counts_whole_values():
    """One outlier in 10,000 values is left out by 99.99, though 0.9999 * 10,000 is a little more than 9,999."""
    values = [*np.linspace(0, 1, 9_999), 100.0]
    assert amax_of(seen(values), "percentile", 99.99) == pytest.approx(1, abs=0.05)
    assert amax_of(seen(values), "percentile", 99.991) == 100


@given(
    hnp.arrays(np.int64, st.integers(9, 40), elements=st.integers(0, 1000)),
    st.integers(1, 1000),
    st.integers(2, 8),
)
@settings(max_examples=150, deadline=None)
def test_entropy_is_that_of_the_definition(counts, last, levels):
    counts[-1] = last
    assert entropy_bins(counts, levels) == one_by_one(counts.tolist(), levels)


def theirs(method: str, values, **settings_):
    """The range that ONNX Runtime's calibrator chooses; it prints what it does."""
    collector = HistogramCollector(method=method, symmetric=True, scenario="same", **settings_)
    collector.collect({"x": values})
    return float(collector.compute_collection_result()["x"][1])


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_percentile_is_that_of_onnxruntime(draw, percentile, capsys):
    values = getattr(np.random.default_rng(4), draw)(size=200_000).astype(np.float32)
    want = theirs("percentile", values, num_bins=8192, num_quantized_bins=128, percentile=percentile)
    bin_width = np.abs(values).max() / 8192
    ours = amax_of(seen(values), "percentile", percentile)
    assert abs(ours - want) <= 2 * bin_width + seen(values).width  # each takes one edge of its own bin
    capsys.readouterr()


@pytest.mark.parametrize("draw", ["normal", "laplace", "logistic"])
def test_entropy_is_near_that_of_onnxruntime(draw, capsys):
    """Theirs gives the rightmost bins no quantised mass (it merges 2n + 1 bins), so what it cuts off weighs more."""
    values = getattr(np.random.default_rng(7), draw)(size=400_000).astype(np.float32)
    most = float(np.abs(values).max())
    bins, levels = 512, 64
    want = theirs("entropy", values, num_bins=2 * bins, num_quantized_bins=2 * levels, percentile=99)
    counts = np.histogram(np.abs(values), bins, (0, most))[0]
    assert 0.75 * want < entropy_bins(counts, levels) * most / bins < 1.05 * want
    capsys.readouterr()


def test_entropy_cuts_rare_outliers_and_keeps_what_is_even():
    rng = np.random.default_rng(0)
    assert amax_of(seen([*rng.normal(size=100_000), 100.0]), "entropy", 99) < 10
    even = rng.uniform(-3, 3, 200_000)
    assert amax_of(seen(even), "entropy", 99) > 2.9


FAR_FROM_ZERO = {
    "even": lambda rng: rng.uniform(100, 255, (500, 3)),
    "around 10": lambda rng: rng.normal(10, 1, (500, 3)),
    "pixels of a bright image": lambda rng: rng.integers(200, 256, 10_000),
    "negative": lambda rng: -rng.uniform(5, 15, 30_000),
    "two values": lambda rng: rng.choice([3.0, 4.0], 1000),
}


@pytest.mark.parametrize("draw", FAR_FROM_ZERO)
def test_entropy_keeps_values_that_are_all_far_from_zero(draw):
    """Of a range below them all the divergence is nothing: all of them would count as its last bin."""
    values = np.float32(FAR_FROM_ZERO[draw](np.random.default_rng(3)))
    amax = amax_of(seen(values), "entropy", 99)
    assert (np.abs(values) > amax).mean() <= 0.01


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_entropy_never_cuts_deeply(values):
    """At most 1 % of what it counts, and it counts the bin that holds the zeros as its neighbour: once too often."""
    amax = amax_of(seen(values), "entropy", 99)
    assert (np.abs(values) > amax).sum() <= 0.02 * values.size


def test_zeros_of_a_relu_do_not_speak_for_a_smaller_range():
    values = np.random.default_rng(0).normal(size=100_000)
    with_zeros = amax_of(seen(np.concatenate([values, np.zeros(10_000_000)])), "entropy", 99)
    assert with_zeros == pytest.approx(amax_of(seen(values), "entropy", 99), rel=0.05)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_odd_tensors_have_a_range(method):
    assert amax_of(StreamedHistogram(), method, 99.99) == 0
    assert amax_of(seen(np.zeros(5)), method, 99.99) == 0
    assert amax_of(seen([np.nan]), method, 99.99) == 0
    assert amax_of(seen([-3.0]), method, 99.99) == 3
    assert amax_of(seen([1e-45]), method, 99.99) == np.float32(1e-45)
    assert amax_of(seen([3.4028235e38]), method, 99.99) == np.float32(3.4028235e38)


@given(VALUES, st.sampled_from(["percentile", "entropy"]))
@settings(max_examples=100, deadline=None)
def test_no_range_is_beyond_the_largest_value(values, method):
    assert 0 <= amax_of(seen(values), method, 99.99) <= np.abs(values).max()


@pytest.mark.parametrize(
    ("method", "percentile", "message"),
    [
        ("precentile", 99.0, "Did you mean 'percentile'"),
        ("kl", 99.0, "minmax, percentile, entropy"),
        ("percentile", 0.0, "percentile is 0.0"),
        ("percentile", 101.0, "at most 100"),
        ("percentile", math.nan, "percentile is nan"),
    ],
)
def test_what_cannot_be_is_refused(method, percentile, message):
    with pytest.raises(CalibrationError, match=message):
        amax_of(seen([1.0]), method, percentile)
