"""What a call on a tier is given: the row that it is timed into, the bytes of an object that it moves, or a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE, Op, TimedBy
from kvbench.tiers.arena import Memory

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

    def around_python(self) -> "PythonSpan":
        """A context that is timed into the row: what runs in it is Python code, whatever that calls."""
        return PythonSpan(self)


class PythonSpan:
    """The time of Python code, and what only that code knows of it, to be set before the context ends."""

    __slots__ = ("_cell", "copy_ns", "nbytes", "span_ns")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.nbytes = 0
        """Bytes that were moved."""
        self.copy_ns = 0
        """Processor time of copies in memory."""
        self.span_ns = 0
        """Wall time of the part that `span_ns` of the row is about."""

    def __enter__(self) -> "PythonSpan":
        cell = self._cell
        cell.rows[cell.row * _ROW_BYTES + _TIMED_BY_OFFSET] = TimedBy.PYTHON
        timed_io.begin(cell.rows, cell.row)
        return self

    def __exit__(self, *error: object) -> None:
        timed_io.end(self._cell.rows, self._cell.row, self.span_ns, self.copy_ns, self.nbytes)


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
