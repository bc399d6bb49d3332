"""Histograms of magnitudes against a loop over the elements, and that they merge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from explorer.measure import Histogram
from explorer.measure.histogram import common_axis, tally

MANY = settings(max_examples=200, deadline=None)
ANY_FLOATS = st_numpy.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))
BITS = st_numpy.arrays(np.uint32, st.integers(0, 60)).map(lambda bits: bits.view(np.float32))


def looped(values) -> Histogram:
    """One element after another, by the definition."""
    bins: dict[int, int] = {}
    zeros = nonfinite = 0
    for number in np.ravel(values).tolist():
        if not math.isfinite(number):
            nonfinite += 1
        elif number == 0:
            zeros += 1
        else:
            exponent = math.frexp(number)[1] - 1
            assert 2.0**exponent <= abs(number) < 2.0 ** (exponent + 1)
            bins[exponent] = bins.get(exponent, 0) + 1
    first = min(bins, default=0)
    counts = tuple(bins.get(exponent, 0) for exponent in range(first, max(bins, default=first - 1) + 1))
    return Histogram(first, counts, zeros, nonfinite)


@MANY
@given(st.one_of(ANY_FLOATS, BITS))
def test_a_histogram_equals_the_loop(values):
    found = Histogram.of(values)
    assert found == looped(values)
    assert found.elements == values.size


@MANY
@given(BITS, BITS, BITS)
def test_histograms_merge_exactly(one, two, three):
    """In any order and grouping the histogram of all values; the empty one changes nothing."""
    parts = [Histogram.of(each) for each in (one, two, three)]
    whole = Histogram.of(np.concatenate([one, two, three]))
    assert parts[0].merge(parts[1]).merge(parts[2]) == whole == parts[2].merge(parts[0].merge(parts[1]))
    assert Histogram.of_tally(sum(map(tally, (one, two, three)))) == whole
    assert whole.merge(Histogram()) == whole == Histogram().merge(whole)


def test_every_power_of_two_and_its_neighbours():
    """The borders of all bins, float32's own subnormals among them."""
    powers = np.exp2(np.arange(-149, 128)).astype(np.float32)
    values = np.concatenate([powers, np.nextafter(powers, np.float32(0)), -np.nextafter(powers, np.float32(np.inf))])
    found = Histogram.of(values)
    assert found == looped(values)
    assert (found.first, len(found.counts)) == (-149, 277)


def test_more_values_than_one_chunk():
    """Chunks add up, and neither shape nor memory order matters."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((3, 500, 400)) * 10.0 ** rng.integers(-44, 30, (3, 500, 1))).astype(np.float32)
    values[0, :7], values[1, 3] = 0, np.nan
    found = Histogram.of(values)
    finite = values[np.isfinite(values) & (values != 0)]
    exponents = np.frexp(finite.astype(np.float64))[1] - 1
    assert (found.counts == np.bincount(exponents - exponents.min())).all()
    assert (found.zeros, found.nonfinite) == ((values == 0).sum(), 400)
    assert Histogram.of(values.T) == Histogram.of(values[::-1, :, ::-1]) == found


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_scalars_and_empty_tensors(shape):
    found = Histogram.of(np.full(shape, 3, np.float32))
    assert found == (Histogram(1, (1,)) if shape == () else Histogram())


def test_one_axis_for_two():
    low, high = Histogram.of(np.float32([1, 1.5])), Histogram.of(np.float32([0.25, 8]))
    assert common_axis(low, high) == (-2, (0, 0, 2, 0, 0, 0), (1, 0, 0, 0, 0, 1))
    assert common_axis(Histogram(), low) == (0, (0,), (2,))
    assert common_axis(Histogram(zeros=3), Histogram()) == (0, (), ())


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="float32"):
        tally(np.zeros(3, dtype))
