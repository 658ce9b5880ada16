"""The rows of one rank on their way into the run file: from its spill file, then from memory, on rank 0's clock.

Nothing travels here; at most one frame of the spill file and one chunk of memory are copied at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kvbench.errors import KvbenchError
from kvbench.records.clock import RECORD_TIMES, REQUEST_TIMES, CommonClock, on_common_clock
from kvbench.records.condensed.sample import Sample
from kvbench.records.recorder import RowStore
from kvbench.records.spill.reader import SpillFile
from kvbench.records.spill.writer import RECORDS, REQUESTS
from kvbench.records.tables import SAMPLE_DTYPE


@dataclass(frozen=True, slots=True)
class Spilled:
    """What a rank's spill file holds of its rows."""

    path: Path
    nbytes: int
    """Of the file, up to the last row that counts."""
    records: Sequence[int]
    """Rows of each store of the records that are in it."""
    requests: int
    descriptor: int = -1
    """Of the file, if it is open: its name may be gone."""

    def rows(self, kind: int) -> Iterator[npt.NDArray[np.void]]:
        """The rows of RECORDS or REQUESTS, read back frame by frame. Raises KvbenchError where the file is damaged."""
        with SpillFile(self.path, SAMPLE_DTYPE, self.descriptor) as file:
            for frame in file.frames(self.nbytes, [kind]):
                yield frame.rows
            ending = file.ending
        if ending is None or ending.good_bytes != self.nbytes:
            raise KvbenchError(f"{self.path} was damaged while the run went on: {ending.reason if ending else ''}")


@dataclass(frozen=True, slots=True)
class RankRows:
    """What one rank recorded, with the clock that turns its times into rank 0's.

    The first rows are in its spill file, if there is one, the others in memory.
    """

    records: Sequence[RowStore | Sample]
    requests: RowStore | Sample
    clock: CommonClock
    spilled: Spilled | None = None

    def record_chunks(self) -> Iterator[npt.NDArray[np.void]]:
        """Copies of the records, on rank 0's clock."""
        first = [0] * len(self.records) if self.spilled is None else self.spilled.records
        memory = (view for store, start in zip(self.records, first, strict=True) for view in store.views(start))
        return self._shifted(chain(self._read_back(RECORDS), memory), RECORD_TIMES)

    def request_chunks(self) -> Iterator[npt.NDArray[np.void]]:
        """Copies of the requests, on rank 0's clock."""
        memory = self.requests.views(0 if self.spilled is None else self.spilled.requests)
        return self._shifted(chain(self._read_back(REQUESTS), memory), REQUEST_TIMES)

    def _read_back(self, kind: int) -> Iterator[npt.NDArray[np.void]]:
        return iter(()) if self.spilled is None else self.spilled.rows(kind)

    def _shifted(self, views: Iterable[npt.NDArray[np.void]], columns: Sequence[str]) -> Iterator[npt.NDArray[np.void]]:
        return (on_common_clock(view, columns, self.clock) for view in views)
