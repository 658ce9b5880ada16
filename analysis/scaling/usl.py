"""How throughput grows with the number of ranks (or nodes): a fit of the Universal Scalability Law.

X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1)): lambda is the throughput of one, sigma the share of the work
for which they queue (contention), kappa the cost of keeping each pair consistent (coherency). N. J. Gunther, "A Simple
Capacity Model of Massively Parallel Transaction Systems", CMG 1993, and Guerrilla Capacity Planning, Springer 2007;
with lambda as in N. J. Gunther, P. Puglia, K. Tomasette, "Hadoop Superlinear Scalability", Communications of the ACM
58(4), 2015. Superlinear growth (a negative sigma) is not fitted.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy
from kvbench_analysis.tables.statistics import Floats, Interval, percentile_interval, student_reach
from numpy.typing import ArrayLike

from kvbench.records.reader import KvbenchError

TERM_COLUMNS: Final = ("term", "meaning", "estimate", "low", "high")
CURVE_COLUMNS: Final = ("n", "throughput", "low", "high", "linear")
RESAMPLES: Final = 500
_PARAMETERS: Final = 3
_ZERO: Final = np.array([0.0, 1e-6, 1e-9])
"""Below these sigma and kappa are 0: the solver stops just inside its bounds."""
_CLOSE: Final = 1e-7
"""Relative change below which the solver has ended."""
_CONVERGED: Final = (1, 2, 3, 4)
"""What MINPACK says then."""


@dataclass(frozen=True)
class UslFit:
    """A fitted law. Intervals are at 95 %; their bounds are NaN when there are no more points than terms."""

    throughput_of_one: Interval
    """lambda, in the unit of the throughput."""
    contention: Interval
    """sigma, 0 to 1."""
    coherency: Interval
    """kappa, 0 and up."""
    peak_n: Interval
    """Where throughput is highest, sqrt((1 - sigma) / kappa) and at least 1; infinite where it only grows."""
    peak_throughput: Interval
    """The throughput there; lambda / sigma where it only grows, infinite where it grows without limit."""
    points: int
    residual: float
    """Root mean square of the logarithms of measured by fitted throughput: 0.02 is 2 %."""
    draws: Floats
    """(resamples, 3): lambda, sigma and kappa of the bootstrap samples."""

    def predict(self, n: ArrayLike) -> Floats:
        """The fitted throughput at `n`."""
        return usl(n, self.throughput_of_one.estimate, self.contention.estimate, self.coherency.estimate)

    def terms(self) -> pd.DataFrame:
        """TERM_COLUMNS: one row per term: `lambda`, `sigma`, `kappa`, `peak_n`, `peak_throughput`."""
        rows: list[tuple[str, str, Interval]] = [
            ("lambda", "throughput of one", self.throughput_of_one),
            ("sigma", "contention", self.contention),
            ("kappa", "coherency", self.coherency),
            ("peak_n", "where throughput is highest", self.peak_n),
            ("peak_throughput", "highest throughput", self.peak_throughput),
        ]
        return pd.DataFrame(
            [(term, meaning, one.estimate, one.low, one.high) for term, meaning, one in rows],
            columns=list(TERM_COLUMNS),
        )

    def curve(self, n: ArrayLike) -> pd.DataFrame:
        """CURVE_COLUMNS: the fitted throughput at each of `n` with its interval, and `linear`, lambda times n."""
        points = np.asarray(n, np.float64).ravel()
        fitted = self.predict(points)
        drawn = usl(points[None, :], *(self.draws[:, place, None] for place in range(_PARAMETERS)))
        intervals = [_interval(float(value), drawn[:, place], self.points) for place, value in enumerate(fitted)]
        return pd.DataFrame(
            {
                "n": points,
                "throughput": fitted,
                "low": [one.low for one in intervals],
                "high": [one.high for one in intervals],
                "linear": self.throughput_of_one.estimate * points,
            }
        )


def usl(n: ArrayLike, throughput_of_one: Any, contention: Any, coherency: Any) -> Floats:
    """The law itself: throughput of `n` at once."""
    number = np.asarray(n, np.float64)
    slowed = 1 + contention * (number - 1) + coherency * number * (number - 1)
    return np.asarray(throughput_of_one * number / slowed, np.float64)


def fit_usl(n: ArrayLike, throughput: ArrayLike, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> UslFit:
    """Fit the law to `throughput` (any unit) at `n` (1 and up); repeats are several entries with the same `n`.

    Least squares of the logarithms, as the noise of a throughput grows with it, within lambda > 0, 0 <= sigma <= 1 and
    kappa >= 0. Intervals are from a bootstrap of the residuals. Raises KvbenchError below three different `n`.
    """
    number, measured = (np.asarray(values, np.float64).ravel() for values in (n, throughput))
    if len(number) != len(measured):
        raise KvbenchError(f"a scaling fit needs as many throughputs as sizes, not {len(measured)} and {len(number)}")
    use = np.isfinite(measured) & (measured > 0) & (number >= 1)
    number, measured = number[use], measured[use]
    if len(np.unique(number)) < _PARAMETERS:
        raise KvbenchError(
            f"a scaling fit has three terms and needs throughputs at three or more sizes, not at "
            f"{', '.join(f'{size:g}' for size in np.unique(number)) or 'none'}"
        )
    logs = np.log(measured)
    best = _fit(number, logs, None)
    fitted = np.log(usl(number, *best))
    residuals = logs - fitted
    spare = len(number) - _PARAMETERS
    draws = np.full((resamples, _PARAMETERS), np.nan)
    if spare > 0:
        # The fit has taken up some of the noise.
        noise = (residuals - residuals.mean()) * np.sqrt(len(number) / spare)
        for place in range(resamples):
            draws[place] = _fit(number, fitted + rng.choice(noise, len(noise)), best)
    peaks, drawn_peaks = _peak(best[None, :])[0], _peak(draws)
    points = len(number)
    terms = [_interval(float(best[place]), draws[:, place], points) for place in range(_PARAMETERS)]
    return UslFit(
        throughput_of_one=terms[0],
        contention=terms[1],
        coherency=terms[2],
        peak_n=_interval(float(peaks[0]), drawn_peaks[:, 0], points),
        peak_throughput=_interval(float(peaks[1]), drawn_peaks[:, 1], points),
        points=points,
        residual=float(np.sqrt(np.mean(np.square(residuals)))),
        draws=draws,
    )


def _fit(number: Floats, logs: Floats, near: Floats | None) -> Floats:
    """lambda, sigma and kappa. From `near`, or, as there can be several minima, from the best of a few starts."""
    most = float(number.max())
    # Sizes of one order for the solver: kappa as the slowing by coherency at the largest n.
    scale = 1 / max(most * (most - 1), 1.0)
    least = int(np.argmin(number))
    one = logs[least] - np.log(number[least])

    others = number - 1
    pairs = scale * number * others
    of_one = np.log(number) - logs

    def residuals(terms: Floats) -> Floats:
        return np.asarray(of_one + terms[0] - np.log(1 + terms[1] * others + terms[2] * pairs), np.float64)

    def slopes(terms: Floats) -> Floats:
        slowed = 1 + terms[1] * others + terms[2] * pairs
        return np.array([np.ones_like(number), -others / slowed, -pairs / slowed]).T

    bounds = (np.array([-np.inf, 0.0, 0.0]), np.array([np.inf, 1.0, np.inf]))
    starts = [np.array([one, sigma, kappa]) for sigma in (0.01, 0.3, 0.9) for kappa in (0.01, 1.0)]
    terms = None
    if near is not None:
        starts = [np.array([np.log(near[0]), near[1], near[2] / scale])]
        # Most draws have their minimum within the bounds, where a solver that knows none is ten times as fast.
        with np.errstate(invalid="ignore"):
            free, how = scipy.optimize.leastsq(residuals, starts[0], Dfun=slopes, xtol=_CLOSE, ftol=_CLOSE)
        if how in _CONVERGED and np.all((free > bounds[0]) & (free < bounds[1])):
            terms = free
    if terms is None:
        found = [
            scipy.optimize.least_squares(
                residuals,
                np.clip(start, *bounds),
                slopes,
                bounds=bounds,
                method="dogbox",
                x_scale="jac",
                xtol=_CLOSE,
                ftol=_CLOSE,
            )
            for start in starts
        ]
        terms = min(found, key=lambda one: float(one.cost)).x
    result = np.array([np.exp(terms[0]), terms[1], terms[2] * scale])
    return np.where(result < _ZERO, 0.0, result)


def _peak(terms: Floats) -> Floats:
    """Where the peak is and how high, (draws, 2)."""
    one, sigma, kappa = terms.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # With a contention of 1, more of them never move more than one.
        peak = np.where(1 - sigma < _ZERO[1], 1.0, np.maximum(np.sqrt((1 - sigma) / kappa), 1.0))
        limit = np.where(sigma > 0, one / sigma, np.inf)
        highest = np.where(np.isinf(peak), limit, usl(np.where(np.isinf(peak), 1, peak), one, sigma, kappa))
    unknown = np.isnan(one)
    return np.stack([np.where(unknown, np.nan, peak), np.where(unknown, np.nan, highest)], axis=1)


def _interval(estimate: float, draws: Floats, points: int) -> Interval:
    """Percentiles of the draws, at the level that Student's t with `points` - 3 degrees of freedom asks for."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Interval(estimate, float("nan"), float("nan"))
    return percentile_interval(estimate, known, student_reach(points - _PARAMETERS))
