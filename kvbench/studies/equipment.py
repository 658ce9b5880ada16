"""One rank's part of a copy-path study: its objects on every directory, its memory, and what reads the one into the
other. Talks to no other rank."""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from kvbench.cluster.signals import Interrupt
from kvbench.config.run_config import Io, TierSection
from kvbench.engine.equipment import Equipment
from kvbench.records.batches import BatchLog
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, Path, label
from kvbench.run.build import make_arena, run_number
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import layouts, objects_of
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Payload
from kvbench.tiers.target import Area, TierSettings
from kvbench.tiers.transfer import Cell, Part
from kvbench.units import MIB

IO_BYTES: Final = MIB
"""The most that one system call moves, as in a run."""

_CHUNK_ROWS: Final = 4096


def tier_settings(read_path: Path) -> TierSettings:
    """Of a tier that is read on `read_path`, and written as a run does where nothing else is said."""
    io = Io.model_validate({"read_path": label(read_path), "io_bytes": IO_BYTES})
    return TierSettings(TierSection(kind="file"), io, 0)


@dataclass(frozen=True, slots=True)
class StudySite:
    """Where this rank is, and what belongs to it alone in each directory under test."""

    rank: int
    host: str
    areas: tuple[Area, ...]


@dataclass(frozen=True, slots=True)
class Stock:
    """What a rank reads with. `equipment` has, for each read path, one tier for each directory."""

    choices: CopyPathChoices
    rank: int
    arena: Arena
    payload: Payload
    equipment: dict[Path, Equipment]
    stop: npt.NDArray[np.int32]
    """Set to 1, by a signal too, it ends what is under way."""
    stores: list[RowStore]
    """Records, one store for each thread."""
    failures: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        stack: ExitStack,
        choices: CopyPathChoices,
        home: StudySite,
        run_id: str,
        arena_bytes: int,
        interrupt: Interrupt,
    ) -> Self:
        """Take the memory and open the directories, until `stack` is left. Raises KvbenchError and OSError."""
        with interrupt.raising():
            payload = Payload("stamped", run_number(run_id, home.rank), choices.seed)
            arena = make_arena(arena_bytes, max(choices.threads), payload)
        stop = np.frombuffer(interrupt.flag, dtype=np.int32)
        failures: list[str] = []
        equipment = {}
        batches = BatchLog(home.rank)
        for path in choices.read_paths:
            tiers = [area.open_tier(tier_settings(path)) for area in home.areas]
            for tier in tiers:
                stack.callback(tier.close)
            equipment[path] = Equipment(
                home.rank,
                home.host,
                tiers,
                arena,
                payload,
                False,
                stop,
                failures.append,
                batches,
                np.zeros(1, np.int64),
            )
        stores = [RowStore(RECORD_DTYPE, _CHUNK_ROWS) for _ in range(max(choices.threads))]
        return cls(choices, home.rank, arena, payload, equipment, stop, stores, failures)

    def write(self) -> None:
        """Write all objects, once for each directory, size and file layout. Raises OSError (ECANCELED when stopped)."""
        writers = layouts(self.choices.read_paths)
        for path, (number, size) in product(self.choices.read_paths, enumerate(self.choices.sizes)):
            for tier, key in product(self.equipment[path].tiers, self.keys(number)):
                tier.allocate(key, size)
                if path in writers:
                    if self.stop[0]:
                        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                    self._write(tier, key, size)

    def keys(self, size_number: int, thread: int = 0, threads: int = 1) -> Sequence[int]:
        """Keys of this rank's objects of a size, those of one of `threads` threads: no two threads share an object,
        as each drops its own from the page cache."""
        count = objects_of(self.choices.sizes[size_number], self.choices.threads)
        first = (self.rank << 40) | (size_number << 32)
        return range(first + thread, first + count, threads)

    def _write(self, tier: Tier, key: int, nbytes: int) -> None:
        cell = Cell(np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8), 0, self.stop)
        with self.arena.lease(nbytes) as lease:
            handle = -1
            for offset in range(0, nbytes, lease.nbytes):
                length = min(lease.nbytes, nbytes - offset)
                source = lease.memory(key, nbytes, offset, length)
                self.payload.make(source, key, offset)
                part = Part(offset, first=offset == 0, last=offset + length == nbytes)
                handle = tier.write(cell, key, part, source, handle)
