"""Delays that make one part of the work seem faster or slower than it is, paid by a worker after each batch.

A batch takes as long as it takes, and its rows say so: delays begin when it is over, and before its request goes on.
How long they are follows from what the kernel accounted to that very batch. A delay of device time is slept; one of
processor time keeps a processor busy, as the work would: with the interpreter's lock held where kvbench itself worked,
and without it where an operation did. Waits for a processor grow by themselves then, and are not delayed.

What is not delayed: what the kernel does in the background, its page cache, the bandwidth of memory, other processes
and nodes, waits for the interpreter's lock outside operations. A delayed device is not kept busy: that it is shared by
fewer at a time shows in a run where `nothing` is faster.
"""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.records.batches import BatchSplit

_SHORTEST_SLEEP_NS: Final = 50_000
"""Less is owed until it is more: a sleep takes some 50 us longer than it is asked to."""
_SHORTEST_WORK_NS: Final = 2_000
_SLICE_S: Final = 0.05
"""Between two looks at whether the load is to end."""


class Hands:
    """How time is spent, and what the thread's clock says."""

    def cpu_ns(self) -> int:
        """Processor time of the calling thread."""
        return timed_io.thread_cpu_ns()

    def work(self, nanoseconds: int) -> int:
        """Keep a processor busy for so long; returns for how long it was."""
        return timed_io.spend_cpu(nanoseconds)

    def work_alone(self, nanoseconds: int) -> int:
        """The same with the interpreter's lock held, as far as Python code holds it."""
        begin_ns = timed_io.thread_cpu_ns()
        while (spent_ns := timed_io.thread_cpu_ns() - begin_ns) < nanoseconds:
            pass
        return spent_ns

    def sleep(self, nanoseconds: int) -> int:
        """Leave the processor for so long; returns for how long it was."""
        begin_ns = timed_io.now_ns()
        time.sleep(nanoseconds / 1e9)
        return timed_io.now_ns() - begin_ns


@dataclass(slots=True)
class DelaySums:
    """Of a worker: what its batches took, and how long it was delayed for them, in ns."""

    batches: int = 0
    device_ns: int = 0
    host_ns: int = 0
    """In operations, copies included."""
    copy_ns: int = 0
    between_ns: int = 0
    """Processor time of the worker outside operations."""
    asleep_ns: int = 0
    busy_ns: int = 0


class Delays:
    """Of one worker, under `speed`; ended early where `stop` says so."""

    def __init__(self, speed: VirtualSpeed, stop: npt.NDArray[np.int32], hands: Hands | None = None) -> None:
        self._speed = speed
        self._stop = stop
        self._hands = Hands() if hands is None else hands
        self._mark_ns = 0
        self._host_ns = 0
        self._sleep_owed = self._work_owed = self._alone_owed = 0.0
        self.sums = DelaySums()

    def begin(self) -> None:
        """A load begins: what was done before it is not delayed."""
        self.sums = DelaySums()
        self._host_ns = 0
        self._sleep_owed = self._work_owed = self._alone_owed = 0.0
        self._mark_ns = self._hands.cpu_ns()

    def note(self, split: BatchSplit) -> None:
        """A batch took so long."""
        speed, sums = self._speed, self.sums
        host_ns = split.host_ns + split.helper_ns
        self._host_ns += split.host_ns
        self._sleep_owed += speed.device * split.device_ns
        self._work_owed += speed.host * (host_ns - split.copy_ns) + speed.copies * split.copy_ns
        # That of the worker itself is in what its clock says.
        self._sleep_owed += speed.idle * split.helper_ns
        sums.batches += 1
        sums.device_ns += split.device_ns
        sums.host_ns += host_ns
        sums.copy_ns += split.copy_ns

    def pay(self) -> bool:
        """Spend the time that is owed, and return True; False where it was ended early."""
        speed, hands, sums = self._speed, self._hands, self.sums
        cpu_ns = hands.cpu_ns() - self._mark_ns
        between_ns = max(0, cpu_ns - self._host_ns)
        sums.between_ns += between_ns
        self._host_ns = 0
        self._alone_owed += speed.host * between_ns
        self._sleep_owed += speed.idle * cpu_ns
        if self._alone_owed >= _SHORTEST_WORK_NS:
            spent_ns = hands.work_alone(round(self._alone_owed))
            self._alone_owed -= spent_ns
            sums.busy_ns += spent_ns
        if self._work_owed >= _SHORTEST_WORK_NS:
            spent_ns = hands.work(round(self._work_owed))
            self._work_owed -= spent_ns
            sums.busy_ns += spent_ns
        paid = self._sleep()
        # Paying took processor time too, which is nobody's.
        self._mark_ns = hands.cpu_ns()
        return paid

    def _sleep(self) -> bool:
        while self._sleep_owed >= _SHORTEST_SLEEP_NS:
            if self._stop[0]:
                return False
            slept_ns = self._hands.sleep(round(min(self._sleep_owed, _SLICE_S * 1e9)))
            self._sleep_owed -= slept_ns
            self.sums.asleep_ns += slept_ns
        return True
