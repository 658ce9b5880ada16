"""The worker's part of an operation's row: what is known of it beforehand, and what went wrong with it."""

import errno
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.engine.bundle import Share
from kvbench.engine.operation import ActiveRequest, Operation
from kvbench.records.schema import RECORD_DTYPE, RESIDENT_UNKNOWN, STOPWATCH_BYTES, Locality, Op, Path
from kvbench.tiers.transfer import Cell

_ROW_BYTES: Final = RECORD_DTYPE.itemsize
_OFFSETS: Final = {name: offset for name, (_, offset, *_) in (RECORD_DTYPE.fields or {}).items()}
_QUEUE_OFFSET: Final = _OFFSETS["queue_ns"]
_RESIDENT_OFFSET: Final = _OFFSETS["resident_pct"]
_TIMED_BY_OFFSET: Final = _OFFSETS["timed_by"]
_LAYER_OFFSET: Final = _OFFSETS["layer"]
_FROM_QUEUE: Final = struct.Struct("<qiIIIIIIHHBBBBBBBBq")
"""A row from `queue_ns` to its end: the intended start, three columns that the stopwatch fills, and all behind them."""
assert _QUEUE_OFFSET + _FROM_QUEUE.size == _ROW_BYTES
assert _QUEUE_OFFSET + struct.calcsize("<qiII") == STOPWATCH_BYTES
_WHOLE: Final = struct.Struct(f"<{_QUEUE_OFFSET}x{_FROM_QUEUE.format[1:]}")
_START_AND_WALL: Final = struct.Struct("<qq")
assert _START_AND_WALL.size == _OFFSETS["host_ns"], "a row begins with t_start_ns and wall_ns"


def describe(
    rows: npt.NDArray[np.uint8],
    first_row: int,
    operations: Sequence[Operation],
    tier: int,
    path: Path,
    rank: int,
    thread: int,
    batch: int,
) -> None:
    """Fill in what is known of the operations of a batch beforehand; each has a row, in their order. `batch` is its
    number."""
    active, op = operations[0].request, operations[0].step.op
    user, request, phase = active.request.user, active.request.number & 0xFFFFFFFF, active.phase
    inflight, timed_by = min(operations[0].inflight, 0xFFFF), timed_io.TIMED_BY
    data, offset = rows.data, first_row * _ROW_BYTES + _QUEUE_OFFSET
    for operation in operations:
        _FROM_QUEUE.pack_into(
            data,
            offset,
            operation.ready_ns,
            0,
            0,
            0,
            operation.tokens,
            user,
            request,
            rank,
            thread,
            inflight,
            op,
            tier,
            phase,
            path,
            timed_by,
            RESIDENT_UNKNOWN,
            operation.locality,
            operation.layer,
            batch,
        )
        offset += _ROW_BYTES


def describe_share(
    rows: npt.NDArray[np.uint8], first_row: int, share: Share, tier: int, path: Path, rank: int, thread: int, batch: int
) -> None:
    """The same of the operations of a share, whose rows have nothing in them: all begin alike."""
    bundle = share.bundle
    active = bundle.request
    whole = _WHOLE.pack(
        bundle.ready_ns,
        0,
        0,
        0,
        bundle.tokens,
        active.request.user,
        active.request.number & 0xFFFFFFFF,
        rank,
        thread,
        min(share.inflight, 0xFFFF),
        bundle.op,
        tier,
        active.phase,
        path,
        timed_io.TIMED_BY,
        RESIDENT_UNKNOWN,
        Locality.OWN,
        0,
        batch,
    )
    start = first_row * _ROW_BYTES
    mine = rows[start : start + len(share) * _ROW_BYTES].reshape(-1, _ROW_BYTES)
    mine[:] = np.frombuffer(whole, np.uint8)
    if share.layers is not None:
        mine[:, _LAYER_OFFSET] = share.layers


def describe_chore(
    cell: Cell, op: Op, tier: int, path: Path, active: ActiveRequest, rank: int, thread: int, batch: int
) -> None:
    """The same of what is done beside the operations of a request, whose worker does it now. It moves no tokens."""
    request = active.request
    start = cell.row * _ROW_BYTES
    cell.rows[start : start + _ROW_BYTES] = np.frombuffer(
        _WHOLE.pack(
            timed_io.now_ns(),
            0,
            0,
            0,
            0,
            request.user,
            request.number & 0xFFFFFFFF,
            rank,
            thread,
            1,
            op,
            tier,
            active.phase,
            path,
            timed_io.TIMED_BY,
            RESIDENT_UNKNOWN,
            Locality.OWN,
            0,
            batch,
        ),
        np.uint8,
    )


def set_resident(rows: npt.NDArray[np.uint8], row: int, percent: int) -> None:
    """Note how much of the object was in the page cache."""
    rows[row * _ROW_BYTES + _RESIDENT_OFFSET] = percent


def timed_by(rows: npt.NDArray[np.uint8], row: int) -> int:
    """Who timed the operation (a `TimedBy`)."""
    return int(rows[row * _ROW_BYTES + _TIMED_BY_OFFSET])


def wall_of(rows: npt.NDArray[np.uint8], row: int) -> int:
    """Wall time (ns) of what was carried out."""
    wall_ns: int = _START_AND_WALL.unpack_from(rows.data, row * _ROW_BYTES)[1]
    return wall_ns


def note_times(operations: Sequence[Operation], rows: npt.NDArray[np.uint8], first_row: int) -> None:
    """Take over from the rows of a batch how long each operation took, and when it ended."""
    data, offset = rows.data, first_row * _ROW_BYTES
    for operation in operations:
        start_ns, operation.wall_ns = _START_AND_WALL.unpack_from(data, offset)
        operation.ended_ns = start_ns + operation.wall_ns
        offset += _ROW_BYTES


def set_error(cell: Cell, error: BaseException) -> None:
    """Have the row of an operation say what went wrong with it."""
    record = cell.record
    if record["t_start_ns"] == 0:  # it failed before anything was timed
        with cell.around_python():
            pass
    if record["errno"] == 0:
        record["errno"] = _number_of(error)


def _number_of(error: BaseException) -> int:
    """What stands in the row of an operation that failed otherwise than in a system call."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return errno.ENOMEM if isinstance(error, MemoryError) else errno.EBADMSG
