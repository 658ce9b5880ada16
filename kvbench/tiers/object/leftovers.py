"""Finds and removes what runs that were killed left in a bucket: `kvbench-RUN_ID/` and signs.

Only what lies right below the prefix under test is looked at, as runs put it there. What carries no marker of its run,
and every object that an object tier does not make, stays. Buckets have no locks, so whether a run is alive cannot be
told: it is deleted only where its user names it.
"""

import time
from pathlib import Path
from typing import Final

from kvbench.tiers.marker import MARKER, RANK_FOLDER, RUN, SIGN
from kvbench.tiers.object.address import Address
from kvbench.tiers.object.naming import is_name_of_object
from kvbench.tiers.object.place import empty_rank, is_marked
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.target import Leftover

SIGN_S: Final = 60.0
"""A run has its signs for a moment only; an older one is left over."""


async def find(requests: Requests, address: Address) -> list[Leftover]:
    """What runs have below `address`, oldest first. Raises RequestError."""
    found: list[Leftover] = []
    top = address.path("")
    for path in await requests.folders(address.prefix):
        name = path.removeprefix(top)
        if RUN.fullmatch(name.rstrip("/")) and name.endswith("/"):
            found.append(await _look_into_run(requests, address, name.rstrip("/")))
        elif SIGN.fullmatch(name) and (sign := await _look_at_sign(requests, address, name)):
            found.append(sign)
    return sorted(found, key=lambda leftover: -leftover.age_s)


async def look(requests: Requests, address: Address, name: str) -> Leftover | None:
    """What `name` is now; None where nothing of it is there. Raises RequestError."""
    if SIGN.fullmatch(name):
        return await _look_at_sign(requests, address, name)
    leftover = await _look_into_run(requests, address, name)
    return leftover if leftover.state != "not ours" or leftover.strangers else None


async def remove(requests: Requests, address: Address, name: str, run_id: str) -> None:
    """Delete what is kvbench's of it. Raises RequestError."""
    if SIGN.fullmatch(name):
        await requests.delete(address.path(name))
        return
    top = address.path(name)
    for folder in await requests.folders(top):
        rank = folder.removeprefix(f"{top}/")
        if rank.endswith("/") and RANK_FOLDER.fullmatch(rank.rstrip("/")):
            await empty_rank(requests, folder.rstrip("/"), run_id)


def _leftover(address: Address, name: str) -> Leftover:
    found = RUN.match(name)
    assert found is not None
    return Leftover(Path(name), found[1], "not ours", address=str(address))


async def _look_at_sign(requests: Requests, address: Address, name: str) -> Leftover | None:
    sign, there = _leftover(address, name), await requests.head(address.path(name))
    if there is None:
        return None
    sign.age_s = max(0.0, time.time() - there.written_s)
    sign.files = int(there.nbytes == 0)
    sign.state = "not ours" if there.nbytes else "in use" if sign.age_s < SIGN_S else "left over"
    return sign


async def _look_into_run(requests: Requests, address: Address, name: str) -> Leftover:
    run = _leftover(address, name)
    top, newest_s = address.path(name), 0.0
    marked: dict[str, bool] = {}
    async for entry in requests.listed(f"{top}/"):
        below = entry.path.removeprefix(f"{top}/")
        rank, _, inner = below.partition("/")
        if rank not in marked:
            is_rank = RANK_FOLDER.fullmatch(rank) is not None
            marked[rank] = is_rank and await is_marked(requests, f"{top}/{rank}", run.run_id)
        if not marked[rank]:
            run.strangers.append(below)
            continue
        newest_s = max(newest_s, entry.written_s)
        if inner == MARKER:
            run.state = "unknown"
        elif is_name_of_object(inner):
            run.files += 1
            run.nbytes += entry.nbytes
        else:
            run.strangers.append(below)
    run.age_s = max(0.0, time.time() - newest_s) if newest_s else 0.0
    return run
