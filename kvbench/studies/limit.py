"""What a storage gives at most: a plain parallel read of one file in large pieces, direct where that is possible.

Nothing of a run takes part in it. The file has no name, so that nothing is left of it whatever happens.
"""

import errno
import mmap
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from kvbench.errors import KvbenchError
from kvbench.units import MIB, SEGMENT_BYTES, format_bytes

THREADS: Final = 16
FILE_BYTES: Final = 512 * MIB
_ROUNDS: Final = 3
"""Times that the file is read: the best counts, for it is a limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Of a directory."""

    gib_per_s: float
    direct: bool
    """Whether the page cache was left out; else it was emptied of the file before each reading."""


def measure_limit(directory: Path, nbytes: int = FILE_BYTES) -> Limit:
    """Write a file of `nbytes` there and read it with THREADS threads in pieces of 4 MiB. Raises KvbenchError."""
    try:
        descriptor = _nameless(directory)
    except OSError as error:
        raise KvbenchError(f"cannot make a file in {directory}: {error.strerror}") from error
    try:
        _fill(descriptor, nbytes)
        reading, direct = _for_reading(descriptor)
        buffers = [_touched() for _ in range(THREADS)]
        try:
            rates = [_read_once(reading, nbytes, direct, buffers) for _ in range(_ROUNDS)]
        finally:
            os.close(reading)
    except OSError as error:
        raise KvbenchError(
            f"{directory}: what the storage gives at most cannot be measured with a file of {format_bytes(nbytes)}: "
            f"{error.strerror}"
        ) from error
    finally:
        os.close(descriptor)
    return Limit(max(rates), direct)


def _nameless(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    path = directory / f".kvbench-limit-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    path.unlink()
    return descriptor


def _fill(descriptor: int, nbytes: int) -> None:
    rng = np.random.Generator(np.random.PCG64(nbytes))
    for start in range(0, nbytes, SEGMENT_BYTES):
        piece = rng.bytes(min(SEGMENT_BYTES, nbytes - start))
        view = memoryview(piece)
        while view:
            view = view[os.pwrite(descriptor, view, start + len(piece) - len(view)) :]
    os.fsync(descriptor)


def _for_reading(descriptor: int) -> tuple[int, bool]:
    """The same file opened once more, and whether that is direct. Filesystems that refuse it do so at once, or at the
    first read."""
    path = f"/proc/self/fd/{descriptor}"
    try:
        reading = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            try:
                os.preadv(reading, [page], 0)
                return reading, True
            except OSError:
                os.close(reading)
    except OSError:
        pass
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False


def _touched() -> mmap.mmap:
    """Memory for a piece, whose pages are there."""
    buffer = mmap.mmap(-1, SEGMENT_BYTES)
    buffer[:] = b"\1" * SEGMENT_BYTES
    return buffer


def _read_once(descriptor: int, nbytes: int, direct: bool, buffers: Sequence[mmap.mmap]) -> float:
    """GiB/s, with a thread for each of `buffers`."""
    if not direct:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    starts = iter(range(0, nbytes, SEGMENT_BYTES))
    lock = threading.Lock()
    problems: list[OSError] = []

    def work(buffer: mmap.mmap) -> None:
        while not problems:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            try:
                os.preadv(descriptor, [buffer], start)
            except OSError as error:
                problems.append(error)

    threads = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return nbytes / (time.monotonic() - begin) / 2**30
