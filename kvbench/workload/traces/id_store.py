"""Hash ids, 8 bytes each, while a trace is read and afterwards: in memory, or in a temporary file where they are many.

The file has no name from the beginning on, so that nothing is left of it however the process ends, and is mapped: what
is looked at is in the page cache, which the kernel takes back when memory is wanted. It lies in a folder of TMPDIR,
/var/tmp and the system's for temporary files: the first that can be written and is on no filesystem in memory. Where
there is none, ids stay in memory.
"""

import mmap
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.kernel import mounts, told
from kvbench.units import MIB, format_bytes

MEMORY_BYTES: Final = 64 * MIB
"""Ids that are more than so many bytes go to a file."""
PIECE_IDS: Final = 1 << 20
"""That are copied, hashed or sent at a time: 8 MiB."""
_ID_MASK: Final = (1 << 64) - 1
_BUFFER_BYTES: Final = 8 * MIB
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))
NONE: Final = np.empty(0, np.uint64)


def temporary_place() -> Path | None:
    """The folder for temporary files of traces; None where all are in memory, or cannot be written."""
    for name in (os.environ.get("TMPDIR", ""), "/var/tmp", tempfile.gettempdir()):
        if name and os.access(name, os.W_OK | os.X_OK) and os.path.isdir(name) and not _is_in_memory(name):
            return Path(name)
    return None


def _is_in_memory(folder: str) -> bool:
    descriptor = os.open(folder, os.O_PATH)
    try:
        facts = dict(line.split(":", 1) for line in told(Path(f"/proc/self/fdinfo/{descriptor}")).splitlines())
    finally:
        os.close(descriptor)
    here = facts.get("mnt_id", "").strip()
    return any(
        number == here and kind in _IN_MEMORY for number, _, kind, *_ in mounts(told(Path("/proc/self/mountinfo")))
    )


def temporary_file(source: str) -> IO[bytes] | None:
    """A file without a name for what belongs to the trace `source`, unbuffered; None where there is no place for one.
    Raises KvbenchError."""
    place = temporary_place()
    if place is None:
        return None
    try:
        return tempfile.TemporaryFile(dir=place, buffering=0)
    except OSError as error:
        raise unkept(source, place, error) from error


def unkept(source: str, place: Path | None, error: OSError, nbytes: int = 0) -> KvbenchError:
    """What to raise where a temporary file of `nbytes` could not be written."""
    size = f", of which {format_bytes(nbytes)} are there," if nbytes else ""
    return KvbenchError(
        f"cannot keep the trace {source}{size} in a temporary file in {place}: {error.strerror} (set TMPDIR to a "
        "folder on a disk that has room for it)"
    )


class IdStore:
    """Takes ids in order and gives them all as one array."""

    def __init__(self, source: str) -> None:
        """`source`: the trace, for messages."""
        self._source = source
        self._buffer = array("Q")
        self._file: IO[bytes] | None = None
        self._limit: int | None = MEMORY_BYTES
        """Bytes that may be in the buffer; None: any number."""
        self._stored = 0
        """In the file."""

    def __len__(self) -> int:
        return self._stored + len(self._buffer)

    def extend(self, ids: Sequence[int] | NDArray[np.uint64]) -> None:
        """Take `ids`, -2^63 to 2^64 - 1, modulo 2^64. Raises KvbenchError where the file cannot be written."""
        if isinstance(ids, np.ndarray):
            for start in range(0, len(ids), PIECE_IDS):
                piece = np.ascontiguousarray(ids[start : start + PIECE_IDS], np.uint64)
                self._buffer.frombytes(piece.data.cast("B"))
                self._spill()
            return
        try:
            self._buffer.extend(array("Q", ids))
        except OverflowError:
            self._buffer.extend(hash_id & _ID_MASK for hash_id in ids)
        self._spill()

    def finish(self) -> NDArray[np.uint64]:
        """All of them; nothing can be taken any more. Raises KvbenchError where the file cannot be written or
        mapped."""
        if self._file is None:
            return np.frombuffer(self._buffer, np.uint64) if self._buffer else NONE
        self._write()
        try:
            with self._file as file:
                mapped = mmap.mmap(file.fileno(), self._stored * 8, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._unkept(error) from error
        return np.frombuffer(mapped, np.uint64)

    def _spill(self) -> None:
        if self._limit is None or len(self._buffer) * 8 <= self._limit:
            return
        if self._file is None:
            self._file = temporary_file(self._source)
            self._limit = None if self._file is None else _BUFFER_BYTES
        if self._file is not None:
            self._write()

    def _write(self) -> None:
        assert self._file is not None
        left = memoryview(self._buffer).cast("B")
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._unkept(error) from error
        self._stored += len(self._buffer)
        self._buffer = array("Q")

    def _unkept(self, error: OSError) -> KvbenchError:
        return unkept(self._source, temporary_place(), error, self._stored * 8)


def id_pieces(
    ids: NDArray[np.uint64], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[NDArray[np.uint64]]:
    """Of each request in turn, `counts` of the `ids` from its one of `starts` on: one array after the other, none of
    more than PIECE_IDS and none empty."""
    for first, end in within(counts, PIECE_IDS):
        here = counts[first:end]
        if not here.any():
            continue
        if end == first + 1:
            start, stop = int(starts[first]), int(starts[first] + counts[first])
            for at in range(start, stop, PIECE_IDS):
                yield ids[at : min(at + PIECE_IDS, stop)]
            continue
        ends = np.cumsum(here)
        yield ids[np.arange(ends[-1]) + np.repeat(starts[first:end] - (ends - here), here)]


def piece_sizes(counts: NDArray[np.int64]) -> Iterator[int]:
    """How many ids each of the arrays of `id_pieces` has."""
    for first, end in within(counts, PIECE_IDS):
        total = int(counts[first:end].sum())
        for at in range(0, total, PIECE_IDS):
            yield min(PIECE_IDS, total - at)


def within(counts: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """(first, end) of requests that follow each other and have at most `most` in all, but for a single one with
    more."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, end
        first = end


def gathered(
    ids: NDArray[np.uint64], starts: NDArray[np.int64], counts: NDArray[np.int64], source: str
) -> NDArray[np.uint64]:
    """What `id_pieces` gives, as one array, which is a view of `ids` where they stand there as wanted. Raises
    KvbenchError, as IdStore."""
    there = counts > 0
    begins, sizes = starts[there], counts[there]
    if not len(begins):
        return NONE
    if np.array_equal(begins[1:], begins[:-1] + sizes[:-1]):
        return ids[int(begins[0]) : int(begins[-1] + sizes[-1])]
    store = IdStore(source)
    for piece in id_pieces(ids, starts, counts):
        store.extend(piece)
    return store.finish()
