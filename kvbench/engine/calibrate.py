"""Bandwidth of memory copies and of storage reads on this rank, measured with the run's own stopwatch and buffers.

Who measures when (each rank alone, all of a node at once) is the caller's business; nothing here talks to other ranks.
"""

from typing import Final

import numpy as np

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE
from kvbench.tiers.arena import SEGMENT_BYTES, Arena
from kvbench.tiers.contract import WHOLE, Cell, Part, Tier
from kvbench.tiers.payload import Payload
from kvbench.units import GIB

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
