"""Stack distances and the optimum without a compiler: the same figures, slowly. `_curves.pyi` documents them."""

from heapq import heappop, heappush
from itertools import pairwise

import numpy as np
import numpy.typing as npt


def prefix_distances(
    keys: npt.NDArray[np.uint64], ends: npt.NDArray[np.int64], distances: npt.NDArray[np.int64]
) -> None:
    """See `_curves.pyi`."""
    tree = [0] * (len(keys) + 1)
    times: dict[int, int] = {}
    clock = 0
    distances[:] = -1
    for begin, end in pairwise([0, *ends.tolist()]):
        chain = keys[begin:end].tolist()
        most = 0
        for at, key in enumerate(chain):
            if key not in times:
                break
            most = max(most, len(times) - _marks_until(tree, times[key]))
            distances[begin + at] = most
        for key in reversed(chain):
            clock += 1
            if key in times:
                _mark(tree, times[key], -1)
            times[key] = clock
            _mark(tree, clock, 1)


def _marks_until(tree: list[int], time: int) -> int:
    """Fenwick's tree (Software: Practice and Experience 24, 1994): how many marks stand at times 1 to `time`."""
    total = 0
    while time:
        total += tree[time]
        time &= time - 1
    return total


def _mark(tree: list[int], time: int, by: int) -> None:
    while time < len(tree):
        tree[time] += by
        time += time & -time


def optimal_hits(keys: npt.NDArray[np.uint64], capacity: int) -> int:
    """See `_curves.pyi`. What is held is known by the time at which it is asked for next."""
    nexts = [0] * len(keys)
    later: dict[int, int] = {}
    listed = keys.tolist()
    for at in range(len(listed) - 1, -1, -1):
        nexts[at] = later.get(listed[at], 0)
        later[listed[at]] = at
    held: set[int] = set()
    farthest: list[int] = []
    hits = 0
    for at, following in enumerate(nexts):
        if at in held:
            held.remove(at)
            hits += 1
        if not following or not capacity:
            continue
        if len(held) == capacity:
            # What was asked for since lies behind all that is held, and is never the farthest.
            if -farthest[0] < following:
                continue
            held.remove(-heappop(farthest))
        held.add(following)
        heappush(farthest, -following)
    return hits
