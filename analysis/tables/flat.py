"""Nested values, such as a configuration, as one level of dotted keys."""

from collections.abc import Iterator
from typing import Any


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each value in `value` with its dotted key, below `key`; places in lists are numbers, and values are text."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from flat(inner, f"{key}.{place}")
    else:
        yield key, "null" if value is None else str(value)
