"""One clock for the run: every node's CLOCK_MONOTONIC related to rank 0's.

What travels: rank 0 exchanges about 50 pairs of messages (8 bytes each way) with the first rank of each
other node, one node after the other, so that no two disturb each other; then each node's result (32 bytes) goes down
inside the node. It happens before and after the run, never during it. At 10 000 ranks on 1 250 nodes with a round trip
of 20 us that is 1.3 s each time. The ranks of one node share its clock.

The estimate is Cristian's: of the exchange with the shortest round trip, the remote time is taken to lie in the middle;
it cannot be off by more than half that round trip (Cristian 1989, Distributed Computing 3:146-158).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from kvbench.cluster.comm import Communicator, quiet_bcast, wait_quietly
from kvbench.cluster.topology import Topology

_TAG: Final = 7201


@dataclass(frozen=True)
class ClockReading:
    """One comparison of this node's clock with rank 0's."""

    local_ns: int
    """This node's clock when it was compared."""
    offset_ns: int
    """This node's clock minus rank 0's at that moment."""
    uncertainty_ns: int
    """The offset is within this of the truth."""
    worst_uncertainty_ns: int
    """The largest uncertainty of any node."""


def read_clock(
    topology: Topology, now_ns: Callable[[], int] = time.monotonic_ns, round_trips: int = 50
) -> ClockReading:
    """Compare every node's clock with rank 0's. Collective. `now_ns` reads the clock."""
    reading = np.zeros(4, np.int64)
    if topology.leader_comm is not None:
        if topology.leader_comm.rank == 0:
            reading[:] = _ask_all(topology.leader_comm, now_ns, round_trips)
        else:
            reading[:] = _answer(topology.leader_comm, now_ns, round_trips)
        worst = reading[3:].copy()
        quiet_bcast(topology.leader_comm, worst)
        reading[3:] = worst
    quiet_bcast(topology.node_comm, reading)
    return ClockReading(*map(int, reading))


def _ask_all(leaders: Communicator, now_ns: Callable[[], int], round_trips: int) -> tuple[int, int, int, int]:
    worst_ns = 0
    for leader in range(1, leaders.size):
        # The first exchange only wakes the other side, which sleeps until its turn.
        trips = [_round_trip(leaders, leader, now_ns) for _ in range(round_trips + 1)][1:]
        took_ns, remote_ns, local_ns = min(trips)
        uncertainty_ns = took_ns // 2 + 1
        leaders.Send(np.array([remote_ns, remote_ns - local_ns, uncertainty_ns], np.int64), dest=leader, tag=_TAG)
        worst_ns = max(worst_ns, uncertainty_ns)
    return now_ns(), 0, 0, worst_ns


def _round_trip(leaders: Communicator, leader: int, now_ns: Callable[[], int]) -> tuple[int, int, int]:
    """How long one exchange took, the remote time in it, and the local time in its middle, in ns."""
    remote = np.zeros(1, np.int64)
    sent_ns = now_ns()
    leaders.Send(remote, dest=leader, tag=_TAG)
    leaders.Recv(remote, source=leader, tag=_TAG)
    took_ns = now_ns() - sent_ns
    return took_ns, int(remote[0]), sent_ns + took_ns // 2


def _answer(leaders: Communicator, now_ns: Callable[[], int], round_trips: int) -> tuple[int, int, int, int]:
    mine = np.zeros(1, np.int64)
    wait_quietly(leaders.Irecv(mine, source=0, tag=_TAG))
    for trip in range(round_trips + 1):
        if trip > 0:
            leaders.Recv(mine, source=0, tag=_TAG)
        mine[0] = now_ns()
        leaders.Send(mine, dest=0, tag=_TAG)
    result = np.zeros(3, np.int64)
    leaders.Recv(result, source=0, tag=_TAG)
    return int(result[0]), int(result[1]), int(result[2]), 0


@dataclass(frozen=True)
class CommonClock:
    """The line through the readings before and after the run: this node's time as rank 0's."""

    before: ClockReading
    after: ClockReading

    @property
    def offset_ns(self) -> int:
        """This node's clock minus rank 0's at the first reading."""
        return self.before.offset_ns

    @property
    def drift_ns_per_s(self) -> float:
        """How much faster this node's clock runs than rank 0's; 0 when both readings are one."""
        span_ns = self.after.local_ns - self.before.local_ns
        return (self.after.offset_ns - self.before.offset_ns) / span_ns * 1e9 if span_ns else 0.0

    @property
    def uncertainty_ns(self) -> int:
        """No time converted between the two readings is off by more than this, as long as the drift was steady."""
        return max(self.before.uncertainty_ns, self.after.uncertainty_ns)

    @property
    def worst_uncertainty_ns(self) -> int:
        """The largest uncertainty of any node."""
        return max(self.before.worst_uncertainty_ns, self.after.worst_uncertainty_ns)

    @overload
    def to_common(self, t_ns: int) -> int: ...
    @overload
    def to_common(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]: ...
    def to_common(self, t_ns: int | npt.NDArray[np.int64]) -> int | npt.NDArray[np.int64]:
        """Rank 0's time, in ns, at this node's time(s) `t_ns`. Exact to 1 ns beside the uncertainty."""
        # Offsets are as large as the difference in uptime, beyond what a float holds in ns; only the drift is a float.
        drift_ns = np.rint((np.asarray(t_ns) - self.before.local_ns) * (self.drift_ns_per_s / 1e9)).astype(np.int64)
        common = np.asarray(t_ns, np.int64) - self.before.offset_ns - drift_ns
        return common if isinstance(t_ns, np.ndarray) else int(common)

    def to_local(self, common_ns: int) -> int:
        """This node's time when rank 0's clock shows `common_ns` (for a common start)."""
        elapsed_ns = common_ns - (self.before.local_ns - self.before.offset_ns)
        return self.before.local_ns + round(elapsed_ns / (1 - self.drift_ns_per_s / 1e9))
