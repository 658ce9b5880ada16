"""The stopwatch without a compiler: the functions of `_stopwatch.pyi`, written with os, mmap and numpy.

It takes its timestamps with the GIL held, so that with several threads they include the wait for the GIL: figures made
with it are marked `timer = python`. It is not meant to be fast.
"""

import ctypes
import errno
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvbench.timed_io._meter import (
    ROW_BYTES,
    SAME,
    SCHEDSTAT,
    STOPWATCH_BYTES,
    PieceResult,
    Readings,
    load_row,
    start_meter,
    started_row,
    stop_meter,
    store_row,
)

__all__ = [
    "ASK_FIRST",
    "DIRECT",
    "FIRST",
    "FOLDERS",
    "IN_PLACE",
    "LAST",
    "NO_SYNC",
    "RENAME",
    "ROW_BYTES",
    "SCHEDSTAT",
    "STOPWATCH_BYTES",
    "begin",
    "copy",
    "end",
    "look_up",
    "mmap_read",
    "now_ns",
    "page_cache",
    "read_file",
    "spend_cpu",
    "sync_filesystem",
    "thread_cpu_ns",
    "unlink",
    "write_file",
]

AnyBuffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap | NDArray[Any]
Bytes: TypeAlias = NDArray[np.uint8]

FIRST: Final = 1
LAST: Final = 2
DIRECT: Final = 4
NO_SYNC: Final = 8
RENAME: Final = 16
FOLDERS: Final = 32
IN_PLACE: Final = 64
ASK_FIRST: Final = 512

_TEMPORARY: Final = ".tmp"
_MOST_NAME_BYTES: Final = 256
_STOP_CHECK_PAGES: Final = 256
_MMAP_CHUNK_BYTES: Final = 1 << 20
_MINCORE_CHUNK_PAGES: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class _Region:
    """Pieces of a buffer, in the order in which an object lies in them."""

    memory: Bytes
    extents: list[tuple[int, int]]
    nbytes: int

    def runs(self, limit: int) -> Iterator[Bytes]:
        """The bytes in order, at most `limit` at once, none across an extent."""
        for offset, length in self.extents:
            for done in range(0, length, limit):
                yield self.memory[offset + done : offset + min(done + limit, length)]


def _rows(rows: AnyBuffer, row: int) -> memoryview:
    view = _bytes(rows, writable=True).data
    if not 0 <= row < len(view) // ROW_BYTES:
        raise ValueError("row lies outside rows")
    return view


def _bytes(buffer: AnyBuffer, *, writable: bool) -> Bytes:
    view = np.frombuffer(buffer, np.uint8)
    if writable and not view.flags.writeable:
        raise ValueError("the buffer is read-only")
    return view


def _region(memory: AnyBuffer, extents: NDArray[Any], *, writable: bool) -> _Region:
    view = _bytes(memory, writable=writable)
    array = np.asarray(extents)
    if array.dtype != np.int64 or array.ndim != 2 or array.shape[1] != 2 or not array.flags.c_contiguous:
        raise ValueError("extents must be a C-contiguous int64 array of shape (n, 2)")
    pairs = [(offset, length) for offset, length in array.tolist()]
    if any(offset < 0 or length < 0 or offset + length > len(view) for offset, length in pairs):
        raise ValueError("an extent lies outside memory")
    return _Region(view, pairs, sum(length for _, length in pairs))


def _stop(stop: AnyBuffer) -> NDArray[np.int32]:
    view = np.frombuffer(stop, np.uint8)
    if len(view) < 4 or view.ctypes.data % 4:
        raise ValueError("stop must be an int32 buffer of one element or more")
    return view[: len(view) // 4 * 4].view(np.int32)


def _check_sizes(name: str, file_offset: int, nbytes: int, io_bytes: int = 1) -> None:
    if "\0" in name:
        raise ValueError("name holds a null character")
    if file_offset < 0 or nbytes < 0:
        raise ValueError("file_offset and nbytes must not be negative")
    if file_offset + nbytes >= 2**63:
        raise ValueError("file_offset and extents reach beyond what a file can be")
    if io_bytes < 1:
        raise ValueError("io_bytes must be positive")


def _raise_if_stopped(stop: NDArray[np.int32]) -> None:
    if stop[0]:
        raise _error(errno.ECANCELED)


def _error(code: int, name: str | None = None) -> OSError:
    return OSError(code, os.strerror(code)) if name is None else OSError(code, os.strerror(code), name)


def _timed(view: memoryview, row: int, flags: int, name: str | None, work: Callable[[PieceResult], None]) -> None:
    """Run `work`, which may raise OSError, as one timed piece of the row."""
    values = load_row(view, row)
    outcome = PieceResult()
    start, outcome.errno = start_meter()
    if flags & FIRST:
        values = started_row(start.start_ns, values.queue_ns)
    try:
        if not outcome.errno:
            work(outcome)
    except OSError as error:
        outcome.errno = error.errno or errno.EIO
    stop_meter(start, values, outcome)
    store_row(view, row, values)
    if outcome.errno:
        raise _error(outcome.errno, name)


@dataclass(slots=True)
class _FileOp:
    dirfd: int
    name: str
    fd: int
    offset: int
    region: _Region
    io_bytes: int
    flags: int
    stop: NDArray[np.int32]
    writing: bool

    def run(self, outcome: PieceResult) -> None:
        """Open, move, sync, close: as far as the flags ask and no error stops it."""
        outcome.span_ns = 0 if self.writing else SAME
        done = False
        try:
            if self.flags & FIRST and not self.flags & IN_PLACE:
                self._open()
            self._move(outcome)
            if self.writing and self.flags & LAST and not self.flags & NO_SYNC:
                self._sync(outcome)
            done = True
        finally:
            if self.fd >= 0 and not self.flags & IN_PLACE and (not done or self.flags & LAST):
                self._close(done)
                if done and self.writing and self.flags & RENAME:
                    os.rename(f"{self.name}{_TEMPORARY}", self.name, src_dir_fd=self.dirfd, dst_dir_fd=self.dirfd)

    def _open(self) -> None:
        _raise_if_stopped(self.stop)
        direct = os.O_DIRECT if self.flags & DIRECT else 0
        if not self.writing:
            self.fd = os.open(self.name, os.O_RDONLY | direct, dir_fd=self.dirfd)
            return
        if self.flags & ASK_FIRST:
            with suppress(FileNotFoundError):
                os.stat(self.name, dir_fd=self.dirfd)
        name = f"{self.name}{_TEMPORARY}" if self.flags & RENAME else self.name
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | direct
        try:
            self.fd = os.open(name, flags, 0o600, dir_fd=self.dirfd)
        except FileNotFoundError:
            if not self.flags & FOLDERS:
                raise
            self._make_folders()
            self.fd = os.open(name, flags, 0o600, dir_fd=self.dirfd)

    def _make_folders(self) -> None:
        folders = self.name.split("/")[:-1]
        for depth in range(len(folders)):
            with suppress(FileExistsError):
                os.mkdir("/".join(folders[: depth + 1]), 0o700, dir_fd=self.dirfd)

    def _move(self, outcome: PieceResult) -> None:
        for run in self.region.runs(self.io_bytes):
            done = 0
            while done < len(run):
                _raise_if_stopped(self.stop)
                position = self.offset + outcome.nbytes
                part = run[done:].data
                moved = os.pwrite(self.fd, part, position) if self.writing else os.preadv(self.fd, [part], position)
                if moved == 0:
                    raise _error(errno.EIO)
                done += moved
                outcome.nbytes += moved

    def _sync(self, outcome: PieceResult) -> None:
        _raise_if_stopped(self.stop)
        start_ns = time.monotonic_ns()
        try:
            os.fdatasync(self.fd)
        finally:
            outcome.span_ns = time.monotonic_ns() - start_ns

    def _close(self, done: bool) -> None:
        fd, self.fd = self.fd, -1
        try:
            os.close(fd)
        except OSError:
            if done:  # else the first error is the one to report
                raise


def _file_op(rows: AnyBuffer, row: int, op: _FileOp) -> int:
    view = _rows(rows, row)
    _check_sizes(op.name, op.offset, op.region.nbytes, op.io_bytes)
    if op.fd != -1 if op.flags & (FIRST | IN_PLACE) == FIRST else op.fd < 0:
        raise ValueError("fd must be -1 with FIRST, and an open descriptor without or with IN_PLACE")
    if op.flags & (RENAME | FOLDERS) and len(os.fsencode(op.name)) >= _MOST_NAME_BYTES - len(_TEMPORARY) - 1:
        raise ValueError("the name is too long to be renamed or to have its folders made")
    try:
        _timed(view, row, op.flags, op.name, op.run)
    except OSError:
        if (
            op.fd >= 0 and not op.flags & IN_PLACE
        ):  # only where the clocks could not be read, so that the operation never ran
            os.close(op.fd)
        raise
    return op.fd


def read_file(
    rows: AnyBuffer,
    row: int,
    dirfd: int,
    name: str,
    fd: int,
    file_offset: int,
    memory: AnyBuffer,
    extents: NDArray[Any],
    io_bytes: int,
    flags: int,
    stop: AnyBuffer,
    /,
) -> int:
    """Read from `file_offset` on into the extents."""
    region = _region(memory, extents, writable=True)
    op = _FileOp(dirfd, name, fd, file_offset, region, io_bytes, flags, _stop(stop), writing=False)
    return _file_op(rows, row, op)


def write_file(
    rows: AnyBuffer,
    row: int,
    dirfd: int,
    name: str,
    fd: int,
    file_offset: int,
    memory: AnyBuffer,
    extents: NDArray[Any],
    io_bytes: int,
    flags: int,
    stop: AnyBuffer,
    /,
) -> int:
    """Write the extents from `file_offset` on; LAST adds fdatasync."""
    region = _region(memory, extents, writable=False)
    op = _FileOp(dirfd, name, fd, file_offset, region, io_bytes, flags, _stop(stop), writing=True)
    return _file_op(rows, row, op)


def _copy_chunks(to: _Region, source: _Region, chunk: int, stop: NDArray[np.int32], outcome: PieceResult) -> bool:
    """Copy in steps of at most `chunk` bytes; False if it was stopped."""
    sources = source.runs(chunk)
    piece = source.memory[:0]
    for target in to.runs(chunk):
        done = 0
        while done < len(target):
            if stop[0]:
                return False
            if not len(piece):
                piece = next(sources)
            length = min(len(target) - done, len(piece))
            np.copyto(target[done : done + length], piece[:length])
            piece = piece[length:]
            done += length
            outcome.nbytes += length
    return True


def _touch_pages(data: Bytes, into_page: int, stop: NDArray[np.int32], outcome: PieceResult) -> bool:
    """Read one byte of each page, given that the bytes asked for begin `into_page`; False if it was stopped."""
    batch = _STOP_CHECK_PAGES * mmap.PAGESIZE
    for first in range(0, len(data), batch):
        if stop[0]:
            return False
        data[first : first + batch : mmap.PAGESIZE].max()
        outcome.nbytes = min(first + batch, len(data)) - into_page
    return True


def _copy_mapping(data: Bytes, to: _Region, stop: NDArray[np.int32], outcome: PieceResult) -> bool:
    start_ns = time.thread_time_ns()
    finished = _copy_chunks(to, _Region(data, [(0, len(data))], len(data)), _MMAP_CHUNK_BYTES, stop, outcome)
    outcome.copy_ns = time.thread_time_ns() - start_ns
    return finished


def _use_mapping(
    fd: int, offset: int, nbytes: int, to: _Region | None, stop: NDArray[np.int32], outcome: PieceResult
) -> None:
    status = os.fstat(fd)
    # A block device has no size of this kind.
    if not stat.S_ISBLK(status.st_mode) and status.st_size - offset < nbytes:
        raise _error(errno.EIO)
    if nbytes == 0:
        return
    into_page = offset % mmap.PAGESIZE
    # No exception may leave while the mapping is viewed: its traceback would keep the view, and a mapping that is
    # viewed cannot be closed.
    with mmap.mmap(fd, nbytes + into_page, access=mmap.ACCESS_READ, offset=offset - into_page) as mapping:
        data = np.frombuffer(mapping, np.uint8)
        if to is None:
            finished = _touch_pages(data, into_page, stop, outcome)
        else:
            finished = _copy_mapping(data[into_page:], to, stop, outcome)
        del data
    if not finished:
        raise _error(errno.ECANCELED)


def mmap_read(
    rows: AnyBuffer,
    row: int,
    dirfd: int,
    name: str,
    file_offset: int,
    nbytes: int,
    memory: AnyBuffer | None,
    extents: NDArray[Any] | None,
    flags: int,
    stop: AnyBuffer,
    /,
) -> None:
    """Open, map, then touch each page (memory None) or copy all into the extents, unmap, close."""
    view = _rows(rows, row)
    _check_sizes(name, file_offset, nbytes)
    to = None
    if memory is not None:
        if extents is None:
            raise ValueError("extents must be given with memory")
        to = _region(memory, extents, writable=True)
        if to.nbytes != nbytes:
            raise ValueError("extents must hold nbytes")
    stop_view = _stop(stop)

    def work(outcome: PieceResult) -> None:
        _raise_if_stopped(stop_view)
        fd = os.open(name, os.O_RDONLY, dir_fd=dirfd)
        try:
            _use_mapping(fd, file_offset, nbytes, to, stop_view, outcome)
        finally:
            os.close(fd)

    _timed(view, row, flags, name, work)


def copy(
    rows: AnyBuffer,
    row: int,
    dst: AnyBuffer,
    dst_extents: NDArray[Any],
    src: AnyBuffer,
    src_extents: NDArray[Any],
    io_bytes: int,
    flags: int,
    stop: AnyBuffer,
    /,
) -> None:
    """Copy memory to memory."""
    view = _rows(rows, row)
    to, source = _region(dst, dst_extents, writable=True), _region(src, src_extents, writable=False)
    _check_sizes("", 0, 0, io_bytes)
    stop_view = _stop(stop)
    if to.nbytes != source.nbytes:
        raise ValueError("dst_extents and src_extents must hold the same number of bytes")

    def work(outcome: PieceResult) -> None:
        outcome.copy_ns = SAME
        if not _copy_chunks(to, source, io_bytes, stop_view, outcome):
            raise _error(errno.ECANCELED)

    _timed(view, row, flags, None, work)


def unlink(rows: AnyBuffer, row: int, dirfd: int, name: str, /) -> None:
    """Remove a file, as one whole operation."""
    view = _rows(rows, row)
    _check_sizes(name, 0, 0)
    _timed(view, row, FIRST, name, lambda _outcome: os.unlink(name, dir_fd=dirfd))


def look_up(rows: AnyBuffer, row: int, dirfd: int, name: str, /) -> bool:
    """Ask whether a file is there (stat), as one whole operation of 0 bytes."""
    view = _rows(rows, row)
    _check_sizes(name, 0, 0)
    found = True

    def work(outcome: PieceResult) -> None:
        nonlocal found
        try:
            os.stat(name, dir_fd=dirfd)
        except FileNotFoundError:
            found = False

    _timed(view, row, FIRST, name, work)
    return found


def sync_filesystem(rows: AnyBuffer, row: int, fd: int, /) -> None:
    """Have the filesystem of an open file write what it holds back (syncfs), as one whole operation of 0 bytes."""

    def work(outcome: PieceResult) -> None:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) < 0:
            raise _error(ctypes.get_errno())

    _timed(_rows(rows, row), row, FIRST, None, work)


def begin(rows: AnyBuffer, row: int, /) -> None:
    """Start a row around Python code; until `end` the row itself keeps the start readings."""
    view = _rows(rows, row)
    start, error = start_meter()
    values = started_row(start.start_ns, load_row(view, row).queue_ns)
    values.errno = error
    if error:
        store_row(view, row, values)
        raise _error(error)
    values.host_ns, values.runq_ns = start.cpu_ns, start.runq_ns
    values.device_ns, values.span_ns = start.blocks, start.preemptions
    values.minor_faults, values.major_faults = start.minor_faults, start.major_faults
    store_row(view, row, values)


def end(rows: AnyBuffer, row: int, span_ns: int, copy_ns: int, nbytes: int, /) -> None:
    """Fill the row that `begin` started."""
    view = _rows(rows, row)
    held = load_row(view, row)
    start = Readings(
        held.t_start_ns,
        held.host_ns,
        held.runq_ns,
        held.device_ns,
        held.span_ns,
        held.minor_faults,
        held.major_faults,
    )
    values = started_row(held.t_start_ns, held.t_start_ns - held.queue_ns)
    values.errno = held.errno
    outcome = PieceResult(nbytes, copy_ns, span_ns)
    stop_meter(start, values, outcome)
    store_row(view, row, values)
    if outcome.errno:
        raise _error(outcome.errno)


def _count_resident(mapping: Bytes) -> tuple[int, int]:
    """Pages of the mapping that are in the page cache, asked in chunks, and an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    in_core = np.empty(_MINCORE_CHUNK_PAGES, np.uint8)
    resident = 0
    for first in range(0, len(mapping), _MINCORE_CHUNK_PAGES * mmap.PAGESIZE):
        chunk = mapping[first : first + _MINCORE_CHUNK_PAGES * mmap.PAGESIZE]
        address, vector = ctypes.c_void_p(chunk.ctypes.data), ctypes.c_void_p(in_core.ctypes.data)
        if libc.mincore(address, ctypes.c_size_t(len(chunk)), vector) < 0:
            return resident, ctypes.get_errno()
        resident += int(np.count_nonzero(in_core[: -(-len(chunk) // mmap.PAGESIZE)] & 1))
    return resident, 0


def page_cache(dirfd: int, name: str, drop: bool, offset: int = 0, nbytes: int = 0, /) -> int:
    """Not timed: drop clean pages if asked, then how much of them is cached, in percent, rounded up."""
    _check_sizes(name, offset, nbytes)
    if offset % mmap.PAGESIZE:
        raise ValueError("offset must be a multiple of the page")
    fd = os.open(name, os.O_RDONLY, dir_fd=dirfd)
    try:
        if drop:
            os.posix_fadvise(fd, offset, nbytes, os.POSIX_FADV_DONTNEED)
        status = os.fstat(fd)
        size = status.st_size - offset
        if nbytes:
            size = nbytes if stat.S_ISBLK(status.st_mode) else min(size, nbytes)
        if size <= 0:
            return 0
        with mmap.mmap(fd, size, access=mmap.ACCESS_READ, offset=offset) as mapping:
            resident, error = _count_resident(np.frombuffer(mapping, np.uint8))
    finally:
        os.close(fd)
    if error:
        raise _error(error, name)
    return -(-100 * resident // -(-size // mmap.PAGESIZE))


def now_ns() -> int:
    """CLOCK_MONOTONIC in ns."""
    return time.monotonic_ns()


def thread_cpu_ns() -> int:
    """CPU time of the calling thread in ns."""
    return time.thread_time_ns()


def spend_cpu(nanoseconds: int, /) -> int:
    """Keep a processor busy for so much of the calling thread's time; it holds the interpreter's lock in turns."""
    if nanoseconds < 0:
        raise ValueError("the time must not be negative")
    begin_ns = time.thread_time_ns()
    while (spent_ns := time.thread_time_ns() - begin_ns) < nanoseconds:
        pass
    return spent_ns
