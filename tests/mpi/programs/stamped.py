"""Ranks on different nodes exchange stamped messages, whose delays on the common clock tell how well it is common.

`stamped.py`: as a run does, clocks are compared before and after. In between each rank of the first node and one of the
second send each other times of their own clocks. Rank 0 prints JSON: for each pair the shortest delays both ways, and
for each node what was estimated. All times in ns.
"""

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from kvbench.cluster.clock import read_clock
from kvbench.cluster.comm import Communicator, get_world, quiet_barrier
from kvbench.cluster.gather import gather_table
from kvbench.cluster.topology import discover
from kvbench.records.clock import CommonClock

Rows = npt.NDArray[Any]

MESSAGES = 600
_TAG = 5
_DELAYS = np.dtype([("rank", "<i8"), ("there_ns", "<i8"), ("back_ns", "<i8")])
_CLOCK = np.dtype([("node", "<i8"), ("offset_ns", "<i8"), ("drift_ns", "<i8"), ("uncertainty_ns", "<i8")])


def main() -> None:
    """Two nodes of equally many ranks."""
    comm = get_world()
    topology = discover(comm)
    assert topology.nodes == 2, topology
    half = comm.size // 2
    before = read_clock(topology)
    # The pairs take turns: with all at once, few messages would find both of their ranks on a processor.
    stamps = np.zeros((MESSAGES, 4), np.int64)
    for turn in range(half):
        if comm.rank % half == turn:
            exchange(comm, stamps, other=(comm.rank + half) % comm.size)
        quiet_barrier(comm)
    clock = CommonClock(before, read_clock(topology))
    times = clock.to_common(stamps)
    delays = np.empty(0, _DELAYS)
    if topology.node == 0:
        # The partner's stamps were made by its clock: they are converted by it.
        theirs = np.empty_like(times)
        comm.Recv(theirs, source=comm.rank + half, tag=_TAG)
        there, back = theirs[:, 1] - times[:, 0], times[:, 3] - theirs[:, 2]
        delays = np.array([(comm.rank, there.min(), back.min())], _DELAYS)
    else:
        comm.Send(times, dest=comm.rank - half, tag=_TAG)
    mine = [(topology.node, clock.offset_ns, clock.after.offset_ns - clock.offset_ns, clock.uncertainty_ns)]
    pairs = gather_table(comm, delays)
    clocks = gather_table(comm, np.array(mine if topology.local_rank == 0 else [], _CLOCK))
    if pairs is not None and clocks is not None:
        print(json.dumps({"pairs": as_dicts(pairs), "clocks": as_dicts(clocks)}))


def as_dicts(table: Rows) -> list[dict[str, int]]:
    """The rows of a table of integers."""
    return [dict(zip(table.dtype.names or (), row, strict=True)) for row in table.tolist()]


def exchange(comm: Communicator, stamps: Rows, other: int) -> None:
    """Ping-pong: columns 0 and 3 are the first node's times of sending and receiving, 1 and 2 the second node's."""
    first = comm.rank < other
    for row in stamps:
        if first:
            row[0] = time.monotonic_ns()
            comm.Send(np.zeros(1, np.int64), dest=other, tag=_TAG)
            receive(comm, other)
            row[3] = time.monotonic_ns()
        else:
            receive(comm, other)
            row[1] = time.monotonic_ns()
            row[2] = time.monotonic_ns()
            comm.Send(np.zeros(1, np.int64), dest=other, tag=_TAG)


def receive(comm: Communicator, source: int) -> None:
    """Sleeping between looks: on a busy machine a rank that spins waits longest for a processor."""
    request = comm.Irecv(np.zeros(1, np.int64), source=source, tag=_TAG)
    while not request.Test():
        time.sleep(1e-5)


main()
