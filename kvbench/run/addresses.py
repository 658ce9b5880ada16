"""The place under test as it is given: one for all ranks or, with placeholders in its address, one for each rank.

`/mnt/nv{local_rank}` is /mnt/nv0 for the first rank of each node, and so on; `{rank}` counts all ranks, `{node}` the
nodes. A brace that belongs to the name is doubled.
"""

import difflib
import re
from collections.abc import Iterator
from string import Formatter
from typing import Final

from kvbench.cluster.topology import Seat, Topology, seats_of_node
from kvbench.errors import KvbenchError

PLACEHOLDERS: Final = Seat._fields
_WIDTH: Final = re.compile(r"(0[1-9])?")
"""`{rank:03}`: as many digits, zeros before."""


def placeholders(given: str) -> frozenset[str]:
    """The placeholders in `given`. Raises KvbenchError where something in braces is none."""
    return frozenset(name for _, name, _ in _parts(given) if name is not None)


def has_placeholders(name: str) -> bool:
    """Whether `name`, which is no place for them, has placeholders all the same; other braces belong to the name."""
    try:
        return bool(placeholders(name))
    except KvbenchError:
        return False


def address_of(given: str, seat: Seat) -> str:
    """That of the rank with the numbers `seat`. Raises KvbenchError as `placeholders` does."""
    numbers = seat._asdict()
    return "".join(text + ("" if name is None else format(numbers[name], width)) for text, name, width in _parts(given))


def addresses_of_node(topology: Topology, given: str | None) -> tuple[str, ...]:
    """Those of the ranks of this node, in their order; empty where none is given. Collective within the node."""
    return () if given is None else tuple(address_of(given, seat) for seat in seats_of_node(topology))


def literal(address: str) -> str:
    """How `address`, whatever is in it, is given so that it is that of all ranks."""
    return address.replace("{", "{{").replace("}", "}}")


def _parts(given: str) -> Iterator[tuple[str, str | None, str]]:
    """(text, placeholder behind it or None, its width) from left to right."""
    try:
        for text, name, width, conversion in Formatter().parse(given):
            if name is not None and (name not in PLACEHOLDERS or conversion or not _WIDTH.fullmatch(width or "")):
                raise KvbenchError(f"--dir {given}: {_complaint(name, width, conversion)}")
            yield text, name, width or ""
    except ValueError as error:
        raise KvbenchError(f"--dir {given}: a brace without its counterpart: {_KNOWN}") from error


def _complaint(name: str, width: str | None, conversion: str | None) -> str:
    written = name + (f"!{conversion}" if conversion else "") + (f":{width}" if width else "")
    near = difflib.get_close_matches(name, PLACEHOLDERS, n=1)
    return f"no placeholder {{{written}}}" + (f", did you mean {{{near[0]}}}?" if near else "") + f": {_KNOWN}"


_KNOWN: Final = (
    f"known are {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}, also with a number of digits, as {{rank:03}}; a "
    "brace that belongs to the name is doubled, as {{"
)
