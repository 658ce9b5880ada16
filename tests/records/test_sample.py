"""Sampling: the same share of every rank's rows, in bounded memory, whatever the order they come in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from kvbench.records.condensed.sample import FEWEST_ROWS, MOST_ROWS, Sample, budget, hashes, kept_at

ROW = np.dtype([("value", "<i8")])


def rows_of(count: int, first: int = 0) -> NDArray[np.void]:
    rows = np.zeros(count, ROW)
    rows["value"] = np.arange(first, first + count)
    return rows


def sampled(rank: int, count: int, room: int, pieces: int = 1, stream: int = 0) -> Sample:
    """The sample of a rank whose rows came in several pieces."""
    sample = Sample(ROW, stream, rank, room)
    for piece in np.array_split(rows_of(count), pieces):
        sample.keep(*sample.choose(piece))
    return sample


def brought_together(samples: list[Sample]) -> int:
    """Thin all to the highest level, as the ranks do; returns it."""
    level = max(sample.level for sample in samples)
    for sample in samples:
        sample.thin(level)
    return level


@given(st.integers(0, 5000), st.integers(1, 400), st.integers(1, 50))
def test_it_is_the_lowest_level_that_the_room_allows_however_the_rows_came(count: int, room: int, pieces: int) -> None:
    sample = sampled(3, count, room, pieces)
    hashed = hashes(0, 3, np.arange(count, dtype=np.uint64))
    level = next(level for level in range(64) if kept_at(level, hashed).sum() <= room)
    assert sample.level == level
    assert sample.seen == count
    assert np.array_equal(sample.rows["value"], np.flatnonzero(kept_at(level, hashed)))
    assert np.array_equal(sample.numbers, sample.rows["value"])


def test_everything_is_kept_where_there_is_room() -> None:
    assert np.array_equal(sampled(0, 100, 100).rows, rows_of(100))


def test_ranks_with_very_unequal_numbers_of_rows_are_sampled_alike() -> None:
    counts = [400_000, 100_000, 30_000, 5_000, 900, 40]
    samples = [sampled(rank, count, 8192, pieces=13) for rank, count in enumerate(counts)]
    share = 2.0 ** -brought_together(samples)
    kept = np.array([sample.count for sample in samples])
    expected = np.array(counts) * share
    assert kept.max() <= 8192
    # Every rank's number is binomial with the one probability: the sum of squares is chi-square.
    statistic = ((kept - expected) ** 2 / (expected * (1 - share))).sum()
    assert stats.chi2.sf(statistic, len(counts)) > 0.01
    # And so is that of every stretch of the largest rank's rows: early and late rows alike.
    stretches = np.bincount(samples[0].rows["value"] // 10_000, minlength=40)
    statistic = ((stretches - 10_000 * share) ** 2 / (10_000 * share * (1 - share))).sum()
    assert stats.chi2.sf(statistic, 40) > 0.01


def test_sums_over_many_runs_have_no_bias() -> None:
    # Rank 1 has few rows, so a bias towards one of the two would show. Every "run" has ranks of its own.
    totals = []
    for run in range(400):
        samples = [sampled(2 * run, 300, 64), sampled(2 * run + 1, 20, 64)]
        level = brought_together(samples)
        totals.append([sample.count * 2**level for sample in samples])
    found = np.array(totals)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - [300, 20]) < 3.5 * error)


def test_records_and_requests_and_ranks_are_sampled_apart() -> None:
    numbers = np.arange(4096, dtype=np.uint64)
    found = [hashes(stream, rank, numbers) for stream in (0, 1) for rank in (0, 1, 9999)]
    assert len(np.unique(np.concatenate(found))) == 6 * 4096
    bits = np.unpackbits(np.concatenate(found).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.002


def test_what_was_chosen_before_a_cut_makes_the_same_sample_again() -> None:
    sample, chosen = Sample(ROW, 0, 5, 100), []
    for first in range(0, 3000, 250):
        chosen.append(sample.choose(rows_of(250, first)))
        sample.keep(*chosen[-1])
    again = Sample(ROW, 0, 5, 100)
    again.keep(*(np.concatenate([part[side] for part in chosen]) for side in (0, 1)))
    assert again.level == sample.level
    assert np.array_equal(again.rows, sample.rows)


def test_thinning_to_a_level_below_changes_nothing() -> None:
    sample = sampled(0, 1000, 100)
    before = sample.rows.copy()
    sample.thin(sample.level - 1)
    assert np.array_equal(sample.rows, before)


def test_room_is_shared_by_the_ranks_within_limits() -> None:
    assert budget(1) == budget(64) == MOST_ROWS
    assert budget(1024) == 4096
    assert budget(1_000_000) == FEWEST_ROWS
    with pytest.raises(ValueError, match="at least one row"):
        Sample(ROW, 0, 0, 0)
