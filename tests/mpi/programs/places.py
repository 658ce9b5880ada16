"""Prints where every rank is, and which of its nodes share a directory.

With an argument, ranks in pairs stand for nodes; the argument's directory has a folder for each node's filesystem, or
one for each rank: `own FORMAT`.
"""

import sys
from functools import partial

from kvbench.cluster.agree import Agreement, FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.cluster.places import place_group, place_group_of_own
from kvbench.cluster.topology import Seat, discover, seats_of_node
from kvbench.errors import KvbenchError
from kvbench.tiers.file.target import DirectoryTarget


def folder(seat: Seat) -> DirectoryTarget:
    """Of a rank that has one of its own."""
    return at(sys.argv[3].format(**seat._asdict()))


def at(name: str) -> DirectoryTarget:
    return DirectoryTarget(f"{sys.argv[1]}/{name}")


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
            places = [folder(seat) for seat in seats_of_node(topology)]
            find = partial(place_group_of_own, topology, places, folder)
        else:
            find = partial(place_group, topology, at(names[topology.node]))
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
