"""Decides, one request after the other, and hands operations to workers in an order in which all can be carried out.

There is one dispatcher in a rank and it is passive: a worker that has finished an operation takes the next one from
it, and whoever comes first when a request is due makes that request's decisions. Decisions are made in schedule order
under one lock, so they do not depend on which worker made them. It moves no bytes.
"""

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cache.announcements import Announcements
from kvbench.engine.operation import ActiveRequest, Next, Operation
from kvbench.engine.order import KeyOrder
from kvbench.engine.planner import Books, Planner
from kvbench.engine.request_log import log_request
from kvbench.engine.sharing import Sharing
from kvbench.records.recorder import RowStore
from kvbench.records.schema import Op, Phase, RequestState
from kvbench.workload.request import Request, Schedule

_NEVER: Final = 2**63 - 1
_ADMISSIONS_AT_ONCE: Final = 64
"""Between two looks at the clock: requests that need no operation must not keep a load from ending."""


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
        return cls(start_ns, _NEVER, None, phase)


_NOT_BEGUN: Final = Timeline.untimed(0, Phase.WARMUP)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rank may have in flight."""

    requests: int
    writes: int
    """Writes of new entries at once; 0 for no limit."""


class Dispatcher:
    """Runs one schedule. `pacing` is that of the configuration; requests end up in `log` (REQUEST_DTYPE rows).

    Making one draws the first request of every stream, which takes long where there are many users. So that this is
    over before any clock starts, a dispatcher is told last of all when that is: `begin`, and then workers may `take`.
    """

    def __init__(
        self,
        books: Books,
        schedule: Schedule,
        pacing: Literal["closed", "open", "asap"],
        limits: Limits,
        bytes_per_token: int,
        rank: int,
        log: RowStore,
        sharing: Sharing | None = None,
        by_priority: bool = False,
    ) -> None:
        """`sharing`: this rank's part in a key space that ranks share. `by_priority` (open loop): of the requests that
        have arrived and wait, the higher class goes first."""
        self._by_priority = by_priority
        self._books = books
        self._sharing = sharing
        self._users_waiting: dict[int, int] = {}
        """Closed loop: the users whose request another rank decodes, by its number."""
        self._pacing = pacing
        self._timeline = _NOT_BEGUN
        self._limits = limits
        self._rank = rank
        self._log = log
        self._order = KeyOrder()
        self._planner = Planner(books, self._order, sharing, bytes_per_token, self._make_ready)
        self._condition = threading.Condition()
        self._ready: deque[Operation] = deque()
        self._waiting_writes: deque[Operation] = deque()
        self._waiting_for_place: deque[ActiveRequest] = deque()
        self._writes = 0
        self._running = 0
        self._active: dict[int, ActiveRequest] = {}
        self._timers: list[tuple[int, int, Callable[[int], None]]] = []
        """What is due, by its time since the start of the load, which may still be unknown."""
        self._sequence = itertools.count()
        self._watched_ns = _NEVER
        self._stopped = False
        self._due: list[tuple[int, int, int, Request]] = []
        self._streams: dict[int, Iterator[Request]] = {}
        self._next: Request | None = None
        if schedule.closed_loop:
            for user in range(schedule.users):
                self._streams[user] = schedule.stream(user)
                self._schedule_user(user, self._timeline.start_ns)
        else:
            self._streams[0] = schedule.stream(0)
            self._next = next(self._streams[0], None)

    def begin(self, timeline: Timeline) -> None:
        """The load starts, is measured and ends as `timeline` says. Once, before the first `take`; takes no time."""
        with self._condition:
            self._timeline = timeline

    # What workers call

    def take(self, finished: Operation | None = None, wall_ns: int = 0) -> Operation | None:
        """Hand in `finished` (None the first time) and get the next operation, waiting for it; None: no more work."""
        with self._condition:
            if finished is not None:
                self._finish(finished, wall_ns)
            while True:
                now_ns = timed_io.now_ns()
                if self._over(now_ns):
                    self._condition.notify_all()
                    return None
                self._run_timers(now_ns)
                self._admit(now_ns)
                if self._ready:
                    operation = self._ready.popleft()
                    if not self._may_begin(operation):
                        continue
                    self._running += 1
                    operation.inflight = self._running
                    if self._ready or self._next_event_ns() < self._watched_ns:
                        self._condition.notify()
                    return operation
                # The requests that were just admitted may have been the last, and have had nothing to do.
                if not self._over(now_ns):
                    self._wait(now_ns)

    def give_up(self, operation: Operation, state: RequestState) -> None:
        """`operation` was not carried out: its request ends in `state`, and no further operation is handed out."""
        with self._condition:
            self._running -= 1
            if self._sharing is not None:
                self._sharing.end_read(operation)
            operation.request.state = state
            self._stopped = True
            self._condition.notify_all()

    # What the rank's main thread calls

    def stop(self) -> None:
        """Hand out no further operation; those that run go on."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def say(self, number: int) -> tuple[Announcements, int]:
        """What this rank has to announce in round `number`, where ranks share a key space, and the last round that it
        has taken in and that no read which runs here was begun before."""
        assert self._sharing is not None
        with self._condition:
            return self._sharing.say(number), self._sharing.settled

    def take_in(self, number: int, news: Announcements, settled: int, finished: npt.NDArray[np.bool_]) -> None:
        """Take in a round of announcements: what may be deleted, what was handed over. Raises LookupError."""
        assert self._sharing is not None
        with self._condition:
            heard = self._sharing.take_in(number, news, settled, finished)
            self._ready.extend(heard.deletes)
            for item in heard.handed_over:
                heapq.heappush(self._due, (item.request.qos, item.intended_ns, next(self._sequence), item.request))
            for request, then_ns in heard.decoded:
                user = self._users_waiting.pop(request, None)
                if user is not None:
                    self._schedule_user(user, then_ns)
            if self._over(timed_io.now_ns()):
                self._condition.notify_all()
            else:
                self._condition.notify(len(heard.deletes) + len(heard.handed_over) + len(heard.decoded))

    def close(self) -> None:
        """Log the requests that were under way when the load ended, as cut short. Call when no worker is left."""
        now_ns = timed_io.now_ns()
        for active in list(self._active.values()):
            if active.state == RequestState.DONE:
                active.state = RequestState.CUT_SHORT
            log_request(self._log, self._rank, active, now_ns)
        self._active.clear()

    # Time

    def _over(self, now_ns: int) -> bool:
        if self._stopped or (self._timeline.end_ns is not None and now_ns >= self._timeline.end_ns):
            return True
        return not (self._ready or self._active or self._due or self._timers or self._next or self._awaited)

    @property
    def _awaited(self) -> bool:
        """Whether other ranks will still give this one something to do.

        A delete that waits for them belongs to no request, and yet to this load: the next one counts on its room, and
        may write the same object again.
        """
        sharing = self._sharing
        if sharing is None:
            return False
        return bool(self._users_waiting) or sharing.deleting or (sharing.role == "decode" and not sharing.prefill_over)

    def _next_event_ns(self) -> int:
        """When something will have to be done that no worker's operation brings about."""
        due_ns = _NEVER if self._timeline.end_ns is None else self._timeline.end_ns
        if self._timers:
            due_ns = min(due_ns, self._timeline.start_ns + self._timers[0][0])
        if self._next is not None and len(self._active) < self._limits.requests:
            due_ns = min(due_ns, self._timeline.start_ns + self._next.arrival_ns)
        return due_ns

    def _wait(self, now_ns: int) -> None:
        until_ns = self._next_event_ns()
        if until_ns >= self._watched_ns:
            self._condition.wait()
            return
        # One worker watches the clock for all. Whoever stops watching, for whatever reason, wakes another to do so.
        self._watched_ns = until_ns
        try:
            self._condition.wait(None if until_ns == _NEVER else max(0.0, (until_ns - now_ns) / 1e9))
        finally:
            self._watched_ns = _NEVER
            self._condition.notify()

    def _run_timers(self, now_ns: int) -> None:
        start_ns = self._timeline.start_ns
        while self._timers and start_ns + self._timers[0][0] <= now_ns:
            due_ns, _, action = heapq.heappop(self._timers)
            action(start_ns + due_ns)

    def _at(self, due_ns: int, action: Callable[[int], None]) -> None:
        heapq.heappush(self._timers, (due_ns - self._timeline.start_ns, next(self._sequence), action))

    def _schedule_user(self, user: int, after_ns: int) -> None:
        request = next(self._streams[user], None)
        if request is None:
            return
        found = request

        def due(due_ns: int) -> None:
            heapq.heappush(self._due, (found.qos, due_ns, next(self._sequence), found))

        self._at(after_ns + request.arrival_ns, due)

    # Decisions

    def _admit(self, now_ns: int) -> None:
        for _ in range(_ADMISSIONS_AT_ONCE):
            if len(self._active) >= self._limits.requests:
                return
            if self._by_priority:
                self._let_arrive(now_ns)
            if self._due:
                _, due_ns, _, request = heapq.heappop(self._due)
                self._start(request, due_ns, now_ns)
            elif self._next is not None and self._timeline.start_ns + self._next.arrival_ns <= now_ns:
                request = self._next
                self._next = next(self._streams[0], None)
                arrival_ns = self._timeline.start_ns + request.arrival_ns
                self._start(request, now_ns if self._pacing == "asap" else arrival_ns, now_ns)
            else:
                return

    def _let_arrive(self, now_ns: int) -> None:
        """Put the requests that have arrived by now among those that wait."""
        while self._next is not None and self._timeline.start_ns + self._next.arrival_ns <= now_ns:
            request = self._next
            arrival_ns = self._timeline.start_ns + request.arrival_ns
            heapq.heappush(self._due, (request.qos, arrival_ns, next(self._sequence), request))
            self._next = next(self._streams[0], None)

    def _start(self, request: Request, intended_ns: int, now_ns: int) -> None:
        phase = Phase.MEASURE if intended_ns >= self._timeline.measure_ns else self._timeline.before
        active = ActiveRequest(request, phase, intended_ns, now_ns)
        self._active[request.number] = active
        self._planner.decide(active)
        self._next_stage(active, intended_ns)

    # Progress of requests

    def _next_stage(self, active: ActiveRequest, now_ns: int) -> None:
        active.stage += 1
        if active.stage == len(active.stages) and not self._decide_more(active, max(now_ns, active.start_ns)):
            return
        if active.stage_delays_ns[active.stage]:
            # What began late (`now_ns` is then its intended start) takes its time all the same.
            now_ns = max(now_ns, active.start_ns)
            self._at(now_ns + active.stage_delays_ns[active.stage], lambda due_ns: self._open_stage(active, due_ns))
        else:
            self._open_stage(active, now_ns)

    def _decide_more(self, active: ActiveRequest, now_ns: int) -> bool:
        """Whether a request that has done all of its stages has one more now; it may have ended, or has to wait."""
        more = self._planner.decide_next(active)
        if active.has_place:
            # It did not write after all.
            active.has_place = False
            self._writes -= 1
        if more == Next.PLACE:
            active.stage -= 1
            self._waiting_for_place.append(active)
            self._give_places(now_ns)
        elif more == Next.NOTHING:
            self._end(active, now_ns)
        return more == Next.STAGE

    def _give_places(self, now_ns: int) -> None:
        """Let those decide on their writes for which there is a place, in the order in which they came."""
        while self._waiting_for_place and (not self._limits.writes or self._writes < self._limits.writes):
            active = self._waiting_for_place.popleft()
            active.has_place = True
            self._writes += 1
            self._next_stage(active, now_ns)

    def _open_stage(self, active: ActiveRequest, now_ns: int) -> None:
        operations = active.stages[active.stage]
        active.stages[active.stage] = []
        active.left_in_stage = len(operations)
        for operation in operations:
            operation.ready_ns = now_ns
            operation.waits_for -= 1
            if operation.waits_for == 0:
                self._make_ready(operation)
        if not operations:
            self._next_stage(active, now_ns)

    def _may_begin(self, operation: Operation) -> bool:
        """Whether an operation that is ready can be carried out: False for a read whose object has gone meanwhile."""
        if operation.writer is None or self._sharing is None or self._sharing.begin_read(operation):
            return True
        self._count_as_miss(operation)
        self._count_down(operation.request)
        return False

    @staticmethod
    def _count_as_miss(operation: Operation) -> None:
        active = operation.request
        active.hit_objects -= 1
        active.hit_tokens -= operation.tokens
        active.miss_objects += 1
        active.miss_tokens += operation.tokens

    def _make_ready(self, operation: Operation) -> None:
        if self._sharing is not None and self._is_shared_delete(operation) and not operation.retired:
            operation.retired = True
            self._sharing.retire(operation, timed_io.now_ns())
            return
        if operation.step.op == Op.WRITE and not operation.placed:
            if self._limits.writes and self._writes >= self._limits.writes:
                self._waiting_writes.append(operation)
                return
            self._writes += 1
        self._ready.append(operation)

    def _finish(self, operation: Operation, wall_ns: int) -> None:
        self._running -= 1
        step, active = operation.step, operation.request
        freed = [] if operation.writer is not None else self._order.finish(operation)
        if self._sharing is not None:
            self._tell(self._sharing, operation)
        if step.op in (Op.DELETE, Op.DEMOTE, Op.PROMOTE):
            assert step.source is not None
            freed += self._books.rooms[step.source].release(step.nbytes)
        for follower in freed:
            self._make_ready(follower)
        if step.op == Op.WRITE:
            self._writes -= 1
            self._planner.written(step.key)
            if self._waiting_writes:
                self._make_ready(self._waiting_writes.popleft())
            self._give_places(timed_io.now_ns())
        if operation.stage is None:
            return
        active.operations += 1
        tier = step.source if step.source is not None else step.target
        if tier is not None and self._books.storage[tier]:
            active.storage_ns += wall_ns
        self._count_down(active)

    def _count_down(self, active: ActiveRequest) -> None:
        """One operation less that the request's stage waits for."""
        active.left_in_stage -= 1
        if active.left_in_stage == 0:
            self._next_stage(active, timed_io.now_ns())

    def _is_shared_delete(self, operation: Operation) -> bool:
        source = operation.step.source
        return operation.step.op == Op.DELETE and source is not None and self._books.storage[source]

    def _tell(self, sharing: Sharing, operation: Operation) -> None:
        """Let the other ranks know what `operation` has brought about."""
        step = operation.step
        if operation.writer is not None:
            sharing.end_read(operation)
        if operation.spoiled:
            self._count_as_miss(operation)
        if step.target is not None and self._books.storage[step.target] and step.op in (Op.WRITE, Op.DEMOTE):
            sharing.written(step.key, step.nbytes, operation.ended_ns)

    def _end(self, active: ActiveRequest, now_ns: int) -> None:
        request = active.request
        del self._active[request.number]
        log_request(self._log, self._rank, active, now_ns)
        if self._sharing is not None and request.decode_elsewhere:
            self._sharing.hand_over(request, now_ns)
            if self._pacing == "closed":
                self._users_waiting[request.number] = request.user
            return
        if self._sharing is not None and self._sharing.role == "decode":
            self._sharing.decoded(request, now_ns)
            return
        if self._next is None and active.request.user in self._streams and self._pacing == "closed":
            self._schedule_user(active.request.user, now_ns)
