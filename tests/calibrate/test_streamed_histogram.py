"""Streamed histograms: exact, whatever the order and the pieces in which values come, in constant memory."""

import math
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explorer.calibrate.histogram import BINS, StreamedHistogram
from explorer.errors import InputError

ANY = hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(width=32))
BITS = hnp.arrays(np.uint32, st.integers(0, 60)).map(lambda bits: bits.view(np.float32))


def seen(*pieces) -> StreamedHistogram:
    histogram = StreamedHistogram()
    for piece in pieces:
        histogram.add(np.asarray(piece, np.float32))
    return histogram


def alike(one: StreamedHistogram, two: StreamedHistogram) -> bool:
    figures = [(each.exponent, each.max_abs, each.nonfinite, each.total) for each in (one, two)]
    return figures[0] == figures[1] and np.array_equal(one.counts, two.counts)


def expected(values, width: float) -> list[int]:
    """Counts by the definition, one value after another, in whole numbers."""
    counts = [0] * BINS
    for value in values.tolist():
        if math.isfinite(value):
            counts[math.floor(abs(value) / width) if width else 0] += 1
    return counts


@given(st.one_of(ANY, BITS))
@settings(max_examples=200, deadline=None)
def test_counts_are_those_of_the_definition(values):
    histogram = seen(values)
    finite = values[np.isfinite(values)]
    assert histogram.counts.tolist() == expected(values, histogram.width)
    assert histogram.total == finite.size
    assert histogram.nonfinite == values.size - finite.size
    assert histogram.max_abs == max(np.abs(finite).tolist(), default=0.0)


@given(st.one_of(ANY, BITS), st.lists(st.integers(0, 60), max_size=5), st.randoms())
@settings(max_examples=200, deadline=None)
def test_order_and_pieces_do_not_matter(values, cuts, random):
    pieces = np.split(values, sorted(min(cut, values.size) for cut in cuts))
    random.shuffle(pieces)
    assert alike(seen(*pieces), seen(values))


@given(ANY, ANY)
@settings(max_examples=100, deadline=None)
def test_merging_is_adding_all_values_to_one(first, second):
    merged = seen(first)
    merged.merge(seen(second))
    assert alike(merged, seen(first, second))


@given(st.floats(2.0**-100, 2.0**127, width=32))
@settings(max_examples=100, deadline=None)
def test_at_least_half_of_the_bins_are_in_use(top):
    """A bin is then at most 1/4096 of the range."""
    histogram = seen([top])
    assert BINS // 2 <= int(np.flatnonzero(histogram.counts)[-1]) < BINS


def test_numpy_counts_the_same_of_a_large_tensor():
    values = np.random.default_rng(5).normal(0, 3, (300, 401)).astype(np.float32)
    histogram = seen(*values)
    theirs, _ = np.histogram(np.abs(values), BINS, (0, BINS * histogram.width))
    np.testing.assert_array_equal(histogram.counts, theirs)
    assert alike(histogram, seen(values.T))


def test_zeros_stand_in_the_first_bin_of_any_width():
    zeros = np.zeros(7, np.float32)
    assert seen(zeros).counts[0] == 7
    assert seen(zeros).width == 0
    assert alike(seen(zeros, [1e30], -zeros), seen([1e30], zeros, zeros))


def test_subnormals_and_the_largest_number_lie_side_by_side():
    histogram = seen([1e-45, -1e-45], [3.4028235e38])
    assert histogram.counts[0] == 2
    assert histogram.counts[-1] == 1
    assert seen([1e-45]).total == 1


def test_nothing_was_seen():
    empty = seen(np.zeros((3, 0), np.float32))
    assert alike(empty, StreamedHistogram())
    assert alike(seen([np.nan, np.inf]), seen([-np.inf], [np.nan]))
    assert seen([np.nan, np.inf]).nonfinite == 2


def test_a_sum_that_overflows_is_no_infinity():
    assert seen([3e38, 3e38, -1.0]).nonfinite == 0
    assert seen([3e38, 3e38, -1.0]).total == 3


def test_threads_may_add_at_once():
    pieces = [np.random.default_rng(seed).normal(0, 2.0**seed, 20_000).astype(np.float32) for seed in range(12)]
    histogram = StreamedHistogram()
    threads = [threading.Thread(target=histogram.add, args=(piece,)) for piece in pieces]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert alike(histogram, seen(*pieces))


def test_memory_does_not_grow_with_what_streams_through():
    values = np.random.default_rng(1).normal(size=2_000_000).astype(np.float32)
    histogram = seen(values[:10])
    tracemalloc.start()
    for scale in (1, 10, 100):
        histogram.add(values)
        assert histogram.counts.nbytes == BINS * 8
        values *= np.float32(scale)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_other_types_are_refused():
    with pytest.raises(InputError, match="float64"):
        StreamedHistogram().add(np.ones(3))
