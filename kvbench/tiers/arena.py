"""The memory that reads land in and writes stream from: one fixed arena per rank, lent out in segments.

The arena is larger than the last-level cache and its segments are lent in turn, so that data lands in memory that the
cache does not hold, as it does in an inference engine. It knows nothing of files or of what the bytes mean.
"""

import mmap
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from kvbench.units import MIB, SECTOR_BYTES, SEGMENT_BYTES

MINIMUM_ARENA_BYTES: Final = 256 * MIB
ARENA_CACHES: Final = 4
"""The arenas of a node's ranks together are this many times its last-level cache."""

_SPARE_BYTES: Final = SECTOR_BYTES
"""Behind the last segment: a stream cipher asks for room for one more block than it writes."""

Extents = npt.NDArray[np.int64]
"""Shape (n, 2): offset and length in bytes within a buffer, in the order of the object's bytes."""


class Memory(NamedTuple):
    """Where the bytes of an object, or of a part of one, lie."""

    buffer: npt.NDArray[np.uint8]
    extents: Extents


def stored_bytes(nbytes: int) -> int:
    """`nbytes` rounded up to whole sectors: what an object takes on every tier."""
    return -(-nbytes // SECTOR_BYTES) * SECTOR_BYTES


def usual_arena_bytes(last_level_cache_bytes: int, ranks: int) -> int:
    """What an arena takes where nothing else is said, on a node with so much cache that `ranks` ranks share."""
    return max(MINIMUM_ARENA_BYTES, ARENA_CACHES * last_level_cache_bytes // max(1, ranks))


def whole_segments(nbytes: int, threads: int) -> int:
    """`nbytes` rounded up to whole segments, and at least one segment for each of `threads`."""
    return max(threads, -(-nbytes // SEGMENT_BYTES)) * SEGMENT_BYTES


def anonymous_memory(nbytes: int) -> mmap.mmap:
    """Private memory, page aligned, on huge pages where the node allows them; not yet backed by pages."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without transparent huge pages gives small ones
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def give_back(memory: mmap.mmap) -> None:
    """Let the kernel have the pages of `anonymous_memory`, however long something still refers to it: its bytes are 0
    from then on."""
    with suppress(OSError):  # locked memory stays
        memory.madvise(mmap.MADV_DONTNEED)


class Lease:
    """Segments of the arena that one operation may use; a context that gives them back.

    After an error nobody knows what landed in them. They are made as new, since what is written next stands on what
    lies there: another object would be blamed.
    """

    __slots__ = ("arena", "more", "segments")

    def __init__(self, arena: "Arena", segments: tuple[int, ...]) -> None:
        self.arena = arena
        self.segments = segments
        self.more: list[int] = []
        """Segments of the leases beside it, which are given back with it."""

    def beside(self, sizes: Sequence[int]) -> "list[Lease]":
        """Leases for further objects that are moved together with this one's, each of which takes a whole object; as
        many, from the first of `sizes` on, as leave a segment for each other thread."""
        return self.arena.lease_beside(self, sizes) if sizes else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.renew()
        self.arena.take_back(self)

    def renew(self) -> None:
        """Make what was lent as new: something went wrong with an object that was moved."""
        self.arena.renew((*self.segments, *self.more))

    @property
    def nbytes(self) -> int:
        return len(self.segments) * SEGMENT_BYTES

    def memory(self, key: int, object_bytes: int, offset: int, nbytes: int) -> Memory:
        """Where bytes `offset` to `offset + nbytes` of an object land; an object longer than the lease wraps round.

        Byte b of an object always lies at position (phase + b) modulo the segment within some segment, whatever the
        segment, so that the body of the payload that lies there is the same before and after a read.
        """
        position = object_phase(key, object_bytes) + offset
        pieces = []
        while nbytes > 0:
            within = position % SEGMENT_BYTES
            length = min(nbytes, SEGMENT_BYTES - within)
            segment = self.segments[(position // SEGMENT_BYTES) % len(self.segments)]
            pieces.append((segment * SEGMENT_BYTES + within, length))
            position += length
            nbytes -= length
        return Memory(self.arena.bytes, np.array(pieces, dtype=np.int64).reshape(-1, 2))


def object_phase(key: int, object_bytes: int) -> int:
    """Position of an object's first byte within a segment: spread by key for small objects, which thus do not all
    land at the start of a segment, and 0 for those of half a segment and more. A multiple of the object's size."""
    slots = SEGMENT_BYTES // object_bytes if object_bytes else 0
    if slots < 2:
        return 0
    mixed = (key * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return (mixed >> 40) % slots * object_bytes


def object_phases(keys: npt.NDArray[np.uint64], object_bytes: int) -> npt.NDArray[np.int64]:
    """`object_phase` of several objects of one size."""
    slots = SEGMENT_BYTES // object_bytes if object_bytes else 0
    if slots < 2:
        return np.zeros(len(keys), np.int64)
    mixed = (keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return (mixed.astype(np.int64) % slots) * object_bytes


class Arena:
    """`nbytes` (rounded down to whole segments) that `threads` operations at a time can lease from.

    `body` (SEGMENT_BYTES random bytes) is copied into every segment, which also backs the arena with pages before
    anything is timed. Raises ValueError when there is not one segment for each thread.
    """

    def __init__(self, nbytes: int, threads: int, body: npt.NDArray[np.uint8]) -> None:
        segments = nbytes // SEGMENT_BYTES
        if segments < threads:
            raise ValueError(f"an arena of {nbytes} bytes has fewer than one segment for each of {threads} threads")
        self.nbytes = segments * SEGMENT_BYTES
        self._memory = anonymous_memory(self.nbytes + _SPARE_BYTES)
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(self._memory, dtype=np.uint8)
        self._body = body
        self.renew(range(segments))
        self._threads = threads
        self._leases = 0
        self._free = deque(range(segments))
        self._lock = threading.Lock()

    def lease(self, nbytes: int) -> Lease:
        """Segments for an operation on `nbytes`: as many as it fills, but always one left for each other thread.

        The segment that was given back longest ago is lent first. Raises RuntimeError when more threads ask than the
        arena was made for.
        """
        wanted = max(1, -(-nbytes // SEGMENT_BYTES))
        with self._lock:
            others = max(0, self._threads - self._leases - 1)
            count = min(wanted, len(self._free) - others)
            if count < 1:
                raise RuntimeError("more leases at once than the arena was made for")
            segments = tuple([self._free.popleft() for _ in range(count)])
            self._leases += 1
        return Lease(self, segments)

    def lease_beside(self, lease: Lease, sizes: Sequence[int]) -> list[Lease]:
        """See `Lease.beside`."""
        leases = []
        with self._lock:
            for nbytes in sizes:
                count = -(-nbytes // SEGMENT_BYTES)
                if count > len(self._free) - max(0, self._threads - self._leases):
                    break
                segments = tuple([self._free.popleft() for _ in range(count)])
                lease.more.extend(segments)
                leases.append(Lease(self, segments))
        return leases

    def lease_each(self, most: int) -> Lease:
        """A segment for each of at most `most` objects of a segment or less: no more than each other thread can have
        at the same time."""
        fair = self.nbytes // SEGMENT_BYTES // self._threads
        return self.lease(min(most, fair) * SEGMENT_BYTES)

    def renew(self, segments: Iterable[int] | None = None) -> None:
        """Let the body lie in `segments` again (None: in all, of which none may be lent), whatever landed there."""
        for segment in range(self.nbytes // SEGMENT_BYTES) if segments is None else segments:
            self.bytes[segment * SEGMENT_BYTES : (segment + 1) * SEGMENT_BYTES] = self._body

    def close(self) -> None:
        """Give its memory back; nothing is leased any more. A process that does several runs holds that of one."""
        give_back(self._memory)

    def take_back(self, lease: Lease) -> None:
        """Called by the lease when its context ends."""
        with self._lock:
            self._free.extend(lease.segments)
            self._free.extend(lease.more)
            self._leases -= 1
