"""One rank's part in a key space that ranks share: what others have, what they must be told, what may be deleted.

Plain state without a lock of its own: the dispatcher calls it under its own. Nothing here moves bytes or messages.

Deleting is what needs care. An object that other ranks may read is first announced as retired; its file is deleted once
every rank has taken that in and no read that was begun before still runs anywhere (as in epoch-based reclamation:
Fraser 2004, Practical lock-freedom, UCAM-CL-TR-579, section 5.2.3). A read that has been decided but not begun when its
object is retired is given up and counted, so that a delete waits for nothing but the I/O of other ranks.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cache.announcements import ANNOUNCEMENT_DTYPE, Announcements, Kind, announcements
from kvbench.cache.peers import PeerDirectory
from kvbench.config.roles import Role
from kvbench.engine.operation import Operation
from kvbench.records.schema import Locality
from kvbench.units import SECTOR_BYTES
from kvbench.workload.disaggregated import Handover
from kvbench.workload.request import Request

_NO_TARGET: Final = 0


@dataclass(slots=True)
class SharingCounts:
    """What happened on this rank, over all phases."""

    written: int = 0
    """Objects that were announced."""
    retired: int = 0
    """Objects that were announced as about to be deleted."""
    handed_over: int = 0
    """Requests that went to a decode rank."""
    evicted_reads: int = 0
    """Reads that were given up, as the object was retired between the decision to read it and its turn."""
    longest_grace_ns: int = 0
    """The longest time from the announcement of a delete until it could begin."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A request that a prefill rank has handed to this one."""

    request: Request
    intended_ns: int
    """When the prefill ended, on this node's clock."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What follows from one round, for the dispatcher."""

    deletes: list[Operation]
    """May be carried out now."""
    handed_over: list[HandedOver]
    decoded: list[tuple[int, int]]
    """Requests of this rank that were decoded: their number, and when, on this node's clock."""


@dataclass(slots=True)
class _Retired:
    operation: Operation
    said_ns: int
    number: int = 0
    """The round in which it was said."""


@dataclass
class Sharing:
    """The state; outlives a load. Rounds are numbered from 1."""

    rank: int
    nodes: npt.NDArray[np.int64]
    """(ranks,) The node of each rank."""
    storage_tier: int
    role: Role | None = None
    decoder_of: Callable[[int], int] | None = None
    """Of a prefill rank: from a request's number to the rank that decodes it."""
    handover: Handover | None = None
    """Of a decode rank: what it finds its requests by."""
    prefill_ranks: tuple[int, ...] = ()
    offsets_ns: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(ranks,) The clock of each rank's node minus this node's; all 0 until it was measured."""
    taken_in: int = 0
    """The last round that was taken in."""
    prefill_over: bool = False
    """No prefill rank will hand anything over any more."""
    counts: SharingCounts = field(default_factory=SharingCounts)

    def __post_init__(self) -> None:
        self.peers = PeerDirectory(self.rank)
        self.offsets_ns = np.zeros(len(self.nodes), np.int64)
        self._outgoing: list[tuple[int, int, int, int, int, int]] = []
        self._running: dict[Operation, int] = {}
        self._unsaid: list[_Retired] = []
        self._in_grace: deque[_Retired] = deque()
        self._origins: dict[int, tuple[int, int]] = {}

    def locality(self, writer: int) -> Locality:
        """Who `writer` is, seen from this rank."""
        if writer == self.rank:
            return Locality.OWN
        return Locality.SAME_NODE if self.nodes[writer] == self.nodes[self.rank] else Locality.OTHER_NODE

    # What happens on this rank

    def written(self, key: int, nbytes: int, ended_ns: int) -> None:
        """Object `key` is on the storage since `ended_ns`, on this node's clock."""
        self.counts.written += 1
        self._outgoing.append((key, ended_ns, nbytes // SECTOR_BYTES, self.rank, _NO_TARGET, Kind.WRITTEN))

    def retire(self, operation: Operation, now_ns: int) -> None:
        """`operation` is a delete that nothing on this rank stands in the way of; a later round gives it back."""
        self.counts.retired += 1
        self._unsaid.append(_Retired(operation, now_ns))
        self._outgoing.append((operation.step.key, now_ns, 0, self.rank, _NO_TARGET, Kind.RETIRED))

    @property
    def deleting(self) -> bool:
        """Whether a delete of this rank still waits for others."""
        return bool(self._unsaid or self._in_grace)

    def find_writer(self, operation: Operation) -> bool:
        """Whether `operation`, a read of another rank's object, may begin now; its writer may change. False: too
        late."""
        key, writer = operation.step.key, operation.writer
        assert writer is not None
        if not self.peers.holds(key, writer):
            writer = self.peers.writer_of(key)
            if writer is None:
                self.counts.evicted_reads += 1
                return False
            operation.writer, operation.locality = writer, self.locality(writer)
        return True

    def begin_read(self, operation: Operation) -> None:
        """`operation`, a read of another rank's object that may begin, does."""
        self._running[operation] = self.taken_in

    def end_read(self, operation: Operation) -> None:
        """A read that was begun has ended, however."""
        self._running.pop(operation, None)

    def hand_over(self, request: Request, now_ns: int) -> None:
        """A prefill rank has done its part of `request`."""
        assert self.decoder_of is not None
        self.counts.handed_over += 1
        target = self.decoder_of(request.number)
        self._outgoing.append((request.number, now_ns, 0, self.rank, target, Kind.HANDED_OVER))

    def decoded(self, request: Request, now_ns: int) -> None:
        """A decode rank has finished `request`."""
        rank, number = self._origins.pop(request.number)
        self._outgoing.append((number, now_ns, 0, self.rank, rank, Kind.DECODED))

    # Rounds

    def say(self, number: int) -> Announcements:
        """All that is to be announced in round `number`, which is about to begin."""
        for retired in self._unsaid:
            retired.number = number
        self._in_grace.extend(self._unsaid)
        self._unsaid.clear()
        said, self._outgoing = self._outgoing, []
        return announcements(said) if said else np.empty(0, ANNOUNCEMENT_DTYPE)

    @property
    def settled(self) -> int:
        """The last round that was taken in and that no read which runs here was begun before."""
        return min(self._running.values(), default=self.taken_in)

    def take_in(self, number: int, news: Announcements, settled: int, finished: npt.NDArray[np.bool_]) -> Heard:
        """Take in round `number`; `settled` is that of all ranks, `finished` says which have nothing more to say.

        Raises LookupError where a request is handed over that this rank's schedule does not have.
        """
        self.taken_in = number
        self.peers.apply(news)
        if self.prefill_ranks:
            self.prefill_over = bool(finished[list(self.prefill_ranks)].all())
        deletes = []
        while self._in_grace and self._in_grace[0].number <= settled:
            retired = self._in_grace.popleft()
            grace_ns = timed_io.now_ns() - retired.said_ns
            self.counts.longest_grace_ns = max(self.counts.longest_grace_ns, grace_ns)
            deletes.append(retired.operation)
        mine = news[(news["target"] == self.rank) & (news["kind"] >= Kind.HANDED_OVER)] if self.role else news[:0]
        handed_over, decoded = [], []
        for row in mine:
            rank, number_there = int(row["rank"]), int(row["key"])
            then_ns = int(row["t_ns"]) - int(self.offsets_ns[rank])
            if row["kind"] == Kind.DECODED:
                decoded.append((number_there, then_ns))
                continue
            assert self.handover is not None
            request = self.handover.request(rank, number_there)
            self._origins[request.number] = (rank, number_there)
            handed_over.append(HandedOver(request, then_ns))
        return Heard(deletes, handed_over, decoded)
