"""Ranks in pairs stand for nodes whose clocks are off by a known amount, which the estimate must find.

`clocks.py NODES`: with more than NODES nodes, rank 0 does not ask all of them itself.
"""

import sys
import time
from unittest.mock import patch

from kvbench.cluster import clock as clock_module
from kvbench.cluster.clock import read_clock
from kvbench.cluster.comm import get_world
from kvbench.cluster.topology import discover
from kvbench.records.clock import CommonClock


def main() -> None:
    """Read the clocks twice, the second time after node clocks ran ahead."""
    comm = get_world()
    topology = discover(comm, comm.Split(comm.rank // 2, comm.rank))
    wrong_ns = topology.node * 10**17

    def shifted(extra_ns: int) -> int:
        return time.monotonic_ns() + wrong_ns + extra_ns

    before = read_clock(topology, lambda: shifted(0))
    ahead_ns = 5_000_000 * topology.node
    after = read_clock(topology, lambda: shifted(ahead_ns))
    for reading, truth_ns in ((before, wrong_ns), (after, wrong_ns + ahead_ns)):
        assert abs(reading.offset_ns - truth_ns) <= reading.uncertainty_ns, (reading, truth_ns)
        assert (reading.uncertainty_ns > 0) == (topology.node > 0)
        assert reading.worst_uncertainty_ns >= reading.uncertainty_ns
    clock = CommonClock(before, after)
    assert abs(clock.to_common(before.local_ns) - (before.local_ns - wrong_ns)) <= clock.uncertainty_ns
    assert abs(clock.to_common(after.local_ns) - (after.local_ns - wrong_ns - ahead_ns)) <= clock.uncertainty_ns + 1
    assert (clock.drift_ns_per_s > 0) == (topology.node > 0)
    print(f"rank {comm.rank} within uncertainty", flush=True)


with patch.object(clock_module, "_MOST_DIRECT", int(sys.argv[1])):
    main()
