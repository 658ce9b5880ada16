"""The cache that a rank's dispatcher asks: every call decides at once and returns what has to be done, in order.

The steps of a call must take effect one after the other: the room that a step needs was freed by those before it. The
bytes themselves are the engine's and the tiers' business.
"""

from collections.abc import Iterator, Sequence

from kvbench.cache.directory import Directory
from kvbench.cache.policy import Policy, Step
from kvbench.records.schema import Op


class Cache:
    """A tiered cache of objects of known size. Tiers are numbered from 0, the fastest; capacities are in bytes.

    A tier of capacity 0 takes part in nothing. One thread at a time.
    """

    def __init__(self, capacities: Sequence[int], policy: Policy) -> None:
        """`policy` must not have been told of anything yet."""
        self.capacities = tuple(capacities)
        """Bytes that each tier can hold."""
        self._directory = Directory(capacities)
        self._policy = policy
        self.too_large = 0
        """Objects that were not cached because no tier can hold them."""
        self.refused = 0
        """Objects that were not cached because the policy did not admit them."""

    @property
    def used(self) -> list[int]:
        """Bytes on each tier."""
        return list(self._directory.used)

    @property
    def entries(self) -> list[int]:
        """Objects on each tier."""
        return list(self._directory.entries)

    def lookup(self, key: int) -> int | None:
        """The tier that holds `key`, None where no tier does. Not a use of the object."""
        return self._directory.tier_of(key)

    def contents(self) -> Iterator[tuple[int, int, int]]:
        """(key, tier, bytes) of every object, in no particular order."""
        return self._directory.contents()

    def read(self, key: int) -> list[Step]:
        """Read `key` where it is, [] for a miss. Where the policy promotes it, the steps that follow make room on a
        faster tier and move it there; until then it keeps its place on the slower one, so that what is moved down
        meanwhile has to fit beside it (and is moved further down, or deleted, where it does not)."""
        read = self._directory.read_of(key)
        if read is None:
            return []
        _, _, nbytes, source, _ = read
        assert source is not None, "a read is of a tier"
        steps = [read]
        self._policy.hit(key, nbytes, source)
        target = self._policy.tier_after_read(source, nbytes, self.capacities) if source else None
        if target is not None:
            room = list(self.capacities)
            room[source] -= nbytes
            self._make_room(target, nbytes, room, steps)
            self._move(key, nbytes, source, target)
            steps.append(Step(Op.PROMOTE, key, nbytes, source, target))
        return steps

    def insert(self, key: int, nbytes: int) -> list[Step]:
        """Write a new object of `nbytes`; [] where it is larger than every tier, which `too_large` counts, or where the
        policy does not admit it, which `refused` counts.

        Raises ValueError for a size below 1 and for a key that is in the cache.
        """
        if nbytes < 1:
            raise ValueError(f"object {key:#x} has {nbytes} bytes, and needs at least 1")
        if key in self._directory:
            raise ValueError(f"object {key:#x} is in the cache already")
        target = self._policy.tier_for_new(nbytes, self.capacities)
        if target is None:
            self.too_large += 1
            return []
        if not self._policy.admits(key, nbytes):
            self.refused += 1
            return []
        steps: list[Step] = []
        self._make_room(target, nbytes, self.capacities, steps)
        self._directory.add(key, nbytes, target)
        self._policy.inserted(key, nbytes, target)
        steps.append(Step(Op.WRITE, key, nbytes, None, target))
        return steps

    def remove(self, key: int) -> list[Step]:
        """Delete `key`; [] where no tier holds it."""
        tier = self._directory.tier_of(key)
        if tier is None:
            return []
        nbytes = self._directory.size_on(tier, key)
        self._directory.discard(key, tier)
        self._policy.removed(key, nbytes, tier)
        return [Step(Op.DELETE, key, nbytes, tier, None)]

    def _make_room(self, tier: int, nbytes: int, room: Sequence[int], steps: list[Step]) -> None:
        """Free `nbytes` on `tier`: each victim goes down only after room was made below, from the bottom up."""
        while self._directory.free(tier) < nbytes:
            victim = self._policy.victim(tier)
            size = self._directory.size_on(tier, victim)
            target = self._policy.tier_for_victim(tier, size, room)
            if target is None:
                self._directory.discard(victim, tier)
                self._policy.evicted(victim, size, tier)
                steps.append(Step(Op.DELETE, victim, size, tier, None))
                continue
            self._make_room(target, size, room, steps)
            self._move(victim, size, tier, target)
            steps.append(Step(Op.DEMOTE, victim, size, tier, target))

    def _move(self, key: int, nbytes: int, source: int, target: int) -> None:
        self._directory.move(key, source, target)
        self._policy.moved(key, nbytes, source, target)
