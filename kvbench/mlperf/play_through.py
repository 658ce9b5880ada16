"""The reference workload without any I/O: its requests played through a cache and a number of workers in simulated
time.

It shows what is asked for in distribution, over as many seeds as wanted, where a run of some seconds shows one draw.
Every operation takes its bytes at a given rate, whatever else goes on; who goes first and what is found follow the
same rules as in a run: priority, one request a worker, nothing found before it is written.
"""

import heapq
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from kvbench.cache import Cache, make_policy
from kvbench.config.run_config import RunConfig
from kvbench.records.schema import Op
from kvbench.tiers.arena import stored_bytes
from kvbench.workload.build import build_schedule
from kvbench.workload.request import Request
from kvbench.workload.stages import next_stage, stages_of


@dataclass(frozen=True, slots=True)
class Rates:
    """How long things take; memory takes no time."""

    read: float
    """Bytes per second of one operation on storage."""
    write: float
    make_s: float = 0.0
    """Seconds in which a request makes what it writes."""


@dataclass(slots=True)
class Played:
    """What was done until the end, by requests that were carried out; `written` has the sizes of their entries."""

    requests: int = 0
    interactive: int = 0
    reads: int = 0
    read_bytes: int = 0
    storage_read_bytes: int = 0
    demoted_bytes: int = 0
    written: list[int] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    history_hits: int = 0
    history_misses: int = 0
    prompts: int = 0

    @property
    def written_bytes(self) -> int:
        """Of new entries."""
        return sum(self.written)

    def figures(self) -> dict[str, float]:
        """What the comparison with the reference's result is about."""
        requests = max(self.requests, 1)
        looked_up = max(self.hits + self.misses, 1)
        turns = max(self.history_hits + self.history_misses, 1)
        return {
            "requests": self.requests,
            "of interactive users": self.interactive / requests,
            "read MiB per request": self.read_bytes / requests / 2**20,
            "written MiB per request": self.written_bytes / requests / 2**20,
            "read/write ratio": self.read_bytes / max(self.written_bytes, 1),
            "reads per request": self.reads / requests,
            "hit rate": self.hits / looked_up,
            "hit rate of earlier turns": self.history_hits / turns,
            "earlier turns per request": turns / requests,
            "system prompts per request": self.prompts / requests,
        }


def play(config: RunConfig, rank: int, capacities: Sequence[int], rates: Rates) -> Played:
    """Play the configuration's duration on one rank with `config.io.threads` workers; requests that are under way at
    the end are carried out, as the reference does. `capacities` of the tiers, in bytes, the storage last."""
    return _Play(config, rank, capacities, rates).run()


class _Play:
    def __init__(self, config: RunConfig, rank: int, capacities: Sequence[int], rates: Rates) -> None:
        self._bytes_per_token = config.geometry.bytes_per_token
        self._workers = config.io.threads
        self._allocs = config.io.max_concurrent_allocs or config.io.threads
        self._end_s = config.duration_s or 0.0
        self._requests = build_schedule(config, rank, 1).stream(0)
        self._cache = Cache(capacities, make_policy(config.cache))
        self._storage = len(capacities) - 1
        self._rates = rates
        self._being_written: set[int] = set()
        self._writes = 0
        self._line: list[tuple[int, Iterator[float], float]] = []
        self._count = itertools.count()
        self._played = Played()

    def run(self) -> Played:
        coming = next(self._requests)
        waiting: list[tuple[int, int, Request]] = []
        busy: list[tuple[float, int, Iterator[float]]] = []
        self._busy = busy
        now_s, idle = 0.0, self._workers
        while True:
            while coming.arrival_ns / 1e9 <= now_s:
                heapq.heappush(waiting, (coming.qos, coming.number, coming))
                coming = next(self._requests)
            while idle and waiting and now_s < self._end_s:
                idle -= 1
                request = heapq.heappop(waiting)[2]
                idle += self._advance(now_s, self._carry_out(request))
            arrives_s = coming.arrival_ns / 1e9
            if busy and (busy[0][0] <= arrives_s or now_s >= self._end_s):
                now_s, _, work = heapq.heappop(busy)
                idle += self._advance(now_s, work)
            elif now_s >= self._end_s or arrives_s >= self._end_s:
                now_s = self._end_s
                if not busy:
                    return self._played
            else:
                now_s = arrives_s

    def _advance(self, now_s: float, work: Iterator[float]) -> bool:
        """Let a request go on until it has to wait; whether it ended instead."""
        for seconds in work:
            heapq.heappush(self._busy, (now_s + seconds, next(self._count), work))
            return False
        return True

    def _carry_out(self, request: Request) -> Iterator[float]:
        """Yields the seconds of each operation."""
        played = self._played
        done = Played()
        asked = stages_of(request)
        stage = next_stage(asked)
        while stage is not None:
            if stage.unknown_tokens:
                done.misses += 1
                done.prompts += 1
            found = []
            for reference in (*stage.history, *stage.context):
                found.append((yield from self._read(reference.key, done)))
            done.history_hits += sum(found[: len(stage.history)])
            done.history_misses += len(stage.history) - sum(found[: len(stage.history)])
            for reference in stage.writes:
                if self._cache.lookup(reference.key) is None:
                    nbytes = stored_bytes(reference.tokens * self._bytes_per_token)
                    yield from self._write(reference.key, nbytes, done)
            if stage.delay_ns:
                yield stage.delay_ns / 1e9
            stage = next_stage(asked, found)
        played.requests += 1
        played.interactive += request.qos == 0
        played.written += done.written
        for name in ("reads", "read_bytes", "storage_read_bytes", "demoted_bytes", "hits", "misses", "prompts"):
            setattr(played, name, getattr(played, name) + getattr(done, name))
        played.history_hits += done.history_hits
        played.history_misses += done.history_misses

    def _read(self, key: int, done: Played) -> Generator[float, None, bool]:
        steps = [] if key in self._being_written else self._cache.read(key)
        if not steps:
            done.misses += 1
            return False
        done.hits += 1
        done.reads += 1
        nbytes = steps[0].nbytes
        done.read_bytes += nbytes
        if steps[0].source == self._storage:
            done.storage_read_bytes += nbytes
            yield nbytes / self._rates.read
        return True

    def _write(self, key: int, nbytes: int, done: Played) -> Iterator[float]:
        while self._writes >= self._allocs:
            yield 0.01
        self._writes += 1
        self._being_written.add(key)
        seconds = self._rates.make_s
        for step in self._cache.insert(key, nbytes):
            if step.target == self._storage:
                seconds += step.nbytes / self._rates.write
                done.demoted_bytes += step.nbytes if step.op == Op.DEMOTE else 0
        done.written.append(nbytes)
        yield seconds
        self._being_written.discard(key)
        self._writes -= 1
