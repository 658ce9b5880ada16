"""Confidence intervals hold the truth as often as they say, from as few repeats as there are."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvbench_analysis.tables.percentiles import percentiles
from kvbench_analysis.tables.statistics import (
    Interval,
    PooledPercentiles,
    RatioOfSums,
    bootstrap_interval,
    bootstrap_ratio,
    interval_of,
    mean_of_blocks,
    ratio_interval_of,
    resample_figure,
)

REPEATS = 200


def coverage(make: Callable[[np.random.Generator], Interval], truth: float) -> float:
    """How many of 200 intervals, each from data of its own, hold the truth."""
    rng = np.random.default_rng(20260102)
    intervals = [make(rng) for _ in range(REPEATS)]
    assert all(interval.low <= interval.estimate <= interval.high for interval in intervals)
    return sum(interval.low <= truth <= interval.high for interval in intervals) / REPEATS


@pytest.mark.parametrize("repeats", [3, 5, 20])
@pytest.mark.parametrize(("statistic", "truth"), [(np.mean, math.exp(0.02)), (np.median, 1.0)])
def test_an_interval_over_repeats_holds_the_truth_95_times_in_100(repeats: int, statistic: Any, truth: float) -> None:
    found = coverage(lambda rng: bootstrap_interval(rng.lognormal(0, 0.2, repeats), statistic, rng), truth)
    assert 0.90 <= found <= 0.99


@pytest.mark.parametrize(("of_a", "of_b"), [(4, 4), (5, 5), (8, 20)])
def test_so_does_that_of_a_ratio(of_a: int, of_b: int) -> None:
    def ratio(rng: np.random.Generator) -> Interval:
        return bootstrap_ratio(rng.lognormal(0, 0.1, of_a), 3 * rng.lognormal(0, 0.2, of_b), np.mean, rng=rng)

    assert 0.90 <= coverage(ratio, 3 * math.exp(0.02 - 0.005)) <= 0.99


def test_so_does_that_of_a_percentile_over_operations_which_are_alike_within_a_block() -> None:
    within, between = 0.5, 0.1
    truth = math.exp(1.6448536 * math.hypot(within, between))

    def p95(rng: np.random.Generator) -> Interval:
        blocks = [rng.lognormal(between * rng.standard_normal(), within, 100) for _ in range(20)]
        figure = PooledPercentiles(blocks, (95.0,))
        return interval_of(float(figure.exact[0]), resample_figure(figure, rng, 400)[:, 0], figure.units)

    assert 0.90 <= coverage(p95, truth) <= 0.99


def test_so_does_that_of_two_rates_from_blocks_of_two_runs() -> None:
    def rates(rng: np.random.Generator) -> Interval:
        figures = [RatioOfSums(speed * rng.lognormal(0, 0.1, 20), np.full(20, 0.5)) for speed in (1.0, 2.0)]
        estimates = [float(figure.evaluate(np.ones((1, 20)))[0, 0]) for figure in figures]
        draws = [resample_figure(figure, rng)[:, 0] for figure in figures]
        return ratio_interval_of((estimates[0], estimates[1]), (draws[0], draws[1]), (20, 20))

    assert 0.90 <= coverage(rates, 2.0) <= 0.99


def test_so_does_that_of_a_median_by_the_method_of_batch_means() -> None:
    def median(rng: np.random.Generator) -> Interval:
        blocks = [rng.lognormal(0.1 * rng.standard_normal(), 0.5, rng.integers(200, 400)) for _ in range(15)]
        medians = np.array([np.median(block) for block in blocks])
        return mean_of_blocks(float(np.median(np.concatenate(blocks))), medians, np.array([len(b) for b in blocks]))

    assert 0.90 <= coverage(median, 1.0) <= 0.99


def test_operations_taken_for_independent_would_hold_the_truth_far_less_often() -> None:
    def naive(rng: np.random.Generator) -> Interval:
        blocks = [rng.lognormal(0.1 * rng.standard_normal(), 0.1, 100) for _ in range(10)]
        return bootstrap_interval(np.concatenate(blocks), np.mean, rng, resamples=200)

    assert coverage(naive, math.exp(0.01)) < 0.6


@given(
    st.lists(st.lists(st.integers(0, 10**9), max_size=60), min_size=1, max_size=6),
    st.lists(st.floats(1, 99.9), min_size=1, max_size=3),
)
def test_pooled_percentiles_are_those_of_all_values_together(units: list[list[int]], wanted: list[float]) -> None:
    values = np.concatenate([np.array(unit, np.float64) for unit in units])
    figure = PooledPercentiles([np.array(unit, np.float64) for unit in units], wanted)
    np.testing.assert_array_equal(figure.exact, percentiles(values, tuple(wanted)))
    assert figure.units == sum(len(unit) > 0 for unit in units)
    if figure.units:
        again = figure.evaluate(np.ones((2, figure.units)))
        assert np.all((values.min() <= again) & (again <= values.max()))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_draw_of_units_has_nearly_the_percentiles_of_their_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = [rng.lognormal(0, 1, 2000) for _ in range(4)]
    wanted = (50.0, 95.0, 99.0)
    figure = PooledPercentiles(units, wanted)
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 0, 4]], np.float64)
    for weight, found in zip(weights, figure.evaluate(weights), strict=True):
        drawn = np.concatenate([np.tile(unit, int(times)) for unit, times in zip(units, weight, strict=True)])
        np.testing.assert_allclose(found, np.percentile(drawn, wanted), rtol=0.05)


def test_the_same_generator_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).normal(10, 1, 12)
    first, second = (bootstrap_interval(values, np.median, np.random.default_rng(5)) for _ in range(2))
    assert first == second


def test_a_ratio_is_the_second_by_the_first() -> None:
    interval = bootstrap_ratio([2.0] * 5, [6.0] * 5, np.mean, rng=np.random.default_rng(1))
    assert interval == Interval(3.0, 3.0, 3.0)
    assert interval.excludes(1)


def test_one_repeat_has_no_interval_and_shows_no_difference() -> None:
    rng = np.random.default_rng(1)
    for interval in (bootstrap_interval([5.0], np.mean, rng), bootstrap_ratio([2.0], [10.0], np.mean, rng=rng)):
        assert interval.estimate == 5.0
        assert math.isnan(interval.low)
        assert not interval.excludes(1)


def test_values_that_are_not_there_are_left_out() -> None:
    rng = np.random.default_rng(1)
    assert bootstrap_interval([1.0, float("nan"), 3.0], np.mean, rng).estimate == 2.0
    assert math.isnan(bootstrap_interval([float("nan")], np.mean, rng).estimate)
    assert math.isnan(bootstrap_ratio([0.0, 0.0], [1.0, 2.0], np.mean, rng=rng).estimate)
    assert math.isnan(bootstrap_ratio([], [1.0, 2.0], np.mean, rng=rng).estimate)


def test_two_blocks_do_not_bound_a_median() -> None:
    interval = mean_of_blocks(1.0, np.array([0.9, 1.1]), np.array([5.0, 5.0]))
    assert (interval.estimate, math.isnan(interval.low)) == (1.0, True)
