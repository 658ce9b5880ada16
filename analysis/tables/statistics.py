"""Confidence intervals: how far a figure can be off, from how much it varies between repeats.

What is resampled is the unit: a repeat of the run, or where there is one run only, a block of its time. Never the
single operation: operations of one run share its disk, its memory and its neighbours, and are not independent. Nothing
is read from files here, and randomness comes from the generator that is passed in.

The interval of five and more units is the percentile bootstrap with its level expanded for few units (T. Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015): the plain percentile interval
of the mean of 5 units holds the truth 84 % of the time instead of 95 %. Of two to four units no resampling makes an
interval: theirs is Student's t with the bootstrap's standard error. One unit has none: its bounds are NaN.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

import numpy as np
import scipy  # its parts are loaded where they are first used, and most summaries use none
from kvbench_analysis.tables.percentiles import percentiles
from numpy.typing import ArrayLike, NDArray

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 1000
FEWEST_FOR_BOOTSTRAP: Final = 5
_FEWEST_BLOCKS: Final = 3

Statistic = Callable[..., Any]
"""Of one sample, as numpy writes them: called as `statistic(values, axis=-1)` (np.mean, np.median)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % confidence interval; NaN where there is none."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside: for a ratio, `excludes(1)` says that the difference is significant."""
        return self.low > value or self.high < value


NO_INTERVAL: Final = Interval(float("nan"), float("nan"), float("nan"))


class Figure(Protocol):
    """One or more figures of a number of units, for any choice of the units."""

    @property
    def units(self) -> int:
        """How many units there are."""

    def evaluate(self, weights: Floats) -> Floats:
        """The figures (choices, figures) when each unit counts as often as `weights` (choices, units) says."""


@dataclass(frozen=True)
class RatioOfSums:
    """Sum over the units of `numerator` by that of `denominator`: a rate, a hit rate, a cost per byte."""

    numerator: Floats
    denominator: Floats

    @property
    def units(self) -> int:
        return len(self.numerator)

    def evaluate(self, weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return ((weights @ self.numerator) / (weights @ self.denominator))[:, None]


@dataclass(frozen=True)
class Scaled:
    """`figure`, each times its factor: figures of a sample, brought to what they are of the whole."""

    figure: Figure
    factors: Floats

    @property
    def units(self) -> int:
        return self.figure.units

    def evaluate(self, weights: Floats) -> Floats:
        return self.figure.evaluate(weights) * self.factors


class PooledPercentiles:
    """Percentiles over the values of all units together. Keeps a thousand numbers per unit, not the values."""

    _CELLS = 1000

    def __init__(self, values: Sequence[NDArray[Any]], wanted: Sequence[float]) -> None:
        """`values` of each unit; units without values are left out. `wanted` percentiles are 0 to 100."""
        parts = [np.sort(part).astype(np.float64) for part in values if len(part)]
        self._wanted = np.asarray(wanted, np.float64)
        pooled = np.concatenate(parts) if parts else np.empty(0)
        self.exact: Floats = percentiles(pooled, tuple(wanted))
        """The percentiles of all units, not rounded to cells."""
        self.values = len(pooled)
        pooled.sort()
        # Half of the cells for the uppermost tenth, where the percentiles of interest lie close together.
        half = self._CELLS // 2
        shares = np.concatenate((np.linspace(0, 0.9, half, endpoint=False), np.linspace(0.9, 1, half)))
        self._edges = np.unique(pooled[np.round(shares * (len(pooled) - 1)).astype(np.intp)]) if parts else np.zeros(1)
        # Cell i holds what is above edge i - 1 and not above edge i.
        below = [np.searchsorted(part, self._edges, side="right") for part in parts]
        counts = [np.diff(part, prepend=0) for part in below]
        self._counts = np.array(counts, np.float64).reshape(len(parts), len(self._edges))

    @property
    def units(self) -> int:
        return len(self._counts)

    def evaluate(self, weights: Floats) -> Floats:
        below = np.cumsum(weights @ self._counts, axis=1)
        total = below[:, -1:]
        positions = self._wanted / 100 * np.maximum(total - 1, 0)
        result = np.empty((len(weights), len(self._wanted)))
        rows = np.arange(len(weights))
        for column in range(len(self._wanted)):
            position = positions[:, column : column + 1]
            cell = np.minimum((below <= position).sum(axis=1), len(self._edges) - 1)
            before = np.where(cell > 0, below[rows, cell - 1], 0)
            inside = np.clip((position[:, 0] - before + 1) / np.maximum(below[rows, cell] - before, 1), 0, 1)
            low, high = self._edges[np.maximum(cell - 1, 0)], self._edges[cell]
            result[:, column] = low + (high - low) * inside
        return np.where(total > 0, result, np.nan)


def bootstrap_interval(
    values: ArrayLike, statistic: Statistic, rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> Interval:
    """`statistic` of `values` (one per repeat) with its 95 % confidence interval. NaN values are left out."""
    sample = _sample(values)
    if not len(sample):
        return NO_INTERVAL
    estimate = float(statistic(sample, axis=-1))
    return interval_of(estimate, _resampled(sample, statistic, rng, resamples), len(sample))


def bootstrap_ratio(
    a: ArrayLike, b: ArrayLike, statistic: Statistic, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """`statistic(b) / statistic(a)`, b against the baseline a, with its 95 % interval; both hold one value per repeat.

    The repeats are independent, not paired. NaN values are left out; NaN when a's statistic is 0 or a sample is empty.
    """
    first, second = _sample(a), _sample(b)
    if not len(first) or not len(second):
        return NO_INTERVAL
    return ratio_interval_of(
        (float(statistic(first, axis=-1)), float(statistic(second, axis=-1))),
        (_resampled(first, statistic, rng, resamples), _resampled(second, statistic, rng, resamples)),
        (len(first), len(second)),
    )


def resample_figure(figure: Figure, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """`figure` of `resamples` draws of its units with replacement: (resamples, figures)."""
    if not figure.units:
        return np.full((resamples, 1), np.nan)
    return figure.evaluate(draw_units(figure.units, rng, resamples))


def draw_units(units: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """How often each of `units` is drawn, in each of `resamples` bootstrap samples: (resamples, units)."""
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def mean_of_blocks(estimate: float, of_blocks: Floats, weights: Floats) -> Interval:
    """The interval of `estimate`, a figure of all operations together, from the same figure of each block of time.

    The method of batch means (A. M. Law, Simulation Modeling and Analysis, chapter 9): Student's t with the standard
    error of the blocks' mean, weighted by their operations. No bounds below three blocks.
    """
    blocks = len(of_blocks)
    if blocks < _FEWEST_BLOCKS:
        return Interval(estimate, float("nan"), float("nan"))
    shares = weights / weights.sum()
    deviations = shares * (of_blocks - (shares * of_blocks).sum())
    error = float(np.sqrt(blocks / (blocks - 1) * np.square(deviations).sum()))
    reach = student_reach(blocks - 1) * error
    return Interval(estimate, estimate - reach, estimate + reach)


def interval_of(estimate: float, resampled: Floats, units: int) -> Interval:
    """The interval of a figure that was `resampled` by drawing from its `units` with replacement."""
    draws = resampled[~np.isnan(resampled)]
    if units < 2 or not np.isfinite(estimate) or len(draws) < 2:
        return Interval(estimate, float("nan"), float("nan"))
    widening = np.sqrt(units / (units - 1))
    return _bounds(estimate, draws, widening, units - 1, few=units < FEWEST_FOR_BOOTSTRAP, logarithmic=False)


def ratio_interval_of(
    estimates: tuple[float, float], resampled: tuple[Floats, Floats], units: tuple[int, int]
) -> Interval:
    """The interval of the second figure by the first, each resampled on its own.

    Degrees of freedom after B. L. Welch, Biometrika 34, 1947, from the relative variances of the two.
    """
    if not estimates[0] or not np.all(np.isfinite(estimates)):
        return NO_INTERVAL
    ratio = estimates[1] / estimates[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = resampled[1] / resampled[0]
    draws = draws[~np.isnan(draws)]
    if min(units) < 2 or len(draws) < 2:
        return Interval(ratio, float("nan"), float("nan"))
    found = np.array([np.nanvar(one) for one in resampled]) / np.square(np.where(estimates, estimates, 1.0))
    count = np.array(units)
    whole = found * count / (count - 1)
    if not whole.sum() > 0:
        return Interval(ratio, ratio, ratio)
    widening = np.sqrt(whole.sum() / found.sum())
    freedom = whole.sum() ** 2 / (whole**2 / (count - 1)).sum()
    few = min(units) < FEWEST_FOR_BOOTSTRAP
    return _bounds(ratio, draws, widening, freedom, few=few, logarithmic=ratio > 0)


def percentile_interval(estimate: float, draws: Floats, reach: float) -> Interval:
    """The percentiles of the bootstrap `draws` that lie `reach` standard deviations out in a normal distribution."""
    tail = float(scipy.special.ndtr(-reach))
    # Without interpolation, which has no answer between two draws that are infinite.
    low, high = np.quantile(draws, [tail, 1 - tail], method="closest_observation")
    return Interval(estimate, float(min(low, estimate)), float(max(high, estimate)))


@cache
def student_reach(freedom: float) -> float:
    """How many standard errors the 95 % interval reaches to each side, with so many degrees of freedom."""
    return float(scipy.special.stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _bounds(
    estimate: float, draws: Floats, widening: float, freedom: float, *, few: bool, logarithmic: bool
) -> Interval:
    reach = student_reach(freedom) * widening
    if not few:
        return percentile_interval(estimate, draws, reach)
    error = float(draws.std())
    if logarithmic and np.isfinite(error):
        factor = float(np.exp(min(reach * error / estimate, 700.0)))
        return Interval(estimate, estimate / factor, estimate * factor)
    return Interval(estimate, estimate - reach * error, estimate + reach * error)


def _sample(values: ArrayLike) -> Floats:
    sample = np.asarray(values, np.float64).ravel()
    return sample[~np.isnan(sample)]


def _resampled(sample: Floats, statistic: Statistic, rng: np.random.Generator, resamples: int) -> Floats:
    if len(sample) < 2:
        return np.full(resamples, np.nan)
    batch = max(1, min(resamples, 4_000_000 // len(sample)))
    result = scipy.stats.bootstrap(
        (sample,), statistic, n_resamples=resamples, batch=batch, vectorized=True, method="percentile", rng=rng
    )
    return np.asarray(result.bootstrap_distribution, np.float64)
