"""Which requests of a trace have times that cannot all be true: of a trace the times never fall.

Where times contradict each other, the fewest possible are given up: one line that is a year ahead of the others is the
mistake, not all the lines behind it.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

LONGEST_YEARS: Final = 100
LONGEST_S: Final = LONGEST_YEARS * 366 * 86_400


def plausible(seconds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) Whether each time lies within LONGEST_YEARS of the middle one, which is true if most of them are."""
    middle = int(np.partition(seconds, (len(seconds) - 1) // 2)[(len(seconds) - 1) // 2])
    near: NDArray[np.bool_] = np.abs(seconds - middle) <= LONGEST_S
    return near


def in_order(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of as many `times` as can be kept so that they never fall. Takes n log n steps where they do somewhere.

    Of several such choices one that ends earliest, and of these the one that keeps the earlier lines.
    """
    if len(times) < 2 or bool((np.diff(times) >= 0).all()):
        return np.arange(len(times))
    possible = np.flatnonzero(times <= _earliest_end(times.tolist()))
    chosen = times[possible].tolist()
    following = _longest_from_each(chosen)
    wanted, kept, last = max(following), [], None
    for place, (length, time) in enumerate(zip(following, chosen, strict=True)):
        if length == wanted and (last is None or time >= last):
            kept.append(place)
            last, wanted = time, wanted - 1
    return possible[kept]


def _earliest_end(times: Sequence[int]) -> int:
    """The lowest time that as many of them as possible can end with.

    `lowest[k]` is the lowest time that k + 1 kept ones, so far, can end with.
    """
    lowest: list[int] = []
    for time in times:
        place = bisect_right(lowest, time)
        lowest[place : place + 1] = [time]
    return lowest[-1]


def _longest_from_each(times: Sequence[int]) -> "array[int]":
    """(n,) How many times can be kept at most, from each one on, that one among them.

    From the end: `highest[k]` is the negative of the highest time that k + 1 kept ones, so far, can begin with.
    """
    highest: list[int] = []
    lengths = array("q")
    for time in reversed(times):
        place = bisect_right(highest, -time)
        highest[place : place + 1] = [-time]
        lengths.append(place + 1)
    lengths.reverse()
    return lengths
