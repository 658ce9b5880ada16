"""A rank's batches of two operations and more, in bounded memory: all of them, or a uniform sample of all ranks'.

What a batch adds up to follows from its rows in /records, which are all there where `records` is `full`. So nothing is
lost by a sample here, and rank 0 holds no more than a bounded number of batches, whatever the number of ranks. No file
and no MPI here.
"""

import struct
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.records.condensed.sample import Sample
from kvbench.records.tables import BATCH_DTYPE

ALL_RANKS_BATCHES: Final = 2**18
"""That all ranks together keep at most, if each may keep as many as FEWEST: 21 MB on rank 0."""
MOST: Final = 2**15
FEWEST: Final = 16

_STREAM: Final = 2
"""Of the hashes that choose: records have 0, requests 1."""
_BUFFERED: Final = 512
_ROW: Final = struct.Struct("<8q3i4B")
assert _ROW.size == BATCH_DTYPE.itemsize

Sums = tuple[int, int, int, int, int, int, int, int]
"""As `timed_io.sum_rows` gives them."""


class BatchLog:
    """Of one rank; any thread may add to it."""

    def __init__(self, rank: int, ranks: int = 1) -> None:
        most = int(np.clip(ALL_RANKS_BATCHES // max(1, ranks), FEWEST, MOST))
        self.sample = Sample(BATCH_DTYPE, _STREAM, rank, most)
        """What `rows` is made of; at the end all ranks bring theirs to one level."""
        self._rank = rank
        self._buffer = np.zeros(_BUFFERED, BATCH_DTYPE)
        self._filled = 0
        self._lock = threading.Lock()

    def add(self, batch: int, codes: tuple[int, int, int, int], operations: int, sums: Sums, depth: int = 1) -> None:
        """Batch number `batch`, and what its rows add up to; one of a single operation is left out: its row says it.

        `codes` are its tier, op, phase and timed_by, as in the rows.
        """
        if operations < 2:
            return
        start_ns, _, wall_ns, host_ns, runq_ns, device_ns, copy_ns, nbytes = sums
        times = (batch, start_ns, wall_ns, device_ns, host_ns, runq_ns, copy_ns, nbytes)
        with self._lock:
            at = self._filled * _ROW.size
            _ROW.pack_into(self._buffer.data.cast("B"), at, *times, self._rank, operations, depth, *codes)
            self._filled += 1
            if self._filled == _BUFFERED:
                self._hand_on()

    def close(self) -> None:
        """Take what is buffered into the sample; call it when nothing is added any more."""
        with self._lock:
            self._hand_on()

    def rows(self) -> npt.NDArray[np.void]:
        """What is kept (BATCH_DTYPE), in the order in which it came, on the node's own clock."""
        return self.sample.rows.copy()

    def _hand_on(self) -> None:
        self.sample.keep(*self.sample.choose(self._buffer[: self._filled]))
        self._filled = 0
