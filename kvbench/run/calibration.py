"""Bandwidth of memory copies and of storage reads: the ranks of a node one after the other, and then all at once.

Measured with the run's own stopwatch and buffers.

What travels: empty barriers among the ranks of one node, one for each rank and one more, for each figure.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.comm import quiet_barrier
from kvbench.cluster.topology import Topology
from kvbench.records.schema import RECORD_DTYPE
from kvbench.records.tables import CALIBRATION_DTYPE
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Cell, Part
from kvbench.units import GIB, SEGMENT_BYTES

_LONGEST_ALONE_S: Final = 10.0
"""Calibrating the ranks of a node one after the other takes no longer than this in all, for each figure."""


class Turns:
    """Measurements that the ranks of a node take one after the other and then together."""

    def __init__(self, topology: Topology, seconds: float) -> None:
        self._topology = topology
        self._seconds = seconds
        self._rows: list[tuple[int, int, str, str, float]] = []
        self._error: Exception | None = None

    def measure(self, kind: str, figure: Callable[[float], float]) -> None:
        """Record `figure(seconds)`, in GiB/s, of this rank alone and of all ranks of the node at once."""
        alone_s = min(self._seconds, _LONGEST_ALONE_S / self._topology.local_size)
        for turn in range(self._topology.local_size):
            if turn == self._topology.local_rank:
                self.attempt(lambda: self._record(kind, "alone", figure(alone_s)))
            quiet_barrier(self._topology.node_comm)
        self.attempt(lambda: self._record(kind, "together", figure(self._seconds)))
        quiet_barrier(self._topology.node_comm)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do `action` unless something failed before: a rank that failed still takes part in the turns."""
        if self._error is None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one's turns
                self._error = error

    def rows(self) -> npt.NDArray[np.void]:
        """What was recorded (CALIBRATION_DTYPE). Raises the error that ended it."""
        if self._error is not None:
            raise self._error
        return np.array(self._rows, dtype=CALIBRATION_DTYPE)

    def _record(self, kind: str, mode: str, gib_per_s: float) -> None:
        self._rows.append((self._topology.rank, self._topology.node, kind, mode, gib_per_s))


CALIBRATION_KEY: Final = 0xCA11B7A7E0000000
"""Key of the object that is read; of no meaning to the workload, and deleted before it starts."""


def memory_copy_gib_per_s(arena: Arena, seconds: float, io_bytes: int) -> float:
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
    while copied == 0 or timed_io.now_ns() < until_ns:
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


def write_calibration_object(tier: Tier, arena: Arena, payload: Payload, nbytes: int) -> None:
    """Write the object that `storage_read_gib_per_s` reads. Raises OSError."""
    cell = _scratch_cell()
    tier.allocate(CALIBRATION_KEY, nbytes)
    with arena.lease(nbytes) as lease:
        handle, offset = -1, 0
        while offset < nbytes:
            length = min(lease.nbytes, nbytes - offset)
            source = lease.memory(CALIBRATION_KEY, nbytes, offset, length)
            payload.make(source, CALIBRATION_KEY, offset)
            part = Part(offset, first=offset == 0, last=offset + length == nbytes)
            handle = tier.write(cell, CALIBRATION_KEY, part, source, handle)
            offset += length


def storage_read_gib_per_s(tier: Tier, arena: Arena, nbytes: int, seconds: float) -> float:
    """Bytes read per second of read time with the run's read path, the page cache dropped before each (GiB/s)."""
    cell = _scratch_cell()
    read, wall_ns = 0, 0
    until_ns = timed_io.now_ns() + int(seconds * 1e9)
    while read == 0 or timed_io.now_ns() < until_ns:
        tier.prepare_read(CALIBRATION_KEY)
        with arena.lease(nbytes) as lease:
            tier.read(cell, CALIBRATION_KEY, WHOLE, lease.memory(CALIBRATION_KEY, nbytes, 0, nbytes))
        read += nbytes
        wall_ns += _row(cell)["wall_ns"]
    return read / wall_ns * 1e9 / GIB


def delete_calibration_object(tier: Tier) -> None:
    """Remove what `write_calibration_object` wrote."""
    tier.delete(_scratch_cell(), CALIBRATION_KEY)


def _scratch_cell() -> Cell:
    rows = np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8)
    return Cell(rows, 0, np.zeros(1, dtype=np.int32))


def _row(cell: Cell) -> np.void:
    row: np.void = cell.rows.view(RECORD_DTYPE)[0]
    return row
