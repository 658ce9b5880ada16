"""Objects in the node's memory: one slab of the tier's capacity, backed by pages before anything is timed."""

import bisect
import mmap
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Extents, Memory, anonymous_memory, give_back
from kvbench.tiers.contract import Tier
from kvbench.tiers.transfer import Batch, Cell, Memories, Part, beside
from kvbench.units import SECTOR_BYTES

_MADV_POPULATE_WRITE: Final = 23  # include/uapi/asm-generic/mman-common.h, Linux 5.14; not in the mmap module


class RangeAllocator:
    """Free ranges of a slab. An object may get several ranges, so that room never fails for being scattered."""

    def __init__(self, nbytes: int) -> None:
        self._starts = [0] if nbytes else []
        self._lengths = {0: nbytes} if nbytes else {}
        self.free_bytes = nbytes

    def allocate(self, nbytes: int) -> Extents:
        """Ranges of `nbytes` in all, lowest addresses first. Raises MemoryError when there is not as much free."""
        if nbytes > self.free_bytes:
            raise MemoryError(f"{nbytes} bytes asked for, {self.free_bytes} free")
        self.free_bytes -= nbytes
        pieces = []
        used = 0
        for start in self._starts:
            if nbytes == 0:
                break
            length = self._lengths.pop(start)
            used += 1
            taken = min(length, nbytes)
            pieces.append((start, taken))
            nbytes -= taken
            if taken < length:
                self._starts[used - 1] = start + taken
                self._lengths[start + taken] = length - taken
                used -= 1
        del self._starts[:used]
        return np.array(pieces, dtype=np.int64).reshape(-1, 2)

    def release(self, extents: Extents) -> None:
        """Give ranges back; neighbours are joined."""
        for start, length in extents.tolist():
            self._release_one(start, length)
            self.free_bytes += length

    def _release_one(self, start: int, length: int) -> None:
        place = bisect.bisect_left(self._starts, start)
        if place < len(self._starts) and self._starts[place] == start + length:
            length += self._lengths.pop(self._starts.pop(place))
        if place > 0 and self._starts[place - 1] + self._lengths[self._starts[place - 1]] == start:
            self._lengths[self._starts[place - 1]] += length
        else:
            self._starts.insert(place, start)
            self._lengths[start] = length


class MemoryTier(Tier):
    """`capacity_bytes` of memory (rounded down to sectors). A write copies into it, a read copies out of it."""

    kind = "memory"
    storage = False
    moves_together = True
    read_path = Path.COPY
    write_path = Path.COPY

    def __init__(self, capacity_bytes: int, io_bytes: int) -> None:
        nbytes = capacity_bytes // SECTOR_BYTES * SECTOR_BYTES
        self._slab = anonymous_memory(max(nbytes, SECTOR_BYTES))
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._slab, dtype=np.uint8)
        _back_with_pages(self._slab, self._bytes)
        self._io_bytes = io_bytes
        self._ranges = RangeAllocator(nbytes)
        self._objects: dict[int, Memory] = {}
        self._lock = threading.Lock()

    def allocate(self, key: int, nbytes: int) -> None:
        with self._lock:
            self._objects[key] = Memory(self._bytes, self._ranges.allocate(nbytes))

    @property
    def addressable(self) -> "MemoryTier":
        return self

    def memory_of(self, key: int) -> Memory:
        return self._objects[key]

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        target = part_of(self._objects[key].extents, part.offset, int(source.extents[:, 1].sum()))
        self._copy(cell, part, Memory(self._bytes, target), source)
        return -1

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        source = part_of(self._objects[key].extents, part.offset, int(target.extents[:, 1].sum()))
        self._copy(cell, part, target, Memory(self._bytes, source))
        return -1, target

    def run(self, batch: Batch) -> None:
        """Copies in one call without the interpreter; what is deleted is freed in Python, one after the other."""
        if batch.does == Op.DELETE:
            super().run(batch)
            return
        theirs, ours = beside(batch.memories), beside([self._objects[key] for key in batch.keys])
        to, source = (theirs, ours) if batch.does == Op.READ else (ours, theirs)
        end = timed_io.run_copies(
            batch.rows,
            batch.first_row,
            *_parts(to),
            *_parts(source),
            self._io_bytes,
            1,
            batch.stop,
            batch.until_ns,
        )
        batch.ended(end, self.where)
        batch.landed_there = batch.does == Op.READ

    def _copy(self, cell: Cell, part: Part, target: Memory, source: Memory) -> None:
        flags = (timed_io.FIRST if part.first else 0) | (timed_io.LAST if part.last else 0)
        timed_io.copy(
            cell.rows,
            cell.row,
            target.buffer,
            target.extents,
            source.buffer,
            source.extents,
            self._io_bytes,
            flags,
            cell.stop,
        )

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python() as span:
            start_ns = timed_io.now_ns()
            self.release(key)
            span.span_ns = timed_io.now_ns() - start_ns

    def close(self) -> None:
        give_back(self._slab)

    def release(self, key: int) -> None:
        with self._lock:
            self._ranges.release(self._objects.pop(key).extents)


def _parts(memories: Memories) -> tuple[npt.NDArray[np.uint8], Extents, npt.NDArray[np.int64]]:
    return memories.buffer, memories.extents, memories.ends


def part_of(extents: Extents, offset: int, nbytes: int) -> Extents:
    """The ranges of bytes `offset` to `offset + nbytes` of an object that lies in `extents`."""
    ends = np.cumsum(extents[:, 1])
    if offset == 0 and len(ends) and ends[-1] == nbytes:
        return extents
    starts = ends - extents[:, 1]
    low = np.maximum(starts, offset)
    high = np.minimum(ends, offset + nbytes)
    kept = high > low
    return np.ascontiguousarray(np.stack([extents[:, 0] + low - starts, high - low], axis=1)[kept])


def _back_with_pages(slab: mmap.mmap, view: npt.NDArray[np.uint8]) -> None:
    try:
        slab.madvise(_MADV_POPULATE_WRITE)
    except OSError:  # a kernel before 5.14
        view[::SECTOR_BYTES] = 0
