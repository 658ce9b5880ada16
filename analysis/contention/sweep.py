"""How many other operations and ranks were active while an operation ran: a sweep over the time of one node.

All starts and ends are put in order; between two of them the number of active operations stands still, so integrals
over it are running sums, and the mean during an operation is the difference of two of them over its duration: exact,
in O(n log n). Knows nothing of run files.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Order = NDArray[np.intp]

_CHUNK: Final = 2**17
"""Rows at a time: temporary arrays of this length stay in the processor's cache."""


@dataclass(frozen=True)
class OthersActive:
    """One value per operation: how many others were active on its node during it."""

    operations: NDArray[np.float32]
    """The time-weighted mean number of other operations."""
    sharing: NDArray[np.float32]
    """The same as a harmonic mean: 1 / mean(1 / c) - 1, where c counts the operation itself as well.

    Of operations that share a bandwidth evenly, each moves at 1 / c of it, so this is what its duration follows.
    """
    ranks: NDArray[np.float32]
    """The time-weighted mean number of other ranks that had at least one operation active."""


def others_active(start_ns: Times, wall_ns: Times, rank: NDArray[Any]) -> OthersActive:
    """What was active beside each operation of one node; `rank` are small whole numbers without gaps.

    The end of an operation is `start_ns + wall_ns`. One of no duration gets the numbers at its instant.
    """
    if not len(start_ns):
        return OthersActive(*(np.empty(0, np.float32) for _ in range(3)))
    start = start_ns - start_ns.min()
    end = start + wall_ns
    instant = np.flatnonzero(wall_ns == 0)
    # numpy sorts and searches without the interpreter's lock, so a second processor takes half of the work.
    with ThreadPoolExecutor(2) as pool:
        # The stable sort is the one that is quick where the rows of every thread are in order already.
        by_start, by_end = pool.map(lambda times: np.argsort(times, kind="stable"), (start, end))
        starts, ends = start[by_start], end[by_end]
        ranks = pool.submit(_other_ranks, (starts, by_start), (ends, by_end), (start, end), wall_ns, rank, instant)
        operations, sharing = _other_operations((starts, by_start), (ends, by_end), wall_ns)
    if len(instant):
        operations[instant] = sharing[instant] = _active_at(start[instant], start, end)
    return OthersActive(operations, sharing, ranks.result())


def _other_operations(
    sorted_starts: tuple[Times, Order], sorted_ends: tuple[Times, Order], wall_ns: Times
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean and the harmonic mean; the starts and ends come with the rows that they belong to."""
    (starts, by_start), (ends, by_end) = sorted_starts, sorted_ends
    # Where each start and each end is among all of both; an end comes before a start at the same time.
    at_start = _places(starts, ends, "right")
    at_end = _places(ends, starts, "left")
    step = np.empty(2 * len(starts), np.int64)
    step[at_start] = starts
    step[at_end] = ends
    np.subtract(step[1:], step[:-1], out=step[:-1])
    active = np.full(len(step), -1, np.int8)
    active[at_start] = 1
    count = np.cumsum(active, dtype=np.int32)
    del active

    total = step * count
    np.cumsum(total, out=total)
    during = _during(total, (at_start, by_start), (at_end, by_end))
    during -= wall_ns
    operations = _per_wall(during, wall_ns)
    # Nobody is active between a last end and the next start, and nobody asks for the integral there.
    np.maximum(count, 1, out=count)
    inverse = np.divide(step, count, out=total.view(np.float64))
    np.cumsum(inverse, out=inverse)
    shares = _per_wall(_during(inverse, (at_start, by_start), (at_end, by_end)), wall_ns)
    with np.errstate(divide="ignore"):
        return operations, np.maximum(1 / shares - 1, 0, dtype=np.float32)


def _places(own: Times, others: Times, side: Any) -> Order:
    place = np.empty(len(own), np.intp)
    for first in range(0, len(own), _CHUNK):
        chunk = own[first : first + _CHUNK]
        place[first : first + len(chunk)] = np.searchsorted(others, chunk, side=side)
        place[first : first + len(chunk)] += np.arange(first, first + len(chunk))
    return place


def _during(integral: NDArray[Any], starts: tuple[Order, Order], ends: tuple[Order, Order]) -> NDArray[Any]:
    """The integral over each operation, in the order of the rows, from the integral after each step.

    `starts` and `ends` are the steps of the sorted starts and ends, and the rows that these belong to.
    """
    result = np.empty(len(starts[0]), integral.dtype)
    for first in range(0, len(result), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        result[ends[1][chunk]] = integral[ends[0][chunk] - 1]
    for first in range(0, len(result), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        step = starts[0][chunk]
        before = integral[np.maximum(step - 1, 0)]
        before[step == 0] = 0
        result[starts[1][chunk]] -= before
    return result


def _per_wall(during: NDArray[Any], wall_ns: Times) -> NDArray[np.float32]:
    result = np.empty(len(wall_ns), np.float32)
    for first in range(0, len(result), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        result[chunk] = np.maximum(during[chunk], 0) / np.maximum(wall_ns[chunk], 1)
    return result


def _active_at(moments: Times, start: Times, end: Times) -> Times:
    """The number of intervals [start, end) at each moment."""
    begun = np.searchsorted(np.sort(start), moments, side="right")
    return np.asarray(begun - np.searchsorted(np.sort(end), moments, side="right"), np.int64)


def _other_ranks(
    starts: tuple[Times, Order],
    ends: tuple[Times, Order],
    spans: tuple[Times, Times],
    wall_ns: Times,
    rank: NDArray[Any],
    instant: Order,
) -> NDArray[np.float32]:
    """`starts` and `ends` are sorted, with the rows that they belong to; `spans` are both in the order of the rows."""
    if not rank.max():
        return np.zeros(len(wall_ns), np.float32)
    begin, finish, own = _busy(starts[0], spans[1][starts[1]], rank[starts[1]])
    begins, finishes = np.sort(begin), np.sort(finish)
    # The integral of the busy ranks up to t: sum(t - begin) - sum(t - finish) of those not after t. In long runs the
    # sums leave 64 bits and wrap round; so does the difference, which is back in range.
    sums = [np.concatenate(([0], np.cumsum(values))) for values in (begins, finishes)]
    during = np.zeros(len(wall_ns), np.int64)
    for (times, order), sign in ((ends, 1), (starts, -1)):
        for first in range(0, len(times), _CHUNK):
            moments = times[first : first + _CHUNK]
            begun = np.searchsorted(begins, moments, side="right")
            ended = np.searchsorted(finishes, moments, side="right")
            integral = (begun - ended) * moments - sums[0][begun] + sums[1][ended]
            during[order[first : first + _CHUNK]] += sign * integral
    # Its own rank is busy during all of an operation.
    during -= wall_ns
    others = _per_wall(during, wall_ns)
    if len(instant):
        at = spans[0][instant]
        others[instant] = _active_at(at, begin, finish)
        for number in np.unique(rank[instant]):
            mine, of_rank = rank[instant] == number, own == number
            others[instant[mine]] -= _active_at(at[mine], begin[of_rank], finish[of_rank])
    return others


def _busy(starts: Times, ends: Times, rank: NDArray[Any]) -> tuple[Times, Times, NDArray[Any]]:
    """The stretches during which a rank had at least one operation, rank by rank: begin, finish and rank of each.

    `starts` is sorted, `ends` and `rank` belong to it.
    """
    order = np.argsort(rank.astype(np.uint16) if rank.max() < 2**16 else rank, kind="stable")
    # One running maximum over all ranks: each rank's times are lifted above those of the one before.
    lift = rank[order].astype(np.int64)
    lift *= int(ends.max()) + 1
    begin = starts[order]
    begin += lift
    reached = ends[order]
    reached += lift
    np.maximum.accumulate(reached, out=reached)
    first = np.flatnonzero(begin[1:] > reached[:-1]) + 1
    last = np.append(first - 1, len(begin) - 1)
    first = np.insert(first, 0, 0)
    return begin[first] - lift[first], reached[last] - lift[last], rank[order[first]]
