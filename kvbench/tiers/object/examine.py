"""A close look at a bucket under test: whether a run may put, get, list and delete there.

It changes nothing but one object of its own below the prefix, which it removes.
"""

import secrets
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from kvbench.tiers.object.address import Address
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.place import at_once
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.target import Finding
from kvbench.units import MIB, format_bytes

_BYTES: Final = 6 * MIB
_PART_BYTES: Final = 5 * MIB
"""The shortest that stores take but for the last part of an object."""
_FROM: Final = 4096


def examine(requests: Requests, place: Address) -> Iterator[Finding]:
    """Whether `place`, in a bucket that is there and is asked by `requests`, can hold a run."""
    path, content = place.path(f"kvbench-doctor-{secrets.token_hex(8)}"), secrets.token_bytes(_BYTES)

    async def put() -> str:
        await requests.put(path, [memoryview(content)[:_FROM]], _PART_BYTES, 2)
        return "works"

    async def put_in_parts() -> str:
        await requests.put(path, [memoryview(content)], _PART_BYTES, 2)
        return f"works ({format_bytes(_BYTES)} in parts of {format_bytes(_PART_BYTES)})"

    async def get() -> str:
        return _compared((await requests.get(path)).data, content)

    async def get_range() -> str:
        return _compared((await requests.get(path, (_FROM, 2 * _FROM))).data, content[_FROM : 2 * _FROM])

    async def list_it() -> str:
        return "works" if path in await requests.folders(place.prefix) else "an object that was put is not seen"

    async def delete() -> str:
        await requests.delete(path)
        return "works" if await requests.head(path) is None else "an object that was deleted is still there"

    steps: tuple[tuple[str, Callable[[], Coroutine[Any, Any, str]]], ...] = (
        ("put", put),
        ("put in parts", put_in_parts),
        ("get", get),
        ("get a range", get_range),
        ("list", list_it),
        ("delete", delete),
    )
    for subject, step in steps:
        try:
            text = at_once(step())
        except RequestError as error:
            text = f"does not work: {error.strerror}"
        # Objects of less than part_bytes are put as a whole.
        if text.startswith("works"):
            yield Finding(subject, "ok", text)
        else:
            yield Finding(subject, "warn" if subject == "put in parts" else "fail", text)
    if requests.retried:
        yield Finding("retries", "warn", f"{requests.retried} requests had to be sent again")


def _compared(data: Any, content: bytes) -> str:
    return "works" if bytes(data) == content else "what was read is not what was put"
