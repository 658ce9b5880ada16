"""A uniform sample of rows, taken as they come, in bounded memory, that is uniform over all ranks together.

Every row has a hash of its rank and its number on that rank. A rank keeps the rows whose hash is below 2^64 /
2^level, and when more than its budget are, it raises the level by one, which lets half of them go. At the end all
ranks agree on the highest level and drop what that leaves out: every row of the whole run was then kept with the same
probability, 1 in 2^level, however many rows its rank had, and independently of what is in it.

The level is the lowest at which no rank has more than its budget, so no order of rows matters. That each kept row
counts for 2^level rows gives sums without bias although the level depends on the hashes: lowering the hash of a row
that is kept changes no level (the argument of D. Ting, Adaptive Threshold Sampling, SIGMOD 2022). No file and no MPI
here.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_ROWS: Final = 2**16
"""Rows that a rank keeps at most: 7.3 MB of records."""
ALL_RANKS_ROWS: Final = 2**22
"""Rows that all ranks together keep at most: what the file of 10 000 ranks should not exceed (some 40 MB)."""
FEWEST_ROWS: Final = 256
MOST_LEVEL: Final = 63
"""A sample of 1 in 2^63: of more rows than there can be."""

_RANK_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def budget(ranks: int) -> int:
    """How many rows each of `ranks` ranks keeps at most, of records and of requests."""
    return int(np.clip(ALL_RANKS_ROWS // max(ranks, 1), FEWEST_ROWS, MOST_ROWS))


def hashes(stream: int, rank: int, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of 64 bits for each of the rows `numbers` of `rank`; `stream` tells records (0) from requests (1).

    The finalizer of SplitMix64 (G. L. Steele, D. Lea and C. H. Flood, OOPSLA 2014) twice: over stream and rank, and
    over what that gives with the number.
    """
    with np.errstate(over="ignore"):
        seed = _mixed(np.array([(stream << 32) + rank + 1], np.uint64) * _RANK_FACTOR)
        return _mixed(seed + (numbers + np.uint64(1)) * _RANK_FACTOR)


def kept_at(level: int, hashed: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the rows with the hashes `hashed` a sample of 1 in 2^level keeps."""
    return np.asarray(hashed >> np.uint64(64 - level) == 0) if level else np.ones(len(hashed), np.bool_)


class Sample:
    """The sampled rows of one rank. One thread at a time may use it."""

    def __init__(self, dtype: np.dtype[Any], stream: int, rank: int, rows: int) -> None:
        """Keeps at most `rows` rows of `dtype`; `stream` and `rank` are as in `hashes`."""
        if rows < 1:
            raise ValueError(f"a sample needs room for at least one row, not {rows}")
        self.level = 0
        """A row is kept with probability 1 in 2^level."""
        self.seen = 0
        """Rows of this rank, chosen or not."""
        self._stream, self._rank = stream, rank
        # Twice the room: what comes is put behind what is there, and then halved. Pages are only backed as they fill.
        self._rows = np.empty(2 * rows, dtype)
        self._numbers = np.empty(2 * rows, np.uint64)
        self._budget = rows
        self._filled = 0

    @property
    def rows(self) -> NDArray[Any]:
        """What is kept, in the order in which it came; a view that is valid until the next call."""
        return self._rows[: self._filled]

    @property
    def count(self) -> int:
        """How many rows are kept."""
        return self._filled

    def views(self, start: int = 0) -> list[NDArray[Any]]:
        """`rows` from `start` on, as a `RowStore` gives them."""
        return [self.rows[start:]]

    @property
    def numbers(self) -> NDArray[np.uint64]:
        """The number on its rank of each kept row; a view like `rows`."""
        return self._numbers[: self._filled]

    def choose(self, rows: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[Any]]:
        """The next rows of this rank: numbers, and copies of those rows that are chosen at the present level."""
        numbers = np.arange(self.seen, self.seen + len(rows), dtype=np.uint64)
        self.seen += len(rows)
        chosen = kept_at(self.level, hashes(self._stream, self._rank, numbers))
        return numbers[chosen], rows[chosen]

    def keep(self, numbers: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Keep what `choose` gave, now or before the run was cut off, as far as the level still allows."""
        for first in range(0, len(rows), self._budget):
            part = slice(first, first + self._budget)
            still = kept_at(self.level, hashes(self._stream, self._rank, numbers[part]))
            start, end = self._filled, self._filled + int(still.sum())
            self._rows[start:end], self._numbers[start:end] = rows[part][still], numbers[part][still]
            self._filled = end
            while self._filled > self._budget:
                self.thin(self.level + 1)

    def thin(self, level: int) -> None:
        """Keep only what a sample of 1 in 2^`level` keeps. A level below the present one changes nothing."""
        if level <= self.level:
            return
        self.level = level
        kept = kept_at(level, hashes(self._stream, self._rank, self.numbers))
        rows, numbers = self.rows[kept], self.numbers[kept]
        self._filled = len(rows)
        self._rows[: self._filled], self._numbers[: self._filled] = rows, numbers


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (values ^ (values >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
