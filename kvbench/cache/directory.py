"""The directory of a cache: which object is on which tier, and how full each tier is.

It knows neither order nor preference; choosing is the policy's business. It refuses what would break a capacity.
"""

from collections.abc import Iterator, Sequence


class Directory:
    """Objects by key. Tiers are numbered from 0, the fastest; capacities are in bytes and never exceeded."""

    def __init__(self, capacities: Sequence[int]) -> None:
        if not capacities or min(capacities) < 0:
            raise ValueError(f"a cache needs at least one tier, and none of negative capacity: {list(capacities)}")
        self.capacities = tuple(capacities)
        self.used = [0] * len(capacities)
        """Bytes on each tier."""
        self.entries = [0] * len(capacities)
        """Objects on each tier."""
        self._where: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: int) -> bool:
        return key in self._where

    def tier_of(self, key: int) -> int | None:
        """The tier that holds `key`, None where no tier does."""
        place = self._where.get(key)
        return None if place is None else place[0]

    def place_of(self, key: int) -> tuple[int, int] | None:
        """Tier and size in bytes of `key`; None where no tier holds it."""
        return self._where.get(key)

    def size_on(self, tier: int, key: int) -> int:
        """Size in bytes of `key`, which a policy says is on `tier`. Raises LookupError where it is not."""
        place = self._where.get(key)
        if place is None or place[0] != tier:
            raise LookupError(f"the policy chose object {key:#x}, which is not on tier {tier}")
        return place[1]

    def free(self, tier: int) -> int:
        """Bytes that `tier` has left."""
        return self.capacities[tier] - self.used[tier]

    def add(self, key: int, nbytes: int, tier: int) -> None:
        """Put a new object on `tier`. Raises ValueError where it is there already or has no room."""
        if key in self._where:
            raise ValueError(f"object {key:#x} is in the cache already")
        if nbytes > self.free(tier):
            raise ValueError(f"object {key:#x} of {nbytes} bytes does not fit the {self.free(tier)} of tier {tier}")
        self._where[key] = (tier, nbytes)
        self.used[tier] += nbytes
        self.entries[tier] += 1

    def discard(self, key: int) -> tuple[int, int]:
        """Take `key` out; returns its tier and size in bytes. Raises KeyError where no tier holds it."""
        tier, nbytes = self._where.pop(key)
        self.used[tier] -= nbytes
        self.entries[tier] -= 1
        return tier, nbytes

    def move(self, key: int, target: int) -> None:
        """Put `key` on `target` instead, which must have room while the old copy is still there."""
        nbytes = self._where[key][1]
        if nbytes > self.free(target):
            raise ValueError(f"object {key:#x} of {nbytes} bytes does not fit the {self.free(target)} of tier {target}")
        self.discard(key)
        self.add(key, nbytes, target)

    def contents(self) -> Iterator[tuple[int, int, int]]:
        """(key, tier, bytes) of every object, in no particular order."""
        return ((key, tier, nbytes) for key, (tier, nbytes) in self._where.items())
