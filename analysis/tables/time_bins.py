"""Time cut into equal parts: what falls into each, and which part a moment is in."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_BLOCKS: Final = 20
FEWEST_BLOCKS: Final = 5
_OPERATIONS_LONG: Final = 10


def block_count(duration_ns: float, mean_wall_ns: float) -> int:
    """Into how many blocks a run is cut to see how much its figures vary: 20, or fewer where operations are long.

    Neighbouring blocks are about independent only where a block is much longer (here ten times) than an operation.
    """
    if not mean_wall_ns > 0:
        return MOST_BLOCKS
    return int(np.clip(duration_ns / (_OPERATIONS_LONG * mean_wall_ns), FEWEST_BLOCKS, MOST_BLOCKS))


def block_numbers(moments_ns: NDArray[np.int64], start_ns: int, end_ns: int, blocks: int) -> NDArray[np.uint8]:
    """The block (0 to blocks - 1) of each moment; those outside are in the first or the last."""
    share = (moments_ns - start_ns) * (blocks / max(end_ns - start_ns, 1))
    return np.asarray(np.clip(share, 0, blocks - 1), np.uint8)


def spread(
    start_ns: NDArray[np.int64],
    wall_ns: NDArray[np.int64],
    amounts: Sequence[NDArray[Any]],
    edges_ns: NDArray[np.int64],
    row: NDArray[Any],
    rows: int,
) -> list[NDArray[np.float64]]:
    """Each of `amounts`, spread evenly over the operations' durations, per row and part: (rows, len(edges) - 1).

    `row` says which row an operation belongs to. `edges_ns` are equally far apart but for the last. What lies outside
    them is left out. An operation of no duration counts in the part in which it starts.
    """
    parts = len(edges_ns) - 1
    size = rows * parts
    first_edge, step = int(edges_ns[0]), int(edges_ns[1] - edges_ns[0])
    end = start_ns + wall_ns
    # Parts that an operation begins and ends in; -1 and `parts` stand for before and after.
    begins = np.clip((start_ns - first_edge) // step, -1, parts - 1)
    ends = np.clip((np.maximum(end - 1, start_ns) - first_edge) // step, begins, parts - 1)
    ends[end > edges_ns[-1]] = parts
    begins[start_ns >= edges_ns[-1]] = parts
    ends = np.maximum(begins, ends)
    base = row.astype(np.int64) * parts
    inside = np.flatnonzero((begins == ends) & (begins >= 0) & (begins < parts))
    inside_cell = base[inside] + begins[inside]
    crossing = np.flatnonzero(begins != ends)
    begins, ends, base = begins[crossing], ends[crossing], base[crossing]
    pieces = (
        (begins, edges_ns[np.clip(begins, 0, parts - 1) + 1] - start_ns[crossing]),
        (ends, end[crossing] - edges_ns[np.clip(ends, 0, parts - 1)]),
    )
    filled = np.flatnonzero(ends - begins > 1)
    line = base[filled] // parts * (parts + 1)
    results = []
    for amount in amounts:
        total = np.bincount(inside_cell, amount[inside], minlength=size).astype(np.float64)
        rate = amount[crossing] / wall_ns[crossing]
        for cell, duration in pieces:
            counted = np.flatnonzero((cell >= 0) & (cell < parts))
            total += np.bincount(base[counted] + cell[counted], rate[counted] * duration[counted], minlength=size)
        # The parts in between are filled: a running sum of the rates that begin and end.
        change = np.bincount(line + begins[filled] + 1, rate[filled], minlength=rows * (parts + 1)).astype(np.float64)
        change -= np.bincount(line + ends[filled], rate[filled], minlength=rows * (parts + 1))
        middle = np.cumsum(change.reshape(rows, parts + 1), axis=1)[:, :parts]
        # The sum of what was added and taken off again is not exactly 0.
        middle[np.abs(middle) < 1e-12 * np.abs(change).max(initial=0)] = 0
        results.append(total.reshape(rows, parts) + middle * np.diff(edges_ns))
    return results
