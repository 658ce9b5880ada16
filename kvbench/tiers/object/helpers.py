"""The processor time of the library's own threads, which send and receive for all workers of a rank.

It is read from the kernel's account of each thread, so a thread that ended between two readings keeps what it had at
the first. Where several batches are under way at once, what the threads spend meanwhile is divided among them in equal
parts: its sum over batches is what was spent, and a single batch's part is not known any closer.
"""

import os
import threading
from contextlib import suppress
from typing import Final

_TASKS: Final = "/proc/self/task"
_PREFIX: Final = "tokio-"
"""What the threads of the library's runtime are called."""
_SCHEDSTAT_BYTES: Final = 96


class LibraryThreads:
    """Of one process."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        """By thread, its open schedstat; -1: it is not the library's."""
        self._had_ns: dict[str, int] = {}
        """What each had when it was last read."""
        self._gone_ns = 0

    def spent_ns(self) -> int:
        """What they have spent until now, all together."""
        there = os.listdir(_TASKS)
        for thread in there:
            if thread not in self._files:
                self._files[thread] = self._open(thread)
        for thread in self._files.keys() - set(there):
            self._forget(thread)
        for thread, descriptor in self._files.items():
            if descriptor >= 0:
                # A thread that ends now is forgotten the next time.
                with suppress(OSError, ValueError, IndexError):
                    self._had_ns[thread] = int(os.pread(descriptor, _SCHEDSTAT_BYTES, 0).split()[0])
        return self._gone_ns + sum(self._had_ns.values())

    def close(self) -> None:
        """Give the open files back."""
        for thread in list(self._files):
            self._forget(thread)

    @staticmethod
    def _open(thread: str) -> int:
        try:
            with open(f"{_TASKS}/{thread}/comm", encoding="utf-8") as name:
                if not name.read().startswith(_PREFIX):
                    return -1
            return os.open(f"{_TASKS}/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _forget(self, thread: str) -> None:
        descriptor = self._files.pop(thread)
        if descriptor >= 0:
            os.close(descriptor)
        self._gone_ns += self._had_ns.pop(thread, 0)


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

    def close(self) -> None:
        """No batch begins any more."""
        with self._lock:
            self._threads.close()

    def _divide(self) -> None:
        now_ns = self._threads.spent_ns()
        if self._under_way:
            part = max(0, now_ns - self._last_ns) / len(self._under_way)
            for number in self._under_way:
                self._under_way[number] += part
        self._last_ns = now_ns
