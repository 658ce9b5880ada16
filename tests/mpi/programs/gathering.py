"""Gathers rows and compares what arrives with what each rank must have sent; fails as the command line says.

Argument `good`, `sink` (rank 0's sink raises in rank 1's rows) or `source` (rank 1's rows raise half way).
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kvbench.cluster.agree import Agreement, FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.cluster.gather import as_columns, as_rows, gather_rows, gather_table
from kvbench.errors import KvbenchError

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
        if mode == "source" and rank == 1 and start == 77:
            raise KvbenchError("the rows of this rank cannot be read")
        yield rows[start:end]


def main() -> None:
    """Gather, check, report."""
    comm, mode = get_world(), sys.argv[1]
    received: dict[int, list[npt.NDArray[Any]]] = {rank: [] for rank in range(comm.size)}
    order: list[int] = []

    def sink(rank: int, rows: npt.NDArray[Any]) -> None:
        if mode == "sink" and rank == 1:
            raise OSError(28, "No space left on device", "run.h5")
        assert 0 < len(rows) <= CHUNK_ROWS
        order.append(rank)
        received[rank].append(rows.copy())

    agreement = Agreement(comm)
    try:
        agreement.run("gather", lambda: gather_rows(comm, pieces(comm.rank, mode), DTYPE, sink, CHUNK_ROWS))
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
        print("equal", flush=True)


main()
