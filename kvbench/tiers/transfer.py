"""What a call on a tier is given: the row that it is timed into, the bytes of an object that it moves, or a batch."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE, Op, TimedBy
from kvbench.tiers.arena import Memory

_ADDED_UP: Final = (
    "wall_ns", "host_ns", "runq_ns", "device_ns", "copy_ns", "span_ns", "nbytes", "minor_faults", "major_faults",
)  # fmt: skip
_OF_THE_FIRST: Final = ("t_start_ns", "queue_ns")
_ROW_BYTES: Final = RECORD_DTYPE.itemsize
_TIMED_BY_OFFSET: Final = RECORD_DTYPE.fields["timed_by"][1] if RECORD_DTYPE.fields else 0


@dataclass(slots=True)
class Cell:
    """The row that a call is timed into, and the flag that ends it early.

    The row says who timed it. It is given out as one of the stopwatch (`timed_io.TIMED_BY`), whose calls move bytes and
    time themselves; a call that is timed around Python code uses `around_python`, which says so.
    """

    rows: npt.NDArray[np.uint8]
    row: int
    stop: npt.NDArray[np.int32]
    """One number; when it is not 0 the call ends with OSError ECANCELED at its next chance."""

    @property
    def record(self) -> np.void:
        """The row itself, to be read and written by column; for what is not worth a faster way."""
        record: np.void = self.rows.view(RECORD_DTYPE)[self.row]
        return record

    def around_python(self, part: "Part | None" = None) -> "PythonSpan":
        """A context that is timed into the row: what runs in it is Python code, whatever that calls. An OSError leaves
        its number in the row.

        With `part`, what runs in it moves that part of an object: parts add up, and it does not begin once the call is
        to end early (OSError ECANCELED).
        """
        return PythonSpan(self, part)


class PythonSpan:
    """The time of Python code, and what only that code knows of it, to be set before the context ends."""

    __slots__ = ("_before", "_cell", "_part", "copy_ns", "nbytes", "span_ns")

    def __init__(self, cell: Cell, part: "Part | None") -> None:
        self._cell = cell
        self._part = part
        self._before: np.void | None = None
        self.nbytes = 0
        """Bytes that were moved."""
        self.copy_ns = 0
        """Processor time of copies in memory."""
        self.span_ns = 0
        """Wall time of the part that `span_ns` of the row is about."""

    def __enter__(self) -> "PythonSpan":
        cell = self._cell
        if self._part is not None and not self._part.first:
            self._before = cell.record.copy()
        cell.rows[cell.row * _ROW_BYTES + _TIMED_BY_OFFSET] = TimedBy.PYTHON
        timed_io.begin(cell.rows, cell.row)
        if self._part is not None and cell.stop[0]:
            error = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            self.__exit__(OSError, error, None)
            raise error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        timed_io.end(self._cell.rows, self._cell.row, self.span_ns, self.copy_ns, self.nbytes)
        if self._before is not None:
            _add_up(self._before, self._cell.record)
        if isinstance(error, OSError):
            self._cell.record["errno"] = error.errno or errno.EIO


def _add_up(before: np.void, row: np.void) -> None:
    """Make `row`, that of a part, the row of it and the parts before it."""
    for column in _ADDED_UP:
        row[column] += before[column]
    for column in _OF_THE_FIRST:
        row[column] = before[column]


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of an object that one call moves: all of them, or one piece after the other."""

    offset: int
    first: bool = True
    last: bool = True


WHOLE = Part(0)


@dataclass(slots=True)
class Batch:
    """Whole objects that one call moves the same way, each timed into a row of its own; the rows lie in one buffer, one
    after the other, so that a call can fill all of them."""

    does: Op
    """READ, WRITE or DELETE."""
    keys: Sequence[int]
    memories: Sequence[Memory]
    """Where each object is to land, or comes from; none for DELETE."""
    rows: npt.NDArray[np.uint8]
    first_row: int
    stop: npt.NDArray[np.int32]
    """As of a cell."""
    landed: list[Memory | None] = field(default_factory=list)
    """Of a READ, where each of those that were read lies now, as `Tier.read` says it."""
    begun: int = 0
    """How many were begun, from the first; the rows of the others are as they were."""
    errors: dict[int, OSError] = field(default_factory=dict)
    """What went wrong, by the number of the object in the batch."""
