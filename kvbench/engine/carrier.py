"""Moves the bytes of a batch of operations, checks them, and records a row for each. One for each worker.

Payload making, page-cache dropping and verification happen here, before or after the timed calls, never inside them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cache import Step
from kvbench.engine.asking import ask
from kvbench.engine.bundle import Share
from kvbench.engine.chores import Chores
from kvbench.engine.delays import Delays
from kvbench.engine.equipment import Equipment, Errors
from kvbench.engine.operation import Operation
from kvbench.engine.row import describe, note_times, set_error, set_resident, timed_by, wall_of
from kvbench.engine.shares import Moved, ShareCarrier
from kvbench.records.batches import BatchSplit, Codes
from kvbench.records.recorder import RowStore
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Lease, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.failures import VerificationError
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import Batch, Cell, Part
from kvbench.units import SECTOR_BYTES

_READ, _WRITE, _DELETE = Op.READ, Op.WRITE, Op.DELETE
_NOWHERE: Final = Memory(np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64))

_MOST_THREADS: Final = 1024
"""Of a rank."""


class Carrier:
    """Carries out batches; the rows go to `store`, with `thread` in them."""

    def __init__(self, thread: int, equipment: Equipment, store: RowStore, delays: Delays | None = None) -> None:
        """`delays` is told what each batch took."""
        self._thread = thread
        self._equipment = equipment
        self._tiers = equipment.tiers
        self._store = store
        self._carry_out = {
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.DELETE: self._delete,
            Op.DEMOTE: self._demote,
            Op.PROMOTE: self._promote,
            Op.LOOKUP: self._look_up,
        }
        self._batches = 0
        self._delays = delays
        self._chores = Chores(thread, equipment, store, self.next_number, delays)
        self._shares = ShareCarrier(thread, equipment, store, self.next_number, self._chores, delays)
        self._verified = 0

    @property
    def verified_sectors(self) -> int:
        """Sectors whose content was compared with what was written."""
        return self._verified + self._shares.verified_sectors

    def carry_out_share(self, share: Share) -> Moved:
        """The same of the first of a share's operations."""
        moved = self._shares.carry_out(share)
        if moved is not None:
            return moved
        operations = share.operations()
        count, errors = self.carry_out(operations)
        return count, errors, sum([operation.wall_ns for operation in operations[:count]])

    def carry_out(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        """Move what the first of `operations` are about, as many as can be moved together; all are of one batch.

        Returns how many were moved, or tried to: each of them has its row, and those that did not go wrong have their
        times set. Raises what goes wrong before there is a row.
        """
        return self._carry_out[operations[0].step.op](operations)

    # One kind of operation after the other

    def _read(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        first = operations[0]
        number = first.step.source
        assert number is not None
        tier = self._equipment.source(first, number)
        if first.writer is not None:
            self._allocate(tier, number, operations)
        if not tier.in_parts:  # it lands in memory of its own, or nowhere

            def check_landed(at: int, landed: Memory | None) -> None:
                assert landed is not None
                self._check(tier, operations[at], 0, landed)

            check = check_landed if tier.holds_bytes else None
            nowhere = [_NOWHERE] * len(operations)
            return self._move(operations, _READ, tier, number, tier.read_path, nowhere, after=check)
        with self._equipment.arena.lease(first.step.nbytes) as lease:
            if self._equipment.verify_full and lease.nbytes < first.step.nbytes:
                return self._move(
                    [first],
                    _READ,
                    tier,
                    number,
                    tier.read_path,
                    (),
                    run=lambda batch: self._read_in_parts(batch, tier, first, lease),
                    lease=lease,
                )
            leases, memories = _beside(lease, operations)
            operations = operations[: len(leases)]

            def check_leased(at: int, landed: Memory | None) -> None:
                self._check_leased(tier, operations[at], leases[at], memories[at], touched=landed is None)

            return self._move(
                operations, _READ, tier, number, tier.read_path, memories, after=check_leased, lease=lease
            )

    def _write(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        first = operations[0]
        number = first.step.target
        assert number is not None
        tier = self._tiers[number]
        if not tier.holds_bytes:
            self._allocate(tier, number, operations)
            return self._move(operations, _WRITE, tier, number, tier.write_path, [_NOWHERE] * len(operations))
        with self._equipment.arena.lease(first.step.nbytes) as lease:
            if lease.nbytes < first.step.nbytes:
                self._allocate(tier, number, operations[:1])
                return self._move(
                    [first],
                    _WRITE,
                    tier,
                    number,
                    tier.write_path,
                    (),
                    run=lambda batch: self._write_in_parts(batch, tier, first, lease),
                    lease=lease,
                )
            leases, memories = _beside(lease, operations)
            operations = operations[: len(leases)]
            self._allocate(tier, number, operations)

            def make(at: int) -> None:
                self._equipment.payload.make(memories[at], operations[at].step.key, 0)

            return self._move(operations, _WRITE, tier, number, tier.write_path, memories, before=make, lease=lease)

    def _delete(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        number = operations[0].step.source
        assert number is not None
        return self._move(operations, _DELETE, self._tiers[number], number, Path.NONE, ())

    def _look_up(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        number = operations[0].step.source
        assert number is not None
        tier = self._tiers[number]
        return self._move(operations, Op.LOOKUP, tier, number, Path.NONE, (), run=lambda b: ask(tier, b, operations))

    def _demote(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        step = operations[0].step
        assert step.source is not None
        assert step.target is not None
        upper, target = self._tiers[step.source].addressable, self._tiers[step.target]
        assert upper is not None, "only memory lies above another tier"
        self._allocate(target, step.target, operations)
        memories = [upper.memory_of(operation.step.key) for operation in operations]

        def release(at: int, landed: Memory | None) -> None:
            upper.release(operations[at].step.key)

        return self._move(operations, _WRITE, target, step.target, target.write_path, memories, after=release)

    def _promote(self, operations: Sequence[Operation]) -> tuple[int, Errors]:
        step = operations[0].step
        number = step.source
        assert number is not None
        assert step.target is not None
        source, target = self._tiers[number], self._tiers[step.target]
        upper, lower = target.addressable, source.addressable
        assert upper is not None, "only memory lies above another tier"
        self._allocate(target, step.target, operations)
        if lower is not None:
            held = [lower.memory_of(operation.step.key) for operation in operations]

            def release(at: int, landed: Memory | None) -> None:
                lower.release(operations[at].step.key)

            return self._move(operations, _WRITE, target, number, source.read_path, held, after=release)
        memories = [upper.memory_of(operation.step.key) for operation in operations]

        def check(at: int, landed: Memory | None) -> None:
            key, memory = operations[at].step.key, memories[at]
            if landed is None:
                source.inspect(key, 0, memory)
            elif landed.buffer is not memory.buffer:
                _copy_into(memory, landed)
            # All of what comes up, so that no later read of the memory tier is blamed for what the storage gave.
            self._check(source, operations[at], 0, memory, every_sector=True)

        count, errors = self._move(operations, _READ, source, number, source.read_path, memories, after=check)
        self._delete_promoted([at for at in range(count) if at not in errors], operations, errors)
        return count, errors

    def _delete_promoted(self, numbers: list[int], operations: Sequence[Operation], errors: Errors) -> None:
        """Delete the old copies of promoted objects, in rows of their own: they may go only now."""
        deletes = [_delete_after(operations[number], timed_io.now_ns()) for number in numbers]
        while deletes:
            count, wrong = self._delete(deletes)
            errors.update({numbers[at]: error for at, error in wrong.items()})
            deletes, numbers = deletes[count:], numbers[count:]

    # What all of them are made of

    def _allocate(self, tier: Tier, number: int, operations: Sequence[Operation]) -> None:
        if tier.upkeep is not None:
            sizes = {operation.step.key: operation.step.nbytes for operation in operations}
            self._chores.make_room(tier, number, sizes, operations[0].request)
        for operation in operations:
            tier.allocate(operation.step.key, operation.step.nbytes)

    def _move(
        self,
        operations: Sequence[Operation],
        does: Op,
        tier: Tier,
        number: int,
        path: Path,
        memories: Sequence[Memory],
        before: Callable[[int], None] | None = None,
        after: Callable[[int, Memory | None], None] | None = None,
        run: Callable[[Batch], None] | None = None,
        lease: Lease | None = None,
    ) -> tuple[int, Errors]:
        """Have `tier` carry out one batch, into rows with tier `number` and `path`.

        `before` and `after` are called for each object, untimed; `after` is told where what was read lies. `run` moves
        the objects in place of the tier's own way. Where something goes wrong, nobody knows what lies in `lease`.
        """
        syncs = does == _WRITE and tier.syncs_batches
        rows, first_row = self._store.reserve(len(operations) + syncs)
        batch_number = self.next_number()
        describe(rows, first_row, operations, number, path, self._equipment.rank, self._thread, batch_number)
        errors: Errors = {}
        if does == _READ and tier.holds_bytes and not (tier.moves_together and run is None):
            before = _preparing_read(tier, rows, first_row, operations)
        ready = len(operations) if before is None else _prepared(len(operations), before, errors)
        keys = [operation.step.key for operation in operations]
        batch = Batch(does, keys[:ready] if errors else keys, memories, rows, first_row, self._equipment.stop)
        batch.until_ns = int(self._equipment.until_ns[0])
        if ready:
            try:
                (run or tier.run)(batch)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is an operation's, and goes into its row
                batch.begun = max(1, batch.begun)
                errors[batch.begun - 1] = error
            if batch.begun < ready:
                # What was not begun has no row, and is to be prepared again.
                errors.pop(ready, None)
            errors |= batch.errors
        note_times(operations[: batch.begun], rows, first_row)
        unsynced, is_synced = None, syncs and not errors
        if is_synced:
            done, row = operations[: batch.begun], first_row + batch.begun
            unsynced = self._chores.sync(rows, row, tier, number, keys[: batch.begun], done[0].request, batch_number)
        if after is not None:
            _follow_up(batch, after, errors)
        for at, wrong in errors.items():
            operations[at].wall_ns = 0
            set_error(Cell(rows, first_row + at, self._equipment.stop), wrong)
        if errors and lease is not None:
            lease.renew()
        count = batch.begun + (batch.begun in errors)
        split, first = batch.split, operations[0]
        if split is not None:
            _waited(operations[:count], split, errors)
        if count > 1 or split is not None or self._delays is not None:
            by = timed_by(rows, first_row) if batch.timed_by is None else batch.timed_by
            codes = number, first.step.op, first.request.phase, by
            if split is None:
                split = BatchSplit.of_sums(timed_io.sum_rows(rows, first_row, count))
            self._log(batch_number, codes, count, split)
        self._store.commit(count + is_synced)
        if is_synced:
            # The request has waited for it too. Where it failed none of them is durable; the last stands for all.
            operations[count - 1].wall_ns += wall_of(rows, first_row + count)
            errors |= {} if unsynced is None or count - 1 in errors else {count - 1: unsynced}
        self._chores.do_what_is_due(tier, number, first.request)
        return count, errors

    def _log(self, batch: int, codes: Codes, operations: int, split: BatchSplit) -> None:
        self._equipment.batches.add(batch, codes, operations, split)
        if self._delays is not None:
            self._delays.note(split)

    def next_number(self) -> int:
        """The number of the next batch, which no other of the rank has."""
        self._batches += 1
        return self._batches * _MOST_THREADS + self._thread

    def _payload(self, operation: Operation) -> Payload:
        """What whoever wrote the object of a read writes."""
        if operation.writer is None:
            return self._equipment.payload
        assert self._equipment.payload_of is not None
        return self._equipment.payload_of(operation.writer)

    def _check_leased(self, tier: Tier, operation: Operation, lease: Lease, memory: Memory, touched: bool) -> None:
        """Check what was read, in one call, into a lease; `touched`: it was only looked at, and is read again here."""
        key, nbytes = operation.step.key, operation.step.nbytes
        if not touched:
            # An object longer than the lease went round in it: its end is what lies there now.
            offset = max(0, nbytes - lease.nbytes)
            there = lease.memory(key, nbytes, offset, nbytes - offset) if offset else memory
            self._check(tier, operation, offset, there)
        elif self._equipment.verify_full:
            tier.inspect(key, 0, memory)
            self._check(tier, operation, 0, memory)
        else:
            for offset in {0, nbytes - SECTOR_BYTES}:
                sector = lease.memory(key, nbytes, offset, SECTOR_BYTES)
                tier.inspect(key, offset, sector)
                self._check(tier, operation, offset, sector)

    def _check(self, tier: Tier, operation: Operation, offset: int, memory: Memory, every_sector: bool = False) -> None:
        """Compare `memory`, which holds the object of `operation` from `offset` on, with what was written."""
        payload, key = self._payload(operation), operation.step.key
        if self._equipment.verify_full:
            checked, mismatch = payload.check_full(memory, key, operation.step.nbytes, offset)
        elif every_sector:
            checked, mismatch = payload.check_stamps(memory, key, offset)
        else:
            checked, mismatch = payload.check_sampled(memory, key, offset)
        self._verified += checked
        if mismatch is not None:
            raise VerificationError(tier.where(key), mismatch)

    def _read_in_parts(self, batch: Batch, tier: Tier, operation: Operation, lease: Lease) -> None:
        """Read an object that is longer than the lease and is to be checked from end to end."""
        key, nbytes = operation.step.key, operation.step.nbytes
        batch.begun = 1
        cell, handle = Cell(batch.rows, batch.first_row, batch.stop), -1
        for part, length in _parts(nbytes, lease.nbytes):
            target = lease.memory(key, nbytes, part.offset, length)
            handle, landed = tier.read(cell, key, part, target, handle)
            try:
                if landed is None:
                    tier.inspect(key, part.offset, target)
                self._check(tier, operation, part.offset, target)
            except VerificationError:
                tier.abandon(handle)
                raise

    def _write_in_parts(self, batch: Batch, tier: Tier, operation: Operation, lease: Lease) -> None:
        """Write an object that is longer than the lease."""
        key, nbytes = operation.step.key, operation.step.nbytes
        batch.begun = 1
        cell, handle = Cell(batch.rows, batch.first_row, batch.stop), -1
        for part, length in _parts(nbytes, lease.nbytes):
            source = lease.memory(key, nbytes, part.offset, length)
            self._equipment.payload.make(source, key, part.offset)
            handle = tier.write(cell, key, part, source, handle)


def _beside(lease: Lease, operations: Sequence[Operation]) -> tuple[list[Lease], list[Memory]]:
    """Leases for the first of `operations`, as many as can be moved together, and where their objects lie in them."""
    leases = [lease, *lease.beside([operation.step.nbytes for operation in operations[1:]])]
    return leases, [_whole(operation, each) for operation, each in zip(operations, leases, strict=False)]


def _preparing_read(
    tier: Tier, rows: npt.NDArray[np.uint8], first_row: int, operations: Sequence[Operation]
) -> Callable[[int], None]:
    """What comes before a read untimed: within its row, so that a failure there is recorded too."""

    def prepare(at: int) -> None:
        set_resident(rows, first_row + at, tier.prepare_read(operations[at].step.key))

    return prepare


def _prepared(count: int, before: Callable[[int], None], errors: Errors) -> int:
    """How many of `count` objects are prepared, up to the first with which that goes wrong."""
    for at in range(count):
        try:
            before(at)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is an operation's, and goes into its row
            errors[at] = error
            return at
    return count


def _follow_up(batch: Batch, after: Callable[[int, Memory | None], None], errors: Errors) -> None:
    """Call `after` for each object that was moved; what goes wrong in it, goes wrong with that object."""
    for at in range(batch.begun):
        if at not in errors:
            try:
                after(at, batch.landed_at(at) if batch.does == _READ and batch.begun else None)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is an operation's, and goes into its row
                errors[at] = error


def _waited(operations: Sequence[Operation], split: BatchSplit, errors: Errors) -> None:
    """The wall times of operations that overlap add up to more than the request waited: one stands for all."""
    for operation in operations:
        operation.wall_ns = 0
    first_well = next((at for at in range(len(operations)) if at not in errors), 0)
    operations[first_well].wall_ns = split.wall_ns


def _whole(operation: Operation, lease: Lease) -> Memory:
    """Where the object of `operation` lies in its lease."""
    step = operation.step
    return lease.memory(step.key, step.nbytes, 0, step.nbytes)


def _delete_after(promotion: Operation, ready_ns: int) -> Operation:
    """The deletion of the old copy that ends a promotion."""
    step = Step(_DELETE, promotion.step.key, promotion.step.nbytes, promotion.step.source, None)
    delete = Operation(step, promotion.request, promotion.tokens, None)
    delete.ready_ns, delete.inflight, delete.locality = ready_ns, promotion.inflight, promotion.locality
    delete.layer = promotion.layer
    return delete


def _parts(nbytes: int, at_most: int) -> Iterator[tuple[Part, int]]:
    """`nbytes` in parts of `at_most`, with the length of each."""
    for offset in range(0, nbytes, at_most):
        length = min(at_most, nbytes - offset)
        yield Part(offset, first=offset == 0, last=offset + length == nbytes), length


def _copy_into(destination: Memory, source: Memory) -> None:
    done = int(source.extents[0, 0])
    for start, length in destination.extents.tolist():
        destination.buffer[start : start + length] = source.buffer[done : done + length]
        done += length
