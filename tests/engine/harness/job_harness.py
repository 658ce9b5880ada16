"""Several ranks in one process that share one key space: real engines and files, rounds made by a thread."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rank_harness import SEED, TINY_MODEL, finish, wait_for

from kvbench import timed_io
from kvbench.cache.announcements import ANNOUNCEMENT_DTYPE
from kvbench.config.load import parse_config
from kvbench.config.roles import Roles
from kvbench.engine.arrivals import Timeline
from kvbench.engine.engine import Engine, Load, RankSeat
from kvbench.engine.sharing import Sharing
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Path, Phase
from kvbench.tiers.arena import Arena
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES
from kvbench.workload.disaggregated import Handover, Lanes
from kvbench.workload.request import Schedule

THREADS = 3


class SharedJob:
    """`ranks` engines whose objects lie below `folder`; every rank's storage holds `sectors` of 4 KiB."""

    def __init__(
        self,
        folder: FilePath,
        ranks: int,
        sectors: int,
        read_path: Path = Path.BUFFERED,
        nodes: Sequence[int] = (),
        roles: Roles | None = None,
        verify: str = "full",
    ) -> None:
        self.folder = folder
        config = parse_config(
            {
                "model": TINY_MODEL,
                "namespace": "shared",
                "pacing": {"mode": "asap"},
                "tiers": [{"kind": "file", "capacity_bytes": sectors * SECTOR_BYTES}],
                "io": {"threads": THREADS, "io_bytes": 4096},
                "payload": {"verify": verify},
            },
            "test",
        )
        own = Payload("stamped", 0, SEED)
        self.payloads = [own.written_by(1000 + rank) for rank in range(ranks)]
        self.sharings = [Sharing(rank, np.array(nodes or [0] * ranks, np.int64), 0) for rank in range(ranks)]
        self.engines: list[Engine] = []
        self.tiers: list[FileTier] = []
        for rank, sharing in enumerate(self.sharings):
            if roles is not None:
                sharing.role, sharing.prefill_ranks = roles.of(rank), roles.prefill
            place = folder / f"rank-{rank}"
            place.mkdir()
            tier = FileTier(place, read_path, Path.BUFFERED, 4096, False, lambda other: f"../rank-{other}")
            self.tiers.append(tier)
            arena = Arena(THREADS * SEGMENT_BYTES, THREADS, own.body)
            self.engines.append(
                Engine(
                    config,
                    RankSeat(rank, "here"),
                    [tier],
                    [sectors * SECTOR_BYTES],
                    arena,
                    self.payloads[rank],
                    sharing,
                    self.payloads.__getitem__,
                )
            )

    def file(self, writer: int, key: int) -> FilePath:
        """The file of an object."""
        return self.folder / f"rank-{writer}" / f"{key:016x}.kv"

    def run(self, *scripts: Schedule, before_round: Callable[[int], None] = lambda number: None) -> None:
        """Carry out one schedule a rank, all at the same time, with rounds until all have ended."""
        loads = [engine.prepare(script) for engine, script in zip(self.engines, scripts, strict=True)]
        now_ns = timed_io.now_ns()
        for load in loads:
            load.begin(Timeline(now_ns, now_ns, None, Phase.WARMUP))
        over = threading.Event()
        rounds = threading.Thread(target=self._make_rounds, args=(loads, over, before_round), daemon=True)
        rounds.start()
        wait_for(lambda: not rounds.is_alive(), "the rounds do not end")
        for load in loads:
            finish(load)

    def _make_rounds(self, loads: Sequence[Load], over: threading.Event, before: Callable[[int], None]) -> None:
        finished = np.zeros(len(loads), np.bool_)
        while not finished.all():
            number = self.sharings[0].taken_in + 1
            before(number)
            finished = np.array([load.finished for load in loads])
            said = [load.dispatcher.say(number) for load in loads]
            news = np.concatenate([np.empty(0, ANNOUNCEMENT_DTYPE), *(rows for rows, _ in said)])
            settled = min(settled for _, settled in said)
            for load in loads:
                load.dispatcher.take_in(number, news, settled, finished)
            over.wait(0.001)

    def rows(self, rank: int) -> NDArray[Any]:
        """All records of a rank."""
        views = [view for store in self.engines[rank].stores for view in store.views()]
        return np.concatenate([np.empty(0, RECORD_DTYPE), *views])

    def requests(self, rank: int) -> NDArray[Any]:
        """The requests of a rank, in order of their numbers."""
        rows = np.concatenate([np.empty(0, REQUEST_DTYPE), *self.engines[rank].requests.views()])
        return rows[np.argsort(rows["request"], kind="stable")]

    @property
    def failures(self) -> list[str]:
        return [failure for engine in self.engines for failure in engine.failures]

    def violations(self) -> dict[str, int]:
        """Of all ranks, by kind; those that did not happen are left out."""
        counts: dict[str, int] = {}
        for engine in self.engines:
            assert engine.violations is not None
            for kind, number in engine.violations.counts.items():
                if number:
                    counts[kind.value] = counts.get(kind.value, 0) + number
        return counts

    def close(self) -> None:
        for tier in self.tiers:
            tier.close()


def hand_over_by_number(scripts: dict[int, Schedule]) -> Handover:
    """Requests of prefill ranks with scripts of one stream each."""
    lanes = Lanes(lambda rank, number: rank, lambda rank: scripts[rank].stream(0))  # type: ignore[index]
    return Handover(lanes.find, lambda rank, number: number * len(scripts) + sorted(scripts).index(rank))
