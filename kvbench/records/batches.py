"""A rank's batches, in bounded memory: all of them, or a uniform sample of all ranks'; and exact sums of those whose
operations overlap.

What a batch adds up to whose operations come one after the other follows from its rows in /records, which are all there
where `records` is `full`. So nothing is lost by a sample here, and rank 0 holds no more than a bounded number of
batches, whatever the number of ranks. No file and no MPI here.
"""

import struct
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from kvbench.records.condensed.sample import Sample
from kvbench.records.schema import OVERLAPPING
from kvbench.records.tables import BATCH_DTYPE, SPLIT_DTYPE, as_rows

ALL_RANKS_BATCHES: Final = 2**18
"""That all ranks together keep at most, if each may keep as many as FEWEST: 23 MB on rank 0."""
MOST: Final = 2**15
FEWEST: Final = 16

_STREAM: Final = 2
"""Of the hashes that choose: records have 0, requests 1."""
_BUFFERED: Final = 512
_ROW: Final = struct.Struct("<9q3i4B")
assert _ROW.size == BATCH_DTYPE.itemsize


class BatchSplit(NamedTuple):
    """What a batch took: its wall time, in exact parts, and its bytes."""

    start_ns: int
    wall_ns: int
    host_ns: int
    runq_ns: int
    device_ns: int
    """wall - host - run queue: the thread was blocked, where operations overlap until one was complete."""
    copy_ns: int
    nbytes: int
    helper_ns: int = 0
    """Processor time of other threads of the process, spent for it."""
    depth: int = 1
    """Operations that were in flight at once, at most."""

    @classmethod
    def of_sums(cls, sums: tuple[int, int, int, int, int, int, int, int]) -> Self:
        """Of operations one after the other, from what their rows add up to (`timed_io.sum_rows`)."""
        start_ns, _, wall_ns, host_ns, runq_ns, device_ns, copy_ns, nbytes = sums
        return cls(start_ns, wall_ns, host_ns, runq_ns, device_ns, copy_ns, nbytes)


Codes = tuple[int, int, int, int]
"""Tier, op, phase and timed_by of a batch, as in its rows."""


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
        self._sums: dict[Codes, npt.NDArray[np.int64]] = {}

    def add(self, batch: int, codes: Codes, operations: int, split: BatchSplit) -> None:
        """Batch number `batch`. One of a single operation that does not overlap is left out: its row says it."""
        overlaps = codes[3] in OVERLAPPING
        if operations < (1 if overlaps else 2):
            return
        start_ns, wall_ns, host_ns, runq_ns, device_ns, copy_ns, nbytes, helper_ns, depth = split
        times = (start_ns, wall_ns, device_ns, host_ns, runq_ns, copy_ns, helper_ns, nbytes)
        with self._lock:
            at = self._filled * _ROW.size
            _ROW.pack_into(self._buffer.data.cast("B"), at, batch, *times, self._rank, operations, depth, *codes)
            self._filled += 1
            if self._filled == _BUFFERED:
                self._hand_on()
            if overlaps:
                sums = self._sums.setdefault(codes, np.zeros(9, np.int64))
                sums += (1, operations, nbytes, wall_ns, device_ns, host_ns, runq_ns, copy_ns, helper_ns)

    def close(self) -> None:
        """Take what is buffered into the sample; call it when nothing is added any more."""
        with self._lock:
            self._hand_on()

    def rows(self) -> npt.NDArray[np.void]:
        """What is kept (BATCH_DTYPE), in the order in which it came, on the node's own clock."""
        return self.sample.rows.copy()

    def splits(self) -> npt.NDArray[np.void]:
        """The sums of those whose operations overlap (SPLIT_DTYPE), in the order of their codes."""
        return as_rows([self._split_row(codes) for codes in sorted(self._sums)], SPLIT_DTYPE)

    def _split_row(self, codes: Codes) -> Mapping[str, int]:
        names = SPLIT_DTYPE.names or ()
        return dict(zip(names, (self._rank, *codes, *self._sums[codes].tolist()), strict=True))

    def _hand_on(self) -> None:
        self.sample.keep(*self.sample.choose(self._buffer[: self._filled]))
        self._filled = 0
