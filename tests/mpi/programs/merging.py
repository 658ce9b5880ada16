"""Ranks with very unequal rows keep digests of them; rank 0 must have sums and histograms of all, and one sample."""

import numpy as np
from numpy.typing import NDArray

from kvbench.cluster.comm import get_world
from kvbench.cluster.gather import gather_table
from kvbench.cluster.merge import agree_on_levels, merge_populations, place_rows
from kvbench.cluster.topology import discover
from kvbench.records.condensed.histogram import Histogram
from kvbench.records.condensed.population import Population, classes_or_kinds, read_histograms
from kvbench.records.condensed.sample import Sample
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Phase, Quantity, RequestState

ROOM = 300


def rows_of(rank: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """The rows of a rank: the last has none at all, and only some ranks have writes."""
    rng = np.random.default_rng(rank)
    count = [20_000, 3_000, 100, 0][rank % 4]
    rows = np.zeros(count, RECORD_DTYPE)
    rows["phase"], rows["rank"] = Phase.MEASURE, rank
    rows["op"] = rng.choice([Op.READ, Op.WRITE], count) if rank % 2 else Op.READ
    rows["tier"] = rng.integers(0, 2, count)
    rows["wall_ns"] = rng.lognormal(12 + rank, 1, count)
    rows["nbytes"] = rng.integers(0, 2**20, count)
    rows["errno"] = rng.choice([0, 0, 0, 5, 125], count)
    asked = np.zeros(count // 10, REQUEST_DTYPE)
    asked["phase"], asked["state"] = Phase.MEASURE, RequestState.DONE
    asked["qos"], asked["end_ns"] = rank % 3, rng.integers(1, 10**9, len(asked))
    return rows, asked


def main() -> None:
    """Merge, and compare with the same rows in one population."""
    comm = get_world()
    topology = discover(comm)
    rows, asked = rows_of(comm.rank)
    mine, sample = Population(2, 3, histograms=True), Sample(RECORD_DTYPE, 0, comm.rank, ROOM)
    mine.take_records(rows)
    mine.take_requests(asked)
    sample.keep(*sample.choose(rows))
    agree_on_levels(comm, sample)
    merged = merge_populations(comm, mine, 2 * 10**9)
    places = gather_table(comm, place_rows(topology, mine))
    kept = gather_table(comm, np.array([(sample.level, sample.count, sample.seen)], "i8,i8,i8"))
    if merged is None or places is None or kept is None:
        return
    whole = Population(2, 3, histograms=True)
    for rank in range(comm.size):
        whole.take_records(rows_of(rank)[0])
        whole.take_requests(rows_of(rank)[1])
    expected = whole.tables()
    for name in ("population", "request_population", "errors", "histograms", "request_histograms", "buckets"):
        assert np.array_equal(np.sort(merged[name]), np.sort(expected[name])), name
    assert list(merged["seen"][0])[:2] == [whole.records, whole.requests]
    walls = Histogram()
    numbers = classes_or_kinds(merged["histograms"], 2, 3)
    for (quantity, _), histogram in read_histograms(merged["histograms"], numbers, merged["buckets"]):
        if quantity == Quantity.WALL:
            walls.merge(histogram)
    everything = np.concatenate([rows_of(rank)[0] for rank in range(comm.size)])
    good = everything["wall_ns"][everything["errno"] == 0]
    assert abs(walls.percentiles([95])[0] / np.percentile(good, 95) - 1) < 0.01
    of_node = places[places["rank"] < 0]
    assert of_node["operations"].sum() == places[places["rank"] >= 0]["operations"].sum() == len(good)
    level = kept["f0"][0]
    assert np.all(kept["f0"] == level)
    assert level > 0
    assert np.all(kept["f1"] <= ROOM)
    print(f"level {level}, kept {kept['f1'].tolist()} of {kept['f2'].tolist()}", flush=True)


main()
