"""The processor time of the library's own threads, which send and receive for all workers of a rank.

It is read from the processor clock of each thread, so a thread that ended between two readings keeps what it had at
the first. Where several batches are under way at once, what the threads spend meanwhile is divided among them in equal
parts: its sum over batches is what was spent, and a single batch's part is not known any closer.
"""

import os
import threading
import time
from contextlib import suppress
from typing import Final

_TASKS: Final = "/proc/self/task"
_PREFIX: Final = "tokio-"
"""What the threads of the library's runtime are called."""
_THREAD_CLOCK: Final = 6
"""What the kernel marks the number of a single thread's clock with (include/linux/posix-timers.h)."""
_QUIET_S: Final = 0.02
_MOST_S: Final = 2.0


class LibraryThreads:
    """Of one process."""

    def __init__(self) -> None:
        self._clocks: dict[str, int | None] = {}
        """By thread, the number of its clock; None: it is not the library's."""
        self._had_ns: dict[str, int] = {}
        """What each had when it was last read."""
        self._gone_ns = 0

    @property
    def running(self) -> bool:
        """Whether one of them runs, or is ready to."""
        for thread, clock in self._clocks.items():
            if clock is not None:
                with suppress(OSError), open(f"{_TASKS}/{thread}/stat", encoding="utf-8") as status:
                    if status.read().rpartition(")")[2].split()[0] == "R":
                        return True
        return False

    def spent_ns(self) -> int:
        """What they have spent until now, all together."""
        there = os.listdir(_TASKS)
        for thread in there:
            if thread not in self._clocks:
                self._clocks[thread] = _clock_of(thread)
        if len(self._clocks) > len(there):
            for thread in self._clocks.keys() - set(there):
                del self._clocks[thread]
                self._gone_ns += self._had_ns.pop(thread, 0)
        for thread, clock in self._clocks.items():
            if clock is not None:
                # A thread that ends now is forgotten the next time.
                with suppress(OSError):
                    self._had_ns[thread] = time.clock_gettime_ns(clock)
        return self._gone_ns + sum(self._had_ns.values())


def _clock_of(thread: str) -> int | None:
    """The processor clock of a thread of the library (as pthread_getcpuclockid gives it); None: it is another's."""
    try:
        with open(f"{_TASKS}/{thread}/comm", encoding="utf-8") as name:
            return (~int(thread) << 3) | _THREAD_CLOCK if name.read().startswith(_PREFIX) else None
    except OSError:
        return None


def wait_until_quiet(most_s: float = _MOST_S) -> bool:
    """Wait until the library's threads have nothing to do, for `most_s` seconds at most; returns whether that is so.

    To be called before the interpreter ends. They tell Python of each answer, also, a moment later, of requests that
    were given up, and Python ends a thread that comes to it then in a way that aborts the process.
    """
    threads = LibraryThreads()
    until_s, spent_ns = time.monotonic() + most_s, threads.spent_ns()
    while time.monotonic() < until_s:
        time.sleep(_QUIET_S)
        before_ns, spent_ns = spent_ns, threads.spent_ns()
        if spent_ns == before_ns and not threads.running:
            return True
    return False


class HelperTime:
    """Divides what the threads spend among the batches that are under way. Any thread may use it."""

    def __init__(self) -> None:
        self._threads = LibraryThreads()
        self._lock = threading.Lock()
        self._under_way: dict[int, float] = {}
        self._numbers = 0
        self._last_ns = 0

    def begin(self) -> int:
        """A batch begins; returns what `end` is to be given."""
        with self._lock:
            self._divide()
            self._numbers += 1
            self._under_way[self._numbers] = 0.0
            return self._numbers

    def end(self, number: int) -> int:
        """A batch is over; returns its part, in ns."""
        with self._lock:
            self._divide()
            return round(self._under_way.pop(number))

    def _divide(self) -> None:
        now_ns = self._threads.spent_ns()
        if self._under_way:
            part = max(0, now_ns - self._last_ns) / len(self._under_way)
            for number in self._under_way:
                self._under_way[number] += part
        self._last_ns = now_ns
