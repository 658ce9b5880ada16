"""One rank's threads reading in one turn of a cell, with the workers of a run: the same steps, rows and checks.

A thread reads one of its objects READS_PER_REQUEST times, one after the other (a request), then the next object. It
begins no request after the turn's time is over, and ends those that it began, so that no request is left out for
being slow. Nothing of MPI happens here.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Final

from kvbench import timed_io
from kvbench.cache import Step
from kvbench.engine.operation import ActiveRequest, Operation
from kvbench.engine.worker import Worker
from kvbench.records.schema import Op, Phase, RequestState
from kvbench.studies.equipment import Stock
from kvbench.studies.plan import READS_PER_REQUEST, StudyCell
from kvbench.workload.request import ObjectRef, Request

_POLL_S: Final = 0.05


def read_in_turn(
    stock: Stock, cell: StudyCell, seconds: float, bytes_per_token: int, interrupted: Callable[[], bool]
) -> int:
    """Read with all threads of `cell` for `seconds`; returns sectors verified. Records go to the stock's stores,
    failures to its list; when `interrupted`, or after a failure, what is under way is canceled."""
    turn = _Turn(cell, seconds, cell.object_bytes // bytes_per_token)
    size_number = stock.choices.sizes.index(cell.object_bytes)
    workers = [Worker(number, stock.equipment[cell.read_path], stock.stores[number]) for number in range(cell.threads)]
    threads = []
    for number, worker in enumerate(workers):
        reads = _ThreadReads(turn, number, stock.keys(size_number, number, cell.threads))
        threads.append(threading.Thread(target=worker.run, args=(reads,), name=f"kvbench-study-{number}", daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL_S)
            if interrupted() or stock.failures:
                stock.stop[0] = 1
                turn.over = True
    return sum(worker.verified_sectors for worker in workers)


class _Turn:
    """What the threads of a rank share in one turn."""

    def __init__(self, cell: StudyCell, seconds: float, tokens: int) -> None:
        self.cell = cell
        self.tokens = tokens
        self.requests = itertools.count()
        self.reading = bytearray(cell.threads)
        self.over = False
        self._end_ns = timed_io.now_ns() + int(seconds * 1e9)

    def may_begin(self, now_ns: int) -> bool:
        """Whether a thread may begin another request."""
        return not self.over and now_ns < self._end_ns


class _ThreadReads:
    """Hands one thread its reads (implements `source.OperationSource`), one at a time."""

    def __init__(self, turn: _Turn, thread: int, keys: Sequence[int]) -> None:
        self._turn = turn
        self._thread = thread
        self._keys = itertools.cycle(keys)
        self._request: ActiveRequest | None = None
        self._left = 0

    def take(self, done: Sequence[Operation], room: int) -> Sequence[Operation]:
        """The thread's next read; none when its turn is over. Every thread gets one request at least."""
        turn, thread = self._turn, self._thread
        turn.reading[thread] = 0
        now_ns = timed_io.now_ns()
        if turn.over:
            return ()
        if self._left == 0:
            if self._request is not None and not turn.may_begin(now_ns):
                return ()
            self._request = self._begin(now_ns)
            self._left = READS_PER_REQUEST
        assert self._request is not None
        self._left -= 1
        turn.reading[thread] = 1
        key = self._request.request.context[0].key
        step = Step(Op.READ, key, turn.cell.object_bytes, turn.cell.directory, None)
        read = Operation(step, self._request, turn.tokens, None)
        read.ready_ns, read.inflight = now_ns, turn.reading.count(1)
        return (read,)

    def give_up(self, done: Sequence[Operation], left: Sequence[Operation], state: RequestState) -> None:
        """The worker could not carry its read out: nothing more is read in this turn."""
        self._turn.over = True

    def stop(self) -> None:
        """Hand out no further read."""
        self._turn.over = True

    def _begin(self, now_ns: int) -> ActiveRequest:
        turn = self._turn
        request = Request(
            number=next(turn.requests),
            user=turn.cell.number,
            qos=0,
            arrival_ns=0,
            context_tokens=turn.tokens,
            output_tokens=0,
            history=(),
            context=(ObjectRef(next(self._keys), turn.tokens),),
            prefill=False,
            decode_passes=READS_PER_REQUEST,
            generation_ns=0,
        )
        return ActiveRequest(request, Phase.MEASURE, now_ns, now_ns)
