"""The waterfall LRU of the reference: what is new enters the fastest tier, and what was used longest ago moves down."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from kvbench.cache.policy import Policy, fastest

_TIERS: Final = 256
"""More than there are: the last stands for none."""
_GONE: Final = -1


class WaterfallLru(Policy):
    """New objects go to the fastest tier that can hold them; the least recently used one moves down; the last tier
    deletes; nothing moves up on a read unless `promote_on_hit`. (Reference: mlcommons/storage `kv_cache_benchmark`.)

    "Used" means written by a request or read. Moving is not a use: a demoted object keeps its age, so that it stands
    behind those of the tier below that were read since. Each tier's order is a heap with one item an object, put right
    only when the item comes up: a read costs O(1), a choice O(log objects).
    """

    def __init__(self, promote_on_hit: bool = False) -> None:
        self._promote_on_hit = promote_on_hit
        self._clock = 0
        self._stamps: dict[int, int] = {}
        """Of each object its last use and its tier, as one number: use x _TIERS + tier."""
        self._heaps: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        """Of each tier stamps with their keys, some of them no longer true."""
        self._entries: defaultdict[int, int] = defaultdict(int)

    def inserted(self, key: int, nbytes: int, tier: int) -> None:
        self._clock += _TIERS
        self._enter(key, self._clock + tier, tier)

    def hit(self, key: int, nbytes: int, tier: int) -> None:
        self._clock += _TIERS
        self._stamps[key] = self._clock + tier

    def moved(self, key: int, nbytes: int, source: int, target: int) -> None:
        self._entries[source] -= 1
        self._enter(key, self._stamps[key] - source + target, target)

    def evicted(self, key: int, nbytes: int, tier: int) -> None:
        self._entries[tier] -= 1
        del self._stamps[key]

    def victim(self, tier: int) -> int:
        heap, stamps = self._heaps[tier], self._stamps
        while True:
            stamp, key = heap[0]
            now = stamps.get(key, _GONE)
            if now == stamp:
                return key
            if now % _TIERS == tier:
                heapq.heapreplace(heap, (now, key))
            else:
                heapq.heappop(heap)

    def tier_after_read(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        return fastest(range(source), nbytes, room) if self._promote_on_hit else None

    def _enter(self, key: int, stamp: int, tier: int) -> None:
        self._stamps[key] = stamp
        self._entries[tier] += 1
        heap = self._heaps[tier]
        heapq.heappush(heap, (stamp, key))
        # Objects that left the tier otherwise than as its victim leave their items behind.
        if len(heap) > 2 * self._entries[tier] + 1024:
            heap[:] = {(self._stamps[k], k) for _, k in heap if self._stamps.get(k, _GONE) % _TIERS == tier}
            heapq.heapify(heap)
