"""Where the ranks are: which of them share a node, and which nodes see the same filesystem.

What travels: `discover` splits the world by shared memory (MPI's own exchange, once), gathers each node's host name (64
bytes a node) to rank 0 and hands two integers down inside each node. `filesystem_group` has each node's first rank make
one empty file, look for those of lower nodes, and exchange two integers per node among them. At 10 000 ranks on 1 250
nodes: some tens of milliseconds for the splits, 80 KB at rank 0, and 1 250 files that exist for a moment in the
directory under test.
"""

import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from kvbench.cluster.comm import Communicator, FailedElsewhere, quiet_barrier, quiet_bcast, split_by_node, split_some
from kvbench.errors import KvbenchError
from kvbench.units import storable

Sharing = Literal["shared", "local", "mixed", "single-node", "none"]
"""Whether all nodes see a directory as the same place, each as one of its own, some share it, there is one node, or no
directory."""

_HOST_BYTES: Final = 64


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


@dataclass(frozen=True)
class FilesystemGroup:
    """The nodes that see one directory as the same place."""

    group: int
    """The lowest node of the group."""
    ranks: int
    """Ranks on the group's nodes."""
    nodes: int
    groups: int
    """Groups that there are in all; 0 where there is no directory."""
    of_nodes: int
    """Nodes that there are in all."""

    @property
    def sharing(self) -> Sharing:
        """How the nodes of the run see the directory; with one node there is nobody to compare with."""
        if self.groups == 0:
            return "none"
        if self.of_nodes == 1:
            return "single-node"
        if self.groups == 1:
            return "shared"
        return "local" if self.groups == self.of_nodes else "mixed"


def filesystem_group(topology: Topology, directory: Path, run_id: str, settle_s: float = 0.3) -> FilesystemGroup:
    """Which nodes share `directory`, found by who sees whose probe file. Collective; run it inside an agreement.

    Each node's first rank makes `kvbench-<run_id>.probe-<node>` (only if it is not there), looks for those of lower
    nodes for at most `settle_s` seconds, as a shared filesystem may show a new file late, and removes its own. Raises
    KvbenchError on the first rank of a node that cannot make its probe, FailedElsewhere on the node's other ranks.
    """
    found = np.full(5, -1, np.int64)
    error: OSError | None = None
    if topology.leader_comm is not None:
        probe = directory / f"kvbench-{run_id}.probe-{topology.node}"
        error = _make(probe)
        made, seen = error is None, topology.node
        try:
            # An error waits until all nodes are through: leaving a barrier out would leave the others in it.
            quiet_barrier(topology.leader_comm)
            if made:
                seen, error = _lowest_seen(directory, run_id, topology.node, settle_s)
            quiet_barrier(topology.leader_comm)
        finally:
            if made:
                error = _remove(probe) or error
        group = _group(topology.leader_comm, seen, topology.local_size)
        if error is None:
            found[:] = group
    quiet_bcast(topology.node_comm, found)
    if error is not None:
        raise KvbenchError(
            f"cannot make, list and remove a file in {directory}: {error.strerror}; "
            f"give a directory that exists on every node and is writable"
        ) from error
    if found[0] < 0:
        raise FailedElsewhere
    return FilesystemGroup(*map(int, found))


def _make(probe: Path) -> OSError | None:
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error
    return None


def _remove(probe: Path) -> OSError | None:
    try:
        probe.unlink(missing_ok=True)
    except OSError as error:
        return error
    return None


def _lowest_seen(directory: Path, run_id: str, own: int, settle_s: float) -> tuple[int, OSError | None]:
    """The lowest node whose probe this node sees, or the error; `own` is that of this node.

    Each probe is asked for by its name, and never before it is known to be made: a network filesystem's client may list
    a directory from its cache, and may remember for a while that a name was not there, but a name that it never heard
    of it asks the server for.
    """
    deadline_s = time.monotonic() + settle_s
    try:
        while own > 0:
            for node in range(own):
                if (directory / f"kvbench-{run_id}.probe-{node}").exists():
                    return node, None
            # What was not seen may come late; the names are in the client's cache of missing ones by now, so the
            # directory is listed besides.
            lowest = min([own, *_listed(directory, run_id)])
            if lowest < own or time.monotonic() >= deadline_s:
                return lowest, None
            time.sleep(0.02)
    except OSError as error:
        return own, error
    return own, None


def _listed(directory: Path, run_id: str) -> Iterator[int]:
    pattern = re.compile(re.escape(f"kvbench-{run_id}.probe-") + r"(\d+)")
    yield from (int(match[1]) for match in map(pattern.fullmatch, os.listdir(directory)) if match)


def _group(leader_comm: Communicator, seen: int, local_size: int) -> tuple[int, ...]:
    """The fields of this node's FilesystemGroup, from what every node has seen."""
    every = np.zeros((leader_comm.size, 2), np.int64)
    leader_comm.Allgather(np.array([seen, local_size], np.int64), every)
    lowest = every[:, 0]
    # A node may see one that itself sees a lower one: follow to the end (each step goes down, so it ends).
    while (lowest != lowest[lowest]).any():
        lowest = lowest[lowest]
    group = lowest[leader_comm.rank]
    members = lowest == group
    return int(group), int(every[members, 1].sum()), int(members.sum()), len(np.unique(lowest)), leader_comm.size
