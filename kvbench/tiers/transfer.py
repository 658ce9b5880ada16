"""What a call on a tier is given: the row that it is timed into, the bytes of an object that it moves, or a batch."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.batches import BatchSplit
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


class Memories(Sequence[Memory]):
    """Where several objects lie in one buffer, without an array for each: object i in
    `extents[ends[i - 1]:ends[i]]`."""

    __slots__ = ("buffer", "ends", "extents")

    def __init__(
        self, buffer: npt.NDArray[np.uint8], extents: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> None:
        """`extents` (m, 2) and `ends` (n,) are C-contiguous; the last of `ends` is m."""
        self.buffer = buffer
        self.extents = extents
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, at: int) -> Memory: ...
    @overload
    def __getitem__(self, at: slice) -> "Memories": ...
    def __getitem__(self, at: int | slice) -> "Memory | Memories":
        if isinstance(at, int):
            number = range(len(self.ends))[at]
            first = int(self.ends[number - 1]) if number else 0
            return Memory(self.buffer, self.extents[first : self.ends[number]])
        start, stop, step = at.indices(len(self.ends))
        if step != 1:
            raise ValueError("only objects one after the other")
        first = int(self.ends[start - 1]) if start else 0
        ends = self.ends[start:stop] - first
        return Memories(self.buffer, self.extents[first : first + (int(ends[-1]) if len(ends) else 0)], ends)


def beside(memories: Sequence[Memory]) -> Memories:
    """`memories`, which all lie in one buffer, as one. Raises ValueError where they do not."""
    if isinstance(memories, Memories):
        return memories
    buffer = memories[0].buffer
    if any(memory.buffer is not buffer for memory in memories):
        raise ValueError("the objects of a batch must lie in one buffer")
    if len(memories) == 1:
        extents = memories[0].extents
        return Memories(buffer, extents, np.array([len(extents)], np.int64))
    every = [memory.extents for memory in memories]
    return Memories(buffer, np.concatenate(every), np.cumsum([len(extents) for extents in every]))


@dataclass(slots=True)
class Batch:
    """Whole objects that one call moves the same way, each timed into a row of its own; the rows lie in one buffer, one
    after the other, so that a call can fill all of them."""

    does: Op
    """READ, WRITE or DELETE, or LOOKUP where a tier looks up together."""
    keys: Sequence[int]
    memories: Sequence[Memory]
    """Where each object is to land, or comes from; none for DELETE."""
    rows: npt.NDArray[np.uint8]
    first_row: int
    stop: npt.NDArray[np.int32]
    """As of a cell."""
    until_ns: int = 0
    """From then on nothing but the first object is begun (`timed_io.now_ns`); 0: never."""
    landed: list[Memory | None] = field(default_factory=list)
    """Of a READ, where each of those that were read lies now, as `Tier.read` says it."""
    begun: int = 0
    """How many were begun, from the first; the rows of the others are as they were."""
    errors: dict[int, OSError] = field(default_factory=dict)
    """What went wrong, by the number of the object in the batch."""
    numbers: npt.NDArray[np.uint64] | None = None
    """The keys as an array, where there is one."""
    landed_there: bool = False
    """Of a READ: all that were begun landed in their memories, and `landed` stays empty."""
    missing: set[int] = field(default_factory=set)
    """Of a LOOKUP: those of them that are not there, by their numbers in the batch."""
    split: BatchSplit | None = None
    """Of all that were begun, where they overlapped; None: they came one after the other, and their rows add up."""
    timed_by: TimedBy | None = None
    """Who timed it, where they overlapped."""

    def is_too_late(self, at: int) -> bool:
        """Whether object `at` is not to be begun any more."""
        return at > 0 and 0 < self.until_ns <= timed_io.now_ns()

    def landed_at(self, at: int) -> Memory | None:
        """Of a READ, where object `at`, which was read, lies now, as `Tier.read` says it."""
        return self.memories[at] if self.landed_there else self.landed[at]

    @property
    def key_array(self) -> npt.NDArray[np.uint64]:
        """The keys as an array."""
        return np.array(self.keys, np.uint64) if self.numbers is None else self.numbers

    def overlapped(self, timed_by: TimedBy, split: BatchSplit) -> None:
        """All that were begun (`begun` is set) were in flight together, and took `split`; `timed_by` is one of
        OVERLAPPING, and their rows say so. A row's parts of the wall time are then 0: not known."""
        self.split, self.timed_by = split, timed_by
        first = self.first_row * _ROW_BYTES + _TIMED_BY_OFFSET
        self.rows[first : first + self.begun * _ROW_BYTES : _ROW_BYTES] = timed_by

    def all_resident(self) -> None:
        """All of what was begun was in the page cache, without a look: it is what the filesystem is."""
        rows = self.rows.view(RECORD_DTYPE)[self.first_row : self.first_row + self.begun]
        rows["resident_pct"] = 100

    def ended(self, end: tuple[int, int, int], where: Callable[[int], str]) -> None:
        """Take over what a call of the stopwatch on all of it returned; `where` names an object, for messages.

        An object that could not be looked at before it was to be read is the one behind those that were begun.
        """
        self.begun, error, unprepared = end
        if error:
            at = self.begun if unprepared else self.begun - 1
            self.errors[at] = OSError(error, os.strerror(error), where(self.keys[at]))
