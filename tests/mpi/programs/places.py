"""Prints where every rank is, and which of its nodes share a directory.

With an argument, ranks in pairs stand for nodes; the argument's directory has a folder for each node's filesystem.
"""

import sys
from pathlib import Path

from kvbench.cluster.agree import Agreement, FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.cluster.topology import discover, filesystem_group
from kvbench.errors import KvbenchError


def main() -> None:
    """Discover; `DIRECTORY FOLDER FOLDER ...` gives each node its folder."""
    comm = get_world()
    paired = comm.Split(comm.rank // 2, comm.rank) if len(sys.argv) > 1 else None
    topology = discover(comm, paired)
    text = f"rank {topology.rank} of {topology.size}: node {topology.node} of {topology.nodes}"
    text += f", local {topology.local_rank} of {topology.local_size}"
    if topology.rank == 0:
        text += f", hosts {','.join(topology.hosts)}"
    assert (topology.leader_comm is not None) == (topology.local_rank == 0)
    if len(sys.argv) > 1:
        directory = Path(sys.argv[1]) / sys.argv[2 + topology.node]
        try:
            group = Agreement(comm).run("check", lambda: filesystem_group(topology, directory, "run1", settle_s=0.1))
        except KvbenchError as error:
            print(error, file=sys.stderr, flush=True)
            sys.exit(1)
        except FailedElsewhere:
            sys.exit(1)
        text += f"; group {group.group} of {group.ranks} ranks on {group.nodes} nodes, {group.sharing}"
    print(text, flush=True)


main()
