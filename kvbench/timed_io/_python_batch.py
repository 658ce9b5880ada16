"""The calls on batches without a compiler: `run_files`, `run_copies`, `sync_files` and `sum_rows` of `_stopwatch.pyi`.

One object after the other by the single calls of `_python`, which do and time the same.
"""

import errno
import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.timed_io._meter import ROW_BYTES, PieceResult, load_row, store_row
from kvbench.timed_io._python import (
    _MOST_NAME_BYTES,
    _TEMPORARY,
    ASK_FIRST,
    DIRECT,
    FIRST,
    FOLDERS,
    IN_PLACE,
    LAST,
    NO_SYNC,
    RENAME,
    AnyBuffer,
    _check_sizes,
    _raise_if_stopped,
    _region,
    _stop,
    _timed,
    copy,
    now_ns,
    page_cache,
    read_file,
    unlink,
    write_file,
)

LOOK: Final = 128
DROP: Final = 256
RESIDENT_OFFSET: Final = 109

_READ, _WRITE, _DELETE = 0, 1, 4
_NAME_BYTES: Final = 1024
_KEY_DIGITS: Final = 16
_MOST_LEVELS: Final = 4
_MOST_WIDTH: Final = 4
_BAD_ENDS: Final = "ends must be an int64 buffer that rises to the number of extents, one for each object"

End = tuple[int, int, int]
"""Objects that were begun, the error in which the last of them ended, and whether one more could not be looked at."""


def _rows(rows: AnyBuffer, first_row: int, count: int) -> memoryview:
    view: memoryview = np.frombuffer(rows, np.uint8).data
    if not 0 <= first_row < len(view) // ROW_BYTES:
        raise ValueError("row lies outside rows")
    if first_row + count > len(view) // ROW_BYTES:
        raise ValueError("the rows of the batch lie outside rows")
    return view


def _numbers(buffer: AnyBuffer, dtype: type[np.generic]) -> list[int]:
    view = np.frombuffer(buffer, np.uint8)
    if len(view) % 8:
        raise ValueError("expected aligned numbers of 64 bits")
    found: list[int] = view.view(dtype).tolist()
    return found


def _each(extents: NDArray[Any], ends: AnyBuffer, count: int) -> list[NDArray[Any]]:
    """The extents of each object."""
    bounds = [0, *_numbers(ends, np.int64)]
    if len(bounds) != count + 1 or sorted(bounds) != bounds or bounds[-1] != len(extents):
        raise ValueError(_BAD_ENDS)
    return [extents[first:end] for first, end in pairwise(bounds)]


def _of_each(numbers: AnyBuffer | None, count: int) -> list[int] | None:
    """A number for each object, none of them negative."""
    if numbers is None:
        return None
    found = _numbers(numbers, np.int64)
    if len(found) != count or any(number < 0 for number in found):
        raise ValueError(
            "places and descriptors must be int64 buffers, with a number that is not negative for each object"
        )
    return found


def _placed(
    does: int, places: AnyBuffer | None, descriptors: AnyBuffer | None, count: int
) -> tuple[list[int] | None, list[int] | None]:
    """Where objects begin, and in which open files; None: each is a file of its own, and all lie in one."""
    begins, opened = _of_each(places, count), _of_each(descriptors, count)
    if opened is not None and begins is None:
        raise ValueError("descriptors go with places")
    if does == _DELETE and begins is not None:
        raise ValueError("what has a place in a file is not removed by a call")
    return begins, opened


def _laid_out(digits: str, levels: int, width: int) -> str:
    """A name in its folders."""
    return "".join(f"{digits[level * width : (level + 1) * width]}/" for level in range(levels)) + digits


def _is_too_late(number: int, until_ns: int) -> bool:
    """Whether an operation is not to be begun any more: the first always is."""
    return number > 0 and 0 < until_ns <= now_ns()


def _one_after_the_other(count: int, until_ns: int, run_one: Callable[[int], None]) -> End:
    for number in range(count):
        if _is_too_late(number, until_ns):
            return number, 0, 0
        try:
            run_one(number)
        except OSError as error:
            return number + 1, error.errno or errno.EIO, 0
    return count, 0, 0


def run_files(
    rows: AnyBuffer,
    first_row: int,
    does: int,
    dirfd: int,
    prefix: str,
    suffix: str,
    levels: int,
    width: int,
    keys: AnyBuffer,
    memory: AnyBuffer | None,
    extents: NDArray[Any] | None,
    ends: AnyBuffer | None,
    io_bytes: int,
    flags: int,
    stop: AnyBuffer,
    until_ns: int,
    places: AnyBuffer | None,
    descriptors: AnyBuffer | None,
    /,
) -> End:
    """Read, write or remove files, named by their keys, or parts of open ones."""
    if not 0 <= levels <= _MOST_LEVELS or not 1 <= width <= _MOST_WIDTH:
        raise ValueError("levels must be from 0 to 4, and width from 1 to 4")
    most = _MOST_NAME_BYTES - len(_TEMPORARY) - 1 if flags & (RENAME | FOLDERS) else _NAME_BYTES
    if len(prefix.encode()) + levels * (width + 1) + _KEY_DIGITS + len(suffix.encode()) >= most:
        raise ValueError("the names of the objects are too long")
    names = [f"{prefix}{_laid_out(f'{key:016x}', levels, width)}{suffix}" for key in _numbers(keys, np.uint64)]
    view = _rows(rows, first_row, len(names))
    if does not in (_READ, _WRITE, _DELETE):
        raise ValueError("a batch reads, writes or deletes")
    single = FIRST | LAST | (flags & (DIRECT | NO_SYNC | RENAME | FOLDERS | ASK_FIRST))
    begins, opened = _placed(does, places, descriptors, len(names))
    if does == _DELETE:
        return _one_after_the_other(len(names), until_ns, lambda at: unlink(rows, first_row + at, dirfd, names[at]))
    if memory is None or extents is None or ends is None:
        raise ValueError("a batch that moves bytes needs memory, extents and ends")
    _region(memory, extents, writable=does == _READ)
    if io_bytes < 1:
        raise ValueError("io_bytes must be positive")
    parts, move = _each(extents, ends, len(names)), read_file if does == _READ else write_file

    def look(at: int, descriptor: int) -> int:
        if begins is None:
            return page_cache(dirfd, names[at], bool(flags & DROP))
        return page_cache(
            dirfd, f"/proc/self/fd/{descriptor}", bool(flags & DROP), begins[at], int(parts[at][:, 1].sum())
        )

    for at, name in enumerate(names):
        if _is_too_late(at, until_ns):
            return at, 0, 0
        descriptor = dirfd if opened is None else opened[at]
        if flags & LOOK:
            try:
                percent = look(at, descriptor)
            except OSError as error:
                return at, error.errno or errno.EIO, 1
            view[(first_row + at) * ROW_BYTES + RESIDENT_OFFSET] = percent
        where = (name, -1, 0) if begins is None else (name, descriptor, begins[at])
        here = single if begins is None else single | IN_PLACE
        try:
            move(rows, first_row + at, dirfd, *where, memory, parts[at], io_bytes, here, stop)
        except OSError as error:
            return at + 1, error.errno or errno.EIO, 0
    return len(names), 0, 0


def run_copies(
    rows: AnyBuffer,
    first_row: int,
    dst: AnyBuffer,
    dst_extents: NDArray[Any],
    dst_ends: AnyBuffer,
    src: AnyBuffer,
    src_extents: NDArray[Any],
    src_ends: AnyBuffer,
    io_bytes: int,
    counts: int,
    stop: AnyBuffer,
    until_ns: int,
    /,
) -> End:
    """Copy objects from memory to memory."""
    count = len(_numbers(dst_ends, np.int64))
    view = _rows(rows, first_row, count)
    to, source = _each(dst_extents, dst_ends, count), _each(src_extents, src_ends, count)
    if any(a[:, 1].sum() != b[:, 1].sum() for a, b in zip(to, source, strict=True)):
        raise ValueError("both sides of an object must hold the same number of bytes")

    def run_one(at: int) -> None:
        row = first_row + at
        copy(rows, row, dst, to[at], src, source[at], io_bytes, FIRST | LAST, stop)
        if not counts:
            values = load_row(view, row)
            values.copy_ns = 0
            store_row(view, row, values)

    return _one_after_the_other(count, until_ns, run_one)


def sync_files(rows: AnyBuffer, row: int, dirfd: int, names: tuple[str, ...], stop: AnyBuffer, /) -> None:
    """Open, sync (fdatasync) and close files one after the other, as one whole operation."""
    if not isinstance(names, tuple):
        raise TypeError("names must be a tuple")
    view, stop_view = _rows(rows, row, 1), _stop(stop)
    for name in names:
        _check_sizes(name, 0, 0)

    def work(outcome: PieceResult) -> None:
        outcome.span_ns = 0
        for name in names:
            _raise_if_stopped(stop_view)
            descriptor = os.open(name, os.O_RDONLY, dir_fd=dirfd)
            try:
                start_ns = now_ns()
                os.fdatasync(descriptor)
                outcome.span_ns += now_ns() - start_ns
            finally:
                os.close(descriptor)

    _timed(view, row, FIRST, None, work)


def sum_rows(rows: AnyBuffer, first_row: int, count: int, /) -> tuple[int, int, int, int, int, int, int, int]:
    """What rows add up to."""
    if count < 0:
        raise ValueError("count must not be negative")
    view = _rows(rows, first_row, count)
    found = [load_row(view, first_row + at) for at in range(count)]
    return (
        min((row.t_start_ns for row in found), default=0),
        max((row.t_start_ns + row.wall_ns for row in found), default=0),
        sum(row.wall_ns for row in found),
        sum(row.host_ns for row in found),
        sum(row.runq_ns for row in found),
        sum(row.device_ns for row in found),
        sum(row.copy_ns for row in found),
        sum(row.nbytes for row in found),
    )
