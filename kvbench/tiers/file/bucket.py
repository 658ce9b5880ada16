"""Objects appended to files of a given size, the buckets, whose garbage is compacted: as log-structured stores have it.

Which object lies where is kept in memory alone (`buckets`). What compaction reads and writes is no operation of the
workload: it is work of its own (`Upkeep`), timed as such.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Final, NoReturn

import numpy as np

from kvbench import timed_io
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Memory, anonymous_memory
from kvbench.tiers.contract import Chore, Upkeep
from kvbench.tiers.file.batched import BatchedFiles
from kvbench.tiers.file.buckets import Bucket, Buckets, Move, Place
from kvbench.tiers.file.naming import bucket_name
from kvbench.tiers.file.overlapping import Names
from kvbench.tiers.file.rings import Rings
from kvbench.tiers.transfer import Batch, Cell, Part
from kvbench.units import SEGMENT_BYTES

_MAPPED: Final = (Path.MMAP_TOUCH, Path.MMAP_COPY)
_SYNCED: Final = ("object", "batch")


class BucketTier(BatchedFiles):
    """Files in `directory`, which must exist and belong to this rank of this run alone. The read paths of numpy are not
    for it."""

    def __init__(
        self,
        directory: FilePath,
        read_path: Path,
        write_path: Path,
        io_bytes: int,
        drop_page_cache: bool,
        capacity_bytes: int,
        bucket_bytes: int,
        garbage: float,
        sync: str = "object",
        rings: Rings | None = None,
    ) -> None:
        """`capacity_bytes` of live objects, at most `bucket_bytes` of them in a file, of which the share `garbage` may
        be of deleted objects. With `sync` `object` a bucket is synced before each write into it ends. With `rings` what
        a batch reads or writes is in flight together; the tier closes them."""
        super().__init__(rings, io_bytes, drop_page_cache)
        self.read_path = read_path
        self.write_path = write_path
        self.most_bytes = min(capacity_bytes, bucket_bytes)
        self.syncs_batches = sync == "batch"
        self._rings = rings
        self.moves_together = rings is not None
        self._directory = directory
        self._direct_reads = timed_io.DIRECT if read_path == Path.DIRECT else 0
        self._make_flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._make_flags |= os.O_DIRECT if write_path == Path.DIRECT else 0
        self._write_flags = timed_io.IN_PLACE | (0 if sync == "object" else timed_io.NO_SYNC)
        self._moved_flags = timed_io.IN_PLACE | (0 if sync in _SYNCED else timed_io.NO_SYNC)
        self._dirfd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._buckets = Buckets(capacity_bytes, bucket_bytes, garbage, self._make, str(directory))
        self._reading: dict[int, Place] = {}
        """By the handle of an object that is read in parts, where it lies."""
        self._buffer: Memory | None = None
        """What is moved goes through here: one bucket at a time."""

    def _make(self, number: int) -> int:
        return os.open(bucket_name(number), self._make_flags, 0o600, dir_fd=self._dirfd)

    @property
    def upkeep(self) -> Upkeep:
        return self

    # Objects

    def allocate(self, key: int, nbytes: int) -> None:
        if not self.reserve({key: nbytes}):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        place = self._buckets.place_of(key)
        if place is None or place.written:
            self._raise_missing(cell, key)
        timed_io.write_file(
            cell.rows,
            cell.row,
            self._dirfd,
            bucket_name(place.bucket.number),
            place.bucket.descriptor,
            place.offset + part.offset,
            source.buffer,
            source.extents,
            self._io_bytes,
            _ends(part) | self._write_flags,
            cell.stop,
        )
        if part.last:
            self._buckets.written(key)
            self._close_what_is_full()
        return -1

    def run(self, batch: Batch) -> None:
        """In flight together, where there are rings for that."""
        if self._rings is None or batch.does == Op.DELETE:
            super().run(batch)
        elif batch.does == Op.READ:
            self._read_together(self._rings, batch)
        else:
            self._write_together(self._rings, batch)

    def _read_together(self, rings: Rings, batch: Batch) -> None:
        """The buckets are opened before, untimed, each once."""
        places = [self._buckets.pin(key) for key in batch.keys]
        there = [place for place in places if place is not None]
        opened: dict[Bucket, int] = {}
        try:
            if len(there) < len(places):
                super().run(batch)
                return
            direct = os.O_DIRECT if self._direct_reads else 0
            for bucket in {place.bucket: None for place in there}:
                name = bucket_name(bucket.number)
                opened[bucket] = os.open(name, os.O_RDONLY | os.O_CLOEXEC | direct, dir_fd=self._dirfd)
            flags = timed_io.IN_PLACE | timed_io.LOOK | (timed_io.DROP if self._drop_page_cache else 0)
            batch.landed_there = True
            self._move_together(rings, batch, there, [opened[place.bucket] for place in there], flags)
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
            for place in there:
                self._buckets.unpin(place)

    def _write_together(self, rings: Rings, batch: Batch) -> None:
        places = [place for key in batch.keys if (place := self._buckets.place_of(key)) and not place.written]
        if len(places) < len(batch.keys):
            super().run(batch)
            return
        descriptors = [place.bucket.descriptor for place in places]
        self._move_together(rings, batch, places, descriptors, self._write_flags)
        for at in range(batch.begun):
            if at not in batch.errors:
                self._buckets.written(batch.keys[at])
        self._close_what_is_full()

    def _move_together(
        self, rings: Rings, batch: Batch, places: Sequence[Place], descriptors: Sequence[int], flags: int
    ) -> None:
        rings.run(
            batch,
            self._dirfd,
            Names(),
            self._io_bytes,
            flags,
            self.where,
            np.array([place.offset for place in places], np.int64),
            np.array(descriptors, np.int64),
        )

    def _close_what_is_full(self) -> None:
        """Raises OSError, of the first, where that tells of a write that went wrong late."""
        wrong: OSError | None = None
        for bucket in self._buckets.closing():
            try:
                os.close(bucket.descriptor)
            except OSError as error:
                wrong = wrong or error
            self._buckets.closed(bucket)
        if wrong is not None:
            raise wrong

    def _raise_missing(self, cell: Cell, key: int) -> NoReturn:
        with cell.around_python():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(key))

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory | None]:
        place = self._reading.pop(handle, None) if handle >= 0 else self._buckets.pin(key)
        if place is None:
            self._raise_missing(cell, key)
        try:
            if self.read_path in _MAPPED:
                return -1, self._read_mapped(cell, place, part, target)
            handle = timed_io.read_file(
                cell.rows,
                cell.row,
                self._dirfd,
                bucket_name(place.bucket.number),
                handle,
                place.offset + part.offset,
                target.buffer,
                target.extents,
                self._io_bytes,
                _ends(part) | self._direct_reads,
                cell.stop,
            )
        except BaseException:
            handle = -1
            raise
        finally:
            if handle >= 0:
                self._reading[handle] = place
            else:
                self._buckets.unpin(place)
        return handle, target

    def _read_mapped(self, cell: Cell, place: Place, part: Part, target: Memory) -> Memory | None:
        landing = target if self.read_path == Path.MMAP_COPY else None
        timed_io.mmap_read(
            cell.rows,
            cell.row,
            self._dirfd,
            bucket_name(place.bucket.number),
            place.offset + part.offset,
            int(target.extents[:, 1].sum()),
            landing.buffer if landing else None,
            landing.extents if landing else None,
            _ends(part),
            cell.stop,
        )
        return landing

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python() as span:
            start_ns = timed_io.now_ns()
            if not self._buckets.delete(key):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(key))
            span.span_ns = timed_io.now_ns() - start_ns

    def sync(self, cell: Cell) -> None:
        """All of the filesystem, whoever wrote it, as with a file for each object."""
        timed_io.sync_filesystem(cell.rows, cell.row, self._dirfd)

    def sync_batch(self, cell: Cell, keys: Sequence[int]) -> None:
        """The buckets that they lie in: one, but where it became full. What was moved from there since is durable."""
        places = [place for place in map(self._buckets.pin, keys) if place is not None]
        try:
            names = sorted({bucket_name(place.bucket.number) for place in places})
            timed_io.sync_files(cell.rows, cell.row, self._dirfd, tuple(names), cell.stop)
        finally:
            for place in places:
                self._buckets.unpin(place)

    def prepare_read(self, key: int) -> int:
        place = self._pinned(key)
        try:
            name = bucket_name(place.bucket.number)
            return timed_io.page_cache(self._dirfd, name, self._drop_page_cache, place.offset, place.nbytes)
        finally:
            self._buckets.unpin(place)

    def _pinned(self, key: int) -> Place:
        place = self._buckets.pin(key)
        if place is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(key))
        return place

    def inspect(self, key: int, offset: int, target: Memory) -> None:
        place, descriptor = self._pinned(key), -1
        try:
            descriptor = os.open(bucket_name(place.bucket.number), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._dirfd)
            at = place.offset + offset
            for start, length in target.extents.tolist():
                view = target.buffer.data[start : start + length]
                while view:
                    done = os.preadv(descriptor, [view], at)
                    if done == 0:
                        raise OSError(errno.EIO, "the file is shorter than what was written", self.where(key))
                    view = view[done:]
                    at += done
        finally:
            if descriptor >= 0:
                os.close(descriptor)
            self._buckets.unpin(place)

    def abandon(self, handle: int) -> None:
        place = self._reading.pop(handle, None)
        if place is not None:
            os.close(handle)
            self._buckets.unpin(place)

    def where(self, key: int) -> str:
        place, digits = self._buckets.place_of(key), f"{key & 0xFFFFFFFFFFFFFFFF:016x}"
        if place is None:
            return f"object {digits} in {self._directory}"
        return f"object {digits} in {self._path(place.bucket)} (from byte {place.offset} on)"

    def _path(self, bucket: Bucket) -> FilePath:
        return self._directory / bucket_name(bucket.number)

    def close(self) -> None:
        super().close()
        for descriptor in self._buckets.close():
            with suppress(OSError):  # nobody asks any more whether it was written
                os.close(descriptor)
        if self._dirfd >= 0:
            os.close(self._dirfd)
            self._dirfd = -1

    # Upkeep

    def reserve(self, sizes: Mapping[int, int]) -> bool:
        """Give objects that are to be written their places, as far as they have none; False where that must wait."""
        try:
            return self._buckets.reserve(sizes)
        finally:
            self._close_what_is_full()

    def wait(self, sizes: Mapping[int, int], seconds: float) -> bool:
        """Wait for room; False where nothing will make any."""
        return self._buckets.wait(sizes, seconds)

    def due(self) -> Chore | None:
        """The next bucket to be removed or compacted."""
        empty = self._buckets.take_empty()
        if empty is not None:
            return Chore(f"bucket {self._path(empty)}", lambda cell: self._remove(cell, empty))
        found = self._buckets.take_garbage()
        if found is None:
            return None
        bucket, moves = found
        return Chore(f"bucket {self._path(bucket)}", lambda cell: self._compact(cell, bucket, moves))

    def _remove(self, cell: Cell, bucket: Bucket) -> None:
        done = False
        try:
            timed_io.unlink(cell.rows, cell.row, self._dirfd, bucket_name(bucket.number))
            done = True
        finally:
            self._buckets.removed(bucket, done)

    def _compact(self, cell: Cell, bucket: Bucket, moves: Sequence[Move]) -> None:
        """Copy what is live; only when it is there, durable and not in the page cache either, is it read there."""
        done, again = False, False
        copied_bytes = [0]
        try:
            self._copy(cell, bucket, moves, copied_bytes)
            self._drop_copies(moves)
            done = True
        except OSError as error:
            again = error.errno == errno.ECANCELED
            raise
        finally:
            self._buckets.moved(bucket, moves, done, again)
            self._close_what_is_full()
            record = cell.record
            # Each byte is read and written, and counts once; as of a deletion, all of it is the span.
            record["nbytes"], record["span_ns"] = copied_bytes[0], record["wall_ns"]

    def _copy(self, cell: Cell, bucket: Bucket, moves: Sequence[Move], copied_bytes: list[int]) -> None:
        """One row of many calls; `copied_bytes` counts what they have moved."""
        if self._buffer is None:
            whole = np.frombuffer(anonymous_memory(SEGMENT_BYTES), dtype=np.uint8)
            self._buffer = Memory(whole, np.array([[0, SEGMENT_BYTES]], dtype=np.int64))
        buffer, handle, source = self._buffer.buffer, -1, bucket_name(bucket.number)
        pieces = [(move, at) for move in moves for at in range(0, move.old.nbytes, SEGMENT_BYTES)]
        try:
            for number, (move, at) in enumerate(pieces):
                is_last = number == len(pieces) - 1
                target = move.new.bucket
                length = min(SEGMENT_BYTES, move.old.nbytes - at)
                extents = np.array([[0, length]], dtype=np.int64)
                flags = (timed_io.FIRST if number == 0 else 0) | (timed_io.LAST if is_last else 0) | self._direct_reads
                # A read that fails has closed it.
                handle, given = -1, handle
                handle = timed_io.read_file(
                    cell.rows, cell.row, self._dirfd, source, given, move.old.offset + at, buffer, extents,
                    self._io_bytes, flags, cell.stop,
                )  # fmt: skip
                # A target is synced with the last that goes there.
                ends = is_last or pieces[number + 1][0].new.bucket is not target
                timed_io.write_file(
                    cell.rows, cell.row, self._dirfd, bucket_name(target.number), target.descriptor,
                    move.new.offset + at, buffer, extents, self._io_bytes,
                    (timed_io.LAST if ends else 0) | self._moved_flags, cell.stop,
                )  # fmt: skip
                copied_bytes[0] += length
        except BaseException:
            if handle >= 0:
                os.close(handle)
            raise

    def _drop_copies(self, moves: Sequence[Move]) -> None:
        if not self._drop_page_cache:
            return
        for target in {move.new.bucket: None for move in moves}:
            places = [move.new for move in moves if move.new.bucket is target]
            first, end = places[0].offset, places[-1].offset + places[-1].nbytes
            timed_io.page_cache(self._dirfd, bucket_name(target.number), True, first, end - first)


def _ends(part: Part) -> int:
    return (timed_io.FIRST if part.first else 0) | (timed_io.LAST if part.last else 0)
