"""Small things that rank 0 has and every rank needs, and figures that every rank has and all need summed.

What travels: `share` one length and one message down MPI's broadcast tree; `total` one sum of a few integers; `highest`
8 bytes of every rank to every rank, and `lowest_of_group` 16. At 10 000 ranks each takes about 14 rounds.
"""

import json
from typing import Any

import numpy as np

from kvbench.cluster.comm import Communicator, quiet_barrier, quiet_bcast, wait_quietly


def share(comm: Communicator, value: Any) -> Any:
    """What rank 0 gives as `value`, on every rank: anything that JSON can hold. Collective."""
    content = np.frombuffer(json.dumps(value).encode() if comm.rank == 0 else b"", dtype=np.uint8).copy()
    length = np.array([len(content)], dtype=np.int64)
    quiet_bcast(comm, length)
    if comm.rank != 0:
        content = np.empty(int(length[0]), dtype=np.uint8)
    quiet_bcast(comm, content)
    return json.loads(content.tobytes())


def total(comm: Communicator, *values: int) -> tuple[int, ...]:
    """The sums of `values` over all ranks, on every rank. Collective."""
    # Both arrays have a name until the end: a request does not keep alive what it sends.
    mine, summed = np.array(values, dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    wait_quietly(comm.Iallreduce(mine, summed))
    return tuple(int(value) for value in summed)


def highest(comm: Communicator, value: int) -> int:
    """The highest `value` of all ranks, on every rank. Collective."""
    every = np.zeros(comm.size, np.int64)
    quiet_barrier(comm)
    comm.Allgather(np.array([value], np.int64), every)
    return int(every.max())


def lowest_of_group(comm: Communicator, value: int, group: int) -> int:
    """The lowest `value` of all ranks that give this `group`. Collective."""
    every = np.zeros((comm.size, 2), np.int64)
    quiet_barrier(comm)
    comm.Allgather(np.array([value, group], np.int64), every)
    return int(every[every[:, 1] == group, 0].min())
