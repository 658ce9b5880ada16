"""The rows that one worker thread records, kept in chunks until they are released or gathered.

A row is filled in place (first by the stopwatch, then by the worker), so recording an operation makes no object. This
module knows nothing of what the rows mean, and writes no file; `stream` says when rows may leave memory.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowStore:
    """Rows of `dtype`, appended by one thread; `count` and `views` may be used by any thread at any time, and `release`
    by one.

    Memory is taken a chunk at a time, and the operating system backs a chunk with pages only as rows are filled.
    """

    def __init__(self, dtype: np.dtype[Any], chunk_rows: int = 8192) -> None:
        """`dtype` is a structured dtype such as RECORD_DTYPE; `chunk_rows` rows are allocated at once."""
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be at least 1, not {chunk_rows}")
        self._dtype = dtype
        self._chunk_rows = chunk_rows
        self._chunks: dict[int, NDArray[Any]] = {}
        self._released = 0
        self._last: NDArray[Any] = np.empty(0, dtype)
        self._current = np.empty(0, np.uint8)
        self._row = chunk_rows
        self._count = 0

    def reserve(self) -> tuple[NDArray[np.uint8], int]:
        """The next free row: the bytes of its chunk (chunk_rows x itemsize, shape 1-D) and its index in the chunk.

        It does not count before `commit`: reserving again without it gives the same row, as it was left.
        """
        if self._row == self._chunk_rows:
            self._last = np.zeros(self._chunk_rows, self._dtype)
            self._current = self._last.view(np.uint8)
            self._chunks[self._count // self._chunk_rows] = self._last
            self._row = 0
        return self._current, self._row

    def commit(self) -> None:
        """Count the row that `reserve` gave last."""
        if self._row == self._chunk_rows:
            raise ValueError("commit without a reserved row")
        self._row += 1
        self._count += 1

    @property
    def rows(self) -> NDArray[Any]:
        """The chunk that `reserve` gave last, as structured rows: `store.rows[row]["tokens"] = 5`."""
        return self._last

    @property
    def count(self) -> int:
        """Committed rows."""
        return self._count

    @property
    def released(self) -> int:
        """Rows that are no longer in memory: the first ones, whole chunks of them."""
        return self._released

    @property
    def nbytes(self) -> int:
        """Bytes of address space held by all chunks."""
        return len(self._chunks) * self._chunk_rows * self._dtype.itemsize

    def views(self, start: int = 0) -> list[NDArray[Any]]:
        """Committed rows from `start` on, in order, as views of the chunks (nothing is copied).

        Raises ValueError where rows from `start` on were released.
        """
        if start < self._released or start < 0:
            raise ValueError(f"rows from {start} on are asked for, and memory holds them from {self._released} on")
        # The count is read once: a row committed meanwhile belongs to the next call.
        count, size = self._count, self._chunk_rows
        return [
            self._chunks[index][max(start - index * size, 0) : min(count - index * size, size)]
            for index in range(start // size, -(-count // size))
            if start < count
        ]

    def release(self, upto: int) -> None:
        """Free the chunks all of whose rows are below `upto`; views that someone still holds stay valid."""
        if not 0 <= upto <= self._count:
            raise ValueError(f"rows up to {upto} cannot be released: {self._count} are committed")
        first, end = self._released // self._chunk_rows, upto // self._chunk_rows
        if end > first:
            self._released = end * self._chunk_rows
            for index in range(first, end):
                del self._chunks[index]
