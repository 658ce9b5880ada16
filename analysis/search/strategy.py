"""Which load is tried next: bracketing, bisection and then probes around the limit, from the probes so far alone.

1. *Bracketing.* From the first load up by doubling while the objectives are met, down by halving while they are not;
   where the backlog grew, down to a little below what was served.
2. *Bisection* of the logarithm of the load, until the bracket is narrow.
3. *Around the limit.* Probes fall by turns a little below and a little above the estimate, on the side that has fewer,
   until the interval is as narrow as was asked for.

At each load of 1 and 2 a sequential probability ratio test (Wald, Annals of Mathematical Statistics 16, 1945) says
after each probe whether the objective is met there, is exceeded, or whether the load has to be tried again: of odds 1.5
times those that are allowed and of their 1.5th part, with a chance of 5 % on each side. A load that three probes do not
decide is at the limit. A wrong answer costs probes and no more: limit and interval come from all probes (`limit`).

The same probes give the same next load, so that a search that ended early goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from kvbench_analysis.search.limit import SEVERAL, TAIL, Limit, Served, capacity, limit_of, lowest, saturated
from kvbench_analysis.search.response import Response, Tried

Verdict = Literal["met", "exceeded", "open"]

_INDIFFERENT: Final = 1.5
"""Factor on the odds of the allowed share."""
_INDIFFERENT_OF_MEAN: Final = 1.1
_CHANCE: Final = 0.05
_EXPECTED: Final = 5.0
"""Requests over the bound, in all probes at a load whose share is just allowed, for the test to decide it."""
_AGAIN: Final = 3
"""Probes at most that a load has for the test."""
_NARROW: Final = 1.25
"""Of a bracket: its upper end by its lower."""
_FEWEST: Final = 8
"""Probes near the limit, before an interval is believed to be as narrow as it says."""
_NEAR: Final = 1.3
_SAME: Final = 1.03
"""Of two limits."""
_FAR: Final = 1.5
"""Above the estimate: what was kept up with there was by chance, and a little more is not."""
_CLEARLY: Final = 0.06
_FARTHEST: Final = 0.08
"""From the estimate to a probe beside it, of the logarithm of the load."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What one run at one load said."""

    load: float
    tried: tuple[Tried, ...]
    """One for each objective."""
    grew: bool
    """The backlog grew: what came was not served."""
    offered_per_s: float
    served_per_s: float
    """Requests."""

    @property
    def served(self) -> Served:
        """What came and what was done."""
        return Served(self.load, self.grew, self.offered_per_s, self.served_per_s)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where is searched, and how long."""

    low: float
    high: float
    start: float
    whole: bool
    """Only whole loads are there: users."""
    precision: float
    """Half of the interval by the estimate, that is asked for."""
    most: int
    """Probes."""


Outcome = Literal["searching", "found", "wide", "never-met", "never-exceeded"]


def overall(probes: Sequence[Probe], responses: Sequence[Response]) -> Limit:
    """The limit of all objectives, and of what can be served."""
    tail = TAIL / (len(responses) + 1)
    limits = [limit_of([probe.tried[n] for probe in probes], each, tail) for n, each in enumerate(responses)]
    served = capacity([probe.served for probe in probes], tail)
    return lowest([*limits, served])


def verdict(probes: Sequence[Probe], responses: Sequence[Response]) -> Verdict:
    """Of probes at one load."""
    if any(probe.grew for probe in probes):
        return "exceeded"
    scores = [_score([probe.tried[n] for probe in probes], each) for n, each in enumerate(responses)]
    enough = float(np.log((1 - _CHANCE) / _CHANCE))
    if max(scores) >= enough:
        return "exceeded"
    if max(scores) <= -enough:
        return "met"
    many = sum(min(probe.tried[n].requests for n in range(len(responses))) for probe in probes)
    allowed = min((each.allowed for each in responses if each.allowed is not None), default=1.0)
    if len(probes) >= _AGAIN and many * allowed < _EXPECTED:
        # So few requests that no number of them over the bound decides anything.
        return "met" if max(scores) < 0 else "exceeded"
    return "open"


def _score(tried: Sequence[Tried], response: Response) -> float:
    """The logarithm of the likelihood ratio, of exceeded to met."""
    weights = response.weight(tried)
    if response.allowed is None:
        apart = float(np.log(_INDIFFERENT_OF_MEAN))
        return float(2 * apart * (weights * np.array([each.value for each in tried])).sum())
    odds = response.allowed / (1 - response.allowed)
    more, less = (odds * factor / (1 + odds * factor) for factor in (_INDIFFERENT, 1 / _INDIFFERENT))
    over = np.array([each.value for each in tried])
    ratio = over * np.log(more / less) + (1 - over) * np.log((1 - more) / (1 - less))
    return float((weights * ratio).sum())


def next_load(probes: Sequence[Probe], responses: Sequence[Response], bounds: Bounds) -> tuple[float | None, Outcome]:
    """The load to try next; None where the search is over, and how it ended."""
    if not probes:
        return rounded(bounds.start, bounds), "searching"
    tried = _Tried.of(probes, responses)
    ended = tried.ended(bounds)
    if ended is not None:
        return None, ended
    limit = overall(probes, responses)
    if len(probes) >= bounds.most:
        return None, "found" if limit.width <= bounds.precision else "wide"
    wanted = tried.bracketing(bounds)
    return (wanted, "searching") if wanted is not None else _beside(probes, limit, bounds)


@dataclass(frozen=True, slots=True)
class _Tried:
    """What has been tried, by load."""

    at: dict[float, list[Probe]]
    met: list[float]
    exceeded: list[float]
    undecided: list[float]

    @classmethod
    def of(cls, probes: Sequence[Probe], responses: Sequence[Response]) -> "_Tried":
        at: dict[float, list[Probe]] = {}
        for probe in probes:
            at.setdefault(probe.load, []).append(probe)
        loads: dict[Verdict, list[float]] = {"met": [], "exceeded": [], "open": []}
        for load, those in at.items():
            loads[verdict(those, responses)].append(load)
        return cls(at, loads["met"], loads["exceeded"], loads["open"])

    def ended(self, bounds: Bounds) -> Outcome | None:
        """How the search ended at one of its bounds; None where it did not."""
        if not self.exceeded and bounds.high in self.met:
            return "never-exceeded"
        return "never-met" if not self.met and bounds.low in self.exceeded else None

    def bracketing(self, bounds: Bounds) -> float | None:
        """The next load of bracketing and bisection; None where the bracket is narrow."""
        low, high = self.bracket()
        decided = sum(map(bool, (self.met, self.exceeded, self.undecided))) > 1 or len(self.undecided) > 1
        again = [load for load in self.undecided if len(self.at[load]) < _AGAIN]
        if again and not (decided and high <= _NARROW * low):
            return again[-1]
        if not self.exceeded and not self.undecided:
            return rounded(2 * max(self.met), bounds)
        if not self.met and not self.undecided:
            return rounded(_down(self.at[min(self.exceeded)]), bounds)
        if low <= 0 or high <= _NARROW * low or (bounds.whole and high - low <= 1):
            return None
        middle = rounded(float(np.sqrt(low * high)), bounds)
        return None if middle in self.at else middle

    def bracket(self) -> tuple[float, float]:
        """Between which loads the limit lies: what is undecided is at it."""
        if self.undecided:
            return min(self.undecided), max(self.undecided)
        high = min(self.exceeded, default=float("inf"))
        return max((load for load in self.met if load < high), default=0.0), high


def _down(probes: Sequence[Probe]) -> float:
    """Below a load that was exceeded: half, or where the backlog grew a little below what was served."""
    load = probes[0].load
    share = float(np.mean([probe.served_per_s / max(probe.offered_per_s, 1e-9) for probe in probes]))
    return load * min(0.95 * share, 0.95) if any(probe.grew for probe in probes) and share > 0.05 else load / 2


def _beside(probes: Sequence[Probe], limit: Limit, bounds: Bounds) -> tuple[float | None, Outcome]:
    """Around the estimate, or the end."""
    estimate = limit.estimate
    if not np.isfinite(estimate):
        estimate = float(np.exp(np.mean(np.log([probe.load for probe in probes[-2:]]))))
    near = [probe.load for probe in probes if estimate / _NEAR <= probe.load <= estimate * _NEAR]
    same = bounds.whole and limit.low > 0 and np.floor(limit.low) == np.floor(limit.high)
    if len(near) >= _FEWEST and (limit.width <= bounds.precision or same):
        return None, "found"
    apart = min(max(limit.width if np.isfinite(limit.width) else _FARTHEST, bounds.precision / 2), _FARTHEST)
    below = sum(load < estimate for load in near)
    side = -1 if below <= len(near) - below else 1
    served = [probe.served for probe in probes]
    if side > 0 and capacity(served).estimate <= estimate * _SAME:
        # At what can be served, a probe says most that is clearly above.
        clear = saturated(served)
        if clear and len(clear) < SEVERAL:
            return min(probe.load for probe in clear), "searching"
        apart = max(apart, _CLEARLY)
        beyond = max(apart, _beyond(probes, estimate))
        if not clear and (estimate * float(np.exp(beyond)) <= bounds.high or _tells(probes, bounds.high)):
            apart = beyond
    wanted = estimate * float(np.exp(side * apart))
    if bounds.whole:
        wanted = np.floor(min(wanted, estimate)) if side < 0 else np.ceil(max(wanted, estimate))
    return rounded(float(min(max(wanted, bounds.low), bounds.high)), bounds), "searching"


def _beyond(probes: Sequence[Probe], estimate: float) -> float:
    """How far above the estimate a backlog is sure to be seen: farther than all that was kept up with there."""
    kept = max((probe.load for probe in probes if not probe.grew and probe.load <= estimate * _FAR), default=estimate)
    return float(np.log(max(kept / estimate, 1.0))) + _CLEARLY


def _tells(probes: Sequence[Probe], load: float) -> bool:
    """Whether a backlog is likely to be seen at the highest load that there is."""
    there = [probe.grew for probe in probes if probe.load >= load]
    return 3 * sum(there) >= 2 * len(there)


def rounded(load: float, bounds: Bounds) -> float:
    """To three digits, as they are read and asked for again, or to a whole number; within the bounds."""
    near = float(round(load)) if bounds.whole else float(f"{load:.3g}")
    return min(max(near, bounds.low), bounds.high)
