"""When the sessions of a rank begin, where not when the trace says: a process of arrivals, the same on every machine.

What arrives is a session; a request of none is one by itself. Its later turns keep their distance in time. Numbers are
drawn from (seed + rank), and only added, multiplied, divided and rooted, which is exact everywhere (IEEE 754). Nothing
here waits.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Final, NamedTuple

import numpy as np

from kvbench.config.run_config import Arrivals, RunConfig
from kvbench.workload.draws import UNIT, Draws, stream_generator
from kvbench.workload.traces.trace import Trace

_NS: Final = 1e9
_ENDLESS: Final = math.inf
_STREAM: Final = 2
"""Of the numbers that seed it: no other stream has these."""
_KNOTS: Final = 4096
"""Of a table of quantiles: evenly spread below, and again so within the last of them."""
_DIGITS: Final = 10
"""Of a quantile that count: what comes behind may differ between versions of a mathematics library."""


def retimed(config: RunConfig, part: Trace, rank: int) -> Trace:
    """`part`, a rank's part of a trace, with sessions that begin when `config.arrivals` says, in order of arrival."""
    if config.arrivals.process == "trace" or not len(part):
        return part
    alone = part.session < 0
    # Sessions in order of their first requests, each request without one a session of its own.
    named = np.where(alone, -1 - np.arange(len(part)), part.session)
    _, first, which = np.unique(named, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    begins = np.empty(len(first), np.int64)
    draws = Draws(stream_generator(config.seed + rank, 0, _STREAM))
    begins[order] = np.fromiter(times_ns(config.arrivals, draws), np.int64, len(first))
    arrival_ns = begins[which] + part.arrival_ns - part.arrival_ns[first][which]
    by_time = np.argsort(arrival_ns, kind="stable")
    return replace(part.take(by_time), arrival_ns=arrival_ns[by_time])


def times_ns(arrivals: Arrivals, draws: Draws) -> Iterator[int]:
    """The times (ns, never falling) of one arrival after the other, without end."""
    rate = arrivals.rate or 0.0
    match arrivals.process:
        case "constant":
            return (round(number / rate * _NS) for number in itertools.count())
        case "bursts":
            burst = arrivals.burst or 1
            return (round(number // burst * burst / rate * _NS) for number in itertools.count())
        case "gamma":
            return _gamma(rate, arrivals.cv or 1.0, draws)
        case "steps" | "ramp":
            return _following(arrivals, draws)
        case _:
            return (round(passed / rate * _NS) for passed in _exponentials(draws))


def _exponentials(draws: Draws) -> Iterator[float]:
    """The arrivals of a Poisson process of rate 1."""
    passed = 0
    while True:
        passed += draws.exponential()
        yield passed / UNIT


def _gamma(rate: float, cv: float, draws: Draws) -> Iterator[int]:
    """Times between arrivals are gamma distributed, of shape 1 / cv^2: by a table of quantiles, scaled to the mean."""
    # What ranks run does not load scipy, which takes longer than all else, where nobody asks for it.
    gammaincinv = import_module("scipy.special").gammaincinv
    shape = 1 / cv**2
    even = np.arange(_KNOTS) / _KNOTS
    below = gammaincinv(shape, even)
    # The last stretch has knots of its own; behind the very last, which has no end, it goes on as before.
    tail = gammaincinv(shape, 1 - (1 - even) / _KNOTS)
    tail = np.append(tail, 2 * tail[-1] - tail[-2])
    below = np.append(below, tail[0])
    below, tail = (np.array([float(f"{value:.{_DIGITS}g}") for value in table]) for table in (below, tail))
    means = (below[:-1] + below[1:]) / 2, (tail[:-1] + tail[1:]) / 2
    mean = float(f"{(means[0][:-1].sum() + means[1].mean()) / _KNOTS:.{_DIGITS}g}")
    passed = 0.0
    while True:
        place = draws.bits() / UNIT * _KNOTS
        knot, table = int(place), below
        if knot == _KNOTS - 1:
            place = (place - knot) * _KNOTS
            knot, table = int(place), tail
        passed += (table[knot] + (place - knot) * (table[knot + 1] - table[knot])) / mean
        yield round(passed / rate * _NS)


class _Stretch(NamedTuple):
    """Between two steps."""

    start_s: float
    length_s: float
    rate: float
    """At its start."""
    slope: float
    """By which the rate changes in a second."""

    @property
    def expected(self) -> float:
        """Arrivals."""
        if self.length_s == _ENDLESS:
            return _ENDLESS
        return self.length_s * (self.rate + self.slope * self.length_s / 2)

    def when(self, arrivals: float) -> float:
        """The time (s) by which so many are expected: the root of rate x t + slope x t^2 / 2 = arrivals."""
        if arrivals == 0:
            return self.start_s
        root = math.sqrt(max(0.0, self.rate**2 + 2 * self.slope * arrivals))
        return self.start_s + 2 * arrivals / (self.rate + root)


def _following(arrivals: Arrivals, draws: Draws) -> Iterator[int]:
    """A Poisson process whose rate follows `steps`: one of rate 1, on the scale of the arrivals expected by a time."""
    stretches = _stretches(arrivals)
    stretch, before = next(stretches), 0.0
    for wanted in _exponentials(draws):
        while wanted - before > stretch.expected:
            before += stretch.expected
            stretch = next(stretches)
        yield round(stretch.when(wanted - before) * _NS)


def _stretches(arrivals: Arrivals) -> Iterator[_Stretch]:
    steps = arrivals.steps or ()
    for (start_s, rate), (end_s, following) in itertools.pairwise(steps):
        slope = (following - rate) / (end_s - start_s) if arrivals.process == "ramp" else 0.0
        yield _Stretch(start_s, end_s - start_s, rate, slope)
    yield _Stretch(steps[-1][0], _ENDLESS, steps[-1][1], 0.0)
