"""One clock for the run: every node's CLOCK_MONOTONIC related to rank 0's.

What travels: pairs of messages (32 bytes each way) between the first ranks of two nodes, of which one asks and the
other tells its time, until they know the difference well enough; then the result (32 bytes), once more inside the node.
Rank 0 asks all others where there are at most 64 nodes. Where there are more, it asks the heads of groups of
sqrt(nodes), and each head then asks its group, all groups at once. It happens before and after the run, never during
it. At 10 000 ranks on 1 250 nodes with a round trip of 20 us: 35 groups of 36 nodes, 70 pairs one after the other of 30
round trips each, about 50 ms. Where round trips are slow or disturbed, a pair goes on for at most 0.5 s, and all pairs
of one rank together for at most 2 s (8 round trips a pair are always made).

The estimate: of a remote time that was told between a local time of asking and one of hearing it, the offset is known
to lie between (remote - heard) and (remote - asked). All exchanges together bound it by the largest of the former and
the smallest of the latter, that is by the fastest way there and the fastest way back, which need not be of one
exchange: on a busy machine few exchanges are fast both ways (the intersection of intervals of Marzullo 1984; for one
exchange it is Cristian's estimate, Cristian 1989, Distributed Computing 3:146-158). As clocks drift, older bounds are
widened by `MOST_DRIFT` for each second of their age.

Waiting for a message by spinning is fastest where processors are free. Where they are not, who spins is taken off its
processor for milliseconds, and who sleeps is woken at once: a pair that has not come to an end after 10 ms goes on
sleeping between looks. (2 nodes on one machine of 2 processors with a load average of 150: after 1 s of spinning the
offset was known to about 1 ms, of sleeping to 65 us, and was right to 7 us.)
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.comm import Communicator, quiet_barrier, quiet_bcast, wait_quietly
from kvbench.cluster.topology import Topology
from kvbench.records.clock import ClockReading

MOST_DRIFT: Final = 1e-4
"""Two nodes' clocks differ in speed by at most this: crystals are within 5e-5 of their rate, and NTP corrects them."""

_TAG: Final = 7201
_MOST_DIRECT: Final = 64
"""Nodes that rank 0 asks itself."""

_GOOD_NS: Final = 10_000
"""Known so well, a pair is done after its least number of round trips."""
_FAIR_NS: Final = 80_000
"""Known so well, a pair is done when round trips stop improving it."""
_LEAST_TRIPS: Final = 30
_ALWAYS_TRIPS: Final = 8
_IDLE_TRIPS: Final = 200
"""So many round trips without an improvement by a tenth are taken for a sign that there will be none."""
_SPIN_NS: Final = 10_000_000
_PAUSE_S: Final = 1e-5
_PAIR_NS: Final = 500_000_000
_PAIRS_NS: Final = 2_000_000_000

_SPIN: Final = 0
_SLEEP: Final = 1
"""How to wait for the next message: what is asked says it."""
_RESULT: Final = 2


def read_clock(topology: Topology, now_ns: Callable[[], int] = time.monotonic_ns) -> ClockReading:
    """Compare every node's clock with rank 0's. Collective. `now_ns` reads the clock."""
    reading = np.zeros(4, np.int64)
    leaders = topology.leader_comm
    if leaders is not None:
        reading[:3] = _compare(leaders, now_ns, group_size(leaders.size))
        # Who is done sleeps: MPI's own waiting would take processors from the pairs that are not.
        quiet_barrier(leaders)
        every = np.zeros(leaders.size, np.int64) if leaders.rank == 0 else None
        leaders.Gather(reading[2:3].copy(), every)
        worst = np.array([0 if every is None else every.max()], np.int64)
        quiet_bcast(leaders, worst)
        reading[3:] = worst
    quiet_bcast(topology.node_comm, reading)
    return ClockReading(*map(int, reading))


def group_size(nodes: int) -> int:
    """Nodes in a group whose head asks the others: all nodes, or about the square root where they are many."""
    return nodes if nodes <= _MOST_DIRECT else math.isqrt(nodes - 1) + 1


def _compare(leaders: Communicator, now_ns: Callable[[], int], size: int) -> tuple[int, int, int]:
    """This node's (local_ns, offset_ns, uncertainty_ns) against rank 0's; groups have `size` nodes."""
    head = leaders.rank // size * size
    if leaders.rank != head:
        return _answer(leaders, now_ns, head)
    group = range(head + 1, min(head + size, leaders.size))
    if head != 0:
        own = _answer(leaders, now_ns, 0)
    else:
        heads = range(size, leaders.size, size)
        own = (now_ns(), 0, 0)
        _ask_all(leaders, heads, now_ns, own)
    _ask_all(leaders, group, now_ns, own)
    return own if head != 0 else (now_ns(), 0, 0)


def _ask_all(leaders: Communicator, others: range, now_ns: Callable[[], int], own: tuple[int, int, int]) -> None:
    """Compare the clocks of `others` with this node's, whose own reading is `own`, and tell them theirs."""
    limit_ns = min(_PAIR_NS, _PAIRS_NS // max(1, len(others)))
    for other in others:
        bounds = _ask(leaders, other, now_ns, limit_ns)
        # What this node's own clock may have drifted since it was compared.
        age_ns = bounds.at_ns - own[0] if leaders.rank != 0 else 0
        result = np.zeros(4, np.int64)
        result[0] = _RESULT
        result[1] = bounds.at_ns + bounds.offset_ns
        result[2] = bounds.offset_ns + own[1]
        result[3] = bounds.uncertainty_ns + own[2] + math.ceil(age_ns * MOST_DRIFT)
        leaders.Send(result, dest=other, tag=_TAG)


@dataclass(frozen=True)
class Bounds:
    """Between what the remote clock minus the local one lies, at a local time."""

    at_ns: int
    low_ns: int
    high_ns: int

    @property
    def offset_ns(self) -> int:
        """The middle."""
        return (self.low_ns + self.high_ns) // 2

    @property
    def uncertainty_ns(self) -> int:
        """How far from the middle the truth may be."""
        return (self.high_ns - self.low_ns) // 2 + 1

    def narrowed(self, asked_ns: int, remote_ns: int, heard_ns: int) -> "Bounds":
        """What is known after one more exchange, at the time it was heard."""
        drift_ns = math.ceil((heard_ns - self.at_ns) * MOST_DRIFT)
        low_ns = max(self.low_ns - drift_ns, remote_ns - heard_ns)
        high_ns = min(self.high_ns + drift_ns, remote_ns - asked_ns)
        if low_ns > high_ns:
            # A clock was set or slewed meanwhile: what was known before is worth nothing.
            low_ns, high_ns = remote_ns - heard_ns, remote_ns - asked_ns
        return Bounds(heard_ns, low_ns, high_ns)


def _ask(leaders: Communicator, other: int, now_ns: Callable[[], int], limit_ns: int) -> Bounds:
    """The clock of `other` against this one's, from as many exchanges as it takes."""
    message = np.zeros(4, np.int64)
    best: Bounds | None = None
    bounds: Bounds | None = None
    trips = idle = 0
    begin_ns = 0
    how = _SPIN
    while True:
        message[0] = how
        asked_ns = now_ns()
        leaders.Send(message, dest=other, tag=_TAG)
        _receive(leaders, message, other, how)
        heard_ns = now_ns()
        remote_ns = int(message[1])
        if bounds is None or best is None:
            # The first exchange wakes the other side, which sleeps until its turn.
            begin_ns = heard_ns
            best = bounds = Bounds(heard_ns, remote_ns - heard_ns, remote_ns - asked_ns)
            continue
        bounds = bounds.narrowed(asked_ns, remote_ns, heard_ns)
        trips += 1
        idle = 0 if bounds.uncertainty_ns < 0.9 * best.uncertainty_ns else idle + 1
        if bounds.uncertainty_ns < best.uncertainty_ns:
            best = bounds
        known_ns, took_ns = best.uncertainty_ns, heard_ns - begin_ns
        if trips >= _LEAST_TRIPS and (known_ns <= _GOOD_NS or (known_ns <= _FAIR_NS and idle >= _IDLE_TRIPS)):
            return best
        if trips >= _ALWAYS_TRIPS and took_ns > limit_ns:
            return best
        if took_ns > _SPIN_NS:
            how = _SLEEP


def _answer(leaders: Communicator, now_ns: Callable[[], int], head: int) -> tuple[int, int, int]:
    """Tell this node's time to `head` until that tells the result: local_ns, offset_ns, uncertainty_ns."""
    message = np.zeros(4, np.int64)
    wait_quietly(leaders.Irecv(message, source=head, tag=_TAG))
    while message[0] != _RESULT:
        message[1] = now_ns()
        leaders.Send(message, dest=head, tag=_TAG)
        _receive(leaders, message, head, int(message[0]))
    return int(message[1]), int(message[2]), int(message[3])


def _receive(leaders: Communicator, message: npt.NDArray[np.int64], source: int, how: int) -> None:
    if how == _SPIN:
        leaders.Recv(message, source=source, tag=_TAG)
        return
    request = leaders.Irecv(message, source=source, tag=_TAG)
    while not request.Test():
        time.sleep(_PAUSE_S)
