"""The directory of a cache: which object is on which tier, and how full each tier is.

It knows neither order nor preference; choosing is the policy's business. It refuses what would break a capacity.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from kvbench.cache.policy import Step
from kvbench.records.schema import Op

_READ: Final = Op.READ


class Directory:
    """Objects by key. Tiers are numbered from 0, the fastest; capacities are in bytes and never exceeded.

    Of each object it has the step that reads it where it is, which says all that there is to say, and is asked for far
    more often than it changes.
    """

    def __init__(self, capacities: Sequence[int]) -> None:
        if not capacities or min(capacities) < 0:
            raise ValueError(f"a cache needs at least one tier, and none of negative capacity: {list(capacities)}")
        self.capacities = tuple(capacities)
        self.used = [0] * len(capacities)
        """Bytes on each tier."""
        self.entries = [0] * len(capacities)
        """Objects on each tier."""
        self._reads: dict[int, Step] = {}

    def __len__(self) -> int:
        return len(self._reads)

    def __contains__(self, key: int) -> bool:
        return key in self._reads

    def tier_of(self, key: int) -> int | None:
        """The tier that holds `key`, None where no tier does."""
        read = self._reads.get(key)
        return None if read is None else read.source

    def read_of(self, key: int) -> Step | None:
        """The step that reads `key` where it is; None where no tier holds it."""
        return self._reads.get(key)

    def size_on(self, tier: int, key: int) -> int:
        """Size in bytes of `key`, which a policy says is on `tier`. Raises LookupError where it is not."""
        read = self._reads.get(key)
        if read is None or read.source != tier:
            raise LookupError(f"the policy chose object {key:#x}, which is not on tier {tier}")
        return read.nbytes

    def free(self, tier: int) -> int:
        """Bytes that `tier` has left."""
        return self.capacities[tier] - self.used[tier]

    def add(self, key: int, nbytes: int, tier: int) -> None:
        """Put a new object on `tier`. Raises ValueError where it is there already or has no room."""
        if key in self._reads:
            raise ValueError(f"object {key:#x} is in the cache already")
        if nbytes > self.free(tier):
            raise ValueError(f"object {key:#x} of {nbytes} bytes does not fit the {self.free(tier)} of tier {tier}")
        self._reads[key] = Step(_READ, key, nbytes, tier, None)
        self.used[tier] += nbytes
        self.entries[tier] += 1

    def discard(self, key: int, tier: int) -> None:
        """Take `key` out, which is on `tier`. Raises KeyError where no tier holds it."""
        self.used[tier] -= self._reads.pop(key).nbytes
        self.entries[tier] -= 1

    def move(self, key: int, source: int, target: int) -> None:
        """Put `key` on `target` instead, which must have room while the old copy is still there."""
        nbytes = self._reads[key].nbytes
        if nbytes > self.free(target):
            raise ValueError(f"object {key:#x} of {nbytes} bytes does not fit the {self.free(target)} of tier {target}")
        self.discard(key, source)
        self.add(key, nbytes, target)

    def contents(self) -> Iterator[tuple[int, int, int]]:
        """(key, tier, bytes) of every object, in no particular order."""
        return ((key, tier, nbytes) for _, key, nbytes, tier, _ in self._reads.values() if tier is not None)
