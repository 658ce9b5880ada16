"""What hits cost in writes: for every way to admit, to write and to evict, and every capacity, how many of the blocks
looked up are found, and how many bytes a day the last tier is written. Decided, not measured.

The frontier are those that none of the others beats: no other finds as much and writes less, or more and no more. As
more room mostly finds more and writes less, there is one of every capacity too.

What travels: one sum over ranks of two numbers for each of them.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from kvbench.config.names import CACHE_ADMISSIONS
from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import block_bytes
from kvbench.records.endurance import DAY_S, RatedDrives, drive_writes_per_day
from kvbench.run.planning.curve import Capacities, check_capacities
from kvbench.run.planning.decisions import decide, requests_within
from kvbench.workload.chains import Chains
from kvbench.workload.traces import Trace

WRITES: Final[tuple[Literal["write-back", "write-through"], ...]] = ("write-back", "write-through")


@dataclass(frozen=True, slots=True)
class FrontierOrder:
    """What is decided anew."""

    capacities: Capacities | None
    """Of each rank's last tier; None: as the plan has it alone."""
    policies: Sequence[str] | None
    """None: that of the configuration."""
    min_prefix_tokens: Sequence[int]
    """Beside the admissions: every block of a context that has so many tokens at least."""


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways to keep blocks."""

    admission: str
    """One of CACHE_ADMISSIONS, or `from N tokens`."""
    min_prefix_tokens: int
    write: Literal["write-back", "write-through"]
    policy: str
    capacity_bytes: int | None
    """Of each rank's last tier; None: never full."""

    def of(self, config: RunConfig) -> RunConfig:
        """The configuration that is decided so."""
        admission = self.admission if self.admission in CACHE_ADMISSIONS else "always"
        changes = {
            "admission": admission,
            "min_prefix_tokens": self.min_prefix_tokens,
            "write": self.write,
            "policy": self.policy,
        }
        return config.model_copy(update={"cache": config.cache.model_copy(update=changes)})


@dataclass(frozen=True, slots=True)
class Point:
    """What came of one way, all ranks together."""

    way: Way
    hit_blocks: int
    written_bytes: int
    """To the last tier."""
    on_frontier: bool
    """Of all."""
    best_of_capacity: bool
    """On the frontier of those with its capacity."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """All ways, of `blocks` that were looked up by `requests`."""

    points: tuple[Point, ...]
    blocks: int
    requests: int
    ranks: int

    def hit_share(self, point: Point) -> float:
        return point.hit_blocks / max(1, self.blocks)

    def per_day(self, point: Point, requests_per_s: float) -> float:
        """Bytes that are written a day where so many requests come a second."""
        return point.written_bytes / max(1, self.requests) * requests_per_s * DAY_S

    def as_dict(self, requests_per_s: float | None, rated: RatedDrives | None) -> dict[str, Any]:
        """Everything as numbers, for JSON; figures of a day are null where nobody says how many requests come."""
        return {
            "blocks": self.blocks,
            "requests": self.requests,
            "requests_per_s": requests_per_s,
            "points": [self._point(point, requests_per_s, rated) for point in self.points],
        }

    def _point(self, point: Point, requests_per_s: float | None, rated: RatedDrives | None) -> dict[str, Any]:
        day = None if requests_per_s is None else self.per_day(point, requests_per_s)
        way, room = point.way, (point.way.capacity_bytes or 0) * self.ranks
        return {
            "admission": way.admission,
            "min_prefix_tokens": way.min_prefix_tokens,
            "write": way.write,
            "policy": way.policy,
            "capacity_bytes_per_rank": way.capacity_bytes,
            "hit_blocks": point.hit_blocks,
            "block_hit_share": self.hit_share(point),
            "written_bytes": point.written_bytes,
            "written_bytes_per_request": point.written_bytes / max(1, self.requests),
            "written_bytes_per_day": day,
            "capacity_writes_per_day": None if day is None else drive_writes_per_day(day, room),
            "rated": None if day is None or rated is None else rated.as_dict(day),
            "on_frontier": point.on_frontier,
            "best_of_capacity": point.best_of_capacity,
        }


def ways_of(config: RunConfig, order: FrontierOrder, last_bytes: int | None) -> list[Way]:
    """All that are decided; `last_bytes` is the capacity where the order has none. With one tier a block can only be
    written at once, however it is called."""
    if order.capacities is not None:
        check_capacities(config, order.capacities)
    own = config.cache.min_prefix_tokens
    admissions = [(name, own) for name in CACHE_ADMISSIONS]
    admissions += [(f"from {tokens} tokens", tokens) for tokens in order.min_prefix_tokens if tokens > own]
    writes = WRITES if len(config.tiers) > 1 else (config.cache.write,)
    policies = order.policies or ("lru" if config.cache.policy == "waterfall-lru" else config.cache.policy,)
    sizes = (last_bytes,) if order.capacities is None else order.capacities.nbytes
    chosen = itertools.product(admissions, writes, policies, sizes)
    return [Way(admission, tokens, write, policy, size) for (admission, tokens), write, policy, size in chosen]


def frontier_sums(
    config: RunConfig, parts: Iterable[Trace], above: Sequence[int | None], ways: Sequence[Way]
) -> NDArray[np.int64]:
    """(ways, 2): blocks found, and blocks written to the last tier, of `parts`; to be summed over ranks. `above`: bytes
    of the tiers above the last."""
    sums = np.zeros((len(ways), 2), np.int64)
    for part in parts:
        chains, requests = Chains(config, part), requests_within(config, part)
        for number, way in enumerate(ways):
            chosen = way.of(config)
            # What is stored of a context depends on how long it has to be.
            of_way = chains if way.min_prefix_tokens == config.cache.min_prefix_tokens else Chains(chosen, part)
            decided = decide(chosen, part, of_way, [*above, way.capacity_bytes], requests)
            sums[number] += (decided.found.sum(), decided.written[-1])
    return sums


def frontier_of(
    config: RunConfig, ways: Sequence[Way], sums: NDArray[np.int64], blocks: int, requests: int, ranks: int
) -> Frontier:
    """Of what `frontier_sums` gave, over all ranks."""
    nbytes = block_bytes(config) * config.tensor_parallel
    front, best = undominated(sums[:, 0], sums[:, 1]), np.zeros(len(ways), np.bool_)
    for capacity in {way.capacity_bytes for way in ways}:
        own = np.array([way.capacity_bytes == capacity for way in ways])
        best[own] = undominated(sums[own, 0], sums[own, 1])
    points = zip(ways, sums.tolist(), front.tolist(), best.tolist(), strict=True)
    return Frontier(
        tuple(Point(way, hits, written * nbytes, of_all, of_own) for way, (hits, written), of_all, of_own in points),
        blocks,
        requests,
        ranks,
    )


def undominated(found: NDArray[np.int64], written: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of them no other beats: finds at least as much, writes at most as much, and one of the two strictly."""
    as_good = (found[:, None] >= found) & (written[:, None] <= written)
    better = as_good & ((found[:, None] > found) | (written[:, None] < written))
    return np.asarray(~better.any(axis=0))
