"""A policy: the largest object of a tier is the first to leave it."""

from kvbench.cache import Policy
from kvbench.cache.policies import register


class LargestFirst(Policy):
    def __init__(self) -> None:
        self._sizes: dict[int, dict[int, int]] = {}

    def inserted(self, key: int, nbytes: int, tier: int) -> None:
        self._sizes.setdefault(tier, {})[key] = nbytes

    def moved(self, key: int, nbytes: int, source: int, target: int) -> None:
        self.evicted(key, nbytes, source)
        self.inserted(key, nbytes, target)

    def evicted(self, key: int, nbytes: int, tier: int) -> None:
        del self._sizes[tier][key]

    def victim(self, tier: int) -> int:
        return max(self._sizes[tier], key=self._sizes[tier].__getitem__)


register("largest-first", lambda cache: LargestFirst())
