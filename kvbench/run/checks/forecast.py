"""What a run will need before it is run: requests, operations, bytes on storage, and the peak memory of a rank.

The schedule is played through the cache's bookkeeping without moving a byte. Where requests follow completions, the
storage's speed decides how many there are: the forecast is then the most that can happen at a given bandwidth.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from typing import Final

from kvbench.cache import Cache, Step, make_policy
from kvbench.cluster.gather import CHUNK_ROWS as MESSAGE_ROWS
from kvbench.config.run_config import ReferenceWorkload, RunConfig
from kvbench.engine.chained import block_shape
from kvbench.records.condensed.histogram import HISTOGRAM_BYTES
from kvbench.records.condensed.population_schema import MODELLED, QUANTITY_COLUMNS, REQUEST_QUANTITIES
from kvbench.records.condensed.sample import budget
from kvbench.records.schema import FILE_CHUNK_ROWS as FILE_ROWS
from kvbench.records.schema import PATHS, RECORD_DTYPE, REQUEST_DTYPE, WHOLE_COPIES, Locality, Op
from kvbench.run.planning.decisions import decide, requests_within
from kvbench.tiers.arena import stored_bytes, usual_arena_bytes, whole_segments
from kvbench.units import GIB, MIB, SEGMENT_BYTES
from kvbench.workload.request import QOS_CLASSES, Request, Schedule
from kvbench.workload.stages import next_stage, stages_of
from kvbench.workload.trace_schedule import TraceSchedule

_THREAD_BYTES: Final = 256 * 1024
"""Memory that a thread of the interpreter touches: its stack and allocator pool (measured, 120 to 250 KiB)."""
_AGENT_BYTES: Final = 13 * MIB
"""That an agent of NIXL takes, most of it for the 65 536 requests which its backend POSIX can hold (measured, 9 to 13
MiB)."""
_OBJECT_BYTES: Final = 400
"""Bookkeeping for an object in the cache: the entries of two dictionaries and their keys (measured, 330 to 420 B)."""
_WRITER_BYTES: Final = 4 * MIB
"""What the HDF5 library and the compressor take (measured, 1 to 4 MiB)."""
_WAITING_BYTES: Final = 600
"""A request of the reference workload that waits for its turn (measured, 470 B and its place in the queue)."""
_REFERENCE_REQUESTS_PER_S: Final = 2.6
"""That a user of the reference workload sends on average (153 300 of 200 users in 300 s)."""
_CHUNK_ROWS: Final = 4096
_NUMBER_BYTES: Final = 8
"""Of a sampled row's number."""
_HUGE_PAGE_BYTES: Final = 2 * MIB
_HUGE_ARRAY_BYTES: Final = 4 * MIB
"""An array from this size on is backed by huge pages (numpy asks for them), so that its first row takes one."""
_OPERATIONS_OF_A_TIER: Final = 3
"""Kinds of operations on a tier: reads, writes or moves to it, and deletions."""
_SPILL_BYTES: Final = MIB
"""Of a spill file beside its rows: about 500 bytes a second, and a header."""
_SPILL_BEHIND_S: Final = 2
"""Rows of so long are in memory before they are in a spill file: two rounds, and a device that is not the fastest."""
_MOST_OPERATIONS: Final = 200_000
"""Operations that are played through; what is beyond them is extrapolated."""
_MOST_REQUESTS: Final = 50_000
_HIGHEST_OPERATIONS_PER_S: Final = 20_000
"""About what the dispatcher of one rank can hand out."""
_WRITE, _DELETE, _PROMOTE = Op.WRITE, Op.DELETE, Op.PROMOTE
_TO: Final = (Op.WRITE, Op.DEMOTE)
_FROM: Final = (Op.READ, Op.PROMOTE)
HIGHEST_BYTES_PER_S: Final = 8 * GIB
"""Assumed where nothing better is known: one rank moves no more than this, whatever its storage."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one rank's schedule asks for in the whole run."""

    requests: int
    operations: int
    written_bytes: int
    """To the storage tier, demotions included."""
    read_bytes: int
    """From the storage tier."""
    peak_storage_bytes: int
    peak_objects: int
    largest_object_bytes: int
    at_most: bool
    """True: an upper bound, since how many requests there are depends on the storage."""

    def thinned(self, rows: int) -> "Demand":
        """The same, of which at most so many records and requests are kept."""
        return replace(self, operations=min(self.operations, rows), requests=min(self.requests, rows))

    @property
    def spill_bytes(self) -> int:
        """What a spill file of the whole run takes."""
        return self.operations * RECORD_DTYPE.itemsize + self.requests * REQUEST_DTYPE.itemsize + _SPILL_BYTES


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes of memory of one rank at its peak, by what needs them."""

    process: int
    """Interpreter, libraries and MPI before the run begins."""
    arena: int
    tiers: int
    records: int
    bookkeeping: int
    read_path: int
    """Whole entries, for the read paths that load them with numpy."""
    gathering: int
    payload: int
    """What objects are made of."""
    digest: int
    """The sample, the sums and the histograms, where not every row is kept."""
    requests: int = 0
    """What an object store is sent and answers, in the memory of the library that asks it."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def _agent_bytes(config: RunConfig) -> int:
    """Of each thread."""
    return _AGENT_BYTES if config.io.engine == "nixl" else 0


def arena_bytes(config: RunConfig, last_level_cache_bytes: int, local_ranks: int) -> int:
    """Bytes of a rank's arena: as configured, or four times the node's last-level cache shared among its ranks, at
    least 256 MiB, and where operations overlap twice as many segments as may be in flight; never less than one segment
    for each thread. A multiple of the segment."""
    wanted = config.io.arena_bytes
    usual = usual_arena_bytes(last_level_cache_bytes, local_ranks)
    if config.depth > 1:
        usual = max(usual, 2 * config.depth * config.io.threads * SEGMENT_BYTES)
    return whole_segments(usual if wanted == "auto" else wanted, config.io.threads)


def forecast_demand(
    config: RunConfig, schedule: Schedule, capacities: Sequence[int], bytes_per_s: float = HIGHEST_BYTES_PER_S
) -> Demand:
    """Play `schedule` through a cache of `capacities` (bytes; the last tier is the storage tier if it is a file tier).

    `bytes_per_s` bounds what the rank moves on all tiers, for schedules whose length depends on it.
    """
    if config.serves_as_engine:
        assert isinstance(schedule, TraceSchedule)
        return _with_chores(config, *_demand_of_chains(config, schedule, capacities))
    player = _Player(config, capacities)
    for reference in schedule.preconditioning():
        player.insert(reference.key, reference.tokens)
    player.begin()
    end_s = None if config.duration_s is None else config.warmup_s + config.duration_s
    bounds = _Bounds(config, bytes_per_s, end_s)
    scale = 1.0
    requests = _in_order(config, schedule)
    for request, start_s in requests:
        if (end_s is not None and start_s > end_s) or bounds.reached(player):
            break
        if player.requests >= _MOST_REQUESTS or player.operations >= _MOST_OPERATIONS:
            if bounds.follow_completions:
                scale = bounds.factor(player, start_s)
            else:
                left = 1 + sum(1 for _ in takewhile(lambda item: end_s is None or item[1] <= end_s, requests))
                scale = 1 + left / player.requests
            break
        player.play(request)
    demand = player.demand(schedule, scale, at_most=bounds.follow_completions)
    return _with_chores(config, demand, demand.operations)


def _with_chores(config: RunConfig, demand: Demand, writes: int) -> Demand:
    """With the rows of what is done beside its operations, of which at most `writes` write to storage: at worst each in
    a batch of its own."""
    layout, rows = config.tiers[-1].layout, 0
    if config.io.sync == "batch":
        rows += writes
    if layout.kind == "bucket":
        # Each bucket is compacted and removed; what is moved fills others.
        rows += math.ceil(2 * demand.written_bytes / (max(layout.garbage, 0.1) * layout.bucket_bytes))
    return replace(demand, operations=demand.operations + rows)


def _demand_of_chains(config: RunConfig, schedule: TraceSchedule, capacities: Sequence[int]) -> tuple[Demand, int]:
    """Where requests are served as an engine does it: exact in open loop, else what the whole trace asks for."""
    assert schedule.chains is not None
    requests = requests_within(config, schedule.part)
    decided = decide(config, schedule.part, schedule.chains, capacities, requests)
    storage, shape = config.tiers[-1].facts.storage, block_shape(config)
    nbytes = shape.nbytes
    moved = config.keeps_bytes and storage
    most_held = int(decided.held[-1]) if config.cache.ttl_s is None else int(decided.written[-1])
    demand = Demand(
        requests=requests,
        # The old copy of what was promoted from storage is deleted in a row of its own.
        operations=(decided.operations + (int(decided.promoted[-1]) if storage else 0)) * shape.parts
        + (0 if shape.asks is None else decided.asked_for),
        written_bytes=int(decided.written[-1]) * nbytes if moved else 0,
        read_bytes=int(decided.read[-1]) * nbytes if moved else 0,
        peak_storage_bytes=min(capacities[-1], most_held * nbytes) if moved else 0,
        peak_objects=decided.most_blocks * shape.parts,
        largest_object_bytes=shape.object_bytes if requests else 0,
        at_most=config.pacing.mode != "open" and config.duration_s is not None,
    )
    return demand, int(decided.written[-1]) * shape.parts


def memory_need(
    config: RunConfig,
    demand: Demand,
    arena: int,
    process_bytes: int,
    ranks: int = 1,
    gathers: bool = False,
    spilled: bool = False,
) -> MemoryNeed:
    """Peak memory of one of `ranks` ranks. `process_bytes` is what the process holds before the run; `gathers`: the
    records of all ranks come together here, on rank 0; `spilled`: rows leave memory for a file (whose bytes, if it lies
    in memory, do not count here)."""
    in_memory = [tier for tier in config.tiers if not tier.facts.storage and not tier.facts.modelled]
    tiers = sum(tier.usable_bytes for tier in in_memory if tier.usable_bytes != "auto")
    # Rows grow by chunks, and each thread has one that is partly used.
    most = _HIGHEST_OPERATIONS_PER_S * _SPILL_BEHIND_S if spilled else demand.operations
    rows = min(demand.operations, most) + config.io.threads * _CHUNK_ROWS // 2
    requests = min(demand.requests, most) + _CHUNK_ROWS // 2
    kept = demand if config.records == "full" else demand.thinned(budget(ranks))
    messages = min(kept.operations, 2 * MESSAGE_ROWS)
    records = (rows + messages) * RECORD_DTYPE.itemsize + requests * REQUEST_DTYPE.itemsize
    copies = WHOLE_COPIES.get(PATHS[config.io.read_path], 0)
    return MemoryNeed(
        process=process_bytes + config.io.threads * (_THREAD_BYTES + _agent_bytes(config)),
        arena=arena,
        tiers=tiers,
        records=records,
        bookkeeping=demand.peak_objects * _OBJECT_BYTES + _waiting_bytes(config),
        read_path=copies * config.io.threads * demand.largest_object_bytes,
        gathering=_gathering_bytes(kept, ranks) if gathers else 0,
        # The body of the stamped payload, and the zeros that a keystream is made of.
        payload=SEGMENT_BYTES * (2 if config.keeps_bytes and config.payload.kind == "unique" else 1),
        digest=0 if config.records == "full" else _digest_bytes(config, demand, ranks, gathers),
        requests=_request_bytes(config, demand, arena),
    )


def _request_bytes(config: RunConfig, demand: Demand, arena: int) -> int:
    """What is in flight in the memory of the library: no more objects at once than may be, nor than the arena has room
    for, and of long ones, which each thread puts one at a time, as many parts."""
    last = config.tiers[-1]
    if not last.facts.requests:
        return 0
    threads, depth = config.io.threads, config.depth
    objects = min(threads * depth * demand.largest_object_bytes, arena)
    parts = threads * depth * last.part_bytes if demand.largest_object_bytes > last.part_bytes else 0
    return objects + parts


def _digest_bytes(config: RunConfig, demand: Demand, ranks: int, gathers: bool) -> int:
    """What a rank keeps of its rows beside those in memory, and on rank 0 what all ranks have, added up."""
    samples = _sample_bytes(demand.operations, budget(ranks), RECORD_DTYPE.itemsize)
    samples += _sample_bytes(demand.requests, budget(ranks), REQUEST_DTYPE.itemsize)
    if config.records == "sampled":
        return samples
    localities = len(Locality) if config.namespace == "shared" else 1
    kinds = len(config.tiers) * _OPERATIONS_OF_A_TIER + localities - 1
    kinds += (
        (config.cache.lookup == "stat")
        + (config.io.sync in ("batch", "end"))
        + (config.tiers[-1].layout.kind == "bucket")
    )
    of_requests = len(REQUEST_QUANTITIES) - (len(MODELLED) if config.compute is None else 0)
    histograms = kinds * len(QUANTITY_COLUMNS) + len(QOS_CLASSES) * of_requests
    return samples + histograms * HISTOGRAM_BYTES * (2 if gathers else 1)


def _sample_bytes(rows: int, room: int, row_bytes: int) -> int:
    """Of a sample of at most `room` of `rows` rows: the part of its arrays, which have twice the room, that is ever
    filled, and the copies of what is left when half of it goes."""
    filled = min(rows, room + _CHUNK_ROWS)
    thinned = filled // 2 if rows > room else 0
    whole = 2 * room * row_bytes >= _HUGE_ARRAY_BYTES
    page = _HUGE_PAGE_BYTES if whole else 1
    return -(-filled * row_bytes // page) * page + filled * _NUMBER_BYTES + thinned * (row_bytes + _NUMBER_BYTES)


def _waiting_bytes(config: RunConfig) -> int:
    """Requests that nobody waits for pile up where the storage does not keep up: at worst all of them."""
    if not isinstance(config.workload, ReferenceWorkload):
        return 0
    seconds = config.warmup_s + (config.duration_s or 0)
    return int(_WAITING_BYTES * _REFERENCE_REQUESTS_PER_S * config.workload.users * seconds)


def _gathering_bytes(demand: Demand, ranks: int) -> int:
    """Of rank 0: two messages from other ranks and one HDF5 chunk of each table, as far as there are rows for them."""
    operations, requests = demand.operations * ranks, demand.requests * ranks
    others = min(operations - demand.operations, 2 * MESSAGE_ROWS)
    return (
        (others + min(operations, FILE_ROWS)) * RECORD_DTYPE.itemsize
        + min(requests, FILE_ROWS) * REQUEST_DTYPE.itemsize
        + _WRITER_BYTES
    )


class _Player:
    """Counts what the requests of one rank do to its cache."""

    def __init__(self, config: RunConfig, capacities: Sequence[int]) -> None:
        self._bytes_per_token = config.geometry.bytes_per_token
        self._cache = Cache(capacities, make_policy(config.cache))
        self._storage = len(capacities) - 1 if config.tiers[-1].facts.storage else None
        self._keeps_bytes = config.keeps_bytes
        self.requests = self.operations = self.written = self.read = self.moved_bytes = 0
        self._peak_bytes = self._peak_objects = 0
        self._before = (0, 0, 0, 0, 0)

    def begin(self) -> None:
        """What was done until now is done once, however the rest is extrapolated."""
        self._before = (self.operations, self.written, self.read, self._peak_bytes, self._peak_objects)
        self.operations = self.written = self.read = self.moved_bytes = 0

    def play(self, request: Request) -> None:
        self.requests += 1
        asked = stages_of(request)
        stage = next_stage(asked)
        while stage is not None:
            found = [self._look_up(reference.key) for reference in (*stage.history, *stage.context)]
            for reference in stage.writes:
                self.insert(reference.key, reference.tokens)
            stage = next_stage(asked, found)

    def insert(self, key: int, tokens: int) -> None:
        if self._cache.lookup(key) is None:
            self._count(self._cache.insert(key, stored_bytes(tokens * self._bytes_per_token)))

    def _look_up(self, key: int) -> bool:
        steps = self._cache.read(key)
        # A promotion is the read, as the dispatcher has it.
        self._count(steps[1:] if steps and steps[-1].op == _PROMOTE else steps)
        return bool(steps)

    def _count(self, steps: Sequence[Step]) -> None:
        storage = self._storage
        for op, _, nbytes, source, target in steps:
            # The old copy on storage is deleted in a row of its own.
            self.operations += 2 if op == _PROMOTE and source == storage else 1
            if not self._keeps_bytes and storage in (source, target):
                continue
            self.moved_bytes += 0 if op == _DELETE else nbytes
            if op in _TO and target == storage:
                self.written += nbytes
            if op in _FROM and source == storage:
                self.read += nbytes
        if len(steps) > 1 or (steps and steps[0].op == _WRITE):
            if self._storage is not None:
                self._peak_bytes = max(self._peak_bytes, self._cache.used[self._storage])
            self._peak_objects = max(self._peak_objects, sum(self._cache.entries))

    def demand(self, schedule: Schedule, scale: float, at_most: bool) -> Demand:
        capacity = self._cache.capacities[self._storage] if self._storage is not None and self._keeps_bytes else 0
        operations, written, read, peak_bytes, peak_objects = self._before
        return Demand(
            requests=round(self.requests * scale),
            operations=operations + round(self.operations * scale),
            written_bytes=written + round(self.written * scale),
            read_bytes=read + round(self.read * scale),
            peak_storage_bytes=min(capacity, peak_bytes + round((self._peak_bytes - peak_bytes) * scale)),
            peak_objects=peak_objects + round((self._peak_objects - peak_objects) * scale),
            largest_object_bytes=stored_bytes(schedule.largest_object_tokens() * self._bytes_per_token),
            at_most=at_most,
        )


def _in_order(config: RunConfig, schedule: Schedule) -> Iterator[tuple[Request, float]]:
    """Requests with their start (s) if none of them took any time."""
    if not schedule.closed_loop:
        for request in schedule.stream(0):
            yield request, request.arrival_ns / 1e9
        return
    streams = [schedule.stream(user) for user in range(schedule.users)]
    waiting: list[tuple[float, int, Request]] = []
    for user, stream in enumerate(streams):
        first = next(stream, None)
        if first is not None:
            heapq.heappush(waiting, (first.arrival_ns / 1e9, user, first))
    while waiting:
        start_s, user, request = heapq.heappop(waiting)
        yield request, start_s
        following = next(streams[user], None)
        if following is not None:
            after_s = start_s + (request.generation_ns + following.arrival_ns) / 1e9
            heapq.heappush(waiting, (after_s, user, following))


class _Bounds:
    """What ends a load that has no end of its own: its time, and what a rank can move and hand out in it."""

    def __init__(self, config: RunConfig, bytes_per_s: float, end_s: float | None) -> None:
        self._end_s = end_s
        # Users of the reference workload do not wait for answers, and ask for more than any storage gives.
        waiting = config.pacing.mode != "open" or isinstance(config.workload, ReferenceWorkload)
        self.follow_completions = waiting and end_s is not None
        self._bytes = bytes_per_s * end_s if self.follow_completions and end_s is not None else None
        self._operations = _HIGHEST_OPERATIONS_PER_S * end_s if self.follow_completions and end_s is not None else None

    def reached(self, player: _Player) -> bool:
        return (self._bytes is not None and player.moved_bytes >= self._bytes) or (
            self._operations is not None and player.operations >= self._operations
        )

    def factor(self, player: _Player, start_s: float) -> float:
        """From what was played until `start_s` to the whole run."""
        factors = []
        if self._end_s is not None and start_s > 0:
            factors.append(self._end_s / start_s)
        if self._bytes is not None and player.moved_bytes:
            factors.append(self._bytes / player.moved_bytes)
        if self._operations is not None and player.operations:
            factors.append(self._operations / player.operations)
        return max(1.0, min(factors, default=1.0))
