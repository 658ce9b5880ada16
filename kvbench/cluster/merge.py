"""What all ranks know of their rows, merged on rank 0: sums, histograms, and the samples brought to one level.

What travels, `merge_populations`: one message of sums (some 18 KB a tier), one of least and one of most, then for each
histogram that any rank has, in one order that all agree on, its 4033 buckets (32 KB), each by MPI's reduction down a
tree; rank 0 holds two histograms beside the merged ones. With 10 kinds of operations and 4 classes of requests, 92
messages of 32 KB: at 10 000 ranks 14 steps each, about 3 MB through every rank, whatever the number of rows. Errors
are rows of 15 bytes, gathered.

What travels, `agree_on_levels`: 128 integers, summed. `place_rows`: within a node, 32 KB for each tier, of reads and
of writes.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.broadcast import total
from kvbench.cluster.comm import Communicator, reduce_to_root
from kvbench.cluster.gather import gather_table
from kvbench.cluster.topology import Topology
from kvbench.records.condensed.histogram import BUCKETS, Histogram, percentiles_of
from kvbench.records.condensed.population import Population
from kvbench.records.condensed.population_schema import ERROR_DTYPE, KINDS_PER_TIER, OPERATION_SUMS, PLACE_DTYPE
from kvbench.records.condensed.sample import MOST_LEVEL, Sample
from kvbench.records.schema import Op, Quantity

_PLACE_SUMS: Final = ("operations", "nbytes", "tokens", "wall_ns", "device_ns", "host_ns", "runq_ns")
_PLACE_OPS: Final = (Op.READ, Op.WRITE)


def agree_on_levels(comm: Communicator, *samples: Sample) -> None:
    """Bring each of `samples` to the highest level that it has on any rank. Collective."""
    levels = MOST_LEVEL + 1
    counts = total(comm, *(int(sample.level == level) for sample in samples for level in range(levels)))
    for place, sample in enumerate(samples):
        sample.thin(int(np.flatnonzero(counts[place * levels : (place + 1) * levels]).max()))


def merge_populations(comm: Communicator, mine: Population, end_ns: int) -> dict[str, npt.NDArray[np.void]] | None:
    """The tables of all ranks' populations together, on rank 0; None elsewhere. Collective.

    `end_ns` is the end of the measured window on this rank's own clock. Every rank's population is of the same tiers
    and classes, and all have histograms or none has.
    """
    sums = reduce_to_root(
        comm, np.concatenate((mine.sums.ravel(), mine.request_sums.ravel(), [mine.records, mine.requests]))
    )
    least, most = reduce_to_root(comm, mine.least, "min"), reduce_to_root(comm, mine.most, "max")
    inside = reduce_to_root(comm, mine.done_inside(end_ns))
    errors = gather_table(comm, mine.tables()["errors"])
    merged = Population(mine.tiers, mine.classes, histograms=mine.has_histograms)
    if sums is not None and least is not None and most is not None:
        operations, requests = mine.sums.size, mine.request_sums.size
        merged.sums[...] = sums[:operations].reshape(mine.sums.shape)
        merged.request_sums[...] = sums[operations : operations + requests].reshape(mine.request_sums.shape)
        merged.records, merged.requests = map(int, sums[operations + requests :])
        merged.least, merged.most = least, most
    if mine.has_histograms:
        _merge_histograms(comm, mine, merged)
    if sums is None or inside is None or errors is None:
        return None
    tables = merged.tables()
    tables["request_population"]["done_inside"] = inside[tables["request_population"]["qos"]]
    tables["errors"] = _added_up(errors)
    return tables


def _merge_histograms(comm: Communicator, mine: Population, merged: Population) -> None:
    kinds = max(len(mine.sums), mine.classes)
    occurs = np.zeros(len(Quantity) * kinds, np.int64)
    for quantity, index in mine.histograms:
        occurs[quantity * kinds + index] = 1
    keys = [(Quantity(int(place) // kinds), int(place) % kinds) for place in np.flatnonzero(total(comm, *occurs))]
    nothing = Histogram()
    own = [mine.histograms.get(key, nothing) for key in keys]
    ends = np.array([(one.total, one.least, one.most) for one in own], np.int64).reshape(len(own), 3)
    totals = reduce_to_root(comm, ends[:, 0].copy())
    least = reduce_to_root(comm, ends[:, 1].copy(), "min")
    most = reduce_to_root(comm, ends[:, 2].copy(), "max")
    for place, key in enumerate(keys):
        counts = reduce_to_root(comm, own[place].counts)
        if counts is not None and totals is not None and least is not None and most is not None:
            histogram = merged.histogram(*key)
            histogram.counts = counts
            histogram.total, histogram.least, histogram.most = (int(one[place]) for one in (totals, least, most))


def _added_up(errors: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """One row for each kind and errno."""
    names = ["tier", "op", "path", "locality", "errno"]
    keys, place = np.unique(errors[names], return_inverse=True)
    result = np.zeros(len(keys), ERROR_DTYPE)
    for name in names:
        result[name] = keys[name]
    np.add.at(result["operations"], place.reshape(-1), errors["operations"])
    return result


def place_rows(topology: Topology, mine: Population) -> npt.NDArray[np.void]:
    """This rank's rows of PLACE_DTYPE, and on the first rank of a node also those of its node. Collective."""
    places = [(tier, op) for tier in range(mine.tiers) for op in _PLACE_OPS]
    sums = np.zeros((len(places), len(_PLACE_SUMS)), np.int64)
    walls = np.zeros((len(places), BUCKETS), np.int64)
    columns = [OPERATION_SUMS.index(name) for name in _PLACE_SUMS]
    of_op = KINDS_PER_TIER // len(Op)
    for place, (tier, op) in enumerate(places):
        for kind in range(tier * KINDS_PER_TIER + op * of_op, tier * KINDS_PER_TIER + (op + 1) * of_op):
            sums[place] += mine.sums[kind, columns]
            if (Quantity.WALL, kind) in mine.histograms:
                walls[place] += mine.histograms[Quantity.WALL, kind].counts
    rows = _place_rows(topology.rank, topology.node, places, sums, walls)
    of_node = reduce_to_root(topology.node_comm, sums)
    node_walls = np.zeros_like(walls)
    for place in range(len(places) if mine.has_histograms else 0):
        merged = reduce_to_root(topology.node_comm, walls[place])
        if merged is not None:
            node_walls[place] = merged
    if of_node is not None:
        rows += _place_rows(-1, topology.node, places, of_node, node_walls)
    return np.array(rows, PLACE_DTYPE)


def _place_rows(
    rank: int,
    node: int,
    places: list[tuple[int, Op]],
    sums: npt.NDArray[np.int64],
    walls: npt.NDArray[np.int64],
) -> list[tuple[int | float, ...]]:
    return [
        (rank, node, tier, int(op), *map(int, sums[place]), float(percentiles_of(walls[place], (95.0,))[0]))
        for place, (tier, op) in enumerate(places)
        if sums[place, 0]
    ]
