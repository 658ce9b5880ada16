"""The most that any policy could find, for one that knows the future."""

import heapq

import numpy as np
from numpy.typing import NDArray


def belady_hits(keys: NDArray[np.uint64], capacity: int) -> int:
    """How many references of `keys`, (n,) single blocks of one size, can be found at most with room for `capacity`.

    Belady's MIN with bypass (Belady, 1966): of what is held and what comes, the block whose next use lies furthest
    ahead is not kept. It is over single blocks, in whatever order they stand in their chains, and so bounds the prefix
    hits of every policy from above. Takes n log n steps.
    """
    count = len(keys)
    if capacity < 1 or not count:
        return 0
    order = np.argsort(keys, kind="stable")
    again = keys[order][1:] == keys[order][:-1]
    following = np.full(count, count, np.int64)
    following[order[:-1][again]] = order[1:][again]
    held: set[int] = set()
    """Positions at which what is held will be asked for next."""
    furthest: list[int] = []
    hits = 0
    for place, then in enumerate(following.tolist()):
        if place in held:
            hits += 1
            held.discard(place)
        if then == count:
            continue
        held.add(then)
        heapq.heappush(furthest, -then)
        while len(held) > capacity:
            held.discard(-heapq.heappop(furthest))
    return hits
