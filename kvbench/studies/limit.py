"""What a storage gives at most: a plain parallel read of one file in large pieces, direct where that is possible.

Nothing of a run takes part in it. The file has no name, so that nothing is left of it whatever happens.
"""

import errno
import mmap
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from kvbench.errors import KvbenchError
from kvbench.tiers.arena import anonymous_memory
from kvbench.units import MIB, SEGMENT_BYTES, format_bytes

THREADS: Final = 16
FILE_BYTES: Final = 512 * MIB
ROUNDS: Final = 3
"""Times that the file is read: the best counts, for it is a limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Of a place under test."""

    gib_per_s: float
    direct: bool
    """Of a directory: whether the page cache was left out; else it was emptied of the file before each reading."""
    requests: bool = False
    """It is of an object store, which was sent requests (`bucket_limit`)."""


def measure_limit(directory: Path, nbytes: int = FILE_BYTES) -> Limit:
    """Write a file of `nbytes` there and read it with THREADS threads in pieces of 4 MiB. Raises KvbenchError."""
    with ExitStack() as opened:
        try:
            writing, *reading = _nameless(directory, opened)
        except OSError as error:
            raise KvbenchError(f"cannot make a file in {directory}: {error.strerror}") from error
        try:
            _fill(writing, nbytes)
            direct = len(reading) > 1 and _can_be_read(reading[0])
            buffers = _buffers()
            chosen = reading[0] if direct else reading[-1]
            return Limit(max(_read_once(chosen, nbytes, direct, buffers) for _ in range(ROUNDS)), direct)
        except OSError as error:
            raise KvbenchError(
                f"{directory}: what the storage gives at most cannot be measured with a file of "
                f"{format_bytes(nbytes)}: {error.strerror}"
            ) from error


def _nameless(directory: Path, opened: ExitStack) -> list[int]:
    """A file without a name, open for writing, for reading direct where the filesystem takes that, and for reading
    through the page cache; `opened` closes it. Raises OSError."""

    def open_it(path: str | Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, descriptor)
        return descriptor

    with ExitStack() as named:
        try:
            descriptors = [open_it(directory, os.O_TMPFILE | os.O_RDWR)]
            path = Path(f"/proc/self/fd/{descriptors[0]}")
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
            path = directory / f".kvbench-limit-{os.getpid()}"
            descriptors = [open_it(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)]
            named.callback(path.unlink)
        # While it still has its name: GlusterFS and others do not open a file again that has none.
        with suppress(OSError):
            descriptors.append(open_it(path, os.O_RDONLY | os.O_DIRECT))
        descriptors.append(open_it(path, os.O_RDONLY))
    return descriptors


def _fill(descriptor: int, nbytes: int) -> None:
    rng = np.random.Generator(np.random.PCG64(nbytes))
    for start in range(0, nbytes, SEGMENT_BYTES):
        piece = rng.bytes(min(SEGMENT_BYTES, nbytes - start))
        view = memoryview(piece)
        while view:
            view = view[os.pwrite(descriptor, view, start + len(piece) - len(view)) :]
    os.fsync(descriptor)


def _can_be_read(direct: int) -> bool:
    """Filesystems that refuse direct reads do so when the file is opened, or at the first read."""
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        try:
            os.preadv(direct, [page], 0)
        except OSError:
            return False
    return True


def _buffers() -> list[memoryview]:
    """Memory for a piece of each thread, whose pages are there: huge ones, as a run's arena has them. Into small ones a
    drive gets more and smaller requests, and gives less than it can."""
    whole = np.frombuffer(anonymous_memory(THREADS * SEGMENT_BYTES), dtype=np.uint8)
    whole.fill(1)
    return [whole.data[start : start + SEGMENT_BYTES] for start in range(0, len(whole), SEGMENT_BYTES)]


def _read_once(descriptor: int, nbytes: int, direct: bool, buffers: Sequence[memoryview]) -> float:
    """GiB/s, with a thread for each of `buffers`."""
    if not direct:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    starts = iter(range(0, nbytes, SEGMENT_BYTES))
    lock = threading.Lock()
    problems: list[OSError] = []

    def work(buffer: memoryview) -> None:
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
