"""Whole numbers drawn as a `config.sessions.Spread` says, and ranks drawn by Zipf's law; the same on every machine."""

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np

from kvbench.config.sessions import Spread
from kvbench.workload.draws import UNIT, Draws
from kvbench.workload.sessions.exact import exponential, powers

_STEPS_PER_SIGMA: Final = 16
_FARTHEST_SIGMAS: Final = 4
_WEIGHT: Final = 2**32
"""Of the most popular rank."""


class Table:
    """The inverse of a distribution function: linear between knots."""

    def __init__(self, spread: Spread, least: int, most: int, scale: int = 1) -> None:
        """Values are those of `spread` times `scale`, rounded, and kept from `least` to `most`.

        A lognormal has knots every sixteenth of a sigma, and ends at four of them on either side (of 16 000 values one
        lies farther out).
        """
        knots = _lognormal(spread["median"], spread["sigma"]) if "median" in spread else _percentiles(spread)
        places, values = zip(*knots, strict=True)
        self._places: tuple[int, ...] = places
        self._values: tuple[int, ...] = tuple(min(most, max(least, round(value * scale))) for value in values)

    @property
    def largest(self) -> int:
        """No value is larger."""
        return self._values[-1]

    def at(self, place: int) -> int:
        """The value at `place`, a whole number of 0 to UNIT - 1: the share of values that lie below."""
        knot = bisect_right(self._places, place) - 1
        low, high = self._values[knot], self._values[knot + 1]
        begin, end = self._places[knot], self._places[knot + 1]
        return low + (high - low) * (place - begin) // (end - begin)

    def draw(self, draws: Draws) -> int:
        """A value."""
        return self.at(draws.bits())


def _percentiles(spread: Spread) -> Iterator[tuple[int, float]]:
    """(place, value) of every percentile, the last place being UNIT."""
    for percentile, value in sorted(spread.items()):
        yield int(Fraction(percentile) * UNIT / 100), value


def _lognormal(median: float, sigma: float) -> Iterator[tuple[int, float]]:
    for place, sigmas in _normal():
        yield place, median * exponential(sigma * sigmas)


@cache
def _normal() -> tuple[tuple[int, float], ...]:
    """(place, standard deviations) of the knots of a normal distribution: its density summed by trapezoids."""
    count = 2 * _FARTHEST_SIGMAS * _STEPS_PER_SIGMA + 1
    sigmas = [step / _STEPS_PER_SIGMA - _FARTHEST_SIGMAS for step in range(count)]
    density = [exponential(-z * z / 2) for z in sigmas]
    below = [0.0]
    for left, right in pairwise(density):
        below.append(below[-1] + left + right)
    return tuple(
        (round(Fraction(share) * UNIT / Fraction(below[-1])), z) for share, z in zip(below, sigmas, strict=True)
    )


class Popularity:
    """Ranks 0 to n - 1, of which rank k is drawn with a probability that goes with 1 / (k + 1)^s."""

    def __init__(self, ranks: int, exponent: float) -> None:
        weights = _WEIGHT / powers(np.arange(1, ranks + 1, dtype=np.float64), exponent)
        self._ends = np.cumsum(np.maximum(weights.astype(np.int64), 1))

    def draw(self, draws: Draws) -> int:
        """A rank."""
        return int(np.searchsorted(self._ends, draws.below(int(self._ends[-1])), side="right"))

    def different(self, draws: Draws, count: int) -> tuple[int, ...]:
        """`count` different ranks, no more than there are, in the order in which they were drawn. One that was drawn
        before gives way to the next that was not."""
        drawn: dict[int, None] = {}
        for _ in range(count):
            rank = self.draw(draws)
            while rank in drawn:
                rank = (rank + 1) % len(self._ends)
            drawn[rank] = None
        return tuple(drawn)
