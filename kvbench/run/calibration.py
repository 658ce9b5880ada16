"""Bandwidth of memory copies and of storage reads: the ranks of a node one after the other, and then all at once.

Measured with the run's own stopwatch and buffers. However many ranks a node has, their turns take LONGEST_TURNS_S at
most: the more ranks, the shorter each one's. Where even that does not suffice, as one read of a slow storage takes
longer, those whose turn would come later have no figure of their own alone.

What travels: one sum of one integer among the ranks of one node, for each rank and one more, for each figure.
"""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.broadcast import total
from kvbench.cluster.signals import Interrupt, Interrupted
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE
from kvbench.records.tables import CALIBRATION_DTYPE
from kvbench.tiers.arena import Arena, Lease, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.failures import VerificationError, why_failed
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Cell, Part
from kvbench.units import GIB, SECTOR_BYTES, SEGMENT_BYTES

LONGEST_TURNS_S: Final = 5.0
"""The turns of the ranks of a node take no longer than this in all, for each figure."""

Stop = npt.NDArray[np.int32]
"""One number; when it is not 0, what is under way ends at its next chance."""


def turns_s(seconds: float, ranks: int) -> float:
    """How long the turns of the ranks of a node take, for one figure, where each is to take `seconds`."""
    return min(seconds * ranks, LONGEST_TURNS_S)


class Turns:
    """Measurements that the ranks of a node take one after the other and then together, until one is asked to end."""

    def __init__(self, topology: Topology, seconds: float, interrupt: Interrupt) -> None:
        self._topology = topology
        self._seconds = seconds
        self._interrupt = interrupt
        self._rows: list[tuple[int, int, str, str, float]] = []
        self._error: Exception | None = None
        self._over = False

    @property
    def stop(self) -> Stop:
        """Not 0 once this rank is asked to end."""
        return np.frombuffer(self._interrupt.flag, dtype=np.int32)

    def measure(self, kind: str, figure: Callable[[float], float]) -> None:
        """Record `figure(seconds)`, in GiB/s, of this rank alone and of all ranks of the node at once."""
        ranks = self._topology.local_size
        longest_s = turns_s(self._seconds, ranks)
        end_s = time.monotonic() + longest_s
        for turn in range(ranks):
            if self._over:
                return
            if turn == self._topology.local_rank and (turn == 0 or time.monotonic() < end_s):
                self.attempt(lambda: self._record(kind, "alone", figure(longest_s / ranks)))
            self._meet()
        if not self._over:
            self.attempt(lambda: self._record(kind, "together", figure(self._seconds)))
            self._meet()

    def _meet(self) -> None:
        """Wait for the other ranks of the node, and hear whether one of them is asked to end."""
        self._over = total(self._topology.node_comm, self._interrupt.seen)[0] > 0

    def attempt(self, action: Callable[[], None]) -> None:
        """Do `action` unless something failed before: a rank that failed still takes part in the turns."""
        if self._error is None and not self._over:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one's turns
                self._error = error

    def rows(self) -> npt.NDArray[np.void]:
        """What was recorded (CALIBRATION_DTYPE). Raises the error that ended it, or Interrupted."""
        if self._over:
            raise Interrupted
        if self._error is not None:
            raise self._error
        return np.array(self._rows, dtype=CALIBRATION_DTYPE)

    def _record(self, kind: str, mode: str, gib_per_s: float) -> None:
        self._rows.append((self._topology.rank, self._topology.node, kind, mode, gib_per_s))


CALIBRATION_KEY: Final = 0xCA11B7A7E0000000
"""Key of the object that is read; of no meaning to the workload, and deleted before it starts."""

_WHAT_IT_IS: Final = "it is kvbench's own object, written and read to try the storage before the load"


def memory_copy_gib_per_s(arena: Arena, seconds: float, io_bytes: int, stop: Stop | None = None) -> float:
    """Bytes copied per second from one half of the arena to the other, segment by segment, by one thread (GiB/s).

    An arena of one segment is copied to memory taken for the purpose.
    """
    cell = _scratch_cell()
    half = arena.nbytes // SEGMENT_BYTES // 2
    if half == 0:
        arena = Arena(2 * SEGMENT_BYTES, 1, arena.bytes[:SEGMENT_BYTES])
        half = 1
    copied, wall_ns, segment = 0, 0, 0
    until_ns = timed_io.now_ns() + int(seconds * 1e9)
    while copied == 0 or (timed_io.now_ns() < until_ns and not _stopped(stop)):
        source = np.array([[segment * SEGMENT_BYTES, SEGMENT_BYTES]], dtype=np.int64)
        target = np.array([[(half + segment) * SEGMENT_BYTES, SEGMENT_BYTES]], dtype=np.int64)
        timed_io.copy(
            cell.rows,
            0,
            arena.bytes,
            target,
            arena.bytes,
            source,
            io_bytes,
            timed_io.FIRST | timed_io.LAST,
            cell.stop,
        )
        copied += SEGMENT_BYTES
        wall_ns += _row(cell)["wall_ns"]
        segment = (segment + 1) % half
    return copied / wall_ns * 1e9 / GIB


@dataclass(frozen=True, slots=True)
class CalibrationObject:
    """The object of `nbytes` on `tier` that is written, read again and again, and deleted before the load starts.

    What is wrong with it is told with its name: a KvbenchError, as it is no object of the workload's. `stop`: see
    `Turns.stop`; what it ends raises OSError with ECANCELED.
    """

    tier: Tier
    arena: Arena
    payload: Payload
    nbytes: int
    verify_full: bool = False
    stop: Stop | None = None

    def write(self) -> None:
        """Write it. Raises OSError as the tier does; so do the others."""
        cell = _scratch_cell(self.stop)
        self.tier.allocate(CALIBRATION_KEY, self.nbytes)
        with self.arena.lease(self.nbytes) as lease:
            handle, offset = -1, 0
            while offset < self.nbytes:
                length = min(lease.nbytes, self.nbytes - offset)
                source = lease.memory(CALIBRATION_KEY, self.nbytes, offset, length)
                self.payload.make(source, CALIBRATION_KEY, offset)
                part = Part(offset, first=offset == 0, last=offset + length == self.nbytes)
                handle = self.tier.write(cell, CALIBRATION_KEY, part, source, handle)
                offset += length

    def read_gib_per_s(self, seconds: float) -> float:
        """Bytes read per second of read time with the run's read path, the page cache dropped before each (GiB/s).

        After the time is over, what is there is compared with what was written. Raises KvbenchError where it is not
        that, and OSError.
        """
        cell = _scratch_cell(self.stop)
        read, wall_ns = 0, 0
        until_ns = timed_io.now_ns() + int(seconds * 1e9)
        while read == 0 or (timed_io.now_ns() < until_ns and not _stopped(self.stop)):
            self.tier.prepare_read(CALIBRATION_KEY)
            with self.arena.lease(self.nbytes) as lease:
                whole = lease.memory(CALIBRATION_KEY, self.nbytes, 0, self.nbytes)
                _, landed = self.tier.read(cell, CALIBRATION_KEY, WHOLE, whole)
                read += self.nbytes
                wall_ns += _row(cell)["wall_ns"]
                if timed_io.now_ns() >= until_ns:
                    self._verify(lease, landed)
        return read / wall_ns * 1e9 / GIB

    def delete(self) -> None:
        """Remove it."""
        self.tier.delete(_scratch_cell(), CALIBRATION_KEY)

    @contextmanager
    def told(self, operation: str) -> Iterator[None]:
        """A context in which an OSError becomes a KvbenchError that names the object, but where it was stopped."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ECANCELED:
                raise
            text = why_failed(operation, self.tier.where(CALIBRATION_KEY), error)
            raise KvbenchError(f"{text}; {_WHAT_IT_IS}") from error

    def _verify(self, lease: Lease, landed: Memory | None) -> None:
        """Check what the last read brought. A touch hands nothing over, and an object that is longer than the lease
        went round in it: of these, parts are read once more, all of them where every byte is to be compared."""
        whole = landed is not None and (landed.buffer is not self.arena.bytes or self.nbytes <= lease.nbytes)
        if landed is not None and whole:
            self._compare(landed, 0)
            return
        step = lease.nbytes if self.verify_full else SECTOR_BYTES
        offsets = range(0, self.nbytes, step) if self.verify_full else (0, self.nbytes - SECTOR_BYTES)
        cell = _scratch_cell(self.stop)
        for offset in offsets:
            target = lease.memory(CALIBRATION_KEY, self.nbytes, offset, min(step, self.nbytes - offset))
            _, there = self.tier.read(cell, CALIBRATION_KEY, Part(offset, first=True, last=True), target)
            if there is None:
                self.tier.inspect(CALIBRATION_KEY, offset, target)
            self._compare(target, offset)

    def _compare(self, memory: Memory, offset: int) -> None:
        if self.verify_full:
            _, mismatch = self.payload.check_full(memory, CALIBRATION_KEY, self.nbytes, offset)
        else:
            _, mismatch = self.payload.check_sampled(memory, CALIBRATION_KEY, offset)
        if mismatch is not None:
            text = VerificationError(self.tier.where(CALIBRATION_KEY), mismatch)
            why = "so the storage does not give back what it is given, or somebody else writes there"
            raise KvbenchError(f"{text}; {_WHAT_IT_IS}, {why}")


def _stopped(stop: Stop | None) -> bool:
    return stop is not None and bool(stop[0])


def _scratch_cell(stop: Stop | None = None) -> Cell:
    rows = np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8)
    return Cell(rows, 0, np.zeros(1, dtype=np.int32) if stop is None else stop)


def _row(cell: Cell) -> np.void:
    row: np.void = cell.rows.view(RECORD_DTYPE)[0]
    return row
