"""Objects that are only remembered: no byte is kept or moved, so that what is measured is kvbench itself.

An operation here costs what the stopwatch and everything around it cost. What was never kept cannot be verified: a run
with such a tier writes no payload and checks none (`payload.Blank`).
"""

import errno
import os
import struct
from typing import Final

import numpy as np

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE, Op, Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.transfer import WHOLE, Batch, Cell, Part

_NOTHING: Final = Memory(np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64))
_ROW_BYTES: Final = RECORD_DTYPE.itemsize
_COPY_OFFSET: Final = RECORD_DTYPE.fields["copy_ns"][1] if RECORD_DTYPE.fields else 0
_INT64: Final = struct.Struct("<q")


class NullTier(Tier):
    """Knows its objects by their keys. Every call is one call of the stopwatch, around a copy of nothing."""

    kind = "null"
    storage = True
    holds_bytes = False
    moves_together = True
    in_parts = False
    read_path = Path.NONE
    write_path = Path.NONE

    def __init__(self) -> None:
        # Threads share it without a lock: each use of it is one step of the interpreter.
        self._objects: set[int] = set()

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        self._timed(cell, key, part, 0)
        if part.last:
            self._objects.add(key)
        return -1

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        self._timed(cell, key, part, 0 if key in self._objects else errno.ENOENT)
        return -1, target

    def delete(self, cell: Cell, key: int) -> None:
        self._timed(cell, key, WHOLE, 0 if key in self._objects else errno.ENOENT)
        self._objects.remove(key)

    def run(self, batch: Batch) -> None:
        """As one call after the other, with as little around the stopwatch as there can be: it is what is measured."""
        known, keys, stop = self._objects, batch.keys, batch.stop
        if stop[0] or not (batch.does == Op.WRITE or known.issuperset(keys)):
            super().run(batch)  # one will fail, and that one is to be told from the others
            return
        ends = np.zeros(len(keys), np.int64)
        end = timed_io.run_copies(
            batch.rows, batch.first_row, *_NOTHING, ends, *_NOTHING, ends, 1, 0, stop, batch.until_ns
        )
        batch.ended(end, self.where)
        batch.landed_there = True
        done = keys[: batch.begun - len(batch.errors)]
        if batch.does == Op.WRITE:
            known.update(done)
        elif batch.does == Op.DELETE:
            known.difference_update(done)

    def inspect(self, key: int, offset: int, target: Memory) -> None:
        """Nothing: there is nothing to look at."""

    def _timed(self, cell: Cell, key: int, part: Part, error: int) -> None:
        flags = (timed_io.FIRST if part.first else 0) | (timed_io.LAST if part.last else 0)
        timed_io.copy(cell.rows, cell.row, *_NOTHING, *_NOTHING, 1, flags, cell.stop)
        _INT64.pack_into(cell.rows.data, cell.row * _ROW_BYTES + _COPY_OFFSET, 0)
        # A copy of nothing ends before it looks at the flag that would end it.
        error = errno.ECANCELED if cell.stop[0] else error
        if error:
            cell.record["errno"] = error
            raise OSError(error, os.strerror(error), self.where(key))
