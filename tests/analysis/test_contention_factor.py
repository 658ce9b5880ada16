"""The contention factor from sums: its interval holds the truth, and it does not claim what cannot be known."""

import math

import numpy as np
import pytest
from kvbench_analysis.contention.factor import BinSums, Factor, contention_factor
from kvbench_analysis.tables.statistics import draw_units

BLOCKS, BINS = 20, 8
EVERY = np.ones((2, BLOCKS))


def sums(cost: np.ndarray, operations: np.ndarray, others: np.ndarray) -> BinSums:
    """Blocks and bins of operations of 1 MB each, at these costs per byte and concurrencies."""
    nbytes = operations * 1e6
    return BinSums(operations, nbytes, cost * nbytes, others * nbytes)


def steady(cost: np.ndarray, counts: np.ndarray) -> BinSums:
    shape = (BLOCKS, len(cost))
    return sums(
        np.broadcast_to(cost, shape), np.broadcast_to(counts, shape), np.broadcast_to(np.arange(len(cost)), shape)
    )


def test_the_interval_holds_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(20260103)
    others = np.arange(BINS, dtype=np.float64)
    truth = 0.1 * np.maximum(2.0, 1 + others)
    held = 0
    for _ in range(200):
        # What varies from block to block, and what is left of the noise of a bin's operations.
        wobble = rng.lognormal(0, 0.1, (BLOCKS, 1)) * rng.lognormal(0, 0.1, (BLOCKS, BINS))
        operations = rng.integers(20, 60, (BLOCKS, BINS)).astype(np.float64)
        found = contention_factor(sums(truth * wobble, operations, others), draw_units(BLOCKS, rng, 400))
        held += found.factor.low <= truth[-1] / truth[0] <= found.factor.high
    assert 0.90 <= held / 200 <= 0.99


def test_the_highest_common_bin_has_a_twentieth_of_the_operations() -> None:
    counts = np.array([100.0, 100, 100, 100, 100, 100, 40, 10])
    found = contention_factor(steady(1.0 + np.arange(BINS), counts), EVERY)
    assert found.high_bin == 6
    assert found.factor.estimate == pytest.approx(7)


def test_ranks_are_compared_at_the_bin_of_their_node() -> None:
    counts = np.full(BINS, 100.0)
    assert contention_factor(steady(1.0 + np.arange(BINS), counts), EVERY, 4).factor.estimate == pytest.approx(5)
    counts[4] = 0
    elsewhere = contention_factor(steady(1.0 + np.arange(BINS), counts), EVERY, 4)
    assert elsewhere.high_bin == 7


def test_a_cost_that_falls_with_concurrency_is_not_extrapolated_upwards() -> None:
    counts = np.array([0.0, 100, 100, 100, 100, 100, 100, 100])
    found = contention_factor(steady(2.0 - 0.1 * np.arange(BINS), counts), EVERY)
    assert found.extrapolated
    assert found.factor.estimate < 1
    assert found.alone_ns_per_byte <= 2.0


def test_what_nothing_was_measured_of_lies_between_no_sharing_and_complete_sharing() -> None:
    counts = np.array([0.0, 100, 100, 100, 100, 100, 100, 100])
    # All of it could be sharing from the first on; or two are no trouble to each other, and all others are.
    found = contention_factor(steady(0.1 * (1.0 + np.arange(BINS)), counts), EVERY)
    assert found.factor.estimate == pytest.approx(8)
    assert found.factor.low <= 4
    assert found.factor.high >= 8


@pytest.mark.parametrize("counts", [np.zeros(BINS), np.full(BINS, 0.2)])
def test_too_few_operations_have_no_factor(counts: np.ndarray) -> None:
    found: Factor = contention_factor(steady(1.0 + np.arange(BINS), counts), EVERY)
    assert math.isnan(found.factor.estimate)
    assert found.high_bin == -1
