"""What a cache decides by: the steps of a decision, and what every policy is told and answers.

A new policy is one class here below and one line in the table of `policies`. Policies see sizes and keys, never bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from kvbench.records.schema import Op


class Step(NamedTuple):
    """One thing to be done to one object.

    READ and DELETE have only a `source`, WRITE only a `target`, DEMOTE and PROMOTE both.
    """

    op: Op
    key: int
    nbytes: int
    source: int | None
    target: int | None


class Policy(ABC):
    """Is told of everything that happens to an object, says which object leaves a tier, and may choose where one goes.

    Tiers are numbered from 0, the fastest. `room` holds, for each tier, the bytes that it can offer once everything
    that may leave it has left. What is not overridden is the waterfall: new objects enter the fastest tier that can
    hold them, what leaves a tier goes down to the next that can, and nothing moves up.
    """

    @abstractmethod
    def inserted(self, key: int, nbytes: int, tier: int) -> None:
        """`key` is new in the cache, on `tier`."""

    def hit(self, key: int, nbytes: int, tier: int) -> None:  # noqa: B027 - not every policy cares
        """`key` was read where it is, on `tier`."""

    @abstractmethod
    def moved(self, key: int, nbytes: int, source: int, target: int) -> None:
        """`key` went from tier `source` to tier `target`, down as a victim or up after a read."""

    @abstractmethod
    def evicted(self, key: int, nbytes: int, tier: int) -> None:
        """`key` left the cache from `tier`, to make room: this policy chose it."""

    def removed(self, key: int, nbytes: int, tier: int) -> None:
        """`key` was taken out of the cache from `tier`, for another reason."""
        self.evicted(key, nbytes, tier)

    @abstractmethod
    def victim(self, tier: int) -> int:
        """The key that is the next to leave `tier`, which holds at least one object."""

    def admits(self, key: int, nbytes: int) -> bool:
        """Whether a new object is cached at all; one that is not stays unknown to the policy."""
        return True

    def tier_for_new(self, nbytes: int, room: Sequence[int]) -> int | None:
        """The tier that a new object is written to; None: none can hold it."""
        return fastest(range(len(room)), nbytes, room)

    def tier_for_victim(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        """The slower tier that a victim of `source` goes to; None: it is deleted."""
        return fastest(range(source + 1, len(room)), nbytes, room)

    def tier_after_read(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        """The faster tier that an object read on `source`, which is not the fastest, moves to; None: it stays."""
        return None


def fastest(tiers: range, nbytes: int, room: Sequence[int]) -> int | None:
    """The first of `tiers` that can offer `nbytes`."""
    for tier in tiers:
        if nbytes <= room[tier]:
            return tier
    return None
