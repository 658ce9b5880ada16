"""The rows that one worker thread records, kept in chunks until they are gathered.

A row is filled in place (first by the stopwatch, then by the worker), so recording an operation makes no object. This
module knows nothing of what the rows mean, and writes no file.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowStore:
    """Rows of `dtype`, appended by one thread; `count` and `views` may be used by any thread at any time.

    Memory is taken a chunk at a time, and the operating system backs a chunk with pages only as rows are filled.
    """

    def __init__(self, dtype: np.dtype[Any], chunk_rows: int = 8192) -> None:
        """`dtype` is a structured dtype such as RECORD_DTYPE; `chunk_rows` rows are allocated at once."""
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be at least 1, not {chunk_rows}")
        self._dtype = dtype
        self._chunk_rows = chunk_rows
        self._chunks: list[NDArray[Any]] = []
        self._current = np.empty(0, np.uint8)
        self._row = chunk_rows
        self._count = 0

    def reserve(self) -> tuple[NDArray[np.uint8], int]:
        """The next free row: the bytes of its chunk (chunk_rows x itemsize, shape 1-D) and its index in the chunk.

        It does not count before `commit`: reserving again without it gives the same row, as it was left.
        """
        if self._row == self._chunk_rows:
            chunk = np.zeros(self._chunk_rows, self._dtype)
            self._current = chunk.view(np.uint8)
            self._chunks.append(chunk)
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
        return self._chunks[-1]

    @property
    def count(self) -> int:
        """Committed rows."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of address space held by all chunks."""
        return len(self._chunks) * self._chunk_rows * self._dtype.itemsize

    def views(self, start: int = 0) -> list[NDArray[Any]]:
        """Committed rows from `start` on, in order, as views of the chunks (nothing is copied)."""
        if start < 0:
            raise ValueError(f"start must not be negative, not {start}")
        # The count is read once: a row committed meanwhile belongs to the next call.
        count, size = self._count, self._chunk_rows
        return [
            self._chunks[index][max(start - index * size, 0) : min(count - index * size, size)]
            for index in range(start // size, -(-count // size))
            if start < count
        ]
