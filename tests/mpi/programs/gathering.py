"""Gathers rows and compares what arrives with what each rank must have sent; fails as the command line says.

First argument: `good`, `sink:R` (rank 0's sink raises in rank R's rows) or `source:R` (rank R's rows raise half way).
Second argument: how many ranks stand for a node, whose rows come by way of its first rank; 0 for the real nodes, minus
the number of nodes for ranks that are dealt out to them in turn, 1 or none for straight from each rank.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kvbench.cluster.agree import Agreement, FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.cluster.counted import Ledger, counting
from kvbench.cluster.gather import choose_gathering, gather_rows, gather_table
from kvbench.cluster.topology import discover
from kvbench.errors import KvbenchError
from kvbench.records.tables import as_columns, as_rows

DTYPE = np.dtype([("rank", "<u4"), ("number", "<u4"), ("payload", "<i8", (3,))])
TABLE = np.dtype([("rank", "<u4"), ("host", "S16")])
CHUNK_ROWS = 100


def count_of(rank: int) -> int:
    """Rows of a rank: more than several chunks, exactly two chunks, none."""
    return (555, 200, 0, 1234)[rank % 4]


def rows_of(rank: int) -> npt.NDArray[Any]:
    """The rows of a rank; anybody can make them."""
    rows = np.zeros(count_of(rank), DTYPE)
    rows["rank"] = rank
    rows["number"] = np.arange(len(rows))
    rows["payload"] = np.random.default_rng(rank).integers(0, 2**40, (len(rows), 3))
    return rows


def pieces(rank: int, mode: str) -> Iterator[npt.NDArray[Any]]:
    """The rows in pieces of odd sizes, some empty."""
    rows = rows_of(rank)
    edges = [0, 0, 1, 77, 300, len(rows)]
    for start, end in itertools.pairwise(edges):
        if mode == f"source:{rank}" and start == 77:
            raise KvbenchError("the rows of this rank cannot be read")
        yield rows[start:end]


def main() -> None:
    """Gather, check, report."""
    ledger = Ledger()
    comm, mode = counting(get_world(), ledger), sys.argv[1]
    node_ranks = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    node = comm.rank % -node_ranks if node_ranks < 0 else comm.rank // max(node_ranks, 1)
    topology = discover(comm, comm.Split(node, comm.rank) if node_ranks else None)
    gathering = choose_gathering(topology, "nodes" if node_ranks > 1 else "auto")
    refusal = ""
    if node_ranks < 0:
        try:
            choose_gathering(topology, "nodes")
        except KvbenchError as error:
            refusal = f"\nrefused: {str(error)[:26]}"
    received: dict[int, list[npt.NDArray[Any]]] = {rank: [] for rank in range(comm.size)}
    order: list[int] = []

    def sink(rank: int, rows: npt.NDArray[Any]) -> None:
        if mode == f"sink:{rank}":
            raise OSError(28, "No space left on device", "run.h5")
        assert 0 < len(rows) <= CHUNK_ROWS
        order.append(rank)
        received[rank].append(rows.copy())

    agreement = Agreement(comm)
    try:
        mine = pieces(comm.rank, mode)
        collect = ledger.as_step("rows", gather_rows)
        agreement.run("gather", lambda: collect(comm, mine, DTYPE, sink, CHUNK_ROWS, gathering))
    except KvbenchError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)
    except FailedElsewhere:
        sys.exit(1)
    table = gather_table(comm, as_rows([{"rank": comm.rank, "host": f"host{comm.rank}"}] * (comm.rank % 3), TABLE))
    if comm.rank == 0:
        assert order == sorted(order)
        for rank, chunks in received.items():
            np.testing.assert_array_equal(np.concatenate([np.empty(0, DTYPE), *chunks]), rows_of(rank))
        assert table is not None
        columns = as_columns(table)
        expected = [rank for rank in range(comm.size) for _ in range(rank % 3)]
        assert list(columns["rank"]) == expected
        assert columns["host"] == [f"host{rank}" for rank in expected]
        asked = ledger.costs["rows"].sent
        print(f"equal, by {gathering.way}, rank 0 asked for {asked} messages{refusal}", flush=True)


main()
