"""A rank's threads and memory: prepares a load, begins it, watches it, ends it. Talks to no other rank."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from kvbench.cache import Cache, make_policy
from kvbench.config.run_config import CachePolicy, RunConfig
from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.engine.arrivals import Timeline
from kvbench.engine.chained import block_shape, chain_cache, stretched_shape
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.equipment import Equipment
from kvbench.engine.modelled_gpu import ModelledGpu
from kvbench.engine.planner import Books
from kvbench.engine.ready import Limits
from kvbench.engine.sharing import Sharing
from kvbench.engine.source import OperationSource
from kvbench.engine.violations import Violations
from kvbench.engine.worker import MOST_TOGETHER, Worker
from kvbench.records.batches import BatchLog
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.records.tables import DELAY_DTYPE, as_rows
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Payload
from kvbench.workload.compute_time import ComputeTime
from kvbench.workload.request import Schedule
from kvbench.workload.stretched import StretchedSchedule

CHUNK_ROWS: Final = 4096
"""Rows by which a thread's records grow."""

BATCH_DEPTHS: Final = 8
"""Operations of a batch at most, where they overlap, for each that may be in flight: at the end of a batch fewer
are."""


def most_together(config: RunConfig) -> int:
    """Operations of a batch at most. All of a transfer are in flight at once."""
    if config.depth == 1:
        return MOST_TOGETHER
    return config.depth if config.io.engine == "nixl" else max(MOST_TOGETHER, BATCH_DEPTHS * config.depth)


@dataclass(frozen=True, slots=True)
class RankSeat:
    """Where this rank runs."""

    rank: int
    host: str
    ranks: int = 1
    """How many there are."""


class LoadSource(OperationSource, Protocol):
    """A source of operations that begins and ends."""

    def begin(self, timeline: Timeline) -> None:
        """The load starts and ends as `timeline` says. Takes no time."""

    def close(self) -> None:
        """It is over; no worker takes anything any more."""


class Load:
    """What the engine's threads carry out, mostly a schedule: they are there, prepared, and wait until it begins."""

    def __init__(
        self, source: LoadSource, workers: Sequence[Worker], until_ns: npt.NDArray[np.int64], delayed: bool = False
    ) -> None:
        """`until_ns` is what the workers' equipment has of it. `delayed`: as `Worker.run` has it."""
        self._source = source
        self._until_ns = until_ns
        self._delayed = delayed
        self._gate = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"kvbench-worker-{number}", daemon=True)
            for number, worker in enumerate(workers)
        ]
        self._prepared = threading.Barrier(len(self._threads) + 1)
        for thread in self._threads:
            thread.start()
        self._prepared.wait()

    def _work(self, worker: Worker) -> None:
        if not worker.prepare():
            self._source.stop()
        self._prepared.wait()
        self._gate.wait()
        worker.run(self._source, self._delayed)
        worker.leave()

    def begin(self, timeline: Timeline) -> None:
        """Let the threads work, as `timeline` says. Takes no time: everything else has been done before."""
        self._until_ns[0] = timeline.end_ns or 0
        self._source.begin(timeline)
        self._gate.set()

    @property
    def finished(self) -> bool:
        """No thread works any more."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def serves(self) -> bool:
        """Whether it is a schedule of requests, and has a dispatcher."""
        return isinstance(self._source, Dispatcher)

    @property
    def dispatcher(self) -> Dispatcher:
        """Decides what the threads do, where they serve requests."""
        assert isinstance(self._source, Dispatcher)
        return self._source

    def stop(self) -> None:
        """Hand out no further operation; those in flight end. Also ends a load that has not begun."""
        self._source.stop()
        self._gate.set()

    def close(self) -> None:
        """Wait for the threads to end, and log the requests that were cut short."""
        for thread in self._threads:
            thread.join()
        self._source.close()


class Engine:
    """Everything that carries out operations on one rank.

    `capacities` (bytes) and `tiers` are parallel, fastest first. Records and requests pile up in `stores` (one for
    each thread) and `requests`.
    """

    def __init__(
        self,
        config: RunConfig,
        home: RankSeat,
        tiers: Sequence[Tier],
        capacities: Sequence[int],
        arena: Arena,
        payload: Payload,
        sharing: Sharing | None = None,
        payload_of: Callable[[int], Payload] | None = None,
        speed: VirtualSpeed | None = None,
    ) -> None:
        """Where ranks share a key space: `sharing`, and `payload_of(rank)`, which checks what that rank wrote. `speed`:
        what is to seem faster or slower than it is, in the load that is measured."""
        self._config = config
        self._stretch = 1.0 if speed is None else speed.stretch
        self._home = home
        self._bytes_per_token = config.geometry.bytes_per_token
        chains = chain_cache(config, capacities)
        # Where chains decide it stays empty.
        cache = Cache(capacities, make_policy(config.cache if chains is None else CachePolicy()))
        shape = None if chains is None else stretched_shape(block_shape(config), self._stretch)
        gpu = None if config.compute is None else ModelledGpu(ComputeTime(config, self._stretch))
        self.books = Books(cache, capacities, [tier.storage for tier in tiers], chains, shape, gpu)
        self.cancel_flag: npt.NDArray[np.int32] = np.zeros(1, dtype=np.int32)
        self.failures: list[str] = []
        self.sharing = sharing
        self._until_ns: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self.batches = BatchLog(home.rank, home.ranks)
        self.violations = Violations(home.rank) if sharing is not None else None
        equipment = Equipment(
            home.rank,
            home.host,
            tiers,
            arena,
            payload,
            config.payload.verify == "full",
            self.cancel_flag,
            self.failures.append,
            self.batches,
            self._until_ns,
            payload_of,
            self.violations,
            speed,
        )
        self.stores = [RowStore(RECORD_DTYPE, CHUNK_ROWS) for _ in range(config.io.threads)]
        self.requests = RowStore(REQUEST_DTYPE, CHUNK_ROWS)
        room = most_together(config)
        self._workers = [Worker(thread, equipment, store, room) for thread, store in enumerate(self.stores)]
        # Where no tier keeps bytes an operation is a few microseconds, which no other worker could do at the same time.
        self._at_once = config.io.threads if any(tier.holds_bytes for tier in tiers) else 1
        self._overlapping_ops = tiers[-1].overlapping_ops
        self._prepared: Load | None = None

    def prepare(self, schedule: Schedule, pacing: Literal["asap"] | None = None) -> Load:
        """Do all that a load needs before it can begin, which may take long; `pacing` replaces the configuration's (for
        preconditioning)."""
        if self._stretch > 1 and pacing is None:
            schedule = StretchedSchedule(schedule, self._stretch)
        dispatcher = Dispatcher(
            self.books,
            schedule,
            pacing or self._config.pacing.mode,
            Limits(
                self._config.most_requests,
                self._config.io.max_concurrent_allocs,
                self._at_once,
                self._config.depth,
                self._config.io.request_threads == "one",
                self._overlapping_ops,
            ),
            self._bytes_per_token,
            self._home.rank,
            self.requests,
            self.sharing,
            pacing is None and self._config.pacing.admission == "priority",
        )
        self._prepared = Load(dispatcher, self._workers, self._until_ns, delayed=pacing is None)
        return self._prepared

    def prepare_source(self, source: LoadSource) -> Load:
        """A load of what `source` hands out, with no requests of a schedule."""
        self._prepared = Load(source, self._workers, self._until_ns)
        return self._prepared

    def close(self) -> None:
        """Let the threads go of a load that has not begun."""
        if self._prepared is not None:
            self._prepared.stop()

    def cancel(self) -> None:
        """End the operations in flight at their next chance; they are recorded as canceled."""
        self.cancel_flag[0] = 1

    def delays(self) -> npt.NDArray[np.void]:
        """How long each worker was delayed (DELAY_DTYPE), where any was to be."""
        found = [(thread, worker.delays.sums) for thread, worker in enumerate(self._workers) if worker.delays]
        return as_rows(
            [{"rank": self._home.rank, "thread": thread} | asdict(sums) for thread, sums in found], DELAY_DTYPE
        )

    @property
    def verified_sectors(self) -> int:
        """Sectors of 4 KiB whose content was compared with what was written."""
        return sum(worker.verified_sectors for worker in self._workers)
