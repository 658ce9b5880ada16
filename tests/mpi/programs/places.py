"""Prints where every rank is, and which of its nodes share a directory.

With an argument, ranks in pairs stand for nodes; the argument's directory has a folder for each node's filesystem, or
one for each rank: `own FORMAT`.
"""

import sys
from functools import partial

from kvbench.cluster.agree import Agreement, FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.cluster.topology import Seat, discover, seats_of_node
from kvbench.errors import KvbenchError
from kvbench.run.checks.volumes import volume_group, volume_group_of_own
from kvbench.tiers.kinds import target_at
from kvbench.tiers.target import Target


def own_target(seat: Seat) -> Target:
    """Of a rank that has one of its own."""
    return target_at(f"{sys.argv[1]}/{sys.argv[3].format(**seat._asdict())}")


def main() -> None:
    """Discover; `DIRECTORY FOLDER FOLDER ...` gives each node its folder, `DIRECTORY own FORMAT` each rank."""
    comm = get_world()
    paired = comm.Split(comm.rank // 2, comm.rank) if len(sys.argv) > 1 else None
    topology = discover(comm, paired)
    text = f"rank {topology.rank} of {topology.size}: node {topology.node} of {topology.nodes}"
    text += f", local {topology.local_rank} of {topology.local_size}"
    if topology.rank == 0:
        text += f", hosts {','.join(topology.hosts)}"
    assert (topology.leader_comm is not None) == (topology.local_rank == 0)
    if len(sys.argv) > 1:
        names = sys.argv[2:]
        if names[0] == "own":
            targets = [own_target(seat) for seat in seats_of_node(topology)]
            find = partial(volume_group_of_own, topology, targets, own_target)
        else:
            find = partial(volume_group, topology, target_at(f"{top}/{names[topology.node]}"))
        try:
            group = Agreement(comm).run("check", lambda: find("run1", settle_s=0.1))
        except KvbenchError as error:
            print(error, file=sys.stderr, flush=True)
            sys.exit(1)
        except FailedElsewhere:
            sys.exit(1)
        text += f"; group {group.group} of {group.ranks} ranks on {group.nodes} nodes, {group.sharing}"
        if names[0] == "own":
            text += f", from rank {group.first_rank}" + (", leads" if group.leads else "")
    print(text, flush=True)


main()
