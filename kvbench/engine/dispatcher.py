"""Decides, one request after the other, and hands operations to workers in an order in which all can be carried out.

There is one dispatcher in a rank and it is passive: a worker that has finished a batch takes the next one from it, and
whoever comes first when a request is due makes that request's decisions. Decisions are made in schedule order under
one lock, so they do not depend on which worker made them. It moves no bytes.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cache.announcements import Announcements
from kvbench.engine.arrivals import NEVER, Arrivals, Timeline, Timers
from kvbench.engine.bundle import Share, Work
from kvbench.engine.operation import ActiveRequest, Next, Operation
from kvbench.engine.order import KeyOrder
from kvbench.engine.planner import Books, Planner
from kvbench.engine.ready import Limits, ReadyUnits
from kvbench.engine.request_log import log_request
from kvbench.engine.sharing import Sharing
from kvbench.engine.together import Together
from kvbench.records.recorder import RowStore
from kvbench.records.schema import Op, Phase, RequestState
from kvbench.workload.request import Request, Schedule

_ADMISSIONS_AT_ONCE: Final = 64
"""Between two looks at the clock: requests that need no operation must not keep a load from ending."""
_NOT_BEGUN: Final = Timeline.untimed(0, Phase.WARMUP)
_WRITE: Final = Op.WRITE
_LEAVES: Final = (Op.DELETE, Op.DEMOTE, Op.PROMOTE)
"""After one of these the object is no longer where it was, and its room is free."""


class Dispatcher:
    """Runs one schedule (implements `source.OperationSource`). `pacing` is that of the configuration; requests end up
    in `log` (REQUEST_DTYPE rows).

    Making one takes long where there are many users (`Arrivals`). So that this is over before any clock starts, a
    dispatcher is told last of all when that is: `begin`, and then workers may `take`.
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
        clock: Callable[[], int] = timed_io.now_ns,
    ) -> None:
        """`sharing`: this rank's part in a key space that ranks share. `by_priority` (open loop): of the requests that
        have arrived and wait, the higher class goes first. `clock`: what time it is (ns), where that is another than
        the real one."""
        self._books = books
        self._clock = clock
        self._sharing = sharing
        self._users_waiting: dict[int, int] = {}
        """Closed loop: the users whose request another rank decodes, by its number."""
        self._is_open = pacing == "open"
        self._closed_loop = pacing == "closed" and schedule.closed_loop
        self._timeline = _NOT_BEGUN
        self._limits = limits
        self._rank = rank
        self._log = log
        self._order = KeyOrder()
        self._ready = ReadyUnits(limits, books.storage, sharing, self._gone)
        self._planner = Planner(books, self._order, sharing, bytes_per_token, self._ready.add, clock)
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._idle = 0
        """Workers that wait."""
        self._watched_ns = NEVER
        self._waiting_for_place: deque[ActiveRequest] = deque()
        self._active: dict[int, ActiveRequest] = {}
        self._stopped = False
        self._timers = Timers()
        group = 1 if books.shape is None else books.shape.ranks
        self._together = Together(group)
        self._first_of_group = rank % group == 0
        self._arrivals = Arrivals(schedule, self._timers, pacing == "asap", by_priority)

    def begin(self, timeline: Timeline) -> None:
        """The load starts, is measured and ends as `timeline` says. Once, before the first `take`; takes no time."""
        with self._lock:
            self._timeline = timeline
            self._timers.start_ns = timeline.start_ns

    # What workers call

    def take(self, done: Work = (), room: int = 1) -> Work:
        """Hand in what was carried out, and get the next batch (see `OperationSource`)."""
        with self._lock:
            self._hand_in(done)
            while (batch := self._next_batch(room)) is None:
                self._wait(self._clock())
            return batch

    def take_now(self, done: Work = (), room: int = 1) -> Work | None:
        """The same without waiting: None where there is nothing to do before somebody else hands something in, or
        before `next_event_ns`. For workers that are simulated, in the time of a clock that is simulated too."""
        with self._lock:
            self._hand_in(done)
            return self._next_batch(room)

    @property
    def next_event_ns(self) -> int:
        """When something will have to be done that no worker's operation brings about; NEVER: nothing will."""
        with self._lock:
            return self._next_event_ns()

    def _hand_in(self, done: Work) -> None:
        if done:
            self._ready.in_flight.end(done)
            self._finish(done)

    def _next_batch(self, room: int) -> Work | None:
        """What a worker takes now; an empty one where the load is over, None where it has to wait."""
        while True:
            now_ns = self._clock()
            if self._over(now_ns):
                self._condition.notify_all()
                return ()
            if self._timers:
                self._timers.run(now_ns)
            self._admit(now_ns)
            if self._ready:
                batch = self._ready.next_batch(room)
                if batch:
                    self._wake_another()
                    return batch
            # The requests that were just admitted may have been the last, and have had nothing to do.
            elif not self._over(now_ns):
                return None

    def give_up(self, done: Work, left: Sequence[Operation], state: RequestState) -> None:
        """See `OperationSource`."""
        with self._lock:
            self._ready.in_flight.end(done, left)
            self._stopped = True
            if done:
                self._finish(done)
            for operation in left:
                if self._sharing is not None:
                    self._sharing.end_read(operation)
                operation.request.state = state
            self._condition.notify_all()

    def stop(self) -> None:
        """Hand out no further operation; those that run go on."""
        with self._lock:
            self._stopped = True
            self._condition.notify_all()

    # What the rank's main thread calls

    def say(self, number: int) -> tuple[Announcements, int]:
        """What this rank has to announce in round `number`, where ranks share a key space, and the last round that it
        has taken in and that no read which runs here was begun before."""
        assert self._sharing is not None
        with self._lock:
            return self._sharing.say(number), self._sharing.settled

    def take_in(self, number: int, news: Announcements, settled: int, finished: npt.NDArray[np.bool_]) -> None:
        """Take in a round of announcements: what may be deleted, what was handed over. Raises LookupError."""
        assert self._sharing is not None
        with self._lock:
            heard = self._sharing.take_in(number, news, settled, finished)
            self._ready.add_retired(heard.deletes)
            for item in heard.handed_over:
                self._arrivals.add(item.request, item.intended_ns)
            for request, then_ns in heard.decoded:
                user = self._users_waiting.pop(request, None)
                if user is not None:
                    self._arrivals.next_of(user, then_ns)
            if self._over(self._clock()):
                self._condition.notify_all()
            else:
                self._condition.notify(len(heard.deletes) + len(heard.handed_over) + len(heard.decoded))

    def say_loaded(self) -> list[int]:
        """The requests that this rank has loaded its part of, where ranks serve together, since it was asked last."""
        with self._lock:
            return self._together.say()

    def loaded_together(self, numbers: Sequence[int]) -> None:
        """Ranks of the group, this one among them, have loaded their parts of these requests."""
        with self._lock:
            now_ns = self._clock()
            for active in self._together.take_in(numbers):
                self._next_stage(active, now_ns)
            self._condition.notify_all()

    def close(self) -> None:
        """Log the requests that were under way when the load ended, as cut short. Call when no worker is left."""
        now_ns = self._clock()
        for active in list(self._active.values()):
            if active.state == RequestState.DONE:
                active.state = RequestState.CUT_SHORT
            self._log_request(active, now_ns)
        self._active.clear()
        if self._is_open and self._timeline.measure_ns != NEVER:
            until_ns = now_ns if self._timeline.end_ns is None else min(now_ns, self._timeline.end_ns)
            self._books.left_waiting = self._arrivals.left_waiting(self._timeline.measure_ns, until_ns)

    # Waiting

    def _over(self, now_ns: int) -> bool:
        if self._stopped or (self._timeline.end_ns is not None and now_ns >= self._timeline.end_ns):
            return True
        return not (self._ready or self._active or self._arrivals or self._timers or self._awaited)

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
        due_ns = NEVER if self._timeline.end_ns is None else self._timeline.end_ns
        if self._timers:
            due_ns = min(due_ns, self._timers.next_ns)
        if len(self._active) < self._limits.requests:
            due_ns = min(due_ns, self._arrivals.next_ns)
        return due_ns

    def _wait(self, now_ns: int) -> None:
        until_ns = self._next_event_ns()
        self._idle += 1
        if until_ns >= self._watched_ns:
            self._condition.wait()
            self._idle -= 1
            return
        # One worker watches the clock for all. Whoever stops watching, for whatever reason, wakes another to do so.
        self._watched_ns = until_ns
        try:
            self._condition.wait(None if until_ns == NEVER else max(0.0, (until_ns - now_ns) / 1e9))
        finally:
            self._idle -= 1
            self._watched_ns = NEVER
            self._condition.notify()

    def _wake_another(self) -> None:
        """A worker has taken something: another is woken for what is left of it, or to watch the clock."""
        if self._idle and (self._ready or self._next_event_ns() < self._watched_ns):
            self._condition.notify()

    # What follows

    def _gone(self, operation: Operation) -> None:
        operation.request.miss_after_all(operation.tokens)
        self._count_down(operation.request, 1, self._clock())

    def _finish(self, done: Work) -> None:
        """Do what follows from each of the operations of a batch, in their order; then what follows for the stage."""
        if isinstance(done, Share):
            self._finish_share(done)
            return
        now_ns = self._clock()
        active, (op, _, _, source, target) = done[0].request, done[0].step
        left = self._books.rooms[source] if op in _LEAVES and source is not None else None
        for operation in done:
            if self._sharing is not None:
                # Before what waits for it: others must hear of an object before they hear that it is to be deleted.
                self._tell(self._sharing, operation)
            if operation.writer is None:
                for follower in self._order.finish(operation):
                    self._ready.add(follower)
            if left is not None:
                for follower in left.release(operation.step.nbytes):
                    self._ready.add(follower)
            elif op == _WRITE:
                self._end_write(operation.step.key, now_ns)
        if done[0].stage is not None:
            self._credit(active, target if source is None else source, done, now_ns)

    def _finish_share(self, share: Share) -> None:
        """The same of a part of a bundle. What waits for the bundle goes on when the last part of it is done."""
        now_ns = self._clock()
        bundle = share.bundle
        bundle.unfinished -= share.count
        if not bundle.unfinished:
            for follower in self._order.finish(bundle):
                self._ready.add(follower)
        if bundle.op == _WRITE:
            self._end_write(None, now_ns, self._ready.in_flight.of(share))
        elif bundle.op in _LEAVES and bundle.source is not None:
            for follower in self._books.rooms[bundle.source].release(share.count * bundle.nbytes):
                self._ready.add(follower)
        if bundle.stage is not None:
            tier = bundle.target if bundle.source is None else bundle.source
            self._credit(bundle.request, tier, share, now_ns)

    def _credit(self, active: ActiveRequest, tier: int | None, done: Work, now_ns: int) -> None:
        """A request has waited for what is `done`, on `tier`."""
        active.operations += len(done)
        if tier is not None and self._books.storage[tier]:
            wall_ns = done.wall_ns if isinstance(done, Share) else sum([operation.wall_ns for operation in done])
            active.storage_ns += wall_ns
        self._count_down(active, len(done), now_ns)

    def _end_write(self, key: int | None, now_ns: int, places: int = 1) -> None:
        """One new entry less that is being written, or more of them at once: another may be. None: of a bundle, whose
        keys nobody waits for."""
        self._ready.give_place_back(places)
        if key is not None:
            self._planner.written(key)
        self._ready.let_write(places)
        if self._waiting_for_place:
            self._give_places(now_ns)

    def _tell(self, sharing: Sharing, operation: Operation) -> None:
        """Let the other ranks know what `operation` has brought about."""
        step = operation.step
        if operation.writer is not None:
            sharing.end_read(operation)
        if operation.spoiled:
            operation.request.miss_after_all(operation.tokens)
        if step.target is not None and self._books.storage[step.target] and step.op in (Op.WRITE, Op.DEMOTE):
            sharing.written(step.key, step.nbytes, operation.ended_ns)

    # Progress of requests

    def _admit(self, now_ns: int) -> None:
        for _ in range(_ADMISSIONS_AT_ONCE):
            if len(self._active) >= self._limits.requests:
                return
            coming = self._arrivals.let_in(now_ns)
            if coming is None:
                return
            self._start(*coming, now_ns)

    def _start(self, request: Request, intended_ns: int, now_ns: int) -> None:
        phase = Phase.MEASURE if intended_ns >= self._timeline.measure_ns else self._timeline.before
        active = ActiveRequest(request, phase, intended_ns, now_ns)
        if request.prefetch:
            # Nobody waits for it, and it is no request.
            self._planner.decide(active)
            return
        self._active[request.number] = active
        self._planner.decide(active)
        self._next_stage(active, intended_ns)

    def _next_stage(self, active: ActiveRequest, now_ns: int) -> None:
        active.stage += 1
        if active.load_ns < 0 <= active.loaded_at:
            active.note_progress(max(now_ns, active.start_ns))
        if active.stage == len(active.stages) and not self._decide_more(active, max(now_ns, active.start_ns)):
            return
        if active.stage == active.computes_at:
            self._compute(active, max(now_ns, active.start_ns))
        elif active.stage_delays_ns[active.stage]:
            # What began late (`now_ns` is then its intended start) takes its time all the same.
            now_ns = max(now_ns, active.start_ns)
            due_ns = now_ns + active.stage_delays_ns[active.stage]
            self._timers.at(due_ns, lambda due_ns: self._open_stage(active, due_ns))
        else:
            self._open_stage(active, now_ns)

    def _compute(self, active: ActiveRequest, now_ns: int) -> None:
        """What was loaded is there: the rest of the prompt is computed, at least its last token."""
        assert self._books.gpu is not None
        end_ns = self._books.gpu.prefill(max(1, active.miss_tokens), active.hit_tokens, now_ns)
        active.prefill_ns = end_ns - now_ns
        active.first_token_ns = end_ns - active.intended_ns
        self._timers.at(end_ns, lambda due_ns: self._open_stage(active, due_ns))

    def _decode(self, active: ActiveRequest, now_ns: int) -> None:
        gpu, request = self._books.gpu, active.request
        assert gpu is not None
        end_ns = gpu.decode(request.context_tokens, request.output_tokens, now_ns)

        def done(due_ns: int) -> None:
            gpu.decoded()
            active.decode_ns = due_ns - now_ns
            self._count_down(active, 1, due_ns)

        active.left_in_stage += 1
        self._timers.at(end_ns, done)

    def _decide_more(self, active: ActiveRequest, now_ns: int) -> bool:
        """Whether a request that has done all of its stages has one more now; it may have ended, or has to wait."""
        more = self._planner.decide_next(active)
        if active.has_place:
            # It did not write after all.
            active.has_place = False
            self._ready.give_place_back()
        if more == Next.PLACE:
            active.stage -= 1
            self._waiting_for_place.append(active)
            self._give_places(now_ns)
        elif more == Next.NOTHING:
            self._end(active, now_ns)
        return more == Next.STAGE

    def _give_places(self, now_ns: int) -> None:
        """Let those decide on their writes for which there is a place, in the order in which they came."""
        while self._waiting_for_place and self._ready.may_write:
            active = self._waiting_for_place.popleft()
            active.has_place = True
            self._ready.take_place()
            self._next_stage(active, now_ns)

    def _open_stage(self, active: ActiveRequest, now_ns: int) -> None:
        operations = active.stages[active.stage]
        active.stages[active.stage] = []
        active.left_in_stage = sum([operation.count for operation in operations])
        if active.stage == active.computes_at:
            self._decode(active, now_ns)
        for operation in operations:
            operation.ready_ns = now_ns
            operation.waits_for -= 1
            if operation.waits_for == 0:
                self._ready.add(operation)
        if not active.left_in_stage:
            self._next_stage(active, now_ns)

    def _count_down(self, active: ActiveRequest, operations: int, now_ns: int) -> None:
        """The request's stage waits for so many `operations` less."""
        active.left_in_stage -= operations
        if active.left_in_stage:
            return
        if active.stage == active.waits_at:
            self._together.wait(active)
            return
        self._next_stage(active, now_ns)

    def _log_request(self, active: ActiveRequest, now_ns: int) -> None:
        """One row, whatever the number of ranks that serve it: by the first of them."""
        if self._first_of_group:
            log_request(self._log, self._rank, active, now_ns)

    def _end(self, active: ActiveRequest, now_ns: int) -> None:
        request = active.request
        del self._active[request.number]
        self._log_request(active, now_ns)
        if self._sharing is not None and request.decode_elsewhere:
            self._sharing.hand_over(request, now_ns)
            if self._closed_loop:
                self._users_waiting[request.number] = request.user
            return
        if self._sharing is not None and self._sharing.role == "decode":
            self._sharing.decoded(request, now_ns)
            return
        if self._closed_loop:
            self._arrivals.next_of(request.user, now_ns)
        elif request.followers is not None:
            for follower in request.followers():
                self._arrivals.after(follower, now_ns)
