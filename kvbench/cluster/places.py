"""Which ranks have the same place under test: within a node as the place says, between nodes by who sees whose sign.

What travels: the first rank of each place on each node puts up one sign, looks for those of lower ones on other nodes,
and exchanges four integers with all others like it, after two barriers; it hands six on to the other ranks of its node
at that place. At 10 000 ranks on 1 250 nodes that see one place each: 40 KB into every node, and 1 250 signs (empty
files, where the place is a directory) that are there for a moment. Where ranks have places of their own, two splits
come before, and three integers of each to every other.
"""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np

from kvbench.cluster.comm import Communicator, FailedElsewhere, quiet_barrier, quiet_bcast, split_some
from kvbench.cluster.topology import Seat, Topology
from kvbench.errors import KvbenchError

PlaceSharing = Literal["shared", "local", "mixed", "single-node", "none"]
"""Whether all nodes see a place as the same, each as one of its own, some share it, there is one node, or no place."""

_POLL_S: Final = 0.02
_FIELDS: Final = 6


class Place(Protocol):
    """A place under test, as this node sees it: what is asked of it to find out who else has the same."""

    @property
    def address(self) -> str:
        """Equal only for the same place, on one node."""

    def is_same(self, other: Any) -> bool:
        """Whether `other`, of the same kind and on this node, is the same place, such as another directory of the same
        filesystem. Raises OSError."""

    def put_up_sign(self, run_id: str, number: int) -> None:
        """Put up a sign for others to see. Raises KvbenchError."""

    def lowest_sign(self, run_id: str, numbers: Collection[int]) -> int | None:
        """The lowest of `numbers` whose sign is seen, from here and now, at this place. Raises KvbenchError."""

    def take_down_sign(self, run_id: str, number: int) -> None:
        """Take a sign down again that was put up here. Raises KvbenchError."""


@dataclass(frozen=True)
class PlaceGroup:
    """The ranks, on whichever node, that have the same place."""

    group: int
    """The lowest of their nodes."""
    first_rank: int
    """The lowest of them."""
    ranks: int
    nodes: int
    fewest_nodes: int
    """Of any such group of the run; 0 where there is no place."""
    most_nodes: int
    of_nodes: int
    """Nodes that there are in all."""
    leads: bool = True
    """Whether this rank is the first of its node in the group."""

    @property
    def sharing(self) -> PlaceSharing:
        """How the nodes of the run see their places; with one node there is nobody to compare with."""
        if self.most_nodes == 0:
            return "none"
        if self.of_nodes == 1:
            return "single-node"
        if self.fewest_nodes == self.of_nodes:
            return "shared"
        return "local" if self.most_nodes == 1 else "mixed"


def no_group(topology: Topology) -> PlaceGroup:
    """That of a rank of a run without a place under test."""
    return PlaceGroup(0, 0, topology.size, topology.nodes, 0, 0, topology.nodes, leads=topology.local_rank == 0)


def place_group(topology: Topology, place: Place, run_id: str, settle_s: float = 0.3) -> PlaceGroup:
    """The ranks that have the same place, where all were given the address of `place`. Collective; run it inside an
    agreement.

    The first rank of each node puts up a sign, looks for those of lower nodes for at most `settle_s` seconds, as a
    shared filesystem may show a new file late, and takes its own down. Raises KvbenchError on the first rank of a node
    that cannot, FailedElsewhere on its other ranks.
    """
    prober = None
    if topology.leader_comm is not None:
        prober = _Prober(topology.leader_comm, topology.seat, place, None, run_id, settle_s)
    return _told(topology.node_comm, topology, prober)


def place_group_of_own(
    topology: Topology,
    places: Sequence[Place],
    place_of: Callable[[Seat], Place],
    run_id: str,
    settle_s: float = 0.3,
) -> PlaceGroup:
    """As `place_group`, where each rank has a place of its own: `place_of` a rank's numbers is what it was given, and
    `places` are those of this node's ranks, in their order, which exist."""
    ranks = topology.node_comm.Split(first_alike(places)[topology.local_rank], topology.local_rank)
    probers = split_some(topology.comm, ranks.rank == 0)
    try:
        prober = None
        if probers is not None:
            own = places[topology.local_rank]
            prober = _Prober(probers, topology.seat, own, place_of, run_id, settle_s)
        return _told(ranks, topology, prober)
    finally:
        ranks.Free()
        if probers is not None:
            probers.Free()


def first_alike(places: Sequence[Place]) -> list[int]:
    """For each of `places`, which exist on this node, the number of the first that is the same. Raises OSError."""
    firsts: list[int] = []
    of_address: dict[str, int] = {}
    for number, place in enumerate(places):
        if place.address in of_address:
            continue
        first = next((first for first in firsts if places[first].is_same(place)), number)
        if first == number:
            firsts.append(number)
        of_address[place.address] = first
    return [of_address[place.address] for place in places]


def _told(ranks: Communicator, topology: Topology, prober: "_Prober | None") -> PlaceGroup:
    """What the first of `ranks`, those of this node at one place, found with its prober. Collective."""
    found = np.full(_FIELDS, -1, np.int64)
    error = None if prober is None else prober.find(found, ranks.size)
    quiet_bcast(ranks, found)
    if error is not None:
        raise error
    if found[0] < 0:
        raise FailedElsewhere
    group, first_rank, members, nodes, fewest, most = map(int, found)
    return PlaceGroup(group, first_rank, members, nodes, fewest, most, topology.nodes, ranks.rank == 0)


class _Prober:
    """The first rank of a node at a place, among the others like it, which `probers` joins and numbers."""

    def __init__(
        self,
        probers: Communicator,
        seat: Seat,
        place: Place,
        place_of: Callable[[Seat], Place] | None,
        run_id: str,
        settle_s: float,
    ) -> None:
        self._probers = probers
        self._seat = seat
        self._place = place
        self._place_of = place_of
        self._run_id = run_id
        self._settle_s = settle_s

    def find(self, found: "np.ndarray[tuple[int], np.dtype[np.int64]]", ranks: int) -> KvbenchError | None:
        """Fill in the first fields of PlaceGroup, for `ranks` ranks of this node, or return what went wrong. Collective
        among the probers."""
        number = self._probers.rank
        error = self._failure(self._place.put_up_sign)
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
                error = self._failure(self._place.take_down_sign) or error
        group = self._group(seen, ranks)
        if error is None:
            found[:] = group
        return error

    def _failure(self, act: Callable[[str, int], None]) -> KvbenchError | None:
        try:
            act(self._run_id, self._probers.rank)
        except KvbenchError as error:
            return error
        return None

    def _lower_on_other_nodes(self) -> list[tuple[Place, list[int]]]:
        """The places of the probers of lower numbers on other nodes, with those numbers. Collective where the places
        may differ."""
        if self._place_of is None:
            return [(self._place, list(range(self._probers.rank)))] if self._probers.rank else []
        seats = np.zeros((self._probers.size, 3), np.int64)
        self._probers.Allgather(np.array(self._seat, np.int64), seats)
        numbers: dict[str, list[int]] = {}
        places = {self._place.address: self._place}
        for number, values in enumerate(seats[: self._probers.rank]):
            seat = Seat(*map(int, values))
            if seat.node != self._seat.node:
                place = self._place_of(seat)
                numbers.setdefault(places.setdefault(place.address, place).address, []).append(number)
        return [(places[address], of_it) for address, of_it in numbers.items()]

    def _lowest_seen(self, own: int, others: Sequence[tuple[Place, list[int]]]) -> tuple[int, KvbenchError | None]:
        """The lowest of the `others` whose sign is seen here, at this prober's place, or the error; its own number
        where there is none. What is not seen may come late."""
        deadline_s = time.monotonic() + self._settle_s
        try:
            while others:
                lowest = min([own, *(seen for at, numbers in others if (seen := self._seen(at, numbers)) is not None)])
                if lowest < own or time.monotonic() >= deadline_s:
                    return lowest, None
                time.sleep(_POLL_S)
        except KvbenchError as error:
            return own, error
        return own, None

    def _seen(self, place: Place, numbers: Sequence[int]) -> int | None:
        if place is self._place:
            return place.lowest_sign(self._run_id, numbers)
        # What another rank's place is on this node, if anything, is not this rank's to complain about.
        with suppress(OSError, KvbenchError):
            seen = place.lowest_sign(self._run_id, numbers)
            return seen if seen is not None and self._place.is_same(place) else None
        return None

    def _group(self, seen: int, ranks: int) -> tuple[int, ...]:
        """The first fields of this prober's PlaceGroup, from what every one has seen. Collective."""
        every = np.zeros((self._probers.size, 4), np.int64)
        self._probers.Allgather(np.array([seen, ranks, self._seat.node, self._seat.rank], np.int64), every)
        lowest = every[:, 0]
        # One may see another that itself sees a lower one: follow to the end (each step goes down, so it ends).
        while (lowest != lowest[lowest]).any():
            lowest = lowest[lowest]
        # Each node counts once in a group, whose place may have several names there.
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
