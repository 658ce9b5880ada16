"""How far each probe was from an objective, and how sure that is: what the limit is estimated from.

An objective on a percentile bounds a share: `ttft_p95<2s` is met where fewer than 5 % of requests take 2 s or longer. A
probe therefore gives a share (requests over the bound, of all), which a logistic curve over the logarithm of the load
describes near its limit. An objective on a mean gives the logarithm of the mean by its bound, which a straight line
describes. Both are `Response`s: a likelihood for where the probe should lie, and a distance in units of its own noise.

Requests of one run queue behind each other and are not independent. `inflation` is by how much the variance of the
share (or mean) of `BLOCKS` blocks of consecutive requests exceeds what independent requests would have (batch means:
Conway, Management Science 10, 1963). Of two runs it says nothing: that is left to the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCKS: Final = 20
"""Of consecutive requests of a probe."""
_REACH: Final = 6.0
"""Logits from the limit up to which a share says where it is: beyond, the curve is another, and a probe only says that
it is far away."""
_REACH_OF_MEAN: Final = 0.7
"""The same of the logarithm of a mean by its bound: half or twice."""
_LEAST_VARIANCE: Final = 1e-6
"""Of the logarithm of a mean: 0.1 %, below which no two runs are alike."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One objective in one probe."""

    load: float
    value: float
    """Share of requests over the bound (0 to 1); of a mean the logarithm of it by its bound."""
    requests: int
    inflation: float = 1.0
    """Of the variance of `value`, over that of independent requests; at least 1. Of a mean: the variance itself."""
    grew: bool = False
    """The backlog grew: the load is above what can be served, whatever the requests took that were done."""


@dataclass(frozen=True, slots=True)
class Response:
    """The curve of one objective: what is allowed, and how probes scatter around it."""

    allowed: float | None
    """Share of requests that may be over the bound; None: the objective is on a mean."""

    @property
    def centre(self) -> float:
        """Where the objective is just met, on the scale of the curve."""
        return 0.0 if self.allowed is None else float(np.log(self.allowed / (1 - self.allowed)))

    @property
    def reach(self) -> float:
        """From the limit up to which the curve goes."""
        return _REACH_OF_MEAN if self.allowed is None else _REACH

    def expected(self, distance: Floats) -> Floats:
        """The values at `distance` from the limit, in units of the curve (above 0: the load is too high)."""
        near = np.clip(distance, -self.reach, self.reach)
        return near if self.allowed is None else 1 / (1 + np.exp(-(self.centre + near)))

    def weight(self, tried: Sequence[Tried]) -> Floats:
        """Requests of each that would say as much if they were independent; of means 1 by the variance. One inflation
        for all, their mean: that of a single probe goes with its value, and would prefer those that are low by
        chance."""
        requests = np.array([each.requests for each in tried], np.float64)
        known = [each.inflation for each in tried if each.inflation > 0]
        inflation = float(np.mean(known)) if known else 1.0
        if self.allowed is None:
            return np.full(len(requests), 1 / max(inflation, _LEAST_VARIANCE))
        return requests / max(inflation, 1.0)

    def lost(self, values: Floats, distance: Floats) -> Floats:
        """-2 x the logarithm of the likelihood of `values` at `distance`, but for a constant, for a weight of 1."""
        near = np.clip(distance, -self.reach, self.reach)
        if self.allowed is None:
            return np.asarray((np.clip(values, -2 * self.reach, 2 * self.reach) - near) ** 2)
        logit = self.centre + near
        return np.asarray(2 * (np.log1p(np.exp(logit)) - values * logit))

    def informs(self, distance: Floats) -> NDArray[np.bool_]:
        """Whether a probe at `distance` lies where the curve rises."""
        return np.asarray(np.abs(distance) < self.reach)


def inflation_of(over: NDArray[np.bool_]) -> float:
    """Of the share of `over`, of requests in the order in which they came: the variance between blocks by that of
    independent requests, at least 1; 0 where all or none are,
    which says nothing."""
    share = float(over.mean()) if len(over) else 0.0
    if len(over) < 2 * BLOCKS or not 0 < share < 1:
        return 0.0
    shares = np.array([block.mean() for block in np.array_split(over.astype(np.float64), BLOCKS)])
    return max(1.0, float(shares.var(ddof=1)) / BLOCKS / (share * (1 - share) / len(over)))


def variance_of_log_mean(values: Floats) -> float:
    """Of the logarithm of the mean of `values` in the order in which they came, from blocks of them."""
    if len(values) < 2 * BLOCKS:
        return float(values.var() / max(len(values), 1) / max(float(values.mean()) ** 2, 1e-300))
    means = np.array([block.mean() for block in np.array_split(values, BLOCKS)])
    return float(means.var(ddof=1) / BLOCKS / max(float(means.mean()) ** 2, 1e-300))
