"""Carries operations out: takes one from the dispatcher, moves its bytes, checks them, records the row.

Payload making, page-cache dropping and verification happen here, before or after the timed calls, never inside them.
"""

import errno
import os
import struct
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.operation import Operation
from kvbench.engine.violations import Violation, Violations, of_error, of_mismatch
from kvbench.records.recorder import RowStore
from kvbench.records.schema import (
    RECORD_DTYPE,
    RESIDENT_UNKNOWN,
    STOPWATCH_BYTES,
    Op,
    Path,
    RequestState,
    label,
)
from kvbench.tiers.arena import Arena, Lease, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Mismatch, Payload
from kvbench.tiers.transfer import WHOLE, Cell, Part
from kvbench.units import SECTOR_BYTES

_TAGS: Final = struct.Struct("<IIIIHHBBBBBBBB")
assert STOPWATCH_BYTES + _TAGS.size == RECORD_DTYPE.itemsize
_ROW_BYTES: Final = RECORD_DTYPE.itemsize
_WALL_OFFSET: Final = RECORD_DTYPE.fields["wall_ns"][1] if RECORD_DTYPE.fields else 0
_QUEUE_OFFSET: Final = RECORD_DTYPE.fields["queue_ns"][1] if RECORD_DTYPE.fields else 0
_RESIDENT_OFFSET: Final = RECORD_DTYPE.fields["resident_pct"][1] if RECORD_DTYPE.fields else 0
_INT64: Final = struct.Struct("<q")
_START_AND_WALL: Final = struct.Struct("<qq")
assert _INT64.size == _WALL_OFFSET, "a row begins with t_start_ns and wall_ns"


class VerificationError(Exception):
    """What was read is not what was written."""

    def __init__(self, where: str, mismatch: Mismatch) -> None:
        super().__init__(f"{where}: the data is not what was written: {mismatch}")
        self.mismatch = mismatch


@dataclass(frozen=True, slots=True)
class Equipment:
    """What all workers of a rank share."""

    rank: int
    host: str
    tiers: Sequence[Tier]
    arena: Arena
    payload: Payload
    verify_full: bool
    stop: npt.NDArray[np.int32]
    report_failure: Callable[[str], None]
    payload_of: Callable[[int], Payload] | None = None
    """What another rank writes, to check what is read of it."""
    violations: Violations | None = None
    """Where ranks share a filesystem: reads that do not give what was written are counted and do not end the run."""


class Worker:
    """One thread's loop over the operations that the dispatcher hands out; its rows go to `store`."""

    def __init__(self, thread: int, equipment: Equipment, store: RowStore) -> None:
        self._thread = thread
        self._equipment = equipment
        self._store = store
        self.verified_sectors = 0

    def run(self, dispatcher: Dispatcher) -> None:
        """Work until there is no more; a failure is reported and ends the load of the whole rank."""
        try:
            operation = dispatcher.take()
            while operation is not None:
                wall_ns = self._attempt(operation, dispatcher)
                if wall_ns is None:
                    return
                operation = dispatcher.take(operation, wall_ns)
        except BaseException:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
            self._equipment.report_failure(f"internal error\n{traceback.format_exc()}")
            dispatcher.stop()

    def _attempt(self, operation: Operation, dispatcher: Dispatcher) -> int | None:
        try:
            return self._carry_out(operation)
        except OSError as error:
            if error.errno == errno.ECANCELED:
                dispatcher.give_up(operation, RequestState.CUT_SHORT)
                return None
            if self._is_violation(operation, error):
                return 0
            text = self._describe(operation, error)
        except VerificationError as error:
            if self._is_violation(operation, error):
                return 0
            text = str(error)
        except MemoryError as error:
            text = str(error) or "out of memory"
        except BaseException:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
            text = f"internal error\n{traceback.format_exc()}"
        self._equipment.report_failure(text)
        dispatcher.give_up(operation, RequestState.FAILED)
        return None

    def _is_violation(self, operation: Operation, error: OSError | VerificationError) -> bool:
        """Whether a failed read is a broken promise of a shared filesystem, which is counted and goes on; or a failed
        delete, of what is gone already."""
        violations, step = self._equipment.violations, operation.step
        if violations is None or step.op not in (Op.READ, Op.DELETE) or step.source is None:
            return False
        tier = self._source(operation, step.source)
        if not tier.storage:
            return False
        if isinstance(error, VerificationError):
            kind: Violation | None = of_mismatch(error.mismatch)
        else:
            kind = of_error(error, tier.size_bytes(step.key), step.nbytes)
        if kind is None or (step.op == Op.DELETE and kind != Violation.MISSING):
            return False
        writer = self._equipment.rank if operation.writer is None else operation.writer
        text = str(error) if isinstance(error, VerificationError) else self._describe(operation, error)
        violations.note(kind, writer, step.key, step.nbytes, timed_io.now_ns(), text)
        operation.spoiled = step.op == Op.READ
        return True

    def _source(self, operation: Operation, number: int) -> Tier:
        """Tier `number`, or there the objects of the rank whose object is to be read."""
        tier = self._equipment.tiers[number]
        return tier if operation.writer is None else tier.of_rank(operation.writer)

    def _describe(self, operation: Operation, error: OSError) -> str:
        step = operation.step
        tier = step.target if step.target is not None and step.op != Op.PROMOTE else step.source
        assert tier is not None
        where = self._source(operation, tier).where(step.key)
        advice = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "; free space there, or set a smaller capacity_bytes for the file tier"
        elif error.errno == errno.EIO:
            advice = " (the drive or the server failed, or the file was shortened: see the kernel's log)"
        return f"{label(step.op)} of {where} failed: {os.strerror(error.errno or errno.EIO)}{advice}"

    def _carry_out(self, operation: Operation) -> int:
        """Move the bytes of `operation`; returns the wall time of the row (ns)."""
        step = operation.step
        tiers = self._equipment.tiers
        if step.op == Op.READ:
            assert step.source is not None
            return self._read(operation, self._source(operation, step.source), step.source)
        if step.op == Op.WRITE:
            assert step.target is not None
            return self._write(operation, tiers[step.target], step.target)
        assert step.source is not None
        if step.op == Op.DELETE:
            return self._delete(operation, tiers[step.source], step.source)
        assert step.target is not None
        if step.op == Op.DEMOTE:
            return self._demote(operation, tiers[step.source], tiers[step.target])
        return self._promote(operation, tiers[step.source], tiers[step.target])

    def _read(self, operation: Operation, tier: Tier, number: int) -> int:
        key, nbytes = operation.step.key, operation.step.nbytes
        payload = self._equipment.payload
        if operation.writer is not None:
            assert self._equipment.payload_of is not None
            payload = self._equipment.payload_of(operation.writer)
            tier.allocate(key, nbytes)
        with self._row(operation, Op.READ, number, tier.read_path) as cell:
            _prepare_read(cell, tier, key)
            if not tier.in_parts:
                _, landed = tier.read(cell, key, WHOLE, _NOWHERE)
                assert landed is not None
                self._check(tier, payload, key, nbytes, 0, landed)
                return _wall_ns(cell)
            with self._equipment.arena.lease(nbytes) as lease:
                self._read_into(cell, tier, payload, key, nbytes, lease)
            return _wall_ns(cell)

    def _read_into(self, cell: Cell, tier: Tier, payload: Payload, key: int, nbytes: int, lease: Lease) -> None:
        if self._equipment.verify_full:
            handle = -1
            for part, length in _parts(nbytes, lease.nbytes):
                target = lease.memory(key, nbytes, part.offset, length)
                handle, landed = tier.read(cell, key, part, target, handle)
                if landed is None:
                    tier.inspect(key, part.offset, target)
                try:
                    self._check(tier, payload, key, nbytes, part.offset, target)
                except VerificationError:
                    tier.abandon(handle)
                    raise
            return
        whole = lease.memory(key, nbytes, 0, nbytes)
        _, landed = tier.read(cell, key, WHOLE, whole)
        if landed is not None:
            # An object longer than the lease went round in it: its end is what lies there now.
            offset = max(0, nbytes - lease.nbytes)
            there = lease.memory(key, nbytes, offset, nbytes - offset) if offset else whole
            self._check(tier, payload, key, nbytes, offset, there)
            return
        for offset in {0, nbytes - SECTOR_BYTES}:
            target = lease.memory(key, nbytes, offset, SECTOR_BYTES)
            tier.inspect(key, offset, target)
            self._check(tier, payload, key, nbytes, offset, target)

    def _write(self, operation: Operation, tier: Tier, number: int) -> int:
        key, nbytes = operation.step.key, operation.step.nbytes
        tier.allocate(key, nbytes)
        if not tier.holds_bytes:
            with self._row(operation, Op.WRITE, number, tier.write_path) as cell:
                tier.write(cell, key, WHOLE, _NOWHERE)
                return _wall_ns(cell)
        with (
            self._equipment.arena.lease(nbytes) as lease,
            self._row(operation, Op.WRITE, number, tier.write_path) as cell,
        ):
            handle = -1
            for part, length in _parts(nbytes, lease.nbytes):
                source = lease.memory(key, nbytes, part.offset, length)
                self._equipment.payload.make(source, key, part.offset)
                handle = tier.write(cell, key, part, source, handle)
            operation.ended_ns = _ended_ns(cell)
            return _wall_ns(cell)

    def _delete(self, operation: Operation, tier: Tier, number: int) -> int:
        with self._row(operation, Op.DELETE, number, Path.NONE) as cell:
            tier.delete(cell, operation.step.key)
            return _wall_ns(cell)

    def _demote(self, operation: Operation, source: Tier, target: Tier) -> int:
        key, nbytes = operation.step.key, operation.step.nbytes
        assert operation.step.target is not None
        upper = source.addressable
        assert upper is not None, "only memory lies above another tier"
        target.allocate(key, nbytes)
        with self._row(operation, Op.DEMOTE, operation.step.target, target.write_path) as cell:
            target.write(cell, key, WHOLE, upper.memory_of(key))
        operation.ended_ns = _ended_ns(cell)
        upper.release(key)
        return _wall_ns(cell)

    def _promote(self, operation: Operation, source: Tier, target: Tier) -> int:
        key, nbytes = operation.step.key, operation.step.nbytes
        assert operation.step.source is not None
        upper, lower = target.addressable, source.addressable
        assert upper is not None, "only memory lies above another tier"
        target.allocate(key, nbytes)
        if lower is not None:
            with self._row(operation, Op.PROMOTE, operation.step.source, source.read_path) as cell:
                target.write(cell, key, WHOLE, lower.memory_of(key))
            lower.release(key)
            return _wall_ns(cell)
        destination = upper.memory_of(key)
        with self._row(operation, Op.PROMOTE, operation.step.source, source.read_path) as cell:
            _prepare_read(cell, source, key)
            _, landed = source.read(cell, key, WHOLE, destination)
            if landed is None:
                source.inspect(key, 0, destination)
            elif landed.buffer is not destination.buffer:
                _copy_into(destination, landed)
            self._check(source, self._equipment.payload, key, nbytes, 0, destination)
            wall_ns = _wall_ns(cell)
        operation.ready_ns = timed_io.now_ns()  # the old copy may go only now
        self._delete(operation, source, operation.step.source)
        return wall_ns

    def _check(self, tier: Tier, payload: Payload, key: int, object_bytes: int, offset: int, memory: Memory) -> None:
        if self._equipment.verify_full:
            checked, mismatch = payload.check_full(memory, key, object_bytes, offset)
        else:
            checked, mismatch = payload.check_sampled(memory, key, offset)
        self.verified_sectors += checked
        if mismatch is not None:
            raise VerificationError(tier.where(key), mismatch)

    def _row(
        self,
        operation: Operation,
        op: Op,
        tier: int,
        path: Path,
    ) -> "_Row":
        rows, row = self._store.reserve()
        start = row * _ROW_BYTES
        request = operation.request
        _INT64.pack_into(rows.data, start + _QUEUE_OFFSET, operation.ready_ns)
        _TAGS.pack_into(
            rows.data,
            start + STOPWATCH_BYTES,
            operation.tokens,
            request.request.user,
            request.request.number & 0xFFFFFFFF,
            self._equipment.rank,
            self._thread,
            min(operation.inflight, 0xFFFF),
            op,
            tier,
            request.phase,
            path,
            timed_io.TIMED_BY,
            RESIDENT_UNKNOWN,
            operation.locality,
            0,
        )
        return _Row(Cell(rows, row, self._equipment.stop), self._store)


class _Row:
    """The row of one operation, counted when it ends; what went wrong in between stands in it."""

    __slots__ = ("_cell", "_store")

    def __init__(self, cell: Cell, store: RowStore) -> None:
        self._cell = cell
        self._store = store

    def __enter__(self) -> Cell:
        return self._cell

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            record = self._cell.record
            if record["t_start_ns"] == 0:  # it failed before anything was timed
                with self._cell.around_python():
                    pass
            if record["errno"] == 0:
                record["errno"] = _number_of(error)
        self._store.commit()


_NOWHERE: Final = Memory(np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64))


def _number_of(error: BaseException) -> int:
    """What stands in the row of an operation that failed otherwise than in a system call."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return errno.ENOMEM if isinstance(error, MemoryError) else errno.EBADMSG


def _prepare_read(cell: Cell, tier: Tier, key: int) -> None:
    """What comes before a read untimed: within its row, so that a failure here is recorded too."""
    cell.rows[cell.row * _ROW_BYTES + _RESIDENT_OFFSET] = tier.prepare_read(key)


def _wall_ns(cell: Cell) -> int:
    wall_ns: int = _INT64.unpack_from(cell.rows.data, cell.row * _ROW_BYTES + _WALL_OFFSET)[0]
    return wall_ns


def _ended_ns(cell: Cell) -> int:
    """End of the timed span, on the node's clock."""
    start_ns, wall_ns = _START_AND_WALL.unpack_from(cell.rows.data, cell.row * _ROW_BYTES)
    ended_ns: int = start_ns + wall_ns
    return ended_ns


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
