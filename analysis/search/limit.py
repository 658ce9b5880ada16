"""The load at which an objective is just met, with an interval: from probes at several loads, each a noisy answer.

**The curve.** Near its limit x* an objective's share of slow requests rises with the load x as

    logit share(x) = logit allowed + s (ln x - ln x*),   s >= 0

cut off at 2.5 logits on either side, beyond which a probe only says on which side of x* it is. (Of a mean: ln mean(x) -
ln bound = s (ln x - ln x*), cut off at half and twice the bound.) A step, as of a drive that is full at once, is the
curve with s without end.

**The interval** is that of the profile quasi-likelihood: x* is in it unless the best curve through it loses so much
that D(x) / phi > t^2, where D is the deviance lost against the best curve of all, t the quantile of Student's
distribution with N - 2 degrees of freedom, and N the probes where the curve rises. phi is the overdispersion between
runs (Pearson's X^2 / (N - 2)), never below 1, of weights that are already brought down by what requests of one run have
in common (`response`). McCullagh and Nelder, Generalized Linear Models, 2nd ed. 1989, sections 4.5 and 9.2; for a
root of a fitted line it is the interval of Fieller (Journal of the Royal Statistical Society B 16, 1954).

**What can be served.** In probes whose backlog grew, what was served is what can be; by what comes for each unit of
load, of which the probes are a sample, it is the limit (`capacity`). The two errors add up in squares, the
degrees of freedom after Welch and Satterthwaite (Biometrics Bulletin 2, 1946). The limit of all objectives is
the lowest of theirs; as each of m upper ends has to hold, theirs are at 1 - 2.5 % / m.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from kvbench_analysis.search.response import Floats, Response, Tried

TAIL: Final = 0.025
"""Of each end of an interval."""
_SLOPES: Final = np.geomspace(0.5, 1000.0, 48)
_FINER: Final = 1.2
"""Around the slopes that come into question, in the next look."""
_POINTS: Final = 101
"""Loads that are looked at at once."""
_LOOKS: Final = 3
_WINDOW: Final = 0.2
"""Of the logarithm of the load, on either side of a first estimate: where the curve is taken for one."""
_ENOUGH: Final = 6
"""Probes in the window; with fewer all count."""
_MARGIN: Final = 0.1
"""Beyond the lowest and the highest load that was tried, of the logarithm of the load."""
_NEAR: Final = 1.35
"""Only this far above the lowest load whose backlog grew is what was served taken for what can be."""
_DOUBTFUL: Final = 1.1
"""By so much below a load that was kept up with, a backlog that grew is chance."""
SEVERAL: Final = 3
"""Such probes; the interval of fewer is `_ROUGH`."""
_ROUGH: Final = 0.25
"""Of the logarithm of the load."""
_LEAST_SPREAD: Final = 0.005
"""Between what two probes say can be served; smaller is chance."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A load, with its 95 % interval. Infinite or 0 where nothing was tried on that side."""

    estimate: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Half of the interval, by the estimate."""
        inside = self.low > 0 and np.isfinite(self.high) and self.estimate > 0
        return (self.high - self.low) / 2 / self.estimate if inside else float("inf")


UNKNOWN: Final = Limit(float("nan"), 0.0, float("inf"))


def limit_of(tried: Sequence[Tried], response: Response, upper_tail: float = TAIL) -> Limit:
    """The limit of one objective from its probes. `estimate` is NaN with none; at the edge of what was tried, the
    interval is open on that side (0 or infinite)."""
    limit = _fitted(list(tried), response, upper_tail)
    near = [each for each in tried if abs(np.log(each.load / limit.estimate)) <= _WINDOW]
    if len(near) < _ENOUGH:
        return limit
    close = _fitted(near, response, upper_tail)
    # Where nothing near it bounds the limit on either side, what is farther away may.
    return limit if close.low == 0 and np.isinf(close.high) else close


def _fitted(probes: list[Tried], response: Response, upper_tail: float) -> Limit:
    if not probes:
        return UNKNOWN
    loads = np.log([each.load for each in probes])
    values, weights = np.array([each.value for each in probes], np.float64), response.weight(probes)
    low, high = float(loads.min()) - _MARGIN, float(loads.max()) + _MARGIN
    grid = np.linspace(low, high, _POINTS)
    # From all loads that were tried to those that come into question.
    candidates = _SLOPES
    for look in range(_LOOKS):
        lost, slopes = _profile(grid, candidates, loads, values, weights, response)
        step, freedom, phi = grid[1] - grid[0], 1, 1.0
        best = int(lost.argmin())
        distance = slopes[best] * (loads - grid[best])
        informs = response.informs(distance)
        freedom = max(int(informs.sum()) - 2, 1)
        if informs.any():
            expected = response.expected(distance)
            variance = expected * (1 - expected) if response.allowed is not None else np.ones_like(expected)
            phi = max(1.0, float((weights * (values - expected) ** 2 / variance)[informs].sum()) / freedom)
        apart = np.sqrt(np.maximum(lost - lost[best], 0.0) / phi)
        if look < _LOOKS - 1:
            near = np.flatnonzero(apart <= 1.5 * _quantile(freedom, upper_tail))
            first, last = float(grid[near[0]]) - step, float(grid[near[-1]]) + step
            grid = np.linspace(max(low, first), min(high, last), _POINTS)
            least, most = float(slopes[near].min()), float(slopes[near].max())
            candidates = np.geomspace(least / _FINER, most * _FINER, len(_SLOPES))
    # Where a whole stretch fits alike, as between the two sides of a step, the middle stands for it.
    alike = np.flatnonzero(lost <= lost[best] + 1e-6)
    estimate = float((grid[alike[0]] + grid[alike[-1]]) / 2)
    below = grid[(grid <= estimate + step) & (apart <= _quantile(freedom, TAIL))]
    above = grid[(grid >= estimate - step) & (apart <= _quantile(freedom, upper_tail))]
    first, last = float(below.min()), float(above.max())
    return Limit(
        float(np.exp(estimate)),
        float(np.exp(first)) if first > low + step / 2 else 0.0,
        float(np.exp(last)) if last < high - step / 2 else float("inf"),
    )


def _profile(
    grid: Floats, candidates: Floats, loads: Floats, values: Floats, weights: Floats, response: Response
) -> tuple[Floats, Floats]:
    """Of each load in `grid`, what the best curve whose limit it is loses, and the slope of that."""
    distance = candidates[None, :, None] * (loads[None, None, :] - grid[:, None, None])
    every = response.lost(values, distance) @ weights
    best = every.argmin(axis=1)
    return every[np.arange(len(grid)), best], candidates[best]


@dataclass(frozen=True, slots=True)
class Served:
    """What came and what was done in a probe."""

    load: float
    grew: bool
    offered_per_s: float
    served_per_s: float


def saturated(probes: Sequence[Served]) -> list[Served]:
    """Those whose backlog grew at a load above all that were kept up with, and not far above the lowest of such loads.
    Of loads that another probe kept up with, those alone would count that were slow by chance."""
    kept = _kept_up(probes)
    clear = [probe for probe in probes if probe.grew and probe.load > kept]
    lowest_load = min((probe.load for probe in clear), default=0.0)
    return [probe for probe in clear if probe.load <= lowest_load * _NEAR and probe.served_per_s > 0]


def _kept_up(probes: Sequence[Served]) -> float:
    """The highest load that was kept up with. One probe that kept up where several could not, clearly below it or far
    more often at the same load, did so by chance, and would make all of them doubtful."""

    def by_chance(load: float) -> bool:
        there = [probe.grew for probe in probes if probe.load == load]
        grew = sum(there)
        often = grew >= SEVERAL and grew >= SEVERAL * (len(there) - grew)
        return often or sum(probe.grew and probe.load <= load / _DOUBTFUL for probe in probes) >= SEVERAL

    return max((probe.load for probe in probes if not probe.grew and not by_chance(probe.load)), default=0.0)


def capacity(probes: Sequence[Served], tail: float = TAIL) -> Limit:
    """The load that can be served at most: what the saturated probes served, by what comes for each unit of load. With
    fewer than three such probes the interval is 25 %."""
    kept = _kept_up(probes)
    clear = saturated(probes)
    chosen = clear if len(clear) >= SEVERAL else [p for p in probes if p.grew and p.load >= kept / _DOUBTFUL]
    chosen = [probe for probe in chosen if probe.served_per_s > 0]
    if not chosen:
        return UNKNOWN
    served = np.log([probe.served_per_s for probe in chosen])
    each = _offered_for_each(probes, float(np.exp(served.mean())))
    estimate, many = float(served.mean()) - float(np.log(each.value)), len(served)
    if len(clear) < SEVERAL:
        return Limit(float(np.exp(estimate)), float(np.exp(estimate - _ROUGH)), float(np.exp(estimate + _ROUGH)))
    of_served = max(float(served.std(ddof=1)), _LEAST_SPREAD) / np.sqrt(many)
    error = float(np.hypot(of_served, each.error))
    freedom = error**4 / (of_served**4 / (many - 1) + each.error**4 / each.freedom)
    return Limit(
        float(np.exp(estimate)),
        float(np.exp(estimate - _quantile(freedom, TAIL) * error)),
        float(np.exp(estimate + _quantile(freedom, tail) * error)),
    )


@dataclass(frozen=True, slots=True)
class _Offered:
    """Requests/s for each unit of load."""

    value: float
    error: float
    """Of its logarithm."""
    freedom: int


def _offered_for_each(probes: Sequence[Served], per_s: float) -> _Offered:
    """What the probes say together near the load at which `per_s` come; all of them, where few are near. The error is
    that of an estimated ratio (Cochran, Sampling Techniques, 3rd ed. 1977, section 2.11)."""
    load = per_s / _ratio(probes)
    near = [probe for probe in probes if abs(np.log(probe.load / load)) <= np.log(_NEAR)]
    chosen = near if len(near) >= _ENOUGH else probes
    value, many = _ratio(chosen), max(len(chosen), 2)
    apart = sum((probe.offered_per_s - value * probe.load) ** 2 for probe in chosen) * many / (many - 1)
    return _Offered(value, float(np.sqrt(apart)) / sum(probe.offered_per_s for probe in chosen), many - 1)


def _ratio(probes: Sequence[Served]) -> float:
    """Of what came to the load, in all of them."""
    return sum(probe.offered_per_s for probe in probes) / sum(probe.load for probe in probes)


def lowest(limits: Sequence[Limit]) -> Limit:
    """The limit of all: the lowest of each of their figures. A limit that is not known bounds nothing."""
    known = [limit for limit in limits if np.isfinite(limit.estimate)]
    if not known:
        return UNKNOWN
    estimate, low, high = (min(getattr(limit, name) for limit in known) for name in ("estimate", "low", "high"))
    return Limit(estimate, low, max(high, estimate))


def _quantile(freedom: float, tail: float) -> float:
    """Of Student's distribution."""
    return float(scipy.special.stdtrit(freedom, 1 - tail))
