"""Merging on one rank, whose communicator has no MPI: what comes back is what the rank had."""

import numpy as np

from kvbench.cluster.comm import SerialComm
from kvbench.cluster.merge import agree_on_levels, merge_populations, place_rows
from kvbench.cluster.topology import discover
from kvbench.records.condensed.population import Population
from kvbench.records.condensed.sample import Sample
from kvbench.records.schema import RECORD_DTYPE, Op, Phase


def population(*, histograms: bool) -> Population:
    rows = np.zeros(1000, RECORD_DTYPE)
    rows["phase"], rows["wall_ns"] = Phase.MEASURE, np.arange(1000)
    rows["op"] = np.where(np.arange(1000) % 4, Op.READ, Op.DEMOTE)
    rows["errno"] = np.arange(1000) % 10 == 9
    made = Population(2, 3, histograms=histograms)
    made.take_records(rows)
    return made


def test_one_rank_gets_its_own_population_back() -> None:
    mine = population(histograms=True)
    merged = merge_populations(SerialComm(), mine, 10**9)
    assert merged is not None
    for name in ("population", "request_population", "errors", "histograms", "request_histograms", "buckets"):
        assert np.array_equal(merged[name], mine.tables()[name]), name


def test_a_rank_has_a_row_and_so_has_its_node() -> None:
    rows = place_rows(discover(SerialComm()), population(histograms=True))
    assert list(rows["rank"]) == [0, -1]
    reads = [value for value in range(1000) if value % 4 and value % 10 != 9]
    assert list(rows["operations"]) == [len(reads)] * 2
    assert list(rows["wall_ns"]) == [sum(reads)] * 2
    np.testing.assert_allclose(rows["wall_p95_ns"], np.percentile(reads, 95), rtol=0.01)


def test_without_histograms_the_percentiles_of_places_are_not_known() -> None:
    rows = place_rows(discover(SerialComm()), population(histograms=False))
    assert np.isnan(rows["wall_p95_ns"]).all()


def test_one_ranks_sample_stays_as_it_is() -> None:
    sample = Sample(RECORD_DTYPE, 0, 0, 50)
    sample.keep(*sample.choose(np.zeros(500, RECORD_DTYPE)))
    level, kept = sample.level, sample.count
    agree_on_levels(SerialComm(), sample)
    assert (sample.level, sample.count) == (level, kept)
