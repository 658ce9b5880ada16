"""Writes objects to the storage tier until a time or a number of bytes, and deletes others at random to make room.

A source of operations for workers, like a dispatcher, and no load: nothing is asked for, looked up or read. The objects
are of no meaning to the workload; the last round deletes all of them.
"""

import threading
from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np

from kvbench import timed_io
from kvbench.cache import Step
from kvbench.engine.arrivals import Timeline
from kvbench.engine.bundle import Share, Work
from kvbench.engine.operation import ActiveRequest, Operation
from kvbench.records.schema import Op, Phase, RequestState
from kvbench.workload.keys import KeyKind, object_key
from kvbench.workload.request import Request

_WAIT_S: Final = 0.1


class Overwriting:
    """Fills `capacity_bytes` of tier number `tier` with objects of `sizes` bytes, in turn, and goes on in the place of
    objects drawn at random with `rng` (implements `engine.LoadSource`, for one round after the other).

    `together`: operations of a batch, for a tier that overlaps them.
    """

    def __init__(
        self, tier: int, capacity_bytes: int, sizes: Sequence[int], rng: np.random.Generator, together: int = 1
    ) -> None:
        self._tier = tier
        self._capacity_bytes = capacity_bytes
        self._sizes = sizes
        self._rng = rng
        self._together = together
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._there = array("Q")
        """Numbers of the objects that are whole, of which there may be very many."""
        self._writing: dict[int, int] = {}
        """The number of each object that is being written, by its key."""
        self._taken_bytes = 0
        """Of objects that are there, are being written, or are being deleted."""
        self._in_flight = 0
        self._stopped = False
        self._deletes_all = False
        self._seconds: float | None = 0.0
        self._end_ns = 0
        self._most_bytes: int | None = None
        self._begun_bytes = 0
        self._number = 0
        self.written_bytes = 0
        """In all rounds, of writes that worked."""
        self.writes = 0
        self._last_ns = 0
        self._request = _request()

    def begin_round(self, seconds: float | None, most_bytes: int | None = None) -> None:
        """The next load writes for so long (from its beginning), until `most_bytes` have been written in all rounds;
        None: it writes nothing, and deletes all that is there."""
        self._seconds = seconds
        self._deletes_all = seconds is None
        self._most_bytes = most_bytes

    def begin(self, timeline: Timeline) -> None:
        """The round begins."""
        with self._lock:
            self._end_ns = timeline.start_ns + int((self._seconds or 0) * 1e9)
            self._begun_bytes = self.written_bytes

    def take(self, done: Work = (), room: int = 1) -> Work:
        """See `OperationSource`."""
        with self._lock:
            self._account(done)
            while True:
                if self._stopped:
                    return ()
                batch = self._deletes(room) if self._deletes_all else self._next(room)
                if batch is not None:
                    self._in_flight += len(batch)
                    for operation in batch:
                        operation.inflight = self._in_flight
                    return batch
                # What others have in flight takes the room; they hand it in.
                self._changed.wait(_WAIT_S)

    def give_up(self, done: Work, left: Sequence[Operation], state: RequestState) -> None:
        """See `OperationSource`."""
        with self._lock:
            self._in_flight -= len(left)
            self._account(done)
            self._stop()

    def stop(self) -> None:
        """See `OperationSource`."""
        with self._lock:
            self._stop()

    def close(self) -> None:
        """The round is over."""

    def ended_ns(self, start_ns: int) -> int:
        """When the last operation of the round that began at `start_ns` was handed in; its start, where there was
        none."""
        return max(start_ns, self._last_ns)

    def _stop(self) -> None:
        self._stopped = True
        self._changed.notify_all()

    def _account(self, done: Work) -> None:
        if not done:
            return
        assert not isinstance(done, Share)
        self._in_flight -= len(done)
        # Operations that overlap have their times in their batch alone.
        self._last_ns = timed_io.now_ns()
        for operation in done:
            step = operation.step
            if step.op == Op.WRITE:
                self._there.append(self._writing.pop(step.key))
                self.written_bytes += step.nbytes
                self.writes += 1
            else:
                self._taken_bytes -= step.nbytes
        self._changed.notify_all()

    def _next(self, room: int) -> list[Operation] | None:
        """Writes, or what makes room for them; nothing where the round is over, None where there is something to wait
        for."""
        if not self._sizes or timed_io.now_ns() >= self._end_ns:
            return []
        writes: list[Operation] = []
        while len(writes) < min(room, self._together):
            if self._most_bytes is not None and self._begun_bytes >= self._most_bytes:
                break
            nbytes = self._size(self._number)
            if self._taken_bytes + nbytes > self._capacity_bytes:
                break
            key = object_key(KeyKind.PRECONDITION, self._number)
            self._writing[key] = self._number
            self._number += 1
            self._taken_bytes += nbytes
            self._begun_bytes += nbytes
            writes.append(self._operation(Step(Op.WRITE, key, nbytes, None, self._tier)))
        if writes or (self._most_bytes is not None and self._begun_bytes >= self._most_bytes):
            return writes
        victims: list[Operation] = []
        # As many bytes as the next write takes.
        short = self._taken_bytes + self._size(self._number) - self._capacity_bytes
        while short > 0 and self._there and len(victims) < room:
            place = int(self._rng.integers(len(self._there)))
            self._there[place], self._there[-1] = self._there[-1], self._there[place]
            victims.append(self._deletion())
            short -= victims[-1].step.nbytes
        return victims or None

    def _deletes(self, room: int) -> list[Operation]:
        return [self._deletion() for _ in range(min(room, len(self._there)))]

    def _deletion(self) -> Operation:
        number = self._there.pop()
        key = object_key(KeyKind.PRECONDITION, number)
        return self._operation(Step(Op.DELETE, key, self._size(number), self._tier, None))

    def _size(self, number: int) -> int:
        return self._sizes[number % len(self._sizes)]

    def _operation(self, step: Step) -> Operation:
        operation = Operation(step, self._request, 0, None)
        operation.ready_ns = timed_io.now_ns()
        return operation


def _request() -> ActiveRequest:
    """The request that all rows belong to: none of the workload's."""
    request = Request(
        number=0,
        user=0,
        qos=0,
        arrival_ns=0,
        context_tokens=0,
        output_tokens=0,
        history=(),
        context=(),
        prefill=True,
        decode_passes=0,
        generation_ns=0,
    )
    return ActiveRequest(request, Phase.PRECONDITION, 0, 0)
