"""A server in simulated time that all operations in flight share, as a storage model describes it."""

import heapq
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.records.storage_model import PROBABILITIES, Times

NEVER_NS: Final = 2**63 - 1
_DRAWN: Final = 4096
"""Works that are drawn at once."""


class _Kind:
    """Operations of one kind, all of which advance alike."""

    def __init__(self, times: Times, draw: int, counts: bool) -> None:
        self.rates: list[float] = (1 / (times.seconds[draw] * 1e9)).tolist()
        self.works = times.works
        self.counts = counts
        self.advanced = 0.0
        """Work that each of them has done since the start."""
        self.ends: list[tuple[float, int, Any]] = []
        """A heap of (advance at which it is done, number, token)."""
        self.drawn: dict[int, list[float]] = {}
        self.most = 0
        """In flight when one of them began, at most, itself included."""


class Station:
    """What is begun here ends when its work is done; the more is in flight, the slower all advance.

    Times are ns. A kind that is not known takes no time.
    """

    def __init__(
        self, kinds: Mapping[str, Times], draw: int, uncounted: Collection[str] | None, rng: np.random.Generator
    ) -> None:
        """`draw`: which of the estimates (0: the first). `uncounted`: kinds that others do not have beside them; None:
        all, and the load is what `join` says."""
        self._kinds = {
            name: _Kind(times, draw, uncounted is not None and name not in uncounted) for name, times in kinds.items()
        }
        self._beside = 0 if uncounted is None else 1
        self._rng = rng
        self._numbers = 0
        self._now_ns = 0.0
        self.in_flight = 0
        """Of those that count."""
        self.unknown: set[str] = set()
        """Kinds that were begun and are not known."""
        self.busy_ns = 0.0
        """With at least one in flight."""
        self.version = 0
        """Grows whenever `next_ns` may have changed."""

    def begin(self, kind: str, now_ns: int, token: Any) -> bool:
        """An operation begins, and `token` is given back when it ends. False: it is over at once."""
        known = self._kinds.get(kind)
        if known is None:
            self.unknown.add(kind)
            return False
        self._advance(now_ns)
        self.in_flight += known.counts
        load = self._load(known)
        known.most = max(known.most, self.in_flight + (0 if known.counts else self._beside))
        self._numbers += 1
        heapq.heappush(known.ends, (known.advanced + self._work(known, load), self._numbers, token))
        self.version += 1
        return True

    def join(self, now_ns: int, change: int = 1) -> None:
        """So many more are at work here, whether or not they have anything in flight."""
        self._advance(now_ns)
        self.in_flight += change
        self.version += 1

    def most(self) -> dict[str, int]:
        """By kind: how many were in flight at most when one began, itself included."""
        return {name: kind.most for name, kind in self._kinds.items() if kind.most}

    def next_ns(self) -> int:
        """When the next one ends, if nothing begins before; NEVER_NS: nothing is in flight."""
        first = min((self._left_ns(kind) for kind in self._kinds.values() if kind.ends), default=None)
        return NEVER_NS if first is None else int(self._now_ns + first) + 1

    def end(self, now_ns: int) -> list[Any]:
        """The tokens of those that are over by now, in the order of their ends."""
        self._advance(now_ns)
        over: list[tuple[int, Any]] = []
        for kind in self._kinds.values():
            while kind.ends and kind.ends[0][0] <= kind.advanced:
                _, number, token = heapq.heappop(kind.ends)
                over.append((number, token))
                self.in_flight -= kind.counts
        self.version += 1
        return [token for _, token in sorted(over, key=lambda each: each[0])]

    def _left_ns(self, kind: _Kind) -> float:
        return max(0.0, kind.ends[0][0] - kind.advanced) / self._rate(kind)

    def _rate(self, kind: _Kind) -> float:
        """Work that each of a kind does in a nanosecond."""
        return kind.rates[min(self._load(kind), len(kind.rates)) - 1]

    def _load(self, kind: _Kind) -> int:
        """What one of a kind sees in flight, itself included."""
        return max(1, self.in_flight if kind.counts else self.in_flight + self._beside)

    def _advance(self, now_ns: int) -> None:
        passed = now_ns - self._now_ns
        if passed <= 0:
            return
        for kind in self._kinds.values():
            if kind.ends:
                kind.advanced += passed * self._rate(kind)
        if self.in_flight:
            self.busy_ns += passed
        self._now_ns = now_ns

    def _work(self, kind: _Kind, load: int) -> float:
        place = min(load, len(kind.works)) - 1
        drawn = kind.drawn.get(place)
        if not drawn:
            drawn = kind.drawn[place] = _works(kind.works[place], self._rng)
        return drawn.pop()


def _works(quantiles: NDArray[np.float64], rng: np.random.Generator) -> list[float]:
    """Draws from a distribution that is given by its quantiles."""
    found: list[float] = np.interp(rng.random(_DRAWN), PROBABILITIES, quantiles).tolist()
    return found
