"""Reads that did not give what was written, where ranks share a filesystem: what kind, and how many.

A filesystem that promises that what was written and synced can be read elsewhere, and does not keep it, is caught here
by the stamps. It is counted and the run goes on, as what is to be found out is how often it happens.
"""

import errno
import threading
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.records.tables import VIOLATION_DTYPE
from kvbench.tiers.contract import NotAsWrittenError
from kvbench.tiers.payload import Mismatch
from kvbench.units import storable

MOST_ROWS: Final = 64
"""Violations of one rank that are described; all are counted."""


class Violation(StrEnum):
    """What a read found instead of what was written."""

    MISSING = "missing"
    """No such file, though it was written, synced and announced, and not retired."""
    TORN = "torn"
    """A file that is too short, or sectors that were never written or are of another place in the object."""
    STALE = "stale"
    """Whole sectors of something else: of another object or another run."""
    UNSEEN = "unseen"
    """Not there after seconds of looking, though it was written, synced and announced, and not retired."""


class Violations:
    """Those of one rank; any thread may note one."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._lock = threading.Lock()
        self._rows: list[tuple[int, int, int, int, int, str, str]] = []
        self.counts: dict[Violation, int] = dict.fromkeys(Violation, 0)

    def note(self, kind: Violation, writer: int, key: int, nbytes: int, t_ns: int, text: str) -> None:
        """Count one, and keep what describes it of the first."""
        with self._lock:
            self.counts[kind] += 1
            if len(self._rows) < MOST_ROWS:
                self._rows.append((self._rank, writer, key, nbytes, t_ns, kind.value, text))

    def rows(self) -> npt.NDArray[np.void]:
        """The first of them (VIOLATION_DTYPE)."""
        with self._lock:
            rows = np.zeros(len(self._rows), VIOLATION_DTYPE)
            for place, row in enumerate(self._rows):
                rows[place] = (*row[:5], row[5].encode(), storable(row[6]).encode()[:240])
            return rows


def of_mismatch(mismatch: Mismatch) -> Violation:
    """Whether a sector that is not what was written is a piece of the object, or of something else."""
    run, _, key = mismatch.found
    never_written = mismatch.found == (0, 0, 0)
    same_object = (run, key) == (mismatch.expected[0], mismatch.expected[2])
    return Violation.TORN if never_written or same_object else Violation.STALE


def of_error(error: OSError, size_bytes: int | None, expected_bytes: int) -> Violation | None:
    """What a failed read or delete says of the filesystem's promise; None: it is a failure of another kind.

    `size_bytes` is the size of the object's file now, None where it cannot be told.
    """
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return Violation.MISSING
    if isinstance(error, NotAsWrittenError):
        return Violation.TORN
    if error.errno == errno.EIO and size_bytes is not None and size_bytes < expected_bytes:
        return Violation.TORN
    return None
