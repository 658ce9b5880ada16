"""What may be carried out: in which order, how much of it a worker takes at a time, what waits for its turn to write.

State of the dispatcher, under whose lock all of it is called. It moves no bytes.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kvbench import timed_io
from kvbench.engine.bundle import Share, Work
from kvbench.engine.in_flight import InFlight
from kvbench.engine.operation import Bundle, Operation, Unit
from kvbench.engine.sharing import Sharing
from kvbench.records.schema import MOVING_OPS, Op

_WRITE: Final = Op.WRITE


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rank may have in flight."""

    requests: int
    writes: int
    """Writes of new entries at once; 0 for no limit."""
    workers: int = 1
    """That should all have something to do before one takes more than one operation at a time."""
    depth: int = 1
    """Operations of a batch that are in flight at once, on storage."""
    whole_stages: bool = False
    """One worker takes all operations of a stage of a request that go together."""
    overlapping: Collection[Op] = MOVING_OPS
    """The kinds of operations that `depth` is about."""


class ReadyUnits:
    """The units that wait for nothing but a worker, first come, first served."""

    def __init__(
        self, limits: Limits, storage: Sequence[bool], sharing: Sharing | None, gone: Callable[[Operation], None]
    ) -> None:
        """`storage` says which tiers are storage. `gone` is told of reads whose object is not there any more where
        ranks share a key space, which nobody will carry out."""
        self.in_flight = InFlight(storage, limits.depth, limits.overlapping)
        self._limits = limits
        self._storage = storage
        self._sharing = sharing
        self._gone = gone
        self._ready: deque[Unit] = deque()
        self._operations = 0
        """Those that it stands for, and no worker has taken."""
        self._waiting_writes: deque[Unit] = deque()
        self._writes = 0

    def __bool__(self) -> bool:
        return bool(self._ready)

    def add(self, unit: Unit) -> None:
        """What it waited for is done."""
        if isinstance(unit, Bundle):
            self._put(unit)
            return
        if self._sharing is not None and unit.step.op == Op.DELETE and not unit.retired:
            source = unit.step.source
            if source is not None and self._storage[source]:
                unit.retired = True
                self._sharing.retire(unit, timed_io.now_ns())
                return
        if unit.step.op == _WRITE and not unit.placed:
            if not self.may_write:
                self._waiting_writes.append(unit)
                return
            self._writes += 1
        self._put(unit)

    def add_retired(self, deletes: Iterable[Operation]) -> None:
        """Deletes that every other rank has heard of."""
        for delete in deletes:
            self._put(delete)

    def _put(self, unit: Unit) -> None:
        self._ready.append(unit)
        self._operations += unit.left if isinstance(unit, Bundle) else 1

    # Writes of new entries

    @property
    def may_write(self) -> bool:
        """Whether one more new entry may be written at a time."""
        return not self._limits.writes or self._writes < self._limits.writes

    def take_place(self) -> None:
        """One of the places for writes is a request's, before it has decided on its write."""
        self._writes += 1

    def give_place_back(self, places: int = 1) -> None:
        """So many writes less."""
        self._writes -= places

    def let_write(self, most: int) -> None:
        """So many that waited for their turn to write have it, as far as there are."""
        for _ in range(min(most, len(self._waiting_writes))):
            if self.may_write:
                self.add(self._waiting_writes.popleft())

    # Batches

    def next_batch(self, room: int) -> Work:
        """The first of the operations that are ready, with those right behind it that go together with it; none where
        all that was ready turned out to be gone, or waits for its turn to write.

        Of what is ready, every worker is to have its part: one takes as many operations as there are for each. Those
        that take less time then take more often, and at the end all take one (guided self-scheduling: Polychronopoulos
        and Kuck, IEEE Transactions on Computers C-36, 1987).
        """
        batch: list[Operation] = []
        ready = self._ready
        if self._limits.whole_stages:
            room = self._operations
        else:
            room = min(room, -(-self._operations // self._limits.workers))
        while ready and len(batch) < room:
            operation = ready[0]
            if isinstance(operation, Bundle):
                share = None if batch else self._share_of(operation, room)
                if share is not None:
                    return share
                if batch or (ready and ready[0] is operation):
                    break
                continue
            if operation.writer is not None and self._sharing is not None and not self._sharing.find_writer(operation):
                ready.popleft()
                self._operations -= 1
                self._gone(operation)
            elif not batch or operation.goes_with(batch[0]):
                ready.popleft()
                batch.append(operation)
            else:
                break
        if not batch:
            return batch
        inflight = self._hand_out(batch)
        for operation in batch:
            operation.inflight = inflight
            if operation.writer is not None and self._sharing is not None:
                self._sharing.begin_read(operation)
        return batch

    def _share_of(self, bundle: Bundle, room: int) -> Share | None:
        """So much of `bundle`, the first of what is ready; None where it has to wait for its turn to write."""
        ready = self._ready
        if bundle.op == _WRITE:
            if not self.may_write:
                ready.popleft()
                self._operations -= bundle.left
                self._waiting_writes.append(bundle)
                return None
            if self._limits.writes and self._limits.depth > 1:
                room = min(room, self._limits.writes - self._writes)
        share = Share(bundle, bundle.taken, min(room, bundle.left))
        if bundle.op == _WRITE:
            self._writes += self.in_flight.of(share)
        bundle.taken += share.count
        if not bundle.left:
            ready.popleft()
        share.inflight = self._hand_out(share)
        return share

    def _hand_out(self, batch: Work) -> int:
        """A worker takes `batch`. Returns how many operations are in flight then."""
        self._operations -= len(batch)
        return self.in_flight.begin(batch)
