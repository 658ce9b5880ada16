"""What a cache decides by: the steps of a decision, what a policy answers, and the waterfall LRU of the reference.

A new policy is one more class that answers the same questions. Policies see sizes and keys, never bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kvbench.records.schema import Op


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be done to one object.

    READ and DELETE have only a `source`, WRITE only a `target`, DEMOTE and PROMOTE both.
    """

    op: Op
    key: int
    nbytes: int
    source: int | None
    target: int | None


class Policy(Protocol):
    """Chooses tiers and victims, and is told of everything that happens to an object.

    `room` holds, for each tier, the bytes that it can offer once everything that may leave it has left.
    """

    def used(self, key: int, tier: int) -> None:
        """`key` was written to `tier`, or read there."""

    def moved(self, key: int, target: int) -> None:
        """`key` went to tier `target`."""

    def gone(self, key: int) -> None:
        """`key` is no longer in the cache."""

    def tier_for_new(self, nbytes: int, room: Sequence[int]) -> int | None:
        """The tier that a new object is written to; None: none can hold it."""

    def victim(self, tier: int) -> int:
        """The key that is the next to leave `tier`, which holds at least one object."""

    def tier_for_victim(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        """The slower tier that a victim of `source` goes to; None: it is deleted."""

    def tier_after_read(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        """The faster tier that an object read on `source` moves to; None: it stays."""
