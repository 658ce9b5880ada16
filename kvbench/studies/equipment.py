"""One rank's part of a copy-path study: its objects on every directory, its memory, and what reads the one into the
other. Talks to no other rank."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path as FilePath
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from kvbench.engine.carrier import Equipment
from kvbench.errors import KvbenchError
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, Path
from kvbench.run.build import make_arena, run_number
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import layouts, objects_of
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import Cell, Part
from kvbench.units import MIB

IO_BYTES: Final = MIB
"""The most that one system call moves, as in a run."""

_CHUNK_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Home:
    """Where this rank is, and the directories that belong to it alone, one on each directory under test."""

    rank: int
    host: str
    directories: tuple[FilePath, ...]


@dataclass(frozen=True, slots=True)
class Stock:
    """What a rank reads with. `equipment` has, for each read path, one tier for each directory."""

    choices: CopyPathChoices
    rank: int
    arena: Arena
    payload: Payload
    equipment: dict[Path, Equipment]
    stop: npt.NDArray[np.int32]
    """Set to 1, it ends what is under way."""
    stores: list[RowStore]
    """Records, one store for each thread."""
    failures: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, stack: ExitStack, choices: CopyPathChoices, home: Home, run_id: str, arena_bytes: int) -> Self:
        """Take the memory and open the directories, until `stack` is left. Raises KvbenchError and OSError."""
        payload = Payload("stamped", run_number(run_id, home.rank), choices.seed)
        arena = make_arena(arena_bytes, max(choices.threads), payload)
        stop = np.zeros(1, dtype=np.int32)
        failures: list[str] = []
        equipment = {}
        for path in choices.read_paths:
            tiers = [FileTier(directory, path, Path.BUFFERED, IO_BYTES, True) for directory in home.directories]
            for tier in tiers:
                stack.callback(tier.close)
            equipment[path] = Equipment(home.rank, home.host, tiers, arena, payload, False, stop, failures.append)
        stores = [RowStore(RECORD_DTYPE, _CHUNK_ROWS) for _ in range(max(choices.threads))]
        return cls(choices, home.rank, arena, payload, equipment, stop, stores, failures)

    def write(self, interrupted: Callable[[], bool]) -> None:
        """Write all objects, once for each directory, size and file layout. Raises OSError, or KvbenchError when
        `interrupted` says that the study is to end."""
        writers = layouts(self.choices.read_paths)
        for path, (number, size) in product(self.choices.read_paths, enumerate(self.choices.sizes)):
            for tier, key in product(self.equipment[path].tiers, self.keys(number)):
                tier.allocate(key, size)
                if path in writers:
                    if interrupted():
                        raise KvbenchError("interrupted before anything was measured")
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
