"""An engine on small watched tiers, and schedules written down request by request.

A token is one sector of 4 KiB here, so that an object of three tokens is three sectors. What the tiers really do is
kept in a `Journal`: bytes from the start of a write to the end of a delete, and who uses which key at the same time.
"""

import faulthandler
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench import timed_io
from kvbench.cache import Cache, Policy, Step, make_policy
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.engine.arrivals import Timeline
from kvbench.engine.bundle import Share
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.engine import Engine, Load, RankSeat
from kvbench.engine.operation import Operation
from kvbench.records.schema import RECORD_DTYPE, Op, Path, Phase, RequestState
from kvbench.tiers.arena import Arena, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.memory import MemoryTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.payload import Blank, Payload
from kvbench.tiers.transfer import Batch, Cell, Part
from kvbench.units import SECTOR_BYTES
from kvbench.workload.request import ObjectRef, Request, Schedule

MOST_THREADS = 16
SEED = 11
TINY_MODEL = {"layers": 1, "kv_heads": 1, "head_dim": 1024}
"""4096 bytes per token."""

HANG_S = 30.0
"""Nothing here takes a second. What takes this long will never end, and the test fails with every thread's stack."""


@dataclass(frozen=True)
class Script:
    """A schedule that is written down: one list of requests for each stream."""

    streams: Sequence[Sequence[Request]]
    closed_loop: bool = False
    before: Sequence[ObjectRef] = ()

    @property
    def users(self) -> int:
        return len(self.streams)

    def stream(self, user: int) -> Iterator[Request]:
        return iter(self.streams[user])

    def preconditioning(self) -> Iterator[ObjectRef]:
        return iter(self.before)

    def largest_object_tokens(self) -> int:
        return max(ref.tokens for stream in self.streams for request in stream for ref in request.context)


def ref(key: int, tokens: int = 1) -> ObjectRef:
    return ObjectRef(key, tokens)


def request(
    number: int,
    *context: ObjectRef,
    user: int = 0,
    qos: int = 0,
    arrival_ns: int = 0,
    history: Sequence[ObjectRef] = (),
    prefill: bool = True,
    decode_passes: int = 0,
    generation_ns: int = 0,
) -> Request:
    tokens = sum(reference.tokens for reference in context)
    return Request(
        number, user, qos, arrival_ns, tokens, 7, tuple(history), context, prefill, decode_passes, generation_ns
    )


def config_of(
    tiers: Sequence[str] = ("file",),
    pacing: str = "asap",
    threads: int = 4,
    allocs: int = 16,
    promote: bool = False,
    verify: str = "full",
    payload: str = "stamped",
    read_path: str = "buffered",
    io_bytes: int = 4096,
) -> RunConfig:
    """A configuration with tiers of these kinds; capacities are given to `Rank`."""
    return parse_config(
        {
            "model": TINY_MODEL,
            "tiers": [{"kind": kind, "capacity_bytes": 4096} for kind in tiers],
            "pacing": {"mode": pacing, "requests_per_s": 1.0 if pacing == "open" else None},
            "cache": {"promote_on_hit": promote},
            "io": {
                "threads": threads,
                "max_concurrent_allocs": allocs,
                "read_path": read_path,
                "io_bytes": io_bytes,
            },
            "payload": {"verify": verify, "kind": payload},
        },
        "test",
    )


@dataclass
class Journal:
    """What the tiers were asked to do, from the first byte to the last."""

    capacities: Sequence[int]
    wrongs: list[str] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._used = [0] * len(self.capacities)
        self.peaks = [0] * len(self.capacities)
        self._sizes: list[dict[int, int]] = [{} for _ in self.capacities]
        self._readers: dict[int, int] = {}
        self._alone: set[int] = set()

    def take(self, tier: int, key: int, nbytes: int) -> None:
        """Bytes are about to be taken on a tier."""
        with self._lock:
            if key in self._sizes[tier]:
                self.wrongs.append(f"{key} written to tier {tier} while it is there")
            self._sizes[tier][key] = nbytes
            self._used[tier] += nbytes
            self.peaks[tier] = max(self.peaks[tier], self._used[tier])

    def give_back(self, tier: int, key: int) -> None:
        """Bytes were given back."""
        with self._lock:
            if key not in self._sizes[tier]:
                self.wrongs.append(f"{key} removed from tier {tier} where it is not")
            self._used[tier] -= self._sizes[tier].pop(key, 0)

    def contents(self) -> list[tuple[int, int, int]]:
        return sorted((key, tier, n) for tier, sizes in enumerate(self._sizes) for key, n in sizes.items())

    def busy(self, key: int) -> bool:
        """Whether someone reads the object now."""
        return bool(self._readers.get(key))

    @contextmanager
    def reading(self, tier: int, key: int) -> Iterator[None]:
        with self._lock:
            if key in self._alone:
                self.wrongs.append(f"{key} read while it is written, moved or deleted")
            if key not in self._sizes[tier]:
                self.wrongs.append(f"{key} read on tier {tier} where it is not")
            self._readers[key] = self._readers.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._readers[key] -= 1

    @contextmanager
    def alone(self, key: int) -> Iterator[None]:
        with self._lock:
            if key in self._alone or self._readers.get(key):
                self.wrongs.append(f"{key} written or deleted while others use it")
            self._alone.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._alone.discard(key)


class WatchedMemory(MemoryTier):
    """A memory tier that tells the journal."""

    def __init__(self, journal: Journal, number: int, capacity_bytes: int, io_bytes: int) -> None:
        super().__init__(capacity_bytes, io_bytes)
        self.journal, self.number = journal, number

    def allocate(self, key: int, nbytes: int) -> None:
        self.journal.take(self.number, key, nbytes)
        super().allocate(key, nbytes)

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        with self.journal.alone(key):
            return super().write(cell, key, part, source, handle)

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        with self.journal.reading(self.number, key):
            return super().read(cell, key, part, target, handle)

    def run(self, batch: Batch) -> None:
        """What is one call does not come by the methods above."""
        with ExitStack() as stack:
            for key in () if batch.does == Op.DELETE else batch.keys:
                reads = batch.does == Op.READ
                stack.enter_context(self.journal.reading(self.number, key) if reads else self.journal.alone(key))
            super().run(batch)

    def release(self, key: int) -> None:
        with self.journal.alone(key):
            super().release(key)
        self.journal.give_back(self.number, key)


class WatchedFile(FileTier):
    """A file tier that tells the journal."""

    def __init__(self, journal: Journal, number: int, folder: FilePath, read_path: Path, io_bytes: int) -> None:
        super().__init__(folder, read_path, Path.BUFFERED, io_bytes, drop_page_cache=True)
        self.journal, self.number = journal, number

    def allocate(self, key: int, nbytes: int) -> None:
        self.journal.take(self.number, key, nbytes)
        super().allocate(key, nbytes)

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        with self.journal.alone(key):
            return super().write(cell, key, part, source, handle)

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory | None]:
        with self.journal.reading(self.number, key):
            return super().read(cell, key, part, target, handle)

    def delete(self, cell: Cell, key: int) -> None:
        with self.journal.alone(key):
            super().delete(cell, key)
        self.journal.give_back(self.number, key)

    def run(self, batch: Batch) -> None:
        """What is one call does not come by the methods above."""
        if (batch.does == Op.READ and not self.moves_together) or (batch.does == Op.WRITE and self._as_npy):
            super().run(batch)
            return
        with ExitStack() as stack:
            for key in batch.keys:
                reads = batch.does == Op.READ
                stack.enter_context(self.journal.reading(self.number, key) if reads else self.journal.alone(key))
            super().run(batch)
        for key in batch.keys[: batch.begun - len(batch.errors)] if batch.does == Op.DELETE else ():
            self.journal.give_back(self.number, key)


class RecordingCache(Cache):
    """A cache that remembers every decision."""

    def __init__(self, capacities: Sequence[int], policy: Policy) -> None:
        super().__init__(capacities, policy)
        self.decisions: list[tuple[Step, ...]] = []

    def read(self, key: int) -> list[Step]:
        self.decisions.append(tuple(steps := super().read(key)))
        return steps

    def insert(self, key: int, nbytes: int) -> list[Step]:
        self.decisions.append(tuple(steps := super().insert(key, nbytes)))
        return steps


class Rank:
    """One engine in `folder`; `sectors` are the capacities of the configuration's tiers."""

    def __init__(
        self,
        config: RunConfig,
        folder: FilePath,
        sectors: Sequence[int],
        arena: Arena,
        payload: Payload,
        speed: VirtualSpeed | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.capacities = [n * SECTOR_BYTES for n in sectors]
        self.journal = Journal(self.capacities)
        self.tiers = [self._tier(number, tier.kind) for number, tier in enumerate(config.tiers)]
        written = payload if config.keeps_bytes else Blank(payload.run, SEED)
        self.engine = Engine(config, RankSeat(3, "here"), self.tiers, self.capacities, arena, written, speed=speed)
        self.cache = RecordingCache(self.capacities, make_policy(config.cache))
        self.engine.books.cache = self.cache

    def _tier(self, number: int, kind: str) -> Tier:
        io_bytes = self.config.io.io_bytes
        if kind == "memory":
            return WatchedMemory(self.journal, number, self.capacities[number], io_bytes)
        if kind == "null":
            return NullTier()
        read_path = Path[self.config.io.read_path.upper().replace("-", "_")]
        return WatchedFile(self.journal, number, self.folder, read_path, io_bytes)

    @property
    def files(self) -> WatchedFile:
        """The storage tier."""
        assert isinstance(self.tiers[-1], WatchedFile)
        return self.tiers[-1]

    def start(
        self, script: Schedule, timeline: Timeline | None = None, pacing: Literal["asap"] | None = None
    ) -> tuple[Load, int]:
        """Start a load now; returns it with its start."""
        load = self.engine.prepare(script, pacing)
        start_ns = timed_io.now_ns()
        load.begin(timeline or Timeline(start_ns, start_ns, None, Phase.WARMUP))
        return load, start_ns

    def run(self, script: Schedule) -> int:
        """Carry out a whole load that must not fail; returns its start."""
        load, start_ns = self.start(script)
        finish(load)
        assert self.engine.failures == [], self.engine.failures
        assert self.journal.wrongs == [], self.journal.wrongs
        return start_ns

    def close(self) -> None:
        for tier in self.tiers:
            tier.close()

    @property
    def rows(self) -> NDArray[Any]:
        """All records of all threads."""
        views = [view for store in self.engine.stores for view in store.views()]
        return np.concatenate([np.empty(0, RECORD_DTYPE), *views])

    @property
    def log(self) -> NDArray[Any]:
        """The requests, in order of their numbers."""
        requests = np.concatenate(self.engine.requests.views())
        return requests[np.argsort(requests["request"], kind="stable")]

    def put(self, key: int, tokens: int) -> None:
        """Pretend that the storage tier holds an object; the file is the caller's."""
        nbytes = tokens * SECTOR_BYTES
        self.cache.insert(key, nbytes)
        self.cache.decisions.clear()
        self.engine.books.rooms[-1].free_bytes -= nbytes
        self.journal.take(len(self.tiers) - 1, key, nbytes)


def finish(load: Load) -> None:
    """Wait for the end of a load, and close it; one that hangs fails the test."""
    wait_for(lambda: load.finished, "the load does not end")
    load.close()


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until `condition` holds; after HANG_S the test fails with the stacks of all threads."""
    until_s = time.monotonic() + HANG_S
    while not condition():
        if time.monotonic() > until_s:
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                pytest.fail(f"{otherwise}:\n{file.read()}")
        time.sleep(0.0005)


@dataclass
class Expected:
    """What a request does according to the bookkeeping alone."""

    hits: int = 0
    misses: int = 0
    hit_tokens: int = 0
    miss_tokens: int = 0
    operations: int = 0


def replay(script: Script, capacities: Sequence[int], promote: bool) -> tuple[dict[int, Expected], RecordingCache]:
    """What the requests of an open schedule find and do, one after the other, and the decisions that they lead to."""
    cache = RecordingCache(capacities, WaterfallLru(promote))
    requests: dict[int, Expected] = {}

    def look_up(reference: ObjectRef, found: Expected) -> bool:
        steps = cache.read(reference.key)
        if not steps:
            found.misses += 1
            found.miss_tokens += reference.tokens
            return False
        found.hits += 1
        found.hit_tokens += reference.tokens
        found.operations += 1
        return True

    for asked in script.stream(0):
        found = requests[asked.number] = Expected()
        for reference in asked.history:
            look_up(reference, found)
        missing = [reference for reference in asked.context if not look_up(reference, found)]
        for reference in missing if asked.prefill else []:
            if cache.lookup(reference.key) is None:
                steps = cache.insert(reference.key, reference.tokens * SECTOR_BYTES)
                found.operations += sum(step.op == Op.WRITE for step in steps)
        for _ in range(asked.decode_passes):
            for reference in asked.context:
                look_up(reference, found)
    return requests, cache


def check_end_state(rank: Rank, header_bytes: int) -> None:
    """Nothing was too much at any moment, and what is there now is what the bookkeeping says."""
    assert all(peak <= capacity for peak, capacity in zip(rank.journal.peaks, rank.capacities, strict=True))
    assert rank.journal.contents() == sorted(rank.cache.contents())
    assert [room.free_bytes for room in rank.engine.books.rooms] == [
        capacity - used for capacity, used in zip(rank.capacities, rank.cache.used, strict=True)
    ]
    in_files = sorted(n + header_bytes for _, tier, n in rank.cache.contents() if rank.tiers[tier].storage)
    assert sorted(path.stat().st_size for path in rank.folder.iterdir()) == in_files
    assert (rank.rows["errno"] == 0).all()
    assert (rank.rows["queue_ns"] >= 0).all()
    assert (rank.log["state"] == RequestState.DONE).all()


def operations_from(dispatcher: Dispatcher, done: Sequence[Operation] = (), room: int = 1) -> Sequence[Operation]:
    """What a dispatcher hands out, where nothing is served as an engine does it."""
    batch = dispatcher.take(done, room)
    assert not isinstance(batch, Share)
    return batch


def busy_script(requests: int, keys: int, seed: int = 5) -> Script:
    rng = np.random.default_rng(seed)

    def some(most: int) -> list[ObjectRef]:
        return [ref(int(key), 1 + int(key) % 3) for key in rng.integers(0, keys, rng.integers(1, most + 1))]

    return Script(
        [
            [
                request(number, *some(4), history=some(3), decode_passes=int(rng.integers(0, 4)))
                for number in range(requests)
            ]
        ]
    )


def operations_of(rank: Rank) -> list[tuple[int, ...]]:
    rows = rank.rows
    return sorted(zip(*(rows[c].tolist() for c in ("request", "op", "tier", "tokens", "nbytes", "path")), strict=True))
