"""How many files a rank may have open at once, against what it needs at its peak: looked at before it begins.

A process that runs out of them fails wherever it happens to open the next one, in the middle of a load.
"""

from typing import Final

from kvbench.cluster.node import allow_open_files
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError

PER_THREAD: Final = 2
"""What the kernel accounts a thread's waiting in, and the object that it moves."""
RING_FILES: Final = 5
"""A ring, and what the kernel accounts its workers in."""
BESIDES: Final = 16
"""The run file, a spill file and its way back, samples of the node, what a tier has open (four files where objects lie
in slots), and what libraries open for a moment."""
_MOST_PARTNERS: Final = 64
"""Other nodes' ranks that one other than rank 0 has a connection to, in the trees that MPI's collective calls use."""


def check_open_files(topology: Topology, threads: int, depth: int = 0) -> None:
    """See to it that this rank may open what it needs with `threads` threads, each of which has a ring with `depth`
    objects in flight (0: it has none). Raises KvbenchError where the limit that only an administrator can raise is too
    low."""
    elsewhere = topology.size - topology.local_size
    connections = elsewhere if topology.rank == 0 else min(elsewhere, _MOST_PARTNERS)
    each = PER_THREAD + (RING_FILES + depth if depth else 0)
    wanted = each * threads + BESIDES + connections
    limit, lacking = allow_open_files(wanted)
    if lacking:
        others = f" and {connections} for connections" if connections else ""
        raise KvbenchError(
            f"a process may have {limit} files open here (ulimit -Hn), and this rank needs {limit + lacking}: "
            f"{each} for each of {threads} threads{others}, beside those it has; raise the limit (`ulimit -n "
            f"{limit + lacking}`, LimitNOFILE= of a service, /etc/security/limits.conf), or use fewer threads"
        )
