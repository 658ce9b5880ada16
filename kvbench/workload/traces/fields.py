"""What stands at the beginning of a trace file that is JSON: its first objects, by whose fields a format is recognised.

Knows no format. An object that the beginning cuts off has the fields that are there.
"""

import json
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json

MOST_OBJECTS: Final = 50
"""So many objects are looked at, at most: the first that has a format's fields says which it is."""

Fields = dict[str, Any]


@lru_cache(maxsize=2)
def first_objects(start: bytes) -> tuple[Fields, ...]:
    """The objects of JSON lines, of a JSON list, or the one object that all of it is; none where it is no JSON."""
    # What is cut off within a character is no mistake of the file.
    text = start.decode("utf-8", "ignore")
    whole = _parsed(text, partial=True) if text.startswith(("[", "{")) else None
    if whole is None:
        # The first lines may be bad ones.
        lines = [_parsed(line) for line in text.splitlines()[: 2 * MOST_OBJECTS]]
        whole = [*lines, *_listed(_up_to_a_mistake(text))]
    return tuple(value for value in _listed(whole) if isinstance(value, dict))[:MOST_OBJECTS]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _parsed(text: str, *, partial: bool = False) -> Any:
    """The value that `text` is (`partial`: or the beginning of it), None where it is none."""
    try:
        return from_json(text, allow_partial=partial)
    except ValueError:
        return None


def _up_to_a_mistake(text: str) -> Any:
    """The beginning of one value, up to where it is no JSON any more: what it was meant to be can still be told."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _parsed(text[: error.pos], partial=True)
    except (ValueError, RecursionError):
        pass
    return None
