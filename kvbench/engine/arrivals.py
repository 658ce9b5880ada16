"""When the requests of a load come: at their arrival times, after users' think times, or when they are handed over.

Plain state without a lock of its own: the dispatcher calls it under its own. It lets nobody in.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from kvbench.records.schema import Phase
from kvbench.workload.request import Request, Schedule

NEVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Timeline:
    """When a load starts, is measured from, and ends (None: with its last request), in CLOCK_MONOTONIC."""

    start_ns: int
    measure_ns: int
    end_ns: int | None
    before: Phase
    """The phase of requests that start before `measure_ns`."""

    @classmethod
    def untimed(cls, start_ns: int, phase: Phase) -> "Timeline":
        """A load that runs until it is done and is not measured."""
        return cls(start_ns, NEVER, None, phase)


class Timers:
    """What is to be done at a time. Times are kept from the start of the load, which may still be unknown."""

    def __init__(self) -> None:
        self.start_ns = 0
        """The start of the load: set once, when it begins."""
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._sequence = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due_ns: int, action: Callable[[int], None]) -> None:
        """Have `action(due_ns)` called when it is due."""
        heapq.heappush(self._heap, (due_ns - self.start_ns, next(self._sequence), action))

    def run(self, now_ns: int) -> None:
        """Do what is due by now, in the order in which it was."""
        while self._heap and self.start_ns + self._heap[0][0] <= now_ns:
            due_ns, _, action = heapq.heappop(self._heap)
            action(self.start_ns + due_ns)

    @property
    def next_ns(self) -> int:
        """When there is something to do; NEVER: nothing."""
        return self.start_ns + self._heap[0][0] if self._heap else NEVER


class Arrivals:
    """The requests of a schedule that have come and wait to be let in, and those that will come.

    Making it draws the first request of every stream, which takes long where there are many users.
    """

    def __init__(self, schedule: Schedule, timers: Timers, asap: bool, by_priority: bool) -> None:
        """`asap`: requests of a schedule without users come when they are let in. `by_priority`: of the requests of
        such a schedule that have arrived and wait, the higher class goes first."""
        self._timers = timers
        self._asap = asap
        self._by_priority = by_priority
        self._waiting: list[tuple[int, int, int, Request]] = []
        self._sequence = itertools.count()
        self._streams: dict[int, Iterator[Request]] = {}
        self._next: Request | None = None
        if schedule.closed_loop:
            for user in range(schedule.users):
                self._streams[user] = schedule.stream(user)
                self.next_of(user, timers.start_ns)
        else:
            self._streams[0] = schedule.stream(0)
            self._next = next(self._streams[0], None)

    def __bool__(self) -> bool:
        """Whether somebody waits, or will come without any user's doing."""
        return bool(self._waiting) or self._next is not None

    def next_of(self, user: int, after_ns: int) -> None:
        """Closed loop: have the next request of `user` come when he has thought, from `after_ns` on."""
        request = next(self._streams[user], None)
        if request is not None:
            self.after(request, after_ns)

    def after(self, request: Request, end_ns: int) -> None:
        """Have `request` come when its gap after `end_ns` is over."""
        self._timers.at(end_ns + request.arrival_ns, lambda due_ns: self.add(request, due_ns))

    def add(self, request: Request, intended_ns: int) -> None:
        """`request` comes now, and is to have started at `intended_ns`. The higher class is let in first."""
        heapq.heappush(self._waiting, (request.qos, intended_ns, next(self._sequence), request))

    def let_in(self, now_ns: int) -> tuple[Request, int] | None:
        """The first of those that have come, with its intended start; None: nobody waits."""
        if self._by_priority:
            while (coming := self._come(now_ns)) is not None:
                self.add(*coming)
        if self._waiting:
            _, intended_ns, _, request = heapq.heappop(self._waiting)
            return request, intended_ns
        coming = self._come(now_ns)
        return (coming[0], now_ns) if coming is not None and self._asap else coming

    @property
    def next_ns(self) -> int:
        """When the next request comes without any user's doing; NEVER: none does."""
        return NEVER if self._next is None else self._timers.start_ns + self._next.arrival_ns

    def left_waiting(self, from_ns: int, until_ns: int) -> tuple[int, int]:
        """Of a schedule that is open loop, when its load is over: requests, and tokens of their contexts, that came
        from `from_ns` to `until_ns` and were never let in. Takes them out."""
        while (coming := self._come(until_ns)) is not None:
            self.add(*coming)
        left = [request for _, intended_ns, _, request in self._waiting if from_ns <= intended_ns <= until_ns]
        self._waiting.clear()
        return len(left), sum(request.context_tokens for request in left)

    def _come(self, now_ns: int) -> tuple[Request, int] | None:
        """The next of a schedule without users, with its arrival, where that is not after `now_ns`."""
        request = self._next
        if request is None or (arrival_ns := self._timers.start_ns + request.arrival_ns) > now_ns:
            return None
        self._next = next(self._streams[0], None)
        return request, arrival_ns
