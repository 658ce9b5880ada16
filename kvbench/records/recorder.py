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

    Memory is taken a chunk at a time, and the operating system backs a chunk with pages only as rows are filled. Rows
    that are reserved together lie in one chunk: one that has no room for them stays as full as it is.
    """

    def __init__(self, dtype: np.dtype[Any], chunk_rows: int = 8192) -> None:
        """`dtype` is a structured dtype such as RECORD_DTYPE; `chunk_rows` rows are allocated at once."""
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be at least 1, not {chunk_rows}")
        self._dtype = dtype
        self._chunk_rows = chunk_rows
        self._chunks: list[tuple[int, NDArray[Any]]] = []
        """Each with the number of its first row. Only ever added to at the end, and taken from at the front."""
        self._released = 0
        self._last: NDArray[Any] = np.empty(0, dtype)
        self._current = np.empty(0, np.uint8)
        self._row = self._free = 0
        self._count = 0

    def reserve(self, rows: int = 1) -> tuple[NDArray[np.uint8], int]:
        """The next `rows` free rows: the bytes of their chunk (shape 1-D), and the index of the first in the chunk.

        They do not count before `commit`: reserving again without it gives the same rows, as they were left.
        """
        if rows > self._free:
            self._last = np.zeros(max(rows, self._chunk_rows), self._dtype)
            self._current = self._last.view(np.uint8)
            self._chunks.append((self._count, self._last))
            self._row, self._free = 0, len(self._last)
        return self._current, self._row

    def commit(self, rows: int = 1) -> None:
        """Count the first `rows` of those that `reserve` gave last."""
        if rows > self._free:
            raise ValueError("commit without a reserved row")
        self._row += rows
        self._free -= rows
        self._count += rows

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
        return sum(rows.nbytes for _, rows in self._chunks)

    def views(self, start: int = 0) -> list[NDArray[Any]]:
        """Committed rows from `start` on, in order, as views of the chunks (nothing is copied).

        Raises ValueError where rows from `start` on were released.
        """
        if start < self._released or start < 0:
            raise ValueError(f"rows from {start} on are asked for, and memory holds them from {self._released} on")
        # The count is read once, and first: a row committed meanwhile belongs to the next call.
        count = self._count
        chunks = self._chunks[:]
        ends = [*(first for first, _ in chunks), count][1:]
        return [
            rows[max(start - first, 0) : min(end, count) - first]
            for (first, rows), end in zip(chunks, ends, strict=True)
            if max(start, first) < min(end, count)
        ]

    def release(self, upto: int) -> None:
        """Free the chunks all of whose rows are below `upto`; views that someone still holds stay valid."""
        if not 0 <= upto <= self._count:
            raise ValueError(f"rows up to {upto} cannot be released: {self._count} are committed")
        while self._chunks:
            first, rows = self._chunks[0]
            end = self._chunks[1][0] if len(self._chunks) > 1 else first + len(rows)
            if end > upto:
                break
            del self._chunks[0]
            self._released = end
