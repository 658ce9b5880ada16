"""A rank whose dispatcher, decisions and limits are those of a run, and whose workers are simulated.

What is decided, which operations wait for which, what a worker takes and how much is in flight is said by the code that
says it in a run (`engine.dispatcher`), in the time of a clock that is simulated. Only what takes time there is drawn
here: operations, and what a worker does between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cache import Cache, make_policy
from kvbench.config.run_config import CachePolicy, RunConfig
from kvbench.engine.arrivals import NEVER, Timeline
from kvbench.engine.bundle import Share, Work
from kvbench.engine.chained import block_shape, chain_cache
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.engine import CHUNK_ROWS, most_together
from kvbench.engine.modelled_gpu import ModelledGpu
from kvbench.engine.planner import Books
from kvbench.engine.ready import Limits
from kvbench.records.recorder import RowStore
from kvbench.records.schema import MOVING_OPS, REQUEST_DTYPE, Op, Phase, RequestState, label
from kvbench.records.storage_model import BETWEEN, HAND_IN, NEXT, WAKE
from kvbench.run.planning.stations import Station
from kvbench.workload.compute_time import ComputeTime
from kvbench.workload.trace_schedule import TraceSchedule
from kvbench.workload.traces import Trace

UNLIMITED_BYTES: Final = 2**62
"""Of a tier that is never full."""
_LABELS: Final = {op: label(op) for op in Op}


class Clock:
    """What time it is in the simulation (ns)."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@dataclass(slots=True)
class _Worker:
    """One thread, and the batch that it carries out."""

    rank: int
    batch: Work = ()
    op: str = ""
    where: str = ""
    to_begin: int = 0
    in_flight: int = 0
    depth: int = 1
    moves_up: bool = False
    synced: bool = False


Action = tuple[Callable[[_Worker], None], _Worker]
"""What follows when something has ended."""


class SimulatedRank:
    """One rank in simulated time. Stations are those that it shares with others, by name, and its own: `client`."""

    def __init__(
        self,
        config: RunConfig,
        number: int,
        part: Trace,
        capacities: Sequence[int | None],
        stations: Mapping[str, Station],
        clock: Clock,
        soon: Callable[[Action], None],
    ) -> None:
        """`soon` is given what follows at once, in place of a call, which could go as deep as there are operations."""
        rooms = [UNLIMITED_BYTES if nbytes is None else nbytes for nbytes in capacities]
        gpu = None if config.compute is None else ModelledGpu(ComputeTime(config))
        storage = [tier.facts.storage for tier in config.tiers]
        cache = Cache(rooms, make_policy(CachePolicy()))
        books = Books(cache, rooms, storage, chain_cache(config, rooms), block_shape(config), gpu)
        self.requests = RowStore(REQUEST_DTYPE, CHUNK_ROWS)
        overlapping = overlapping_ops(config)
        at_once = config.io.threads if any(tier.facts.keeps_bytes for tier in config.tiers) else 1
        depth = config.depth if overlapping else 1
        limits = Limits(
            config.most_requests,
            config.io.max_concurrent_allocs,
            at_once,
            config.depth,
            config.io.request_threads == "one",
            overlapping,
        )
        self.dispatcher = Dispatcher(
            books,
            TraceSchedule(config, part),
            config.pacing.mode,
            limits,
            config.geometry.bytes_per_token,
            number,
            self.requests,
            by_priority=config.pacing.admission == "priority",
            clock=clock,
        )
        self._books = books
        self._clock = clock
        self._stations = stations
        self._soon = soon
        self._storage = storage
        self._depth = depth
        self._overlapping = frozenset(overlapping)
        self._syncs = config.io.sync == "batch"
        self._room = most_together(config)
        self._idle = [_Worker(number) for _ in range(config.io.threads)]
        self._over = False
        self.moved_bytes: dict[str, int] = {}
        """On storage, by the name of the operation."""
        measured_ns = int(config.warmup_s * 1e9)
        self._end_ns = None if config.duration_s is None else measured_ns + int(config.duration_s * 1e9)
        self.dispatcher.begin(Timeline(0, measured_ns, self._end_ns, Phase.WARMUP))

    def poke(self) -> None:
        """Workers that wait take what there is to do now."""
        while self._idle and not self._over:
            worker = self._idle[-1]
            batch = self.dispatcher.take_now((), self._room)
            if batch is None:
                return
            if not batch:
                self._over = True
                return
            self._idle.pop()
            self._stations["client"].join(self._clock.now_ns)
            self._begin(worker, batch, WAKE)

    @property
    def next_event_ns(self) -> int:
        """When there may be something for workers that wait, without anything ending; NEVER: not before."""
        return self.dispatcher.next_event_ns if self._idle and not self._over else NEVER

    def close(self) -> None:
        """Requests that are under way are cut short."""
        self.dispatcher.close()

    def rows(self) -> NDArray[Any]:
        """Its requests (REQUEST_DTYPE)."""
        views = self.requests.views()
        return np.concatenate(views) if views else np.empty(0, REQUEST_DTYPE)

    # A batch: what is done before it, its operations, what is done after each, and after the last

    def _begin(self, worker: _Worker, batch: Work, how: str) -> None:
        op, source, target = _kind_of(batch)
        tier = source if op == Op.PROMOTE or target is None else target
        assert tier is not None
        worker.batch, worker.op = batch, _LABELS[op]
        worker.where = "storage" if self._storage[tier] else "memory"
        worker.to_begin, worker.in_flight = len(batch), 0
        worker.depth = self._depth if self._storage[tier] and op in self._overlapping else 1
        worker.moves_up = op == Op.PROMOTE and self._storage[tier]
        worker.synced = not (self._syncs and op in (Op.WRITE, Op.DEMOTE) and self._storage[tier])
        if op in MOVING_OPS and self._storage[tier]:
            nbytes = batch.bundle.nbytes if isinstance(batch, Share) else batch[0].step.nbytes
            self.moved_bytes[worker.op] = self.moved_bytes.get(worker.op, 0) + nbytes * len(batch)
        self._client(worker, how, self._operate)

    def _client(self, worker: _Worker, part: str, then: Callable[[_Worker], None]) -> None:
        """What the worker does by itself, and then."""
        kind = f"{worker.where} {worker.op} {part}"
        if not self._stations["client"].begin(kind, self._clock.now_ns, (then, worker)):
            self._soon((then, worker))

    def _operate(self, worker: _Worker) -> None:
        """Begin as many operations as may be in flight."""
        while worker.to_begin and worker.in_flight < worker.depth:
            worker.to_begin -= 1
            worker.in_flight += 1
            self._at_tier(worker, worker.op, self._operated)

    def _at_tier(self, worker: _Worker, op: str, then: Callable[[_Worker], None]) -> None:
        if not self._stations[worker.where].begin(op, self._clock.now_ns, (then, worker)):
            self._soon((then, worker))

    def _operated(self, worker: _Worker) -> None:
        """One has ended; the old copy of what has moved up is deleted then."""
        if worker.moves_up:
            self._at_tier(worker, "delete", self._ended)
        else:
            self._ended(worker)

    def _ended(self, worker: _Worker) -> None:
        worker.in_flight -= 1
        if worker.to_begin and self._end_ns is not None and self._clock.now_ns >= self._end_ns:
            self._give_up(worker)
        elif worker.to_begin and worker.depth > 1:
            self._operate(worker)
        elif worker.to_begin:
            self._client(worker, BETWEEN, self._operate)
        elif not worker.in_flight:
            if worker.synced:
                self._client(worker, HAND_IN, self._hand_in)
            else:
                worker.synced = True
                worker.in_flight = 1
                self._at_tier(worker, _LABELS[Op.SYNC], self._ended)

    def _give_up(self, worker: _Worker) -> None:
        """The run is over: what is in flight ends, and nothing more is begun."""
        if worker.in_flight:
            return
        batch, count = worker.batch, len(worker.batch) - worker.to_begin
        if isinstance(batch, Share):
            self.dispatcher.give_up(batch.head(count), batch.behind(count).operations(), RequestState.CUT_SHORT)
        else:
            self.dispatcher.give_up(batch[:count], batch[count:], RequestState.CUT_SHORT)
        self._over = True
        self._stations["client"].join(self._clock.now_ns, -1)

    def _hand_in(self, worker: _Worker) -> None:
        done, worker.batch = worker.batch, ()
        batch = self.dispatcher.take_now(done, self._room)
        if batch:
            self._begin(worker, batch, NEXT)
        else:
            self._over = self._over or batch is not None
            self._stations["client"].join(self._clock.now_ns, -1)
            self._idle.append(worker)
        self.poke()


def overlapping_ops(config: RunConfig) -> tuple[Op, ...]:
    """The operations of a batch of which several are in flight at once."""
    last = config.tiers[-1]
    if config.depth == 1 or not last.facts.keeps_bytes:
        return ()
    return (*MOVING_OPS, Op.DELETE, Op.LOOKUP) if last.facts.requests else MOVING_OPS


def _kind_of(batch: Work) -> tuple[Op, int | None, int | None]:
    if isinstance(batch, Share):
        return batch.bundle.op, batch.bundle.source, batch.bundle.target
    step = batch[0].step
    return step.op, step.source, step.target
