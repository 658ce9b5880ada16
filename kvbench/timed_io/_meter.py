"""The meter of the Python stand-in: samples the thread's clocks around a piece of work and adds the piece to its row.

The same accounting as `_stopwatch.c`, whose comments say why it is done so. It does no I/O of the operations.
"""

import contextlib
import errno
import os
import resource
import struct
import threading
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

ROW_BYTES: Final = 120
STOPWATCH_BYTES: Final = 84
SAME: Final = -1
"""As `span_ns`: the whole wall time; as `copy_ns`: all of the host time."""

_ROW: Final = struct.Struct("<9qiII")
_SCHEDSTAT_PATH: Final = "/proc/thread-self/schedstat"
_FAULTS: Final = 2**32
_LONGEST_READING_NS: Final = 10_000


class _Schedstat:
    """One thread's open schedstat file; closed with the thread, which drops its thread-local reference."""

    def __init__(self) -> None:
        self.fd = os.open(_SCHEDSTAT_PATH, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            with contextlib.suppress(OSError):
                os.close(self.fd)

    def read(self) -> tuple[int, int]:
        """CPU and run-queue time so far, in ns."""
        cpu_ns, runq_ns, _slices = os.pread(self.fd, 96, 0).split()
        return int(cpu_ns), int(runq_ns)


def _probe() -> bool:
    """Whether the kernel shows run-queue time: without CONFIG_SCHED_INFO there is no file, or one of zeros."""
    try:
        return _Schedstat().read()[0] > 0
    except (OSError, ValueError):
        return False


SCHEDSTAT: Final = _probe()
_thread = threading.local()


def _forget_after_fork() -> None:
    """In a forked child the inherited descriptor still shows the parent's thread."""
    _thread.__dict__.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def _runq_ns() -> tuple[int, int]:
    """This thread's run-queue time so far, and an errno: a full descriptor table is no run-queue time of zero."""
    if not SCHEDSTAT:
        return 0, 0
    try:
        schedstat: _Schedstat | None = getattr(_thread, "schedstat", None)
        if schedstat is None:
            schedstat = _thread.schedstat = _Schedstat()
        return schedstat.read()[1], 0
    except OSError as error:
        return 0, error.errno or errno.EIO


class Readings(NamedTuple):
    """The clocks and counters of a thread at the start of a timed piece."""

    start_ns: int
    cpu_ns: int
    runq_ns: int
    blocks: int
    preemptions: int
    minor_faults: int
    major_faults: int


@dataclass(slots=True)
class PieceResult:
    """What a piece did: bytes moved, CPU time in copies, span, and the errno that ended it (0: none)."""

    nbytes: int = 0
    copy_ns: int = 0
    span_ns: int = SAME
    errno: int = 0


@dataclass(slots=True)
class Row:
    """The stopwatch part of a record, in the order of its bytes."""

    t_start_ns: int
    wall_ns: int
    host_ns: int
    runq_ns: int
    device_ns: int
    copy_ns: int
    span_ns: int
    nbytes: int
    queue_ns: int
    errno: int
    minor_faults: int
    major_faults: int


def load_row(rows: memoryview, row: int) -> Row:
    """The row as it stands."""
    return Row(*_ROW.unpack_from(rows, row * ROW_BYTES))


def store_row(rows: memoryview, row: int, values: Row) -> None:
    """Write the row back; the columns after the stopwatch's stay as they are."""
    _ROW.pack_into(
        rows,
        row * ROW_BYTES,
        values.t_start_ns,
        values.wall_ns,
        values.host_ns,
        values.runq_ns,
        values.device_ns,
        values.copy_ns,
        values.span_ns,
        values.nbytes,
        values.queue_ns,
        values.errno,
        values.minor_faults % _FAULTS,
        values.major_faults % _FAULTS,
    )


def started_row(start_ns: int, intended_ns: int) -> Row:
    """The row of a new operation."""
    return Row(start_ns, 0, 0, 0, 0, 0, 0, 0, start_ns - intended_ns, 0, 0, 0)


def start_meter() -> tuple[Readings, int]:
    """Sample all clocks, the monotonic one last; and the errno with which the thread's schedstat could not be read."""
    runq_ns, error = _runq_ns()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    before_ns = time.monotonic_ns()
    cpu_ns = time.thread_time_ns()
    start_ns = time.monotonic_ns()
    if start_ns - before_ns > _LONGEST_READING_NS:  # preempted: run-queue time of the operation that was to start
        start_ns = before_ns
    minor, major = usage.ru_minflt % _FAULTS, usage.ru_majflt % _FAULTS
    return Readings(start_ns, cpu_ns, runq_ns, usage.ru_nvcsw, usage.ru_nivcsw, minor, major), error


def _split(wall_ns: int, cpu_ns: int, runq_ns: int, blocked: bool) -> tuple[int, int]:
    """Host and run-queue time of a piece, which together are at most its wall time."""
    host_ns = min(max(cpu_ns, 0), wall_ns)
    runq_ns = min(max(runq_ns, 0), wall_ns - host_ns)
    return (host_ns if blocked else wall_ns - runq_ns), runq_ns


def stop_meter(start: Readings, row: Row, outcome: PieceResult) -> None:
    """Sample again, the monotonic clock first, and add the piece to the row."""
    wall_ns = time.monotonic_ns() - start.start_ns
    cpu_ns = time.thread_time_ns() - start.cpu_ns
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    runq_ns, error = _runq_ns()
    outcome.errno = outcome.errno or error
    blocked = not SCHEDSTAT or usage.ru_nvcsw != start.blocks
    host_ns, runq_ns = _split(wall_ns, cpu_ns, runq_ns - start.runq_ns, blocked)

    row.wall_ns += wall_ns
    row.host_ns += host_ns
    row.runq_ns += runq_ns
    row.device_ns = row.wall_ns - row.host_ns - row.runq_ns
    row.copy_ns += host_ns if outcome.copy_ns == SAME else min(max(outcome.copy_ns, 0), host_ns)
    row.span_ns += wall_ns if outcome.span_ns == SAME else outcome.span_ns
    row.nbytes += outcome.nbytes
    row.minor_faults += usage.ru_minflt - start.minor_faults
    row.major_faults += usage.ru_majflt - start.major_faults
    if outcome.errno:
        row.errno = outcome.errno
