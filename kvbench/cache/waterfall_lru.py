"""The waterfall LRU of the reference: what is new enters the fastest tier, and what was used longest ago moves down."""

import heapq
from collections.abc import Sequence

from kvbench.cache.directory import Directory


class WaterfallLru:
    """New objects go to the fastest tier that can hold them; the least recently used one moves down; the last tier
    deletes; nothing moves up on a read unless `promote_on_hit`. (Reference: mlcommons/storage `kv_cache_benchmark`.)

    "Used" means written by a request or read. Moving is not a use: a demoted object keeps its age, so that it stands
    behind those of the tier below that were read since. Each tier's order is a heap with one item an object, put right
    only when the item comes up: a read costs O(1), a choice O(log objects).
    """

    def __init__(self, directory: Directory, promote_on_hit: bool = False) -> None:
        self._directory = directory
        self._promote_on_hit = promote_on_hit
        self._clock = 0
        self._last_use: dict[int, int] = {}
        self._heaps: list[list[tuple[int, int]]] = [[] for _ in directory.capacities]

    def used(self, key: int, tier: int) -> None:
        self._clock += 1
        new = key not in self._last_use
        self._last_use[key] = self._clock
        if new:
            self._enter(key, tier)

    def moved(self, key: int, target: int) -> None:
        self._enter(key, target)

    def gone(self, key: int) -> None:
        del self._last_use[key]

    def tier_for_new(self, nbytes: int, room: Sequence[int]) -> int | None:
        return _fastest(range(len(room)), nbytes, room)

    def victim(self, tier: int) -> int:
        heap = self._heaps[tier]
        while True:
            last_use, key = heap[0]
            if self._directory.tier_of(key) != tier:
                heapq.heappop(heap)
            elif self._last_use[key] != last_use:
                heapq.heapreplace(heap, (self._last_use[key], key))
            else:
                return key

    def tier_for_victim(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        return _fastest(range(source + 1, len(room)), nbytes, room)

    def tier_after_read(self, source: int, nbytes: int, room: Sequence[int]) -> int | None:
        return _fastest(range(source), nbytes, room) if self._promote_on_hit else None

    def _enter(self, key: int, tier: int) -> None:
        heap = self._heaps[tier]
        heapq.heappush(heap, (self._last_use[key], key))
        # Objects that left the tier otherwise than as its victim leave their items behind.
        if len(heap) > 2 * self._directory.entries[tier] + 1024:
            heap[:] = {(self._last_use[k], k) for _, k in heap if self._directory.tier_of(k) == tier}
            heapq.heapify(heap)


def _fastest(tiers: range, nbytes: int, room: Sequence[int]) -> int | None:
    return next((tier for tier in tiers if nbytes <= room[tier]), None)
