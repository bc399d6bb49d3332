"""Sums over samples: the metrics that follow from them, and that they merge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.measure import ErrorSums, RangeSums

NUMBERS = st.floats(min_value=-1e4, max_value=1e4, width=32)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30)
MANY = settings(max_examples=150, deadline=None)


def error_sums(exact, low) -> ErrorSums:
    """The sums of one tensor by their definitions."""
    r, y = np.asarray(exact, np.float64).ravel(), np.asarray(low, np.float64).ravel()
    kept = np.isfinite(r)
    with np.errstate(invalid="ignore", over="ignore"):
        error = (y - r)[kept]
        return ErrorSums(
            error_squares=np.array([(error**2).sum()]),
            exact_squares=np.array([(r[kept] ** 2).sum()]),
            low_squares=np.array([(y[kept] ** 2).sum()]),
            max_error=np.array([np.abs(error).max(initial=0)]),
            elements=np.array([r.size]),
            nan=np.array([np.isnan(y[kept]).sum()]),
            infinite=np.array([np.isinf(y[kept]).sum()]),
        )


def range_sums(values) -> RangeSums:
    r = np.asarray(values, np.float32).ravel()
    low = r.astype(np.float16)
    return RangeSums(
        squares=np.array([(r.astype(np.float64) ** 2).sum()]),
        max_abs=np.array([np.abs(r).max(initial=0)], np.float64),
        elements=np.array([r.size]),
        overflow=np.array([np.isinf(low).sum()]),
        subnormal=np.array([((low != 0) & (np.abs(low) < np.float16(2**-14))).sum()]),
        flushed=np.array([((low == 0) & (r != 0)).sum()]),
        nonfinite=np.array([0]),
    )


def close(one, other) -> bool:
    return all(
        np.allclose(getattr(one, item.name), getattr(other, item.name), rtol=1e-12, equal_nan=True)
        for item in dataclasses.fields(one)
    )


# -- definitions ---------------------------------------------------------------------------------------------------


@MANY
@given(PAIRS)
def test_metrics_follow_their_definitions(pairs):
    exact, low = np.array(pairs, np.float64).T
    sums = error_sums(exact, low)
    noise, signal = ((low - exact) ** 2).sum(), (exact**2).sum()
    if noise == 0:
        assert sums.rel_l2 == 0
        assert sums.sqnr_db == np.inf
    elif signal == 0:
        assert sums.rel_l2 == np.inf
        assert sums.sqnr_db == -np.inf
    else:
        assert sums.rel_l2 == pytest.approx(np.linalg.norm(low - exact) / np.linalg.norm(exact))
        assert sums.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-6)
    short, long = sorted((np.linalg.norm(exact), np.linalg.norm(low)))
    if short > 1e-50 and long < 9e3 * short:
        assert sums.cosine == pytest.approx((exact @ low) / (short * long), abs=1e-9)
    elif long > 1.1e4 * short:
        assert np.isnan(sums.cosine)


@MANY
@given(st.lists(NUMBERS.filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=20), st.floats(1e-9, 1e-3))
def test_cosine_keeps_the_digits_of_small_angles(numbers, share):
    """One minus cosine of a small error is not rounded to zero by cancellation."""
    exact = np.array([*numbers, 1.0, -1.0])
    low = exact.copy()
    low[-1] -= share * np.linalg.norm(exact)
    sums = error_sums(exact, low)
    across = low - exact * (low @ exact) / (exact @ exact)  # the error's part at right angles
    angle = np.arctan2(np.linalg.norm(across), np.linalg.norm(exact))
    assert 1 - sums.cosine == pytest.approx(angle**2 / 2, rel=0.01, abs=3e-16)


@pytest.mark.parametrize(
    ("exact", "low", "rel_l2", "sqnr_db"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0, np.inf),
        ([3.0, 4.0], [3.0, 3.0], 0.2, 13.9794),
        ([3.0, 4.0], [0.0, 0.0], 1.0, 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0, np.inf),
        ([0.0, 0.0], [1.0, 0.0], np.inf, -np.inf),
        ([1.0, 2.0], [np.inf, 2.0], np.inf, -np.inf),
        ([1.0, 2.0], [np.nan, 2.0], np.nan, np.nan),
        ([1.0, np.inf], [1.0, np.inf], 0.0, np.inf),
        ([1.0, -np.inf], [1.0, 7.0], 0.0, np.inf),
    ],
)
def test_what_the_metrics_are_at_the_borders(exact, low, rel_l2, sqnr_db):
    """No warning is raised on the way (pytest makes errors of them)."""
    sums = error_sums(exact, low)
    assert sums.rel_l2[0] == pytest.approx(rel_l2, nan_ok=True)
    assert sums.sqnr_db[0] == pytest.approx(sqnr_db, nan_ok=True, abs=1e-4)
    assert sums.finite[0] == np.isfinite(sums.error_squares[0])
    if not sums.finite[0] or not np.any(low):
        assert np.isnan(sums.cosine[0])


def test_metrics_hold_beyond_float32():
    """Sums are kept in float64: squares of float32's largest and smallest values fit."""
    for size in (1e-38, 3e38):
        exact = np.full(4, size)
        sums = error_sums(exact, exact * (1 + 1e-3))
        assert sums.rel_l2[0] == pytest.approx(1e-3)
        assert sums.sqnr_db[0] == pytest.approx(60, abs=0.01)
        assert sums.cosine[0] == pytest.approx(1)


def test_rms_of_a_range():
    assert range_sums([3.0, 4.0]).rms[0] == pytest.approx(np.sqrt(12.5))
    assert np.isnan(range_sums([]).rms[0])


# -- merging -------------------------------------------------------------------------------------------------------


@MANY
@given(PAIRS, st.integers(0, 30))
def test_merged_parts_are_the_whole(pairs, cut):
    exact, low = np.array(pairs, np.float64).T
    whole = error_sums(exact, low)
    parts = error_sums(exact[:cut], low[:cut]).merge(error_sums(exact[cut:], low[cut:]))
    assert close(whole, parts)
    assert close(range_sums(exact), range_sums(exact[:cut]).merge(range_sums(exact[cut:])))


@MANY
@given(PAIRS, PAIRS, PAIRS)
def test_merging_is_associative_and_commutative_with_a_zero(one, two, three):
    a, b, c = (error_sums(*np.array(pairs).T) for pairs in (one, two, three))
    assert close(a.merge(b), b.merge(a))
    assert close(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert close(a.merge(ErrorSums.zeros(1)), a)
    assert close(ErrorSums.zeros(1).merge(a), a)


def test_what_is_not_finite_stays_so():
    """One lost batch is not averaged away by the others."""
    fine, infinite, lost = error_sums([1.0], [1.0]), error_sums([1.0], [np.inf]), error_sums([1.0], [np.nan])
    assert fine.merge(infinite).error_squares[0] == np.inf
    assert fine.merge(infinite).max_error[0] == np.inf
    assert np.isnan(lost.merge(fine).error_squares[0])
    assert np.isnan(fine.merge(lost).max_error[0])
    assert fine.merge(lost).nan[0] == 1


def test_zeros_have_the_fields_types():
    sums = ErrorSums.zeros(3)
    assert sums.error_squares.dtype == np.float64
    assert sums.elements.dtype == sums.nan.dtype == np.int64
    assert RangeSums.zeros(2).overflow.dtype == np.int64
    assert all(len(getattr(sums, item.name)) == 3 for item in dataclasses.fields(sums))


def test_sums_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ErrorSums.zeros(1).nan = np.zeros(1)
