"""The part of a bucket that one rank of a run has for itself: marked, and emptied again.

kvbench deletes only what lies beside its own marker and is called as it calls objects. Nothing else holds the place: a
prefix without objects is not there.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from kvbench.errors import KvbenchError
from kvbench.tiers.contract import Tier
from kvbench.tiers.marker import MARKER, content_of_marker, marks
from kvbench.tiers.object.address import Address
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.naming import is_name_of_object, name_of_rank, name_of_run
from kvbench.tiers.object.requests import MOST_DELETED, Requests
from kvbench.tiers.object.tier import ObjectTier
from kvbench.tiers.target import Area, TierSettings

_Answer = TypeVar("_Answer")


class BucketArea(Area):
    """Of rank `rank` of run `run_id`, below `address`."""

    def __init__(self, requests: Requests, address: Address, run_id: str, rank: int) -> None:
        self._requests = requests
        self._run_id = run_id
        own = f"{name_of_run(run_id)}/{name_of_rank(rank)}"
        self.prefix = address.path(own)
        """Its path in the bucket."""
        super().__init__(str(address), f"{address}/{own}")

    def create(self) -> None:
        """Put the marker. Raises KvbenchError."""
        try:
            content = memoryview(content_of_marker(self._run_id))
            at_once(self._requests.put(f"{self.prefix}/{MARKER}", [content], MOST_DELETED * len(content), 1))
        except RequestError as error:
            raise KvbenchError(f"cannot make {self.where}: {error.strerror}") from error

    def open_tier(self, settings: TierSettings) -> Tier:
        section = settings.section
        requests = self._requests.with_retries(section.retries)
        return ObjectTier(requests, self.prefix, self.where, settings.io.depth, section.part_bytes)

    def remove(self) -> list[str]:
        return at_once(empty_rank(self._requests, self.prefix, self._run_id))


async def is_marked(requests: Requests, prefix: str, run_id: str) -> bool:
    """Whether the marker of run `run_id` lies at a rank's `prefix`. Raises RequestError."""
    path = f"{prefix}/{MARKER}"
    found = await requests.head(path)
    # What is longer is none, and need not be fetched to see that.
    if found is None or found.nbytes > 2 * len(content_of_marker(run_id)):
        return False
    return marks(bytes((await requests.get(path)).data), run_id)


async def empty_rank(requests: Requests, prefix: str, run_id: str) -> list[str]:
    """Delete the objects at a rank's `prefix` and then its marker, if that is there; returns the names of what else
    there is, which stays, with the marker. Raises RequestError."""
    if not await is_marked(requests, prefix, run_id):
        return []
    ours: list[str] = []
    strangers: list[str] = []
    async for entry in requests.listed(f"{prefix}/"):
        name = entry.path.removeprefix(f"{prefix}/")
        if is_name_of_object(name):
            ours.append(entry.path)
        elif name != MARKER:
            strangers.append(name)
        if len(ours) == MOST_DELETED:
            await requests.delete_all(ours)
            ours.clear()
    await requests.delete_all(ours)
    if not strangers:
        await requests.delete(f"{prefix}/{MARKER}")
    return strangers


def at_once(request: Coroutine[Any, Any, _Answer]) -> _Answer:
    """What comes of `request`, which is all that this thread does meanwhile."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(request)
    finally:
        loop.close()
