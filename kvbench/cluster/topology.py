"""Where the ranks are: which of them share a node.

What travels: `discover` splits the world by shared memory (MPI's own exchange, once), gathers each node's host name (64
bytes a node) to rank 0 and hands two integers down inside each node; `seats_of_node` gives each rank of a node the
numbers of all. At 10 000 ranks on 1 250 nodes: some tens of milliseconds for the splits, and 80 KB at rank 0.
"""

import socket
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from kvbench.cluster.comm import Communicator, quiet_bcast, split_by_node, split_some
from kvbench.units import storable

_HOST_BYTES: Final = 64


class Seat(NamedTuple):
    """The numbers of a rank: among all, among those of its node, and that of the node."""

    rank: int
    local_rank: int
    node: int


@dataclass(frozen=True)
class Topology:
    """This rank's place. A node is a group of ranks that share memory; nodes are numbered by their lowest rank."""

    comm: Communicator
    rank: int
    size: int
    node: int
    nodes: int
    local_rank: int
    """Place among the ranks of the node, from 0."""
    local_size: int
    host: str
    hosts: tuple[str, ...]
    """Host name of every node, on rank 0; empty elsewhere."""
    node_comm: Communicator
    leader_comm: Communicator | None
    """The first rank of every node, in the order of the nodes; None on all other ranks."""

    @property
    def seat(self) -> Seat:
        """This rank's numbers."""
        return Seat(self.rank, self.local_rank, self.node)


def discover(comm: Communicator, node_comm: Communicator | None = None) -> Topology:
    """Find the nodes of `comm`. Collective. `node_comm` overrides which ranks count as one node (ordered by rank)."""
    if node_comm is None:
        node_comm = split_by_node(comm)
    leader_comm = split_some(comm, node_comm.rank == 0)
    host = storable(socket.gethostname())
    place = np.zeros(2, np.int64)
    hosts: tuple[str, ...] = ()
    if leader_comm is not None:
        place[:] = leader_comm.rank, leader_comm.size
        mine = np.frombuffer(host.encode()[:_HOST_BYTES].ljust(_HOST_BYTES, b"\0"), np.uint8)
        names = np.zeros((leader_comm.size, _HOST_BYTES), np.uint8) if leader_comm.rank == 0 else None
        leader_comm.Gather(mine, names)
        if names is not None:
            hosts = tuple(row.tobytes().rstrip(b"\0").decode(errors="replace") for row in names)
    quiet_bcast(node_comm, place)
    return Topology(
        comm=comm,
        rank=comm.rank,
        size=comm.size,
        node=int(place[0]),
        nodes=int(place[1]),
        local_rank=node_comm.rank,
        local_size=node_comm.size,
        host=host,
        hosts=hosts,
        node_comm=node_comm,
        leader_comm=leader_comm,
    )


def seats_of_node(topology: Topology) -> list[Seat]:
    """The numbers of all ranks of this node, in their order. Collective within the node."""
    ranks = np.zeros(topology.local_size, np.int64)
    topology.node_comm.Allgather(np.array([topology.rank], np.int64), ranks)
    return [Seat(int(rank), local_rank, topology.node) for local_rank, rank in enumerate(ranks)]
