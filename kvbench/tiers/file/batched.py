"""What the tiers of files have in common: how they have their batches moved, whatever lies in the files."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.schema import Op
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.in_turn import run_in_turn
from kvbench.tiers.file.overlapping import Names, Overlapping
from kvbench.tiers.transfer import Batch


class BatchedFiles(Tier):
    """Batches are one call of the stopwatch each or, with `overlapping`, in flight together; the tier closes that."""

    kind = "file"
    storage = True

    def __init__(
        self, overlapping: Overlapping | None, io_bytes: int, drop_page_cache: bool, in_memory: bool = False
    ) -> None:
        """`in_memory`: the filesystem is the page cache itself, where nothing is dropped or looked at: all of it is
        there."""
        self._overlapping = overlapping
        self._io_bytes = io_bytes
        self._drop_page_cache = drop_page_cache
        self._in_memory = in_memory

    def _move(
        self,
        batch: Batch,
        descriptor: int,
        names: Names,
        flags: int,
        where: Callable[[int], str],
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Carry out a batch, with the look at the page cache before its reads; arguments as of `Overlapping.run`."""
        reads = batch.does == Op.READ
        if reads and not self._in_memory:
            flags |= timed_io.LOOK | (timed_io.DROP if self._drop_page_cache else 0)
        batch.landed_there = reads
        moves = run_in_turn if self._overlapping is None or batch.does == Op.DELETE else self._overlapping.run
        moves(batch, descriptor, names, self._io_bytes, flags, where, places)
        if reads and self._in_memory:
            batch.all_resident()

    @property
    def unregistered_errno(self) -> int:
        return 0 if self._overlapping is None else self._overlapping.unregistered_errno

    def begin_thread(self, memory: npt.NDArray[np.uint8]) -> None:
        if self._overlapping is not None:
            self._overlapping.open(memory)

    def end_thread(self) -> None:
        if self._overlapping is not None:
            self._overlapping.close_own()

    def close(self) -> None:
        if self._overlapping is not None:
            self._overlapping.close()
