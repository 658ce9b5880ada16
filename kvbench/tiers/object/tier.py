"""Objects in the bucket of an object store, under one prefix of a rank.

The requests of a batch go at once, `io.depth` of them in flight, from an event loop that each worker has for itself.
An object that is read is copied out of the library's memory to where it is to lie, within the timed span: an engine has
to have it there. What a caller moves by itself, in a call for each object or part, is timed around the Python code.
"""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from kvbench.records.schema import MOVING_OPS, Op, Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.helpers import HelperTime
from kvbench.tiers.object.naming import name_of_object
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.together import POLL_S, Moved, run_together
from kvbench.tiers.transfer import WHOLE, Batch, Cell, Part

MOST_PARTS: Final = 10_000
"""That stores take of one object."""

_Answer = TypeVar("_Answer")


class ObjectTier(Tier):
    """Objects below `prefix`, a path in the bucket without a slash at its end, which `where` names for messages."""

    kind = "object"
    storage = True
    moves_together = True
    looks_up_together = True
    overlapping_ops = (*MOVING_OPS, Op.DELETE, Op.LOOKUP)
    read_path = Path.NONE
    write_path = Path.NONE

    def __init__(self, requests: Requests, prefix: str, where: str, depth: int, part_bytes: int) -> None:
        """`depth`: requests of a batch in flight; `part_bytes`: a longer object is put in parts of this size."""
        self._requests = requests
        self._prefix = prefix
        self._where = where
        self._depth = depth
        self._part_bytes = part_bytes
        self.most_bytes = part_bytes * MOST_PARTS
        self._helpers = HelperTime()
        self._of_thread = threading.local()
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._uploads: dict[int, Any] = {}
        self._lock = threading.Lock()

    @property
    def retried_requests(self) -> int:
        return self._requests.retried

    def begin_thread(self, memory: npt.NDArray[np.uint8]) -> None:
        self._loop()

    def end_thread(self) -> None:
        loop = self._loop()
        with self._lock:
            self._loops.remove(loop)
        loop.close()
        del self._of_thread.loop

    def run(self, batch: Batch) -> None:
        moves = {
            Op.READ: self._read_one,
            Op.WRITE: self._write_one,
            Op.DELETE: self._delete_one,
            Op.LOOKUP: self._look_up_one,
        }
        move = moves[batch.does]
        run_together(batch, lambda at: move(batch, at), self._depth, self._loop(), self._helpers)
        batch.landed_there = batch.does == Op.READ

    async def _read_one(self, batch: Batch, at: int) -> Moved:
        return await self._get(batch.keys[at], batch.memories[at])

    async def _write_one(self, batch: Batch, at: int) -> Moved:
        return await self._put(batch.keys[at], batch.memories[at])

    async def _delete_one(self, batch: Batch, at: int) -> Moved:
        await self._requests.delete(self._path(batch.keys[at]))
        return Moved()

    async def _look_up_one(self, batch: Batch, at: int) -> Moved:
        if await self._requests.head(self._path(batch.keys[at])) is None:
            batch.missing.add(at)
        return Moved()

    async def _get(self, key: int, target: Memory, offset: int | None = None) -> Moved:
        """Read an object as a whole, or as many bytes from `offset` on as `target` takes."""
        nbytes = int(target.extents[:, 1].sum())
        span = None if offset is None else (offset, offset + nbytes)
        got = await self._requests.get(self._path(key), span)
        if len(got.data) != nbytes:
            raise RequestError(
                errno.EIO,
                f"the store gave {len(got.data)} bytes and not {nbytes}: it does not give back what it was given, or "
                "somebody else writes there",
            )
        before_ns = time.thread_time_ns()
        _land(np.frombuffer(got.data, np.uint8), target)
        return Moved(nbytes, got.first_byte_ns, time.thread_time_ns() - before_ns)

    async def _put(self, key: int, source: Memory) -> Moved:
        pieces = _pieces(source)
        await self._requests.put(self._path(key), pieces, self._part_bytes, self._depth)
        return Moved(sum(map(len, pieces)))

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        """Parts are an upload, none of whose requests is sent again."""
        try:
            with cell.around_python(part) as span:
                if part.first and part.last:
                    span.nbytes = self._wait(cell, self._put(key, source)).nbytes
                    return -1
                handle = self._begin_upload(key) if part.first else handle
                span.nbytes = self._wait(cell, self._add_to_upload(handle, source, part.last))
        except OSError:
            self._forget_upload(handle)
            raise
        if part.last:
            self._forget_upload(handle)
            return -1
        return handle

    def _begin_upload(self, key: int) -> int:
        writer = self._requests.writer(self._path(key), self._part_bytes, self._depth)
        with self._lock:
            handle = max(self._uploads, default=0) + 1
            self._uploads[handle] = writer
        return handle

    async def _add_to_upload(self, handle: int, source: Memory, last: bool) -> int:
        writer, pieces = self._uploads[handle], _pieces(source)
        for piece in pieces:
            # It is kept until a part is whole, and something else lies here by then.
            await self._requests.once(partial(writer.write, bytes(piece)))
        if last:
            await self._requests.once(writer.close)
        return sum(map(len, pieces))

    def _forget_upload(self, handle: int) -> None:
        with self._lock:
            self._uploads.pop(handle, None)

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        with cell.around_python(part) as span:
            offset = None if part == WHOLE else part.offset
            before_ns = time.monotonic_ns()
            moved = self._wait(cell, self._get(key, target, offset))
            span.nbytes, span.copy_ns = moved.nbytes, moved.copy_ns
            span.span_ns = moved.first_byte_ns - before_ns if part.first else 0
        return -1, target

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python():
            self._wait(cell, self._requests.delete(self._path(key)))

    def look_up(self, cell: Cell, key: int) -> bool:
        with cell.around_python():
            return self._wait(cell, self._requests.head(self._path(key))) is not None

    def where(self, key: int) -> str:
        return f"{self._where}/{name_of_object(key)}"

    def close(self) -> None:
        """Workers are no more."""
        with self._lock:
            while self._loops:
                self._loops.pop().close()
            self._uploads.clear()
        self._of_thread = threading.local()

    def _path(self, key: int) -> str:
        return f"{self._prefix}/{name_of_object(key)}"

    def _loop(self) -> asyncio.AbstractEventLoop:
        """This thread's."""
        loop: asyncio.AbstractEventLoop | None = getattr(self._of_thread, "loop", None)
        if loop is None:
            loop = self._of_thread.loop = asyncio.new_event_loop()
            with self._lock:
                self._loops.append(loop)
        return loop

    def _wait(self, cell: Cell, request: Coroutine[Any, Any, _Answer]) -> _Answer:
        """What comes of `request`. Raises OSError, ECANCELED where it is to end early."""

        async def watched() -> _Answer:
            task = asyncio.create_task(request)
            while not task.done():
                await asyncio.wait((task,), timeout=POLL_S)
                if cell.stop[0]:
                    task.cancel()
            if task.cancelled():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            return task.result()

        return self._loop().run_until_complete(watched())


def _pieces(source: Memory) -> list[memoryview]:
    """What an object lies in, as the library takes it: without a copy."""
    return [source.buffer[start : start + length].data for start, length in source.extents.tolist()]


def _land(data: npt.NDArray[np.uint8], target: Memory) -> None:
    """Put `data` to where it is to lie; an object that is longer than that goes round in it."""
    done = 0
    for start, length in target.extents.tolist():
        target.buffer[start : start + length] = data[done : done + length]
        done += length
