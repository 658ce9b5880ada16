"""Objects as files, one file an object, in one directory or folders in it: any mounted filesystem, local or shared.

The read paths that call numpy need `.npy` files; theirs have a header of one whole sector, so that the data behind it
stays aligned. All other paths store the bare bytes.
"""

import copy
import errno
import io
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.config.run_config import Layout
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import NotAsWrittenError
from kvbench.tiers.file.batched import BatchedFiles
from kvbench.tiers.file.in_turn import ONE_CALL_PATHS
from kvbench.tiers.file.naming import Naming
from kvbench.tiers.file.overlapping import Names, Overlapping
from kvbench.tiers.transfer import Batch, Cell, Part
from kvbench.units import SECTOR_BYTES

_NUMPY_PATHS = (Path.DOUBLE_COPY, Path.NUMPY)
_HEADER_TRIES: Final = 20
_FLAT: Final = Layout()
_ALL: Final = 100
"""Per cent."""


class FileTier(BatchedFiles):
    """Files named after their keys in `directory`, which must exist and belong to this rank of this run alone."""

    def __init__(
        self,
        directory: FilePath,
        read_path: Path,
        write_path: Path,
        io_bytes: int,
        drop_page_cache: bool,
        folder_of: Callable[[int], str] | None = None,
        layout: Layout = _FLAT,
        sync: str = "object",
        overlapping: Overlapping | None = None,
        in_memory: bool = False,
    ) -> None:
        """`folder_of(rank)` names the directory of another rank's objects, from this one. `layout` says which folders
        files lie in and whether they are renamed; with `sync` `object` each is synced before its write ends. With
        `overlapping` what a batch reads or writes is in flight together; the tier closes that. `in_memory`: the
        filesystem is the page cache itself, where nothing is dropped or looked at: all of it is there."""
        super().__init__(overlapping, io_bytes, drop_page_cache, in_memory)
        self.read_path = read_path
        self.write_path = write_path
        self._as_npy = read_path in _NUMPY_PATHS
        self.in_parts = not self._as_npy
        self.moves_together = read_path in ONE_CALL_PATHS
        self.syncs_batches = sync == "batch"
        self._naming = Naming(".npy" if self._as_npy else ".kv", layout.levels, layout.width)
        self._write_flags = (
            (timed_io.DIRECT if write_path == Path.DIRECT else 0)
            | (timed_io.RENAME if layout.rename else 0)
            | (timed_io.FOLDERS if layout.levels else 0)
            | (timed_io.ASK_FIRST if layout.ask_first else 0)
            | (0 if sync == "object" else timed_io.NO_SYNC)
        )
        self._directory = directory
        self._dirfd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._sizes: dict[int, int] = {}
        self._folder_of = folder_of
        self._folder = ""
        self._others: dict[int, FileTier] = {}

    def of_rank(self, writer: int) -> "FileTier":
        if self._folder_of is None:
            raise ValueError("these ranks do not share their objects")
        other = self._others.get(writer)
        if other is None:
            other = copy.copy(self)
            other._folder = f"{self._folder_of(writer)}/"
            other._sizes = {}
            other = self._others.setdefault(writer, other)
        return other

    def size_bytes(self, key: int) -> int | None:
        try:
            found = os.stat(self._name(key), dir_fd=self._dirfd).st_size
        except OSError:
            return None
        return max(0, found - SECTOR_BYTES) if self._as_npy else found

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        flags = self._write_flags | (timed_io.FIRST if part.first else 0)
        header_bytes = SECTOR_BYTES if self._as_npy else 0
        if part.first and self._as_npy:
            header = npy_header(self._sizes[key], key)
            whole = np.array([[0, SECTOR_BYTES]], dtype=np.int64)
            handle = self._write(cell, key, 0, Memory(header, whole), flags, handle)
            flags = self._write_flags
        if part.last:
            flags |= timed_io.LAST
        return self._write(cell, key, part.offset + header_bytes, source, flags, handle)

    def _write(self, cell: Cell, key: int, offset: int, source: Memory, flags: int, handle: int) -> int:
        return timed_io.write_file(
            cell.rows,
            cell.row,
            self._dirfd,
            self._name(key),
            handle,
            offset,
            source.buffer,
            source.extents,
            self._io_bytes,
            flags,
            cell.stop,
        )

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory | None]:
        if self._as_npy:
            try:
                return -1, self._numpy_read(cell, key)
            except OSError as error:
                cell.record["errno"] = error.errno or errno.EIO
                raise
        flags = (timed_io.FIRST if part.first else 0) | (timed_io.LAST if part.last else 0)
        name = self._name(key)
        if self.read_path in (Path.MMAP_TOUCH, Path.MMAP_COPY):
            nbytes = int(target.extents[:, 1].sum())
            landing = target if self.read_path == Path.MMAP_COPY else None
            timed_io.mmap_read(
                cell.rows,
                cell.row,
                self._dirfd,
                name,
                part.offset,
                nbytes,
                landing.buffer if landing else None,
                landing.extents if landing else None,
                flags,
                cell.stop,
            )
            return -1, landing
        if self.read_path == Path.DIRECT:
            flags |= timed_io.DIRECT
        handle = timed_io.read_file(
            cell.rows,
            cell.row,
            self._dirfd,
            name,
            handle,
            part.offset,
            target.buffer,
            target.extents,
            self._io_bytes,
            flags,
            cell.stop,
        )
        return handle, target

    def _numpy_read(self, cell: Cell, key: int) -> Memory:
        """`_numpy_read_once`, again from the start where Python itself fails. In some versions, 3.11.7 among them,
        reading the headers of two files at once can end in a SystemError (CPython issue 106905); no data was read until
        then, and the row begins anew."""
        for _ in range(_HEADER_TRIES):
            try:
                return self._numpy_read_once(cell, key)
            except SystemError as error:
                if "recursion depth mismatch" not in str(error):
                    raise
        return self._numpy_read_once(cell, key)

    def _numpy_read_once(self, cell: Cell, key: int) -> Memory:
        """The read of the reference benchmark, timed around its Python calls: advise, `np.load` and, for
        `double-copy`, `np.array`. The span is that of `np.load`."""
        path = self._directory / self._name(key)
        try:
            with cell.around_python() as span:
                if cell.stop[0]:
                    raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), str(path))
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                load_start_ns = timed_io.now_ns()
                data: npt.NDArray[np.uint8] = np.load(path, allow_pickle=False)
                span.span_ns = timed_io.now_ns() - load_start_ns
                if self.read_path == Path.DOUBLE_COPY:
                    copy_start_ns = timed_io.thread_cpu_ns()
                    data = np.array(data)
                    span.copy_ns = timed_io.thread_cpu_ns() - copy_start_ns
                span.nbytes = data.nbytes
        except (ValueError, EOFError) as error:
            raise _not_as_written(path, str(error)) from error
        if data.dtype != np.uint8 or data.shape != (self._sizes[key],):
            raise _not_as_written(path, f"an array of {data.dtype} and shape {data.shape}")
        return Memory(data, np.array([[0, data.nbytes]], dtype=np.int64))

    def run(self, batch: Batch) -> None:
        """In one call without the interpreter, but for what numpy does and for mappings."""
        reads, writes = batch.does == Op.READ, batch.does == Op.WRITE
        if (reads and not self.moves_together) or (writes and self._as_npy):
            super().run(batch)
            return
        flags = self._write_flags
        if reads:
            flags = timed_io.DIRECT if self.read_path == Path.DIRECT else 0
        names = Names(self._folder, self._naming.suffix, self._naming.levels, self._naming.width)
        self._move(batch, self._dirfd, names, flags, self._name)
        if not (reads or writes):
            for key in batch.keys[: batch.begun - len(batch.errors)]:
                self._sizes.pop(key, None)

    def delete(self, cell: Cell, key: int) -> None:
        timed_io.unlink(cell.rows, cell.row, self._dirfd, self._name(key))
        self._sizes.pop(key, None)

    def look_up(self, cell: Cell, key: int) -> bool:
        return timed_io.look_up(cell.rows, cell.row, self._dirfd, self._name(key))

    def sync(self, cell: Cell) -> None:
        """All of the filesystem, whoever wrote it: what is asked for once costs less than a file at a time."""
        timed_io.sync_filesystem(cell.rows, cell.row, self._dirfd)

    def sync_batch(self, cell: Cell, keys: Sequence[int]) -> None:
        """File after file, of those that were written, by their names: all were closed before."""
        timed_io.sync_files(cell.rows, cell.row, self._dirfd, tuple([self._name(key) for key in keys]), cell.stop)

    def allocate(self, key: int, nbytes: int) -> None:
        if self._as_npy:
            self._sizes[key] = nbytes

    def prepare_read(self, key: int) -> int:
        return _ALL if self._in_memory else timed_io.page_cache(self._dirfd, self._name(key), self._drop_page_cache)

    def inspect(self, key: int, offset: int, target: Memory) -> None:
        offset += SECTOR_BYTES if self._as_npy else 0
        descriptor = os.open(self._name(key), os.O_RDONLY, dir_fd=self._dirfd)
        try:
            for start, length in target.extents.tolist():
                view = target.buffer.data[start : start + length]
                while view:
                    done = os.preadv(descriptor, [view], offset)
                    if done == 0:
                        raise OSError(errno.EIO, "the file is shorter than what was written", self.where(key))
                    view = view[done:]
                    offset += done
        finally:
            os.close(descriptor)

    def abandon(self, handle: int) -> None:
        if handle >= 0:
            os.close(handle)

    def where(self, key: int) -> str:
        return os.path.normpath(self._directory / self._name(key))

    def close(self) -> None:
        super().close()
        if self._dirfd >= 0:
            os.close(self._dirfd)
            self._dirfd = -1

    def _name(self, key: int) -> str:
        return self._folder + self._naming.name(key)


def _not_as_written(path: FilePath, why: str) -> OSError:
    return NotAsWrittenError(errno.EIO, f"not the .npy file that was written ({why})", str(path))


def npy_header(nbytes: int, key: int) -> npt.NDArray[np.uint8]:
    """One page-aligned sector that makes the `nbytes` behind it a `.npy` file of bytes (format version 1.0).

    The description is padded to the sector with a comment that holds the key, which numpy's reader skips: no two
    headers are the same.
    """
    out = io.BytesIO()
    description = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({nbytes},)}}  # kvbench object {key:#018x}"
    length = SECTOR_BYTES - 10
    out.write(b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little"))
    out.write(description.encode().ljust(length - 1) + b"\n")
    page = mmap.mmap(-1, SECTOR_BYTES)
    page.write(out.getvalue())
    return np.frombuffer(page, dtype=np.uint8)
