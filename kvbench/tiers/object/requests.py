"""Requests to one bucket: put, get, head, delete, list. What fails for a reason that may pass is sent again and
counted.

Coroutines, for any event loop. Nothing is timed here but the first byte of an answer.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from kvbench import timed_io
from kvbench.tiers.object.failures import RequestError, judged
from kvbench.tiers.object.library import load_library

if TYPE_CHECKING:
    from kvbench.tiers.object.library import Store

FIRST_PAUSE_S: Final = 0.1
"""Before a request is sent again; twice as long each further time."""
_LISTED: Final = 1000
MOST_DELETED: Final = 1000
"""Of one request: as many as stores take."""

_Answer = TypeVar("_Answer")


class Got(NamedTuple):
    """An answer with an object, or a part of one."""

    data: Any
    """Its bytes: the library's memory, as a buffer."""
    first_byte_ns: int
    """When its beginning was there."""


class Listed(NamedTuple):
    """An object that was listed."""

    path: str
    nbytes: int
    written_s: float
    """Since the epoch, by the store's clock."""


class Requests:
    """To the bucket that is `store`, of kind `scheme`; any thread may use it."""

    def __init__(self, store: "Store", scheme: str, retries: int) -> None:
        """`retries`: how often a request is sent again before it has failed."""
        self._library = load_library()
        self._store = store
        self._scheme = scheme
        self._retries = retries
        self._retried = 0
        self._lock = threading.Lock()

    @property
    def retried(self) -> int:
        """Requests that were sent again, each as often as it was."""
        return self._retried

    async def put(self, path: str, pieces: Sequence[memoryview], part_bytes: int, at_once: int) -> None:
        """Store an object that lies in `pieces`: in parts where it is longer than `part_bytes`, `at_once` at a time.
        Raises RequestError, as all of these do."""
        nbytes = sum(len(piece) for piece in pieces)
        parts = nbytes > part_bytes
        # The library takes no copy: it sends from where the object lies.
        await self._tried(
            lambda: self._library.put_async(
                self._store,
                path,
                pieces[0] if len(pieces) == 1 else iter(pieces),
                use_multipart=parts,
                chunk_size=part_bytes,
                max_concurrency=at_once,
            )
        )

    async def get(self, path: str, span: tuple[int, int] | None = None) -> Got:
        """An object, or the bytes of it from the first of `span` to before the second."""
        return await self._tried(lambda: self._get(path, span))

    async def _get(self, path: str, span: tuple[int, int] | None) -> Got:
        result = await self._library.get_async(self._store, path, options=None if span is None else {"range": span})
        first_byte_ns = timed_io.now_ns()
        return Got(await result.bytes_async(), first_byte_ns)

    def with_retries(self, retries: int) -> "Requests":
        """To the same bucket, counted anew."""
        return Requests(self._store, self._scheme, retries)

    async def head(self, path: str) -> Listed | None:
        """What is known of an object; None where there is none."""
        try:
            return _listed(await self._tried(lambda: self._library.head_async(self._store, path)))
        except RequestError as error:
            if isinstance(error.__cause__, FileNotFoundError) and "NoSuchBucket" not in (error.strerror or ""):
                return None
            raise

    async def delete(self, path: str) -> None:
        """Remove an object. Some stores do not mind where there is none."""
        await self._tried(lambda: self._library.delete_async(self._store, path))

    async def delete_all(self, paths: Sequence[str]) -> None:
        """Remove objects with as few requests as the store takes."""
        for start in range(0, len(paths), MOST_DELETED):
            some = list(paths[start : start + MOST_DELETED])
            await self._tried(partial(self._library.delete_async, self._store, some))

    async def folders(self, prefix: str) -> list[str]:
        """The paths, right below `prefix`, of what would be folders, and of objects, which end otherwise."""
        found = await self._tried(lambda: self._library.list_with_delimiter_async(self._store, prefix or None))
        return [f"{folder.rstrip('/')}/" for folder in found["common_prefixes"]] + [
            entry["path"] for entry in found["objects"]
        ]

    async def listed(self, prefix: str) -> AsyncIterator[Listed]:
        """All objects below `prefix`, in the order of their paths."""
        last: str | None = None
        stream = self._pages(prefix, last)

        async def page() -> list[Listed]:
            nonlocal stream
            try:
                return await self.once(partial(anext, stream, []))
            except RequestError:
                # It gives no more. What is sent again begins behind what is known, as stores list in order.
                stream = self._pages(prefix, last)
                raise

        while found := await self._tried(page):
            for entry in found:
                yield entry
            last = found[-1].path

    async def _pages(self, prefix: str, behind: str | None, most: int = _LISTED) -> AsyncIterator[list[Listed]]:
        async for chunk in self._library.list(self._store, prefix or None, offset=behind, chunk_size=most):
            yield [_listed(one) for one in chunk]

    async def is_reached(self, prefix: str) -> None:
        """Nothing, where the bucket is there and may be listed."""
        await self._tried(lambda: anext(self._pages(prefix, None, 1), []))

    def writer(self, path: str, part_bytes: int, at_once: int) -> Any:
        """An object that is stored as it comes, piece after piece. None of its requests is sent again: what was sent
        before is not there any more."""
        return self._library.open_writer_async(self._store, path, buffer_size=part_bytes, max_concurrency=at_once)

    async def once(self, request: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Send what must not be sent again."""
        try:
            return await request()
        except RequestError:
            raise
        except (self._library.exceptions.BaseError, OSError, ValueError) as error:
            raise judged(error, self._scheme) from error

    async def _tried(self, request: Callable[[], Awaitable[_Answer]]) -> _Answer:
        pause_s, left = FIRST_PAUSE_S, self._retries
        while True:
            try:
                return await self.once(request)
            except RequestError as error:
                if not error.passing or not left:
                    raise
            left -= 1
            with self._lock:
                self._retried += 1
            await asyncio.sleep(pause_s)
            pause_s *= 2


def _listed(entry: Any) -> Listed:
    return Listed(entry["path"], int(entry["size"]), entry["last_modified"].timestamp())
