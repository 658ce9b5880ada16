"""How near made-up sessions come to the trace that they were fitted to: distributions, and what a prefix cache finds.

Contexts alone are stored, on both sides: not every trace says what was answered. Several populations are drawn, since a
trace of few sessions is one of many that might have been: distributions are of all of them together, curves of each.
Nothing is read or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cache.chains.distances import lru_hits
from kvbench.config.run_config import RunConfig
from kvbench.workload.sessions import made_part
from kvbench.workload.sessions.seen import sessions_of
from kvbench.workload.traces.trace import Trace

POPULATIONS: Final = 12
_POINTS: Final = 12
_FEWEST_BLOCKS: Final = 256
_PERCENTILES: Final = np.arange(0, 100.5, 0.5)
_UNITS: Final = {
    "context": "tokens",
    "new in a turn": "tokens",
    "answer": "tokens",
    "turns of a session": "turns",
    "gap before a turn": "s",
    "found by prefix": "% of the context",
}
"""What is compared, in this order."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One quantity, in the trace and made up."""

    name: str
    unit: str
    recorded: NDArray[np.float64]
    """One for each request, turn or session."""
    made_up: NDArray[np.float64]
    """Of all populations."""

    @property
    def distance(self) -> float:
        """The largest difference of the two distribution functions (Kolmogorov and Smirnov's), 0 to 1."""
        every = np.unique(np.concatenate([self.recorded, self.made_up]))
        below = [
            np.searchsorted(np.sort(values), every, side="right") / max(1, len(values))
            for values in (self.recorded, self.made_up)
        ]
        return float(np.abs(below[0] - below[1]).max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Likeness:
    """A trace, and P populations that were made up with the parameters that fit it."""

    compared: tuple[Compared, ...]
    capacity_blocks: NDArray[np.int64]
    """(K,) Of an LRU of blocks; the same for all."""
    block_tokens: int
    recorded_curve: NDArray[np.float64]
    """(K,) Blocks found by prefix, of all of contexts that have a name."""
    made_up_curves: NDArray[np.float64]
    """(P, K)"""
    recorded_unlimited: float
    """Of an LRU that is never full."""
    made_up_unlimited: NDArray[np.float64]
    """(P,)"""
    recorded_requests: int
    made_up_requests: NDArray[np.int64]
    """(P,)"""

    @property
    def curve_distances(self) -> NDArray[np.float64]:
        """(K,) Of the mean of the made-up curves from the recorded one."""
        distances: NDArray[np.float64] = self.made_up_curves.mean(axis=0) - self.recorded_curve
        return distances

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers: what is drawn, and JSON."""
        return {
            "populations": len(self.made_up_curves),
            "requests": self.recorded_requests,
            "made_up_requests": self.made_up_requests.tolist(),
            "compared": [
                {
                    "name": one.name,
                    "unit": one.unit,
                    "distance": one.distance,
                    "percentiles": _PERCENTILES.tolist(),
                    "recorded": np.percentile(one.recorded, _PERCENTILES).tolist(),
                    "made_up": np.percentile(one.made_up, _PERCENTILES).tolist(),
                    "recorded_mean": float(one.recorded.mean()),
                    "made_up_mean": float(one.made_up.mean()),
                }
                for one in self.compared
            ],
            "curve": {
                "block_tokens": self.block_tokens,
                "capacity_blocks": self.capacity_blocks.tolist(),
                "recorded": self.recorded_curve.tolist(),
                "made_up": self.made_up_curves.tolist(),
                "recorded_unlimited": self.recorded_unlimited,
                "made_up_unlimited": self.made_up_unlimited.tolist(),
            },
        }


def likeness(trace: Trace, config: RunConfig, populations: int = POPULATIONS) -> Likeness:
    """Compare `trace` with `populations` that `config`, whose workload is sessions, makes up: those of its first ranks.

    Raises KvbenchError where the trace has no sessions or no ids."""
    trace = trace.without_answers()
    capacities = _capacities(trace)
    recorded = _quantities(trace)
    made: list[dict[str, NDArray[np.float64]]] = []
    curves, unlimited, requests = [], [], []
    for number in range(populations):
        part = made_part(config, number).without_answers()
        made.append(_quantities(part))
        curves.append(_found(part, capacities))
        unlimited.append(_found(part, [len(part.hash_ids)])[0])
        requests.append(len(part))
    return Likeness(
        compared=tuple(
            Compared(name, unit, recorded[name], np.concatenate([one[name] for one in made]))
            for name, unit in _UNITS.items()
            if len(recorded[name]) and any(len(one[name]) for one in made)
        ),
        capacity_blocks=np.array(capacities),
        block_tokens=trace.hash_block_tokens,
        recorded_curve=_found(trace, capacities),
        made_up_curves=np.stack(curves),
        recorded_unlimited=float(_found(trace, [len(trace.hash_ids)])[0]),
        made_up_unlimited=np.array(unlimited),
        recorded_requests=len(trace),
        made_up_requests=np.array(requests),
    )


def _capacities(trace: Trace) -> list[int]:
    """Blocks, from few to as many as there are, evenly spread on a logarithmic scale."""
    most = max(2 * _FEWEST_BLOCKS, len(np.unique(trace.hash_ids)))
    return [*map(int, np.unique(np.geomspace(_FEWEST_BLOCKS, most, _POINTS).round()))]


def _found(trace: Trace, capacities: Sequence[int]) -> NDArray[np.float64]:
    """(K,) The share of all named blocks of contexts that an LRU of each capacity finds by prefix."""
    shares: NDArray[np.float64] = lru_hits(trace.hash_ids, trace.hash_offsets[1:], capacities) / len(trace.hash_ids)
    return shares


def _quantities(trace: Trace) -> dict[str, NDArray[np.float64]]:
    """What is compared, by name."""
    sessions = sessions_of(trace)
    news = [(session.context_tokens - session.kept_tokens)[1:] for session in sessions]
    values = (
        trace.context_tokens,
        np.concatenate(news),
        trace.output_tokens,
        np.array([len(session.requests) for session in sessions]),
        np.concatenate([session.gap_ns for session in sessions]) / 1e9,
        100 * _found_of_each(trace),
    )
    return {name: np.asarray(value, np.float64) for name, value in zip(_UNITS, values, strict=True)}


def _found_of_each(trace: Trace) -> NDArray[np.float64]:
    """(n,) The share of each request's context that a cache which is never full finds by prefix."""
    _, first_use, which = np.unique(trace.hash_ids, return_index=True, return_inverse=True)
    starts = np.repeat(trace.hash_offsets[:-1], trace.hash_counts)
    missing = first_use[which] >= starts
    place = np.arange(len(missing)) - starts
    first_missing = trace.hash_counts.copy()
    request = np.repeat(np.arange(len(trace)), trace.hash_counts)
    np.minimum.at(first_missing, request[missing], place[missing])
    shares: NDArray[np.float64] = first_missing * trace.hash_block_tokens / trace.context_tokens
    return shares
