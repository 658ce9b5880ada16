"""A batch of requests, `depth` of which are in flight at once for one thread: its rows, and the split of the batch.

A row has what is known of a single request: when it was sent, until its answer was there, its first byte, its bytes.
Where the thread's time went is known of the batch alone.
"""

import asyncio
import errno
import os
import struct
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.batches import BatchSplit
from kvbench.records.schema import RECORD_DTYPE, STOPWATCH_BYTES, TimedBy
from kvbench.tiers.object.helpers import HelperTime
from kvbench.tiers.transfer import Batch

POLL_S: Final = 0.05
"""How often a batch looks whether it is to end early."""

_ROW_BYTES: Final = RECORD_DTYPE.itemsize
_STOPWATCH: Final = struct.Struct("<9qiII")
assert _STOPWATCH.size == STOPWATCH_BYTES
_QUEUE_OFFSET: Final = RECORD_DTYPE.fields["queue_ns"][1] if RECORD_DTYPE.fields else 0
_INT64: Final = struct.Struct("<q")


class Moved(NamedTuple):
    """What a request did."""

    nbytes: int = 0
    first_byte_ns: int = 0
    """When the beginning of an object that was read was there; 0: it was not read."""
    copy_ns: int = 0
    """Processor time of copying it to where it was to land."""


Move = Callable[[int], Awaitable[Moved]]
"""Moves the object of that number in the batch. Raises OSError."""


def run_together(
    batch: Batch, move: Move, depth: int, loop: asyncio.AbstractEventLoop, helpers: HelperTime
) -> BatchSplit:
    """Carry out a batch on `loop`, which is this thread's; its rows and what went wrong stand in it."""
    lanes = _Lanes(batch, move, depth)
    scratch = np.zeros(_ROW_BYTES, np.uint8)
    number = helpers.begin()
    timed_io.begin(scratch, 0)
    try:
        loop.run_until_complete(lanes.run())
    finally:
        timed_io.end(scratch, 0, 0, lanes.copy_ns, lanes.nbytes)
        helper_ns = helpers.end(number)
    split = _split(scratch, helper_ns, lanes.most)
    batch.overlapped(TimedBy.LIBRARY, split)
    return split


def _split(scratch: npt.NDArray[np.uint8], helper_ns: int, depth: int) -> BatchSplit:
    row = scratch.view(RECORD_DTYPE)[0]
    return BatchSplit(
        start_ns=int(row["t_start_ns"]),
        wall_ns=int(row["wall_ns"]),
        host_ns=int(row["host_ns"]),
        runq_ns=int(row["runq_ns"]),
        device_ns=int(row["device_ns"]),
        copy_ns=int(row["copy_ns"]),
        nbytes=int(row["nbytes"]),
        helper_ns=helper_ns,
        depth=depth,
    )


class _Lanes:
    """Each takes the next object when the one before is moved, so that as many are in flight as there are lanes."""

    def __init__(self, batch: Batch, move: Move, depth: int) -> None:
        self._batch = batch
        self._move = move
        self._count = min(depth, len(batch.keys))
        self._in_flight = 0
        self.most = 0
        """That were in flight at once."""
        self.copy_ns = 0
        self.nbytes = 0

    async def run(self) -> None:
        """Until nothing is to be begun any more, and what was begun is over."""
        tasks = {asyncio.create_task(self._lane()) for _ in range(self._count)}
        waiting = tasks
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=POLL_S)
            if self._batch.stop[0]:
                for task in waiting:
                    task.cancel()
            for task in done:
                task.result()

    async def _lane(self) -> None:
        batch = self._batch
        while batch.begun < len(batch.keys) and not (batch.errors or batch.is_too_late(batch.begun)):
            at = batch.begun
            batch.begun += 1
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
            start_ns, moved, error = timed_io.now_ns(), Moved(), None
            try:
                if batch.stop[0]:
                    raise asyncio.CancelledError
                moved = await self._move(at)
            except asyncio.CancelledError:
                error = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            except OSError as raised:
                error = raised
            self._in_flight -= 1
            self._fill(at, start_ns, moved, 0 if error is None else error.errno or errno.EIO)
            if error is not None:
                batch.errors[at] = error

    def _fill(self, at: int, start_ns: int, moved: Moved, number: int) -> None:
        batch, wall_ns = self._batch, timed_io.now_ns() - start_ns
        self.copy_ns += moved.copy_ns
        self.nbytes += moved.nbytes
        offset = (batch.first_row + at) * _ROW_BYTES
        queue_ns = start_ns - _INT64.unpack_from(batch.rows.data, offset + _QUEUE_OFFSET)[0]
        span_ns = moved.first_byte_ns - start_ns if moved.first_byte_ns else wall_ns
        row = (start_ns, wall_ns, 0, 0, 0, 0, span_ns, moved.nbytes, queue_ns, number, 0, 0)
        _STOPWATCH.pack_into(batch.rows.data, offset, *row)
