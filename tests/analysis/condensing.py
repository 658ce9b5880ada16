"""The same run as a file with every row, and as one with a sample and what is known of all rows.

Each rank's rows go through a `Digest`, and the ranks' digests are merged as a run merges them, but for MPI.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from synthetic import START_NS, SyntheticRun

from kvbench.cluster.comm import SerialComm
from kvbench.cluster.merge import place_rows
from kvbench.cluster.topology import Topology
from kvbench.records.condensed.digest import Digest
from kvbench.records.condensed.population import Population
from kvbench.records.condensed.population_schema import FILE_TABLES, HISTOGRAM_TABLES, PLACE_DTYPE
from kvbench.records.condensed.sample import Sample
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Phase
from kvbench.records.tables import as_columns

TIERS, CLASSES = 2, 3


def within_window(run: SyntheticRun) -> SyntheticRun:
    """As a real run: measured operations begin after the window's start, and its end is that of the last of them."""
    records = run.records.copy()
    measured = records["phase"] == Phase.MEASURE
    early = measured & (records["t_start_ns"] < START_NS)
    records["t_start_ns"][early] = START_NS
    good = records[measured & (records["errno"] == 0)]
    end_ns = int((good["t_start_ns"] + good["wall_ns"]).max())
    return dataclasses.replace(run, records=records, attributes=run.attributes | {"measure_end_ns": end_ns})


def condensed(run: SyntheticRun, mode: Literal["sampled", "histogram"], room: int) -> SyntheticRun:
    """`run`, of which each rank keeps at most `room` records, and half as many requests."""
    ranks = run.tables["ranks"]
    nodes = np.asarray(ranks["node"])
    digests = [_digest(run, rank, len(nodes), mode, room) for rank in range(len(nodes))]
    for samples in ([digest.records for digest in digests], [digest.requests for digest in digests]):
        level = max(sample.level for sample in samples)
        for sample in samples:
            sample.thin(level)
    total = _merged([digest.population for digest in digests], mode)
    tables = total.tables(int(run.attributes["measure_end_ns"]))
    tables["places"] = _places(digests, nodes, mode)
    left_out = () if mode == "histogram" else HISTOGRAM_TABLES
    kept: dict[str, Any] = {name: as_columns(tables[name]) for name in FILE_TABLES if name not in left_out}
    counts = {
        "rows": np.array([digest.records.count for digest in digests]),
        "requests": np.array([digest.requests.count for digest in digests]),
    }
    firsts = {
        "first_row": np.cumsum(counts["rows"]) - counts["rows"],
        "first_request": np.cumsum(counts["requests"]) - counts["requests"],
    }
    attributes: dict[str, str | int | float] = {
        "records": mode,
        "records_sampled_1_in": 2 ** digests[0].records.level,
        "requests_sampled_1_in": 2 ** digests[0].requests.level,
        "records_population": total.records,
        "requests_population": total.requests,
    }
    return SyntheticRun(
        records=np.concatenate([digest.records.rows for digest in digests]),
        requests=np.concatenate([digest.requests.rows for digest in digests]),
        attributes=run.attributes | attributes,
        tables={**run.tables, "ranks": {**ranks, **counts, **firsts}, **kept},
    )


def _digest(run: SyntheticRun, rank: int, ranks: int, mode: Literal["sampled", "histogram"], room: int) -> Digest:
    digest = Digest(mode, rank, ranks, TIERS, CLASSES)
    digest.records = Sample(RECORD_DTYPE, 0, rank, room)
    digest.requests = Sample(REQUEST_DTYPE, 1, rank, room // 2)
    # In pieces, as they come in a run.
    for rows in np.array_split(run.records[run.records["rank"] == rank], 7):
        digest.take_records(rows)
    for rows in np.array_split(run.requests[run.requests["rank"] == rank], 5):
        digest.take_requests(rows)
    return digest


def _merged(populations: list[Population], mode: str) -> Population:
    total = Population(TIERS, CLASSES, histograms=mode == "histogram")
    for population in populations:
        total.merge(population)
    return total


def _places(digests: list[Digest], nodes: NDArray[Any], mode: str) -> NDArray[np.void]:
    """Rows of every rank and node, each made as by a rank that is alone on its node."""
    found = [np.zeros(0, PLACE_DTYPE)]
    for rank, digest in enumerate(digests):
        rows = place_rows(_alone(rank, int(nodes[rank])), digest.population)
        found.append(rows[rows["rank"] >= 0])
    for node in np.unique(nodes):
        merged = _merged([digests[rank].population for rank in np.flatnonzero(nodes == node)], mode)
        rows = place_rows(_alone(0, int(node)), merged)
        found.append(rows[rows["rank"] < 0])
    return np.concatenate(found)


def _alone(rank: int, node: int) -> Topology:
    comm = SerialComm()
    return Topology(comm, rank, 1, node, 1, 0, 1, f"client{node}", (), comm, comm)
