"""The contention factor: what a byte costs the host among many operations, over what it costs alone.

The definition is in docs/contention.md. Takes sums per block of time and bin of concurrency, and reads no files.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from kvbench_analysis.tables.statistics import Floats, Interval, interval_of

FEWEST_OPERATIONS: Final = 10
"""A bin with fewer does not count."""
LEAST_REACH: Final = 3.0
"""Nobody was alone: the cost alone is still told when 1 + concurrency was measured from some value to this times it."""
COMMON_SHARE: Final = 0.05
"""The highest common concurrency is the highest bin with at least this share of the operations."""
_NEARNESS: Final = 4
"""Weights fall with this power of 1 + concurrency: it is the cost near 0 that is wanted."""
_SATURATION: Final = 1000.0
"""Operations beyond which more in the same bin hardly add weight: what is left is that no simple curve fits exactly."""
_TIE: Final = 1e-9


@dataclass(frozen=True)
class BinSums:
    """Sums over the operations of one scope, each (blocks, bins)."""

    operations: Floats
    nbytes: Floats
    host_ns: Floats
    others_bytes: Floats
    """Sum of the concurrency times the bytes."""


@dataclass(frozen=True)
class Factor:
    """A contention factor and what it is made of; NaN where it cannot be had. Concurrency counts the others."""

    factor: Interval
    others_low: float
    """Mean concurrency of the lowest bin that counts."""
    others_high: float
    """Mean concurrency of the highest common bin."""
    alone_ns_per_byte: float
    contended_ns_per_byte: float
    extrapolated: bool
    """No operations were alone: the cost alone is the fitted curve's at 0, below all that was measured."""
    high_bin: int
    """Index of the highest common bin, -1 for none."""


def contention_factor(sums: BinSums, draws: Floats, prefer_bin: int = -1) -> Factor:
    """The factor of one scope; `draws` (draws, blocks) say how often each block counts in each bootstrap sample.

    `prefer_bin`: the highest common bin of the node, which its ranks are compared at where they have operations in it.
    """
    nan = float("nan")
    counts = sums.operations.sum(axis=0)
    usable = counts >= FEWEST_OPERATIONS
    common = np.flatnonzero(usable & (counts >= COMMON_SHARE * counts.sum()))
    if not len(common):
        return Factor(Interval(nan, nan, nan), nan, nan, nan, nan, False, -1)
    high = prefer_bin if prefer_bin >= 0 and usable[prefer_bin] else int(common[-1])
    bins = np.flatnonzero(usable[: high + 1])
    place = len(bins) - 1
    others = sums.others_bytes[:, bins].sum(axis=0) / sums.nbytes[:, bins].sum(axis=0)
    extrapolated = int(bins[0]) > 0
    if extrapolated and 1 + others[place] < LEAST_REACH * (1 + others[0]):
        bins, place, others = bins[place:], 0, others[place:]
    every = np.ones((1, len(sums.operations)))
    weights = counts[bins] / (1 + counts[bins] / _SATURATION) / (1 + others) ** _NEARNESS
    costs = [_costs(sums, bins, choice) for choice in (every, draws)]
    alone = [_cost_alone(others, cost, weights, bounded=extrapolated) for cost in costs]
    with np.errstate(invalid="ignore", divide="ignore"):
        exact, drawn = (cost[:, place] / base for cost, base in zip(costs, alone, strict=True))
    blocks = int(np.count_nonzero(sums.operations.sum(axis=1)))
    factor = interval_of(float(exact[0]), drawn, blocks)
    if extrapolated:
        # Below what was measured, sharing can have been anything between none and complete.
        least = float(costs[0][0, place] / costs[0][0, 0])
        most = least * float(1 + others[0])
        factor = Interval(factor.estimate, min(factor.low, least), max(factor.high, most))
    return Factor(
        factor=factor,
        others_low=float(others[0]),
        others_high=float(others[place]),
        alone_ns_per_byte=float(alone[0][0]),
        contended_ns_per_byte=float(costs[0][0, place]),
        extrapolated=extrapolated,
        high_bin=high,
    )


def _costs(sums: BinSums, bins: np.ndarray, draws: Floats) -> Floats:
    """Host ns per byte of each bin in each draw (draws, bins); NaN in a bin that a draw left empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ sums.host_ns[:, bins]) / (draws @ sums.nbytes[:, bins])


def _cost_alone(others: Floats, costs: Floats, weights: Floats, *, bounded: bool) -> Floats:
    """The fitted cost at 0 others, of each draw: least squares of a + b max(0, x - knee), a > 0, b >= 0.

    `bounded`: b <= a as well, that is, one more operation costs no more than an operation alone: without a measurement
    near 0 the line would else end anywhere.
    """
    if len(others) == 1:
        # Nothing to draw a line through: known only where nobody else was active.
        return np.full(len(costs), np.nan) if bounded else costs[:, 0]
    present = ~np.isnan(costs)
    weight = present * weights
    weighted = weight * np.where(present, costs, 0)
    s0, sy, syy = weight.sum(axis=1), weighted.sum(axis=1), (weighted * np.where(present, costs, 0)).sum(axis=1)
    best, least = np.full(len(costs), np.nan), np.full(len(costs), np.inf)
    # A knee below the second bin is no other curve than a straight line.
    for knee in (0.0, *others[1:-1]):
        z = np.maximum(others - knee, 0)
        sz, szz, szy = weight @ z, weight @ np.square(z), weighted @ z
        with np.errstate(invalid="ignore", divide="ignore"):
            b = np.nan_to_num((s0 * szy - sz * sy) / (s0 * szz - sz * sz), nan=0.0, posinf=0.0, neginf=0.0)
            b = np.maximum(b, 0)
            a = (sy - b * sz) / s0
            if bounded:
                steep = b > a
                a = np.where(steep, (sy + szy) / (s0 + 2 * sz + szz), a)
                b = np.where(steep, a, b)
        rest = syy - 2 * a * sy - 2 * b * szy + a * a * s0 + 2 * a * b * sz + b * b * szz
        better = (rest < least - _TIE * syy) & (a > 0)
        best, least = np.where(better, a, best), np.where(better, rest, least)
    return best
