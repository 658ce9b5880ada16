"""The load with the highest throughput of requests served: which load is tried next, and what the probes say.

From the first load up by doubling while the throughput grows by more than 5 %, and down by halving while it stays
within 5 % of the highest; then between neighbours of the best, and of the lowest load that is within 5 % of it, until
they are 25 % apart; then again, `REPEATS` times each, all that are within 10 % of the best.

The interval of the throughput is Student's over the repeats at the best load. The loads of the interval are those whose
throughput is not significantly below the best, with the spread of all repeats pooled and a level for all comparisons
together (Bonferroni's, in the place of the exact one of Hsu, Annals of Statistics 9, 1981: multiple comparisons with
the best). Where throughput stays at what can be served, however much more is offered, they go up to the highest load
that was tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from kvbench_analysis.search.limit import TAIL, Limit
from kvbench_analysis.search.strategy import Bounds, Outcome, rounded

REPEATS: Final = 5
_GROWS: Final = 1.05
_CLOSE: Final = 0.9
_NARROW: Final = 1.25
_LEAST_SPREAD: Final = 0.002

Points = Sequence[tuple[float, float]]
"""Load, and requests/s that were served, of each probe."""


@dataclass(frozen=True)
class Highest:
    """The highest throughput, and where."""

    load: Limit
    """With the loads that are not significantly below it."""
    requests_per_s: Limit


def most_served(points: Points) -> Highest:
    """What the probes say; intervals are open where no load was tried again."""
    at = _by_load(points)
    means = {load: float(np.mean(np.log(rates))) for load, rates in at.items()}
    best = max(means, key=means.__getitem__)
    residuals = [np.log(rate) - means[load] for load, rates in at.items() for rate in rates]
    freedom = len(points) - len(at)
    if freedom < 1:
        rate = float(np.exp(means[best]))
        return Highest(Limit(best, min(at), max(at)), Limit(rate, 0.0, float("inf")))
    spread = max(float(np.sqrt(np.sum(np.square(residuals)) / freedom)), _LEAST_SPREAD)
    apart = float(scipy.special.stdtrit(freedom, 1 - 2 * TAIL / max(len(at) - 1, 1))) * spread
    near = [load for load in at if means[best] - means[load] <= apart * np.sqrt(1 / len(at[load]) + 1 / len(at[best]))]
    own = at[best]
    error = spread / np.sqrt(len(own)) * float(scipy.special.stdtrit(freedom, 1 - TAIL))
    rate = means[best]
    served = Limit(float(np.exp(rate)), float(np.exp(rate - error)), float(np.exp(rate + error)))
    return Highest(Limit(best, min(near), max(near)), served)


def next_load_for_most(points: Points, bounds: Bounds) -> tuple[float | None, Outcome]:
    """The load to try next; None where the search is over, and how it ended."""
    if not points:
        return rounded(bounds.start, bounds), "searching"
    if len(points) >= bounds.most:
        return None, "wide"
    at = _by_load(points)
    means = {load: float(np.mean(rates)) for load, rates in at.items()}
    loads = sorted(means)
    best = max(means, key=means.__getitem__)
    wanted = _farther(loads, means, best, bounds)
    if wanted is None:
        wanted = _between(loads, means, best, bounds)
    if wanted is None:
        close = [load for load in loads if means[load] >= _CLOSE * means[best] and len(at[load]) < REPEATS]
        wanted = min(close, key=lambda load: len(at[load])) if close else None
    if wanted is not None:
        return wanted, "searching"
    rises = best == bounds.high and means[best] > _GROWS * max((means[load] for load in loads[:-1]), default=0.0)
    return None, "never-exceeded" if rises else "found"


def _farther(loads: list[float], means: dict[float, float], best: float, bounds: Bounds) -> float | None:
    """A load above or below all, where the highest throughput may lie there."""
    top, bottom = loads[-1], loads[0]
    below = max((means[load] for load in loads[:-1]), default=0.0)
    if top < bounds.high and means[top] > _GROWS * below:
        return rounded(min(2 * top, bounds.high), bounds)
    if bottom > bounds.low and means[bottom] * _GROWS >= means[best]:
        return rounded(max(bottom / 2, bounds.low), bounds)
    return None


def _between(loads: list[float], means: dict[float, float], best: float, bounds: Bounds) -> float | None:
    """A load between neighbours of the best, or below the lowest that is as good."""
    first = min(load for load in loads if means[load] * _GROWS >= means[best])
    edges = [loads.index(first) - 1, loads.index(best) - 1, loads.index(best)]
    for place in edges:
        if 0 <= place < len(loads) - 1:
            low, high = loads[place], loads[place + 1]
            middle = rounded(float(np.sqrt(low * high)), bounds)
            if high > _NARROW * low and middle not in means:
                return middle
    return None


def _by_load(points: Points) -> dict[float, list[float]]:
    at: dict[float, list[float]] = {}
    for load, rate in points:
        at.setdefault(load, []).append(max(rate, 1e-9))
    return at
