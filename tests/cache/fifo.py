"""A policy as somebody else would write it: first in, first out."""

from collections import defaultdict

from kvbench.cache import Policy
from kvbench.config.run_config import CachePolicy


class Fifo(Policy):
    """What came to a tier first is the first to leave it, whether or not it was read."""

    def __init__(self, cache: CachePolicy | None = None) -> None:
        # A dict is a set that keeps its order.
        self._lines: defaultdict[int, dict[int, None]] = defaultdict(dict)

    def inserted(self, key: int, nbytes: int, tier: int) -> None:
        self._lines[tier][key] = None

    def moved(self, key: int, nbytes: int, source: int, target: int) -> None:
        del self._lines[source][key]
        self._lines[target][key] = None

    def evicted(self, key: int, nbytes: int, tier: int) -> None:
        del self._lines[tier][key]

    def victim(self, tier: int) -> int:
        return next(iter(self._lines[tier]))
