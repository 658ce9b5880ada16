"""What the functions of the stopwatch do; `_python.py` has the same ones, with the same meaning.

Arguments that several functions share:

- `rows`: writable buffer of rows of `ROW_BYTES` bytes (kvbench.records.schema.RECORD_DTYPE as bytes); `row`: which one.
  A call fills the first `STOPWATCH_BYTES` bytes of it.
- `dirfd`, `name`: an open directory and a file in it. `name` is also the `filename` of an OSError.
- `memory`, `extents`: a buffer, and an int64 array (n, 2) of (offset, length) in it, in the order in which the object's
  bytes stand there. Extents may repeat. Neither they nor the size of the buffer may change during the call.
- `io_bytes`: the most that one system call (or one step of a copy) moves; none crosses an extent.
- `flags`: FIRST | LAST | DIRECT. FIRST starts the row: its `queue_ns` slot must hold the intended start and becomes
  the wait from then to `t_start_ns`; without FIRST times, faults and bytes are added to the row's. FIRST also opens the
  file and LAST closes it. DIRECT opens with O_DIRECT; the caller then guarantees the alignment of everything.
  Of writes alone: NO_SYNC leaves fdatasync out; RENAME has a file called `name` + `.tmp` until LAST, which renames it
  after it was closed; FOLDERS makes the folders that `name` lies in where they are not there; ASK_FIRST
  asks whether there is a file `name` before it is made, and goes on whatever the answer. IN_PLACE: the object is a part
  of the open file `fd`, which the call neither opens nor closes.
- `stop`: int32 buffer; once it is not zero, the operation ends with ECANCELED before its next step.

Every row has device + host + runq = wall. Host is CPU time, runq the time runnable without a CPU, device the rest; a
thread that made no voluntary context switch was not blocked, so that what the clocks leave over is host time then.

Errors: OSError with errno, text and name; the row then holds the errno, the times up to there and the bytes moved, and
the descriptor is closed (a file half written stays: removing it is the caller's). A file that ends early is EIO. A
wrong extent, row, size or descriptor is a ValueError, raised before anything is done: row and descriptor stay as they
were.
"""

import mmap
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

AnyBuffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap | NDArray[Any]

FIRST: Final = 1
LAST: Final = 2
DIRECT: Final = 4
LOOK: Final = 128
DROP: Final = 256
RESIDENT_OFFSET: Final[int]
NO_SYNC: Final = 8
RENAME: Final = 16
FOLDERS: Final = 32
IN_PLACE: Final = 64
ASK_FIRST: Final = 512
ROW_BYTES: Final[int]
STOPWATCH_BYTES: Final[int]
SCHEDSTAT: Final[bool]
"""Whether this kernel shows run-queue time; where it does not, `runq_ns` is 0 and such time counts as device time."""

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
    """Read from `file_offset` on into the extents; span is the wall time. The open descriptor, or -1 after LAST."""

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
    """Write the extents from `file_offset` on; FIRST creates or empties the file, LAST adds fdatasync, whose wall time
    is the span (0 with NO_SYNC). The open descriptor, or -1 after LAST."""

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
    """Open, map, then touch each page (memory None) or copy all into the extents, unmap, close: whatever the flags say.

    A file that is shorter than asked is EIO, and so is a read error of the device, or a file cut short meanwhile: the
    kernel reports these through a mapping by SIGBUS, which is caught. (The stand-in in Python cannot catch it.)
    """

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
    """Copy memory to memory. Both lists of extents hold the same number of bytes; span is wall, copy is host."""

def unlink(rows: AnyBuffer, row: int, dirfd: int, name: str, /) -> None:
    """Remove a file, as one whole operation of 0 bytes."""

def look_up(rows: AnyBuffer, row: int, dirfd: int, name: str, /) -> bool:
    """Ask whether a file is there (stat), as one whole operation of 0 bytes. That it is not is no error."""

def sync_filesystem(rows: AnyBuffer, row: int, fd: int, /) -> None:
    """Have the filesystem of the open file `fd` write all that it holds back (syncfs), as one whole operation of 0
    bytes."""

def sync_files(rows: AnyBuffer, row: int, dirfd: int, names: tuple[str, ...], stop: AnyBuffer, /) -> None:
    """Make durable what was written to the files `names`: opens, syncs (fdatasync) and closes one after the other, as
    one whole operation of 0 bytes, whose span is that of the syncs. Nothing is begun behind the first that fails."""

def begin(rows: AnyBuffer, row: int, /) -> None:
    """Start a row around Python code of this thread; until `end`, the row holds the readings at its start."""

def end(rows: AnyBuffer, row: int, span_ns: int, copy_ns: int, nbytes: int, /) -> None:
    """Fill the row that `begin` started, with a span, a copy time (at most host) and bytes as the caller knows them."""

def run_files(
    rows: AnyBuffer,
    first_row: int,
    does: int,
    dirfd: int,
    prefix: str,
    suffix: str,
    levels: int,
    width: int,
    keys: AnyBuffer,
    memory: AnyBuffer | None,
    extents: NDArray[Any] | None,
    ends: AnyBuffer | None,
    io_bytes: int,
    flags: int,
    stop: AnyBuffer,
    until_ns: int,
    places: AnyBuffer | None,
    descriptors: AnyBuffer | None,
    /,
) -> tuple[int, int, int]:
    """A batch: whole files one after the other, each as `read_file`, `write_file` (FIRST and LAST) or `unlink` does it
    and timed into a row of its own, from row `first_row` on. No error is raised for what happens to a file.

    `does`: 0 read, 1 write, 4 remove. `keys` (n numbers of 64 bits, unsigned) name the files: `prefix`, 16 hexadecimal
    digits, `suffix`; behind `prefix` come `levels` folders, each named after the next `width` digits. Object i lies in
    `extents[ends[i - 1]:ends[i]]` of `memory` (all three None where files are removed). `flags`: DIRECT, NO_SYNC,
    RENAME, FOLDERS; LOOK has the page cache looked at before each file, untimed, and what `page_cache` says of it put
    into resident_pct of its row; DROP with LOOK drops the file from it first.

    With `places` (int64, where each begins) objects are parts of the open file `dirfd`, or of open files of their own
    (`descriptors`, int64); nothing is opened or closed then, and nothing can be removed.

    `until_ns` (CLOCK_MONOTONIC; 0: never): from then on no file but the first is begun.

    Returns how many files were begun, the errno in which the last of them ended (nothing is begun behind one that
    fails), and whether that errno is not of the last that was begun but of a look at the one behind it.
    """

def open_ring(depth: int, memory: AnyBuffer | None, /) -> tuple[object, int]:
    """A ring for the calling thread, which alone may use it, with at most `depth` operations in flight (1 to 4096).
    `memory` is registered with it: what lies there moves without its pages being looked up each time; it must stay
    where it is until the ring is closed. Returns the ring, and the errno that says why the memory is not registered (0:
    it is); it is used all the same. Raises OSError: ENOSYS before Linux 5.11 and where the extension was compiled
    without the kernel's headers, EPERM where it is forbidden."""

def close_ring(ring: object, /) -> None:
    """Close a ring with nothing in flight. A second time does nothing."""

def ring_workers_ns(ring: object, /) -> int:
    """Processor time, in ns, of the kernel's workers of the thread that opened `ring`, which they have for all its
    rings, also those that somebody else opened; since this was asked last, or since a batch ended on `ring`."""

def run_ring(
    ring: object,
    rows: AnyBuffer,
    first_row: int,
    does: int,
    dirfd: int,
    prefix: str,
    suffix: str,
    levels: int,
    width: int,
    keys: AnyBuffer,
    memory: AnyBuffer,
    extents: NDArray[Any],
    ends: AnyBuffer,
    io_bytes: int,
    flags: int,
    stop: AnyBuffer,
    until_ns: int,
    places: AnyBuffer | None,
    descriptors: AnyBuffer | None,
    depth: int,
    /,
) -> tuple[int, int, int, int, tuple[int, int, int, int, int, int, int, int, int]]:
    """A batch whose objects are in flight together: whole files as of `run_files` (`does` 0 or 1), or, with `places`
    (int64, where each begins), parts of the open file `dirfd`, which is registered with the ring, or of open files of
    their own (`descriptors`, int64, which are not). `depth` requests of at most `io_bytes` are in flight at once. A
    write and its fdatasync are linked where the object is one request; else the sync follows when all of it is written.
    With LOOK all objects are looked at before the first is begun.

    Of each row t_start_ns, queue_ns, wall_ns, span_ns (of writes: from the end of its last write to that of its
    fdatasync, as they were seen), nbytes and errno are filled; the parts of its wall time are 0. Once one fails none is
    begun any more; those in flight are waited for, also when `stop` is set.

    Returns how many were begun, how many of them failed, the errno of a look at the one behind them, that of the ring
    itself (which is closed then), and the batch: start, wall, host, run queue, device and copy (ns), bytes, processor
    time of the kernel's workers of this thread (ns), and the most requests that were in flight."""

def run_copies(
    rows: AnyBuffer,
    first_row: int,
    dst: AnyBuffer,
    dst_extents: NDArray[Any],
    dst_ends: AnyBuffer,
    src: AnyBuffer,
    src_extents: NDArray[Any],
    src_ends: AnyBuffer,
    io_bytes: int,
    counts: int,
    stop: AnyBuffer,
    until_ns: int,
    /,
) -> tuple[int, int, int]:
    """A batch of objects that `copy` copies, each timed into a row of its own; extents and ends as of `run_files`.
    `counts` 0: its host time is no copy time (nothing was copied). Returns what `run_files` does."""

def sum_rows(rows: AnyBuffer, first_row: int, count: int, /) -> tuple[int, int, int, int, int, int, int, int]:
    """What `count` rows add up to: the first start, the last end, then the sums of wall, host, run queue, device and
    copy (all in ns), and of the bytes."""

def page_cache(dirfd: int, name: str, drop: bool, offset: int = 0, nbytes: int = 0, /) -> int:
    """Not timed: drop clean pages of the file if asked, then how much of them is cached, in percent, rounded up. Those
    of `nbytes` from `offset` on, a multiple of the page; 0 bytes: all from there to the end.

    The kernel tells this only to those who own the file or may write it; for others it says 100.
    """

def now_ns() -> int:
    """CLOCK_MONOTONIC in ns."""

def thread_cpu_ns() -> int:
    """CPU time of the calling thread in ns."""

def spend_cpu(nanoseconds: int, /) -> int:
    """Not timed: keep a processor busy, without holding the interpreter's lock, until the calling thread has spent so
    much processor time; returns what it has spent. Raises ValueError: negative."""
