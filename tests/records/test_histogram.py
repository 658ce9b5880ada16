"""Histograms: no percentile is more than 1 % off, whatever was counted, and merging is counting together."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvbench.records.condensed.histogram import BUCKETS, RELATIVE_ERROR, Histogram, bucket_of, middles

# Any magnitude, rather than mostly the largest: an exponent, then what follows it.
VALUES = st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2**bits - 1))
LISTS = st.lists(VALUES, min_size=1, max_size=200)
PERCENTILES = st.lists(st.floats(0, 100), min_size=1, max_size=5)


def exact(values: list[int], wanted: list[float]) -> list[float]:
    """The percentiles as numpy interpolates them, in Python's numbers, which do not round."""
    ordered = sorted(values)
    found = []
    for percentile in wanted:
        position = percentile / 100 * (len(ordered) - 1)
        below, above = int(np.floor(position)), int(np.ceil(position))
        found.append(ordered[below] + (ordered[above] - ordered[below]) * (position - below))
    return found


def of(values: list[int]) -> Histogram:
    return Histogram.of(np.array(values, np.int64))


@given(LISTS, PERCENTILES)
@example([2**63 - 1], [50.0])
@example([2**53 + 1, 2**54 - 1, 2**62 - 1], [0.0, 50.0, 100.0])
@example([0, 2**63 - 1], [50.0])
def test_no_percentile_is_more_than_a_hundredth_off(values: list[int], wanted: list[float]) -> None:
    found = of(values).percentiles(wanted)
    assert RELATIVE_ERROR < 0.01
    for one, truth in zip(found, exact(values, wanted), strict=True):
        # Beside the bucket, a float has 53 bits.
        assert abs(one - truth) <= truth * (RELATIVE_ERROR + 1e-12)


@given(LISTS)
def test_count_sum_least_and_most_are_exact_and_so_are_the_first_and_the_last(values: list[int]) -> None:
    histogram = of(values)
    found = (histogram.count, histogram.total, histogram.least, histogram.most)
    # The sum is that of 64-bit numbers, as numpy and MPI add them.
    assert found == (len(values), (sum(values) + 2**63) % 2**64 - 2**63, min(values), max(values))
    assert list(histogram.percentiles([0, 100])) == [float(min(values)), float(max(values))]


@given(st.lists(LISTS, max_size=4))
def test_merged_histograms_are_the_histogram_of_all(parts: list[list[int]]) -> None:
    merged = Histogram()
    for part in parts:
        merged.merge(of(part))
    whole = of([value for part in parts for value in part])
    assert np.array_equal(merged.counts, whole.counts)
    assert (merged.total, merged.least, merged.most) == (whole.total, whole.least, whole.most)


@given(VALUES, VALUES)
def test_larger_values_are_never_in_lower_buckets(one: int, other: int) -> None:
    low, high = bucket_of(np.array(sorted((one, other)), np.int64))
    assert 0 <= low <= high < BUCKETS


def test_small_values_are_exact() -> None:
    small = np.arange(128)
    assert np.array_equal(middles()[bucket_of(small)], small)


def test_every_bucket_stands_for_a_value_that_lies_in_it() -> None:
    # Above 2^52 a middle is no whole number any more that float64 could hold beside its neighbours.
    values = middles()[: 1 + 52 * 64]
    whole = np.flatnonzero(values == np.floor(values))
    assert np.array_equal(bucket_of(values[whole].astype(np.int64)), whole[: len(whole)])


def test_a_value_below_zero_counts_as_zero_and_is_seen() -> None:
    histogram = of([-5, 10])
    assert histogram.counts[0] == 1
    assert histogram.least == -5


def test_nothing_has_no_percentile() -> None:
    assert np.isnan(Histogram().percentiles([50.0])).all()


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_a_million_times_keep_their_percentiles(sigma: float) -> None:
    values: NDArray[np.int64] = np.random.default_rng(5).lognormal(13, sigma, 1_000_000).astype(np.int64)
    wanted = [50, 95, 99, 99.9]
    error = np.abs(Histogram.of(values).percentiles(wanted) / np.percentile(values, wanted) - 1)
    assert error.max() <= RELATIVE_ERROR
