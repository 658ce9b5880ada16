"""Which ranks have their places under test on one volume (a filesystem, a bucket): within a node as its kernel says,
between nodes by who sees whose sign.

What travels: the first rank of each volume on each node puts up a sign, looks for those of lower ones on other nodes,
and exchanges four integers with all others like it, after two barriers; it hands six on to the other ranks of its node
on that volume. At 10 000 ranks on 1 250 nodes that see one filesystem each: 40 KB into every node, and 1 250 files that
exist for a moment in the directories under test. Where ranks have places of their own, two splits come before, and
three integers of each volume to every other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from kvbench.cluster.agree import FailedElsewhere
from kvbench.cluster.comm import Communicator, quiet_barrier, quiet_bcast, split_some
from kvbench.cluster.topology import Seat, Topology
from kvbench.errors import KvbenchError
from kvbench.tiers.target import Target

Reachable = Literal["shared", "local", "mixed", "single-node", "none"]
"""Whether all nodes see what is under test as the same place, each as one of its own, some share it, there is one node,
or there is nothing."""

_POLL_S: Final = 0.02
_FIELDS: Final = 6


@dataclass(frozen=True)
class VolumeGroup:
    """The ranks, on whichever node, whose places are on one volume."""

    group: int
    """The lowest of their nodes."""
    first_rank: int
    """The lowest of them."""
    ranks: int
    nodes: int
    fewest_nodes: int
    """Of any such group of the run; 0 where nothing is under test."""
    most_nodes: int
    of_nodes: int
    """Nodes that there are in all."""
    leads: bool = True
    """Whether this rank is the first of its node in the group."""

    @property
    def sharing(self) -> Reachable:
        """How the nodes of the run see what is under test; with one node there is nobody to compare with."""
        if self.most_nodes == 0:
            return "none"
        if self.of_nodes == 1:
            return "single-node"
        if self.fewest_nodes == self.of_nodes:
            return "shared"
        return "local" if self.most_nodes == 1 else "mixed"


def no_group(topology: Topology) -> VolumeGroup:
    """That of a rank of a run without anything under test."""
    return VolumeGroup(0, 0, topology.size, topology.nodes, 0, 0, topology.nodes, leads=topology.local_rank == 0)


def volume_group(topology: Topology, target: Target, run_id: str, settle_s: float = 0.3) -> VolumeGroup:
    """The ranks that share the volume of `target`, which is given alike on all ranks. Collective; run it inside an
    agreement.

    The first rank of each node puts up a sign, looks for those of lower nodes for at most `settle_s` seconds, as what
    is shared may show something new late, and takes its own down. Raises KvbenchError on the first rank of a node that
    cannot put up its sign, FailedElsewhere on its other ranks.
    """
    prober = None
    if topology.leader_comm is not None:
        prober = _Prober(topology.leader_comm, topology.seat, target, None, run_id, settle_s)
    return _told(topology.node_comm, topology, target, prober)


def volume_group_of_own(
    topology: Topology,
    targets: Sequence[Target],
    target_of: Callable[[Seat], Target],
    run_id: str,
    settle_s: float = 0.3,
) -> VolumeGroup:
    """As `volume_group`, where each rank has a target of its own: `target_of` a rank's numbers, and `targets` those of
    this node's ranks, in their order, which can be used."""
    ranks = topology.node_comm.Split(first_alike(targets)[topology.local_rank], topology.local_rank)
    probers = split_some(topology.comm, ranks.rank == 0)
    try:
        own = targets[topology.local_rank]
        prober = None if probers is None else _Prober(probers, topology.seat, own, target_of, run_id, settle_s)
        return _told(ranks, topology, own, prober)
    finally:
        ranks.Free()
        if probers is not None:
            probers.Free()


def first_alike(targets: Sequence[Target]) -> list[int]:
    """For each of `targets`, which can be used on this node, the place of the first that is on the same volume."""
    known: dict[str, int] = {}
    for place, target in enumerate(targets):
        if target.address not in known:
            firsts = dict.fromkeys(known.values())
            known[target.address] = next((n for n in firsts if targets[n].shares_volume(target)), place)
    return [known[target.address] for target in targets]


def _told(ranks: Communicator, topology: Topology, target: Target, prober: "_Prober | None") -> VolumeGroup:
    """What the first of `ranks`, those of this node on one volume, found with its prober. Collective."""
    found = np.full(_FIELDS, -1, np.int64)
    error = None if prober is None else prober.find(found, ranks.size)
    quiet_bcast(ranks, found)
    if error is not None:
        raise KvbenchError(
            f"cannot make, list and remove a file in {target.address}: {error.strerror}; "
            f"give a directory that exists on every node and is writable"
        ) from error
    if found[0] < 0:
        raise FailedElsewhere
    group, first_rank, members, nodes, fewest, most = map(int, found)
    return VolumeGroup(group, first_rank, members, nodes, fewest, most, topology.nodes, ranks.rank == 0)


class _Prober:
    """The first rank of a node on a volume, among the others like it, which `probers` joins and numbers."""

    def __init__(
        self,
        probers: Communicator,
        seat: Seat,
        target: Target,
        target_of: Callable[[Seat], Target] | None,
        run_id: str,
        settle_s: float,
    ) -> None:
        self._probers = probers
        self._seat = seat
        self._target = target
        self._target_of = target_of
        self._run_id = run_id
        self._settle_s = settle_s

    def find(self, found: npt.NDArray[np.int64], ranks: int) -> OSError | None:
        """Fill in the first fields of VolumeGroup, for `ranks` ranks of this node, or return what went wrong.
        Collective among the probers."""
        sign = self._target.sign(self._run_id, self._probers.rank)
        others = self._lower_on_other_nodes()
        seen, error = self._probers.rank, None if sign is None else _failure(sign.put_up)
        up = error is None
        try:
            # An error waits until all are through: leaving a barrier out would leave the others in it.
            quiet_barrier(self._probers)
            if up:
                seen, error = self._lowest_seen(others)
            quiet_barrier(self._probers)
        finally:
            if up and sign is not None:
                error = _failure(sign.take_down) or error
        group = self._group(seen, ranks)
        if error is None:
            found[:] = group
        return error

    def _lower_on_other_nodes(self) -> dict[str, tuple[Target, list[int]]]:
        """By address: the target of probers of lower numbers on other nodes, with these. Collective where targets may
        differ."""
        mine = self._target
        if self._target_of is None:
            return {mine.address: (mine, list(range(self._probers.rank)))}
        seats = np.zeros((self._probers.size, len(self._seat)), np.int64)
        self._probers.Allgather(np.array(self._seat, np.int64), seats)
        others: dict[str, tuple[Target, list[int]]] = {}
        for number, numbers in enumerate(seats[: self._probers.rank]):
            seat = Seat(*map(int, numbers))
            if seat.node != self._seat.node:
                target = self._target_of(seat)
                others.setdefault(target.address, (target, []))[1].append(number)
        return others

    def _lowest_seen(self, others: Mapping[str, tuple[Target, list[int]]]) -> tuple[int, OSError | None]:
        """The lowest number in `others` whose sign is seen here, on the volume of this prober's target, or the error;
        its own where there is none."""
        deadline_s = time.monotonic() + self._settle_s
        own = self._probers.rank
        try:
            while any(numbers for _, numbers in others.values()):
                found = [self._lowest_at(target, numbers) for target, numbers in others.values()]
                lowest = min([own, *(number for number in found if number is not None)])
                if lowest < own or time.monotonic() >= deadline_s:
                    return lowest, None
                time.sleep(_POLL_S)
        except OSError as error:
            return own, error
        return own, None

    def _lowest_at(self, target: Target, numbers: Sequence[int]) -> int | None:
        """The lowest of `numbers` whose sign is seen at `target`, which may be nowhere on this node."""
        sign = target.sign(self._run_id, self._probers.rank)
        if sign is None:
            # Whoever gives the same address has the same place.
            return numbers[0] if target.address == self._target.address and numbers else None
        if target.address == self._target.address:
            return sign.lowest_of(numbers)
        # What another rank's place is on this node, if anything, is not this rank's to complain about.
        with suppress(OSError):
            number = sign.lowest_of(numbers)
            if number is not None and self._target.shares_volume(target):
                return number
        return None

    def _group(self, seen: int, ranks: int) -> tuple[int, ...]:
        """The first fields of this prober's VolumeGroup, from what every one has seen. Collective."""
        every = np.zeros((self._probers.size, 4), np.int64)
        self._probers.Allgather(np.array([seen, ranks, self._seat.node, self._seat.rank], np.int64), every)
        lowest = every[:, 0]
        # One may see another that itself sees a lower one: follow to the end (each step goes down, so it ends).
        while (lowest != lowest[lowest]).any():
            lowest = lowest[lowest]
        # Each node counts once in a group, whose volume may have several names there.
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


def _failure(action: Callable[[], object]) -> OSError | None:
    """What went wrong with `action`."""
    try:
        action()
    except OSError as error:
        return error
    return None
