"""Each rank's part of a trace that rank 0 has read, which no rank ever has all of in memory.

What travels: from rank 0 to one rank after the other its part, first what is of requests, about 70 bytes each, in one
message, and then their hash ids, 8 bytes each, in messages of at most 8 MiB. A rank keeps ids as rank 0 does, in a file
where they are many. At 10 000 ranks the trace is sent once in all, whatever the number of ranks.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cluster.agree import Agreement
from kvbench.cluster.comm import Communicator, wait_quietly
from kvbench.errors import KvbenchError
from kvbench.workload.traces.id_store import PIECE_IDS, IdStore, piece_sizes
from kvbench.workload.traces.trace import Trace

_COLUMNS_TAG: Final = 7121
_IDS_TAG: Final = 7122


def deal_trace(
    comm: Communicator, agreement: Agreement, trace: Trace | None, parts: Iterator[NDArray[np.int64]] | None
) -> Trace:
    """Rank 0 gives the `trace` and an iterator of the positions of each rank's requests, in order of ranks; every rank
    gets its own part. Collective. Raises what the agreement does where a rank cannot keep its part."""
    if trace is not None and parts is not None:
        whole, own = trace, next(parts)
        for rank in range(1, comm.size):
            _send(comm, whole, next(parts), rank)
        return agreement.run("plan", lambda: whole.take(own), computes=True)
    columns, ids = _receive(comm)

    def kept() -> Trace:
        if isinstance(ids, KvbenchError):
            raise ids
        return replace(columns, hash_ids=ids)

    return agreement.run("plan", kept, computes=True)


def _send(comm: Communicator, trace: Trace, positions: NDArray[np.int64], rank: int) -> None:
    comm.send(trace.take_columns(positions).to_arrays(), dest=rank, tag=_COLUMNS_TAG)
    for piece in trace.take_ids(positions):
        comm.Send(np.ascontiguousarray(piece), dest=rank, tag=_IDS_TAG)


def _receive(comm: Communicator) -> tuple[Trace, NDArray[np.uint64] | KvbenchError]:
    """What `_send` sends to this rank. All of it is received, even where it cannot be kept: rank 0 waits for that."""
    columns = Trace.from_arrays(*comm.recv(source=0, tag=_COLUMNS_TAG))
    store, failed = IdStore(columns.source), None
    buffer = np.empty(PIECE_IDS, np.uint64)
    for size in piece_sizes(columns.id_counts):
        wait_quietly(comm.Irecv(buffer[:size], source=0, tag=_IDS_TAG))
        try:
            if failed is None:
                store.extend(buffer[:size])
        except KvbenchError as error:
            failed = error
    try:
        return columns, failed or store.finish()
    except KvbenchError as error:
        return columns, error
