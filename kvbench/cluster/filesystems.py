"""Which ranks have their directories on one filesystem: within a node as the kernel says, between nodes by who sees
whose probe file.

What travels: the first rank of each filesystem on each node makes one empty file, looks for those of lower ones on
other nodes, and exchanges four integers with all others like it, after two barriers; it hands six on to the other ranks
of its node on that filesystem. At 10 000 ranks on 1 250 nodes that see one filesystem each: 40 KB into every node, and
1 250 files that exist for a moment in the directories under test. Where ranks have directories of their own, two splits
come before, and three integers of each filesystem to every other.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from kvbench.cluster.comm import Communicator, FailedElsewhere, quiet_barrier, quiet_bcast, split_some
from kvbench.cluster.topology import Seat, Topology
from kvbench.errors import KvbenchError

Sharing = Literal["shared", "local", "mixed", "single-node", "none"]
"""Whether all nodes see a directory as the same place, each as one of its own, some share it, there is one node, or no
directory."""

Alike = Callable[[Path, Path], bool]
"""Whether two directories of this node, which exist, are on one filesystem. Raises OSError."""

_POLL_S: Final = 0.02
_FIELDS: Final = 6


@dataclass(frozen=True)
class FilesystemGroup:
    """The ranks, on whichever node, whose directories are on one filesystem."""

    group: int
    """The lowest of their nodes."""
    first_rank: int
    """The lowest of them."""
    ranks: int
    nodes: int
    fewest_nodes: int
    """Of any such group of the run; 0 where there is no directory."""
    most_nodes: int
    of_nodes: int
    """Nodes that there are in all."""
    leads: bool = True
    """Whether this rank is the first of its node in the group."""

    @property
    def sharing(self) -> Sharing:
        """How the nodes of the run see their directories; with one node there is nobody to compare with."""
        if self.most_nodes == 0:
            return "none"
        if self.of_nodes == 1:
            return "single-node"
        if self.fewest_nodes == self.of_nodes:
            return "shared"
        return "local" if self.most_nodes == 1 else "mixed"


def no_group(topology: Topology) -> FilesystemGroup:
    """That of a rank of a run without a directory."""
    return FilesystemGroup(0, 0, topology.size, topology.nodes, 0, 0, topology.nodes, leads=topology.local_rank == 0)


def filesystem_group(
    topology: Topology, directory: Path, alike: Alike, run_id: str, settle_s: float = 0.3
) -> FilesystemGroup:
    """The ranks that share the filesystem of `directory`, which is the directory of all ranks. Collective; run it
    inside an agreement.

    The first rank of each node makes `kvbench-<run_id>.probe-<number>` (only if it is not there), looks for those of
    lower nodes for at most `settle_s` seconds, as a shared filesystem may show a new file late, and removes its own.
    Raises KvbenchError on the first rank of a node that cannot make its probe, FailedElsewhere on its other ranks.
    """
    prober = None
    if topology.leader_comm is not None:
        prober = _Prober(topology.leader_comm, topology.seat, directory, None, alike, run_id, settle_s)
    return _told(topology.node_comm, topology, directory, prober)


def filesystem_group_of_own(
    topology: Topology,
    directories: Sequence[Path],
    directory_of: Callable[[Seat], Path],
    alike: Alike,
    run_id: str,
    settle_s: float = 0.3,
) -> FilesystemGroup:
    """As `filesystem_group`, where each rank has a directory of its own: `directory_of` a rank's numbers, and
    `directories` those of this node's ranks, in their order, which exist."""
    ranks = topology.node_comm.Split(first_alike(directories, alike)[topology.local_rank], topology.local_rank)
    probers = split_some(topology.comm, ranks.rank == 0)
    try:
        own = directories[topology.local_rank]
        prober = (
            None if probers is None else _Prober(probers, topology.seat, own, directory_of, alike, run_id, settle_s)
        )
        return _told(ranks, topology, own, prober)
    finally:
        ranks.Free()
        if probers is not None:
            probers.Free()


def first_alike(directories: Sequence[Path], alike: Alike) -> list[int]:
    """For each of `directories`, which exist on this node, the place of the first that is on the same filesystem."""
    firsts: list[Path] = []
    of_path: dict[Path, int] = {}
    for path in dict.fromkeys(directories):
        first = next((first for first in firsts if alike(first, path)), None)
        if first is None:
            firsts.append(path)
        of_path[path] = directories.index(path if first is None else first)
    return [of_path[path] for path in directories]


def _told(ranks: Communicator, topology: Topology, directory: Path, prober: "_Prober | None") -> FilesystemGroup:
    """What the first of `ranks`, those of this node on one filesystem, found with its prober. Collective."""
    found = np.full(_FIELDS, -1, np.int64)
    error = None if prober is None else prober.find(found, ranks.size)
    quiet_bcast(ranks, found)
    if error is not None:
        raise KvbenchError(
            f"cannot make, list and remove a file in {directory}: {error.strerror}; "
            f"give a directory that exists on every node and is writable"
        ) from error
    if found[0] < 0:
        raise FailedElsewhere
    group, first_rank, members, nodes, fewest, most = map(int, found)
    return FilesystemGroup(group, first_rank, members, nodes, fewest, most, topology.nodes, ranks.rank == 0)


class _Prober:
    """The first rank of a node on a filesystem, among the others like it, which `probers` joins and numbers."""

    def __init__(
        self,
        probers: Communicator,
        seat: Seat,
        directory: Path,
        directory_of: Callable[[Seat], Path] | None,
        alike: Alike,
        run_id: str,
        settle_s: float,
    ) -> None:
        self._probers = probers
        self._seat = seat
        self._directory = directory
        self._directory_of = directory_of
        self._alike = alike
        self._run_id = run_id
        self._settle_s = settle_s

    def find(self, found: "np.ndarray[tuple[int], np.dtype[np.int64]]", ranks: int) -> OSError | None:
        """Fill in the first fields of FilesystemGroup, for `ranks` ranks of this node, or return what went wrong.
        Collective among the probers."""
        number = self._probers.rank
        probe = self._probe(self._directory, number)
        error = _make(probe)
        made, seen = error is None, number
        others = self._lower_on_other_nodes()
        try:
            # An error waits until all are through: leaving a barrier out would leave the others in it.
            quiet_barrier(self._probers)
            if made:
                seen, error = self._lowest_seen(number, others)
            quiet_barrier(self._probers)
        finally:
            if made:
                error = _remove(probe) or error
        group = self._group(seen, ranks)
        if error is None:
            found[:] = group
        return error

    def _lower_on_other_nodes(self) -> dict[int, Path]:
        """The directory of each prober of a lower number on another node. Collective where those may differ."""
        if self._directory_of is None:
            return dict.fromkeys(range(self._probers.rank), self._directory)
        seats = np.zeros((self._probers.size, 3), np.int64)
        self._probers.Allgather(np.array(self._seat, np.int64), seats)
        lower = (Seat(*map(int, numbers)) for numbers in seats[: self._probers.rank])
        return {n: self._directory_of(seat) for n, seat in enumerate(lower) if seat.node != self._seat.node}

    def _lowest_seen(self, own: int, others: dict[int, Path]) -> tuple[int, OSError | None]:
        """The lowest of `others` whose probe is seen here, on the filesystem of this prober's directory, or the error;
        its own number where there is none.

        Each probe is asked for by its name, and never before it is known to be made: a network filesystem's client may
        list a directory from its cache, and may remember for a while that a name was not there, but a name that it
        never heard of it asks the server for.
        """
        deadline_s = time.monotonic() + self._settle_s
        try:
            while others:
                for number, directory in others.items():
                    if self._sees(directory, number):
                        return number, None
                # What was not seen may come late; the names are in the client's cache of missing ones by now, so the
                # directories are listed besides.
                lowest = min([own, *self._listed(others)])
                if lowest < own or time.monotonic() >= deadline_s:
                    return lowest, None
                time.sleep(_POLL_S)
        except OSError as error:
            return own, error
        return own, None

    def _sees(self, directory: Path, number: int) -> bool:
        if directory == self._directory:
            return self._probe(directory, number).exists()
        # What another rank's directory is on this node, if anything, is not this rank's to complain about.
        with suppress(OSError):
            return self._probe(directory, number).exists() and self._is_same(directory)
        return False

    def _is_same(self, directory: Path) -> bool:
        return directory == self._directory or self._alike(directory, self._directory)

    def _listed(self, others: dict[int, Path]) -> Iterator[int]:
        """Those of `others` whose probes stand in the lists of their directories."""
        pattern = re.compile(re.escape(f"kvbench-{self._run_id}.probe-") + r"(\d+)")
        for directory in dict.fromkeys(others.values()):
            try:
                names = os.listdir(directory)
                numbers = [int(match[1]) for match in map(pattern.fullmatch, names) if match]
                if numbers and self._is_same(directory):
                    yield from (number for number in numbers if others.get(number) == directory)
            except OSError:
                if directory == self._directory:
                    raise

    def _probe(self, directory: Path, number: int) -> Path:
        return directory / f"kvbench-{self._run_id}.probe-{number}"

    def _group(self, seen: int, ranks: int) -> tuple[int, ...]:
        """The first fields of this prober's FilesystemGroup, from what every one has seen. Collective."""
        every = np.zeros((self._probers.size, 4), np.int64)
        self._probers.Allgather(np.array([seen, ranks, self._seat.node, self._seat.rank], np.int64), every)
        lowest = every[:, 0]
        # One may see another that itself sees a lower one: follow to the end (each step goes down, so it ends).
        while (lowest != lowest[lowest]).any():
            lowest = lowest[lowest]
        # Each node counts once in a group, whose filesystem may have several names there.
        nodes = {int(group): len(np.unique(every[lowest == group, 2])) for group in np.unique(lowest)}
        group = int(lowest[self._probers.rank])
        members = every[lowest == group]
        return (
            int(members[:, 2].min()),
            int(members[:, 3].min()),
            int(members[:, 1].sum()),
            nodes[group],
            min(nodes.values()),
            max(nodes.values()),
        )


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
