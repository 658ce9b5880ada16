"""What stands at the beginning of a trace file that is JSON: its first objects, by whose fields a format is recognised.

Knows no format. An object that the beginning cuts off has the fields that are there.
"""

from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json

MOST_OBJECTS: Final = 50
"""So many objects are looked at, at most: the first that has a format's fields says which it is."""

Fields = dict[str, Any]


@lru_cache(maxsize=2)
def first_objects(start: bytes) -> tuple[Fields, ...]:
    """The objects of JSON lines, of a JSON list, or the one object that all of it is; none where it is no JSON."""
    if start.startswith(b"["):
        found = _parsed(start, partial=True)
        return _objects(found if isinstance(found, list) else [])
    if not start.startswith(b"{"):
        # The first lines may be bad ones.
        return _lines(start)
    whole = _parsed(start, partial=True)
    return (whole,) if isinstance(whole, dict) and whole else _lines(start)


def _lines(start: bytes) -> tuple[Fields, ...]:
    return _objects([_parsed(line) for line in start.splitlines()[: 2 * MOST_OBJECTS]])


def _objects(found: list[Any]) -> tuple[Fields, ...]:
    return tuple(value for value in found if isinstance(value, dict))[:MOST_OBJECTS]


def _parsed(text: bytes, *, partial: bool = False) -> Any:
    """The value that `text` is (`partial`: or the beginning of it), None where it is none."""
    # What is cut off within a character is no mistake of the file.
    plain = text.decode("utf-8", "ignore")
    try:
        return from_json(plain, allow_partial=partial)
    except ValueError:
        return None
