"""Percentiles are exact, and say when too little stands behind them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.percentiles import (
    PERCENTILE_COLUMNS,
    PERCENTILES,
    backed_percentile,
    operations_needed,
    percentiles,
)

populations = arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 10**12))


@given(populations)
def test_percentiles_are_those_of_numpy(values: np.ndarray) -> None:
    before = values.copy()
    np.testing.assert_allclose(percentiles(values), np.percentile(values, PERCENTILES), rtol=1e-12)
    np.testing.assert_array_equal(values, before)


@given(populations)
def test_the_extremes_are_the_smallest_and_the_largest_value(values: np.ndarray) -> None:
    least, most = percentiles(values, (0.0, 100.0))
    assert (least, most) == (values.min(), values.max())


def test_without_values_there_is_no_percentile() -> None:
    assert np.isnan(percentiles(np.empty(0))).all()


def test_the_columns_are_named_after_the_percentiles() -> None:
    assert PERCENTILE_COLUMNS == ("p50_ns", "p95_ns", "p99_ns", "p99_9_ns")


def test_ten_operations_must_lie_beyond_a_percentile() -> None:
    assert [operations_needed(p) for p in PERCENTILES] == [20, 200, 1000, 10_000]


@pytest.mark.parametrize(("operations", "backed"), [(20, 50.0), (999, 95.0), (1000, 99.0), (10_000, 99.9)])
def test_the_backed_percentile_is_the_highest_with_enough_operations(operations: int, backed: float) -> None:
    assert backed_percentile(operations) == backed


def test_nineteen_operations_back_no_percentile() -> None:
    assert math.isnan(backed_percentile(19))


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(-100, 100)), max_size=60))
def test_groups_hold_the_values_of_equal_keys_in_their_order(rows: list[tuple[int, int]]) -> None:
    keys, values = np.array([key for key, _ in rows], np.int64), np.array([value for _, value in rows], np.int64)
    grouping = Grouping(keys)
    expected = {key: [value for other, value in rows if other == key] for key in sorted({key for key, _ in rows})}
    assert grouping.keys == list(expected)
    assert [group.tolist() for group in grouping.split(values)] == list(expected.values())
    assert grouping.counts.tolist() == [len(group) for group in expected.values()]
