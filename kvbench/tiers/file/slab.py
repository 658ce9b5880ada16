"""Objects in slots of one file that is made as large as the tier before anything is timed, and stays open; or of a
block device.

Which slot an object has is kept in memory alone: what is left of a run that was killed is one file. Objects of a load
are all of one size, so that each lies in one piece. An object of another size (those that try the storage before the
load) takes room wherever there is any, and is moved piece by piece.
"""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, Op, Path
from kvbench.tiers.arena import Extents, Memory
from kvbench.tiers.file.batched import BatchedFiles
from kvbench.tiers.file.in_turn import ONE_CALL_PATHS
from kvbench.tiers.file.overlapping import Names, Overlapping
from kvbench.tiers.memory import RangeAllocator, part_of
from kvbench.tiers.transfer import Batch, Cell, Part
from kvbench.units import SECTOR_BYTES, format_bytes

_NOTHING: Final = Memory(np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64))
_MAPPED: Final = (Path.MMAP_TOUCH, Path.MMAP_COPY)


class SlabTier(BatchedFiles):
    """`capacity_bytes` (rounded down to sectors) of what is at `path` and belongs to this rank of this run alone: a
    file, which is made, or a device. The read paths of numpy are not for it."""

    def __init__(
        self,
        path: FilePath,
        read_path: Path,
        write_path: Path,
        io_bytes: int,
        drop_page_cache: bool,
        capacity_bytes: int,
        sync: str = "object",
        first_byte: int | None = None,
        overlapping: Overlapping | None = None,
        in_memory: bool = False,
    ) -> None:
        """With `sync` `object` the file is synced before each write ends. `first_byte`: of a device, from where on
        objects may lie. With `overlapping` what a batch reads or writes is in flight together; the tier closes that.
        `in_memory`: the filesystem is the page cache itself, where nothing is dropped or looked at. Raises OSError, and
        KvbenchError where there is no room for the file."""
        super().__init__(overlapping, io_bytes, drop_page_cache, in_memory)
        self.read_path = read_path
        self.write_path = write_path
        self.most_bytes = capacity_bytes // SECTOR_BYTES * SECTOR_BYTES
        self.syncs_batches = sync == "batch"
        self._path = path
        self._name = path.name
        self._first_byte = first_byte or 0
        self._read_flags = timed_io.IN_PLACE
        self._write_flags = timed_io.IN_PLACE | (0 if sync == "object" else timed_io.NO_SYNC)
        self._ranges = RangeAllocator(self.most_bytes)
        self._objects: dict[int, Extents] = {}
        self._lock = threading.Lock()
        self._open: list[int] = []
        self.moves_together = read_path in ONE_CALL_PATHS
        self._dirfd = self._opened(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            make = os.O_CREAT | os.O_EXCL if first_byte is None else 0
            self._writes = self._opened(self._path, os.O_RDWR | make | _direct(write_path))
            if make:
                self._make_room()
            self._reads = self._opened(self._path, os.O_RDONLY | _direct(read_path))
        except BaseException:
            self.close()
            raise

    def _opened(self, path: FilePath, flags: int) -> int:
        self._open.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
        return self._open[-1]

    def _make_room(self) -> None:
        if not self.most_bytes:
            return
        try:
            os.posix_fallocate(self._writes, 0, self.most_bytes)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise KvbenchError(
                f"cannot make {self._path} of {format_bytes(self.most_bytes)}: {error.strerror}; free space there, or "
                "set a smaller capacity_bytes for the file tier"
            ) from error

    def allocate(self, key: int, nbytes: int) -> None:
        with self._lock:
            self._release(key)
            try:
                self._objects[key] = self._ranges.allocate(nbytes)
            except MemoryError as error:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from error

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        for offset, memory, flags in self._pieces(cell, key, part, source):
            timed_io.write_file(
                cell.rows,
                cell.row,
                self._dirfd,
                self._name,
                self._writes,
                offset,
                memory.buffer,
                memory.extents,
                self._io_bytes,
                flags | self._write_flags,
                cell.stop,
            )
        return -1

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory | None]:
        landing = None if self.read_path == Path.MMAP_TOUCH else target
        for offset, memory, flags in self._pieces(cell, key, part, target):
            if self.read_path in _MAPPED:
                timed_io.mmap_read(
                    cell.rows,
                    cell.row,
                    self._dirfd,
                    self._name,
                    offset,
                    int(memory.extents[:, 1].sum()),
                    memory.buffer if landing else None,
                    memory.extents if landing else None,
                    flags,
                    cell.stop,
                )
                continue
            timed_io.read_file(
                cell.rows,
                cell.row,
                self._dirfd,
                self._name,
                self._reads,
                offset,
                memory.buffer,
                memory.extents,
                self._io_bytes,
                flags | self._read_flags,
                cell.stop,
            )
        return -1, landing

    def run(self, batch: Batch) -> None:
        """In one call, where each object lies in one piece, but for mappings and deletions."""
        reads = batch.does == Op.READ
        by_call = batch.does == Op.DELETE or (reads and not self.moves_together)
        places = None if by_call else self._starts(batch.keys)
        if places is None:
            super().run(batch)
            return
        descriptor, flags = (self._reads, self._read_flags) if reads else (self._writes, self._write_flags)
        self._move(batch, descriptor, Names(), flags, self.where, places)

    def _starts(self, keys: Sequence[int]) -> npt.NDArray[np.int64] | None:
        """Where objects begin; None where one is not there, or not in one piece."""
        found = [self._objects.get(key) for key in keys]
        if any(places is None or len(places) != 1 for places in found):
            return None
        return np.array([places[0, 0] + self._first_byte for places in found if places is not None], np.int64)

    def _pieces(self, cell: Cell, key: int, part: Part, memory: Memory) -> Iterator[tuple[int, Memory, int]]:
        """Where in the file the bytes of `part` lie, where in memory, and the flags that make one row of all. Raises
        OSError where there is no such object."""
        places = self._places_of(cell, key)
        nbytes = int(memory.extents[:, 1].sum())
        ranges = part_of(places, part.offset, nbytes).tolist()
        done = 0
        for number, (offset, length) in enumerate(ranges):
            first = part.first and number == 0
            last = part.last and number == len(ranges) - 1
            flags = (timed_io.FIRST if first else 0) | (timed_io.LAST if last else 0)
            extents = memory.extents if length == nbytes else part_of(memory.extents, done, length)
            yield self._first_byte + offset, Memory(memory.buffer, extents), flags
            done += length

    def _places_of(self, cell: Cell, key: int) -> Extents:
        places = self._objects.get(key)
        if places is None:
            with cell.around_python():
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(key))
        return places

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python() as span:
            start_ns = timed_io.now_ns()
            with self._lock:
                is_there = self._release(key)
            if not is_there:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(key))
            span.span_ns = timed_io.now_ns() - start_ns

    def _release(self, key: int) -> bool:
        places = self._objects.pop(key, None)
        if places is not None:
            self._ranges.release(places)
        return places is not None

    def sync(self, cell: Cell) -> None:
        """The file's data: a write of nothing, whose sync is all there is to it."""
        timed_io.write_file(
            cell.rows,
            cell.row,
            self._dirfd,
            self._name,
            self._writes,
            0,
            *_NOTHING,
            1,
            timed_io.FIRST | timed_io.LAST | timed_io.IN_PLACE,
            cell.stop,
        )

    def sync_batch(self, cell: Cell, keys: Sequence[int]) -> None:
        """All of the file: what others wrote there is waited for too."""
        self.sync(cell)

    def _there(self, key: int) -> Extents:
        places = self._objects.get(key)
        if places is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(key))
        return places

    def prepare_read(self, key: int) -> int:
        if self._in_memory:
            return 100
        found = [
            timed_io.page_cache(self._dirfd, self._name, self._drop_page_cache, self._first_byte + offset, length)
            for offset, length in self._there(key).tolist()
        ]
        return max(found, default=0)

    def inspect(self, key: int, offset: int, target: Memory) -> None:
        nowhere = Cell(np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8), 0, np.zeros(1, dtype=np.int32))
        for piece, memory, _ in self._pieces(nowhere, key, Part(offset), target):
            place = piece
            for start, length in memory.extents.tolist():
                view = memory.buffer.data[start : start + length]
                while view:
                    done = os.preadv(self._reads, [view], place)
                    if done == 0:
                        raise OSError(errno.EIO, "the file is shorter than what was written", self.where(key))
                    view = view[done:]
                    place += done

    def where(self, key: int) -> str:
        places = self._objects.get(key)
        at = "" if places is None or not len(places) else f" (from byte {self._first_byte + places[0, 0]} on)"
        return f"object {key & 0xFFFFFFFFFFFFFFFF:016x} in {self._path}{at}"

    def close(self) -> None:
        super().close()
        while self._open:
            os.close(self._open.pop())


def _direct(path: Path) -> int:
    return os.O_DIRECT if path == Path.DIRECT else 0
