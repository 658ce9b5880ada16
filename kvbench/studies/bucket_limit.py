"""What an object store gives at most: plain gets of objects of 4 MiB, by the library that an object tier has.

Nothing of a run takes part in it. The objects lie below a marker of their own, so that `kvbench clean` finds what is
left of them where this is killed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from secrets import token_hex
from typing import Final

import numpy as np

from kvbench.errors import KvbenchError
from kvbench.studies.limit import FILE_BYTES, ROUNDS, THREADS, Limit
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.naming import name_of_object
from kvbench.tiers.object.place import at_once
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.target import BucketTarget
from kvbench.units import SEGMENT_BYTES

PARTS_BYTES: Final = 2 * SEGMENT_BYTES
"""An object is put as a whole."""


def measure_bucket_limit(target: BucketTarget, nbytes: int = FILE_BYTES) -> Limit:
    """Put `nbytes` there and get them with THREADS requests in flight. Raises KvbenchError."""
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(3)}"
    area = target.area(run_id, 0)
    area.create()
    paths = [f"{area.prefix}/{name_of_object(number)}" for number in range(nbytes // SEGMENT_BYTES)]
    try:
        try:
            rates = at_once(_measure(target.requests, paths))
        finally:
            area.remove()
    except RequestError as error:
        raise KvbenchError(
            f"{target.address}: what the store gives at most cannot be measured: {error.strerror} (what is left there: "
            f"`kvbench clean {target.address} --run {run_id}`)"
        ) from error
    return Limit(max(rates), direct=False, requests=True)


async def _measure(requests: Requests, paths: list[str]) -> list[float]:
    """GiB/s of each round."""
    piece = memoryview(np.random.Generator(np.random.PCG64(len(paths))).bytes(SEGMENT_BYTES))

    async def put(path: str) -> None:
        await requests.put(path, [piece], PARTS_BYTES, 1)

    async def get(path: str) -> None:
        await requests.get(path)

    await _all_of(paths, put)
    rates = []
    for _ in range(ROUNDS):
        begin = time.monotonic()
        await _all_of(paths, get)
        rates.append(len(paths) * SEGMENT_BYTES / (time.monotonic() - begin) / 2**30)
    return rates


async def _all_of(paths: Iterable[str], request: Callable[[str], Awaitable[None]]) -> None:
    left = iter(paths)

    async def lane() -> None:
        for path in left:
            await request(path)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(THREADS):
                group.create_task(lane())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
