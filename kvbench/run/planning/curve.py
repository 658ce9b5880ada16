"""Prefix hits against capacity, for every policy, on one schedule: what more room is worth.

The last tier's capacity varies; all else is as configured. Of LRU all capacities come of one pass where there is one
tier (`cache.chains.distances`). Beside the policies stands the optimum: what Belady's rule, which knows the future,
finds with the room of all tiers together (`cache.chains.optimum`); no policy can find more.

What travels: one sum over ranks for each policy, of as many numbers as there are capacities.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cache.chains.distances import MOST_SAMPLES, estimated_lru_hits, looked_up, lru_hits
from kvbench.cache.chains.optimum import belady_hits, references
from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import block_bytes
from kvbench.errors import KvbenchError
from kvbench.run.planning.decisions import decide, requests_within
from kvbench.units import format_bytes
from kvbench.workload.chains import Chains
from kvbench.workload.traces import Trace

POINTS: Final = 13
"""Capacities of a curve, where their number is not given."""
MOST_POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class Capacities:
    """Sizes per rank of the last tier, rising, evenly spread on a logarithmic scale."""

    nbytes: tuple[int, ...]

    @staticmethod
    def between(low: int, high: int, points: int = POINTS) -> "Capacities":
        """Raises ValueError for a range that is none."""
        if not 0 < low < high or not 2 <= points <= MOST_POINTS:
            raise ValueError(f"expected LOW:HIGH, or LOW:HIGH:POINTS with 2 to {MOST_POINTS} points, as 1GiB:4TiB:13")
        sizes = np.geomspace(low, high, points).round().astype(np.int64)
        return Capacities(tuple(np.unique(sizes).tolist()))


@dataclass(frozen=True, slots=True)
class Curve:
    """Blocks found at each capacity, of `blocks` that were looked up, all ranks together."""

    capacities: tuple[int, ...]
    """Bytes per rank."""
    blocks: int
    hit_blocks: dict[str, tuple[int, ...]]
    """By policy: prefix hits."""
    unlimited_hit_blocks: int
    """Where the last tier is never full."""
    optimum_blocks: tuple[int, ...] | None
    """At most so many blocks can be found with so much room; None where LRU is estimated from a sample."""
    sample: float | None = None
    """The share of the blocks of each of the disjoint samples from which LRU is estimated; None: it is exact."""
    error_blocks: tuple[float, ...] | None = None
    """Of an estimate: twice the standard error of the mean of the samples, by their spread."""

    @property
    def samples(self) -> int:
        """Of an estimate: how many there are."""
        return 0 if self.sample is None else min(MOST_SAMPLES, int(1 / self.sample + 1e-9))

    def shares(self, policy: str) -> list[float]:
        """Prefix hits of `policy`, of all blocks that were looked up."""
        return [hits / max(1, self.blocks) for hits in self.hit_blocks[policy]]

    def knee(self, policy: str) -> int:
        """The position of the capacity behind which more room is worth the least (Satopaa et al., 2011): where the
        curve, drawn over the logarithm of the capacity, is highest above the line from its first to its last point."""
        x, y = np.log(self.capacities), np.array(self.shares(policy))
        if len(x) < 3 or y[-1] == y[0]:
            return 0
        return int(np.argmax((y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])))

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers, for JSON."""
        return {
            "capacity_bytes_per_rank": list(self.capacities),
            "blocks": self.blocks,
            "unlimited_hit_blocks": self.unlimited_hit_blocks,
            "optimum_hit_blocks": None if self.optimum_blocks is None else list(self.optimum_blocks),
            "estimated": None
            if self.sample is None or self.error_blocks is None
            else {
                "sample": self.sample,
                "samples": self.samples,
                "lru_error_blocks": list(self.error_blocks),
                "lru_error_share": [error / max(1, self.blocks) for error in self.error_blocks],
            },
            "policies": {
                name: {
                    "hit_blocks": list(hits),
                    "block_hit_share": self.shares(name),
                    "knee_bytes_per_rank": self.capacities[self.knee(name)],
                }
                for name, hits in self.hit_blocks.items()
            },
        }


def check_capacities(config: RunConfig, capacities: Capacities) -> None:
    """Raise KvbenchError where the smallest holds no block."""
    block = block_bytes(config)
    if capacities.nbytes[0] < block:
        raise KvbenchError(
            f"the smallest capacity, {format_bytes(capacities.nbytes[0])}, holds no block, which takes "
            f"{format_bytes(block)} ({config.cache.block_tokens} tokens): begin with more"
        )


def curve_sums(
    config: RunConfig,
    parts: Iterable[Trace],
    above: Sequence[int | None],
    capacities: Capacities,
    policies: Sequence[str],
    sample: float | None = None,
) -> NDArray[np.int64]:
    """The numbers of a curve, summed over `parts`, to be summed over ranks: see `curve_of`. `above`: bytes of the tiers
    above the last, which alone can be without an end. With `sample`, which `check_sample` must have let pass, LRU is
    estimated."""
    points, block = len(capacities.nbytes), block_bytes(config)
    sums = np.zeros((len(policies) + 3, points), np.int64)
    for part in parts:
        chains, requests = Chains(config, part), requests_within(config, part)
        # All of them at once.
        keys = chains.keys(0, requests)
        counts, lookups = chains.counts[:requests], chains.lookups[:requests]
        for number, policy in enumerate(policies):
            chosen = config.model_copy(update={"cache": config.cache.model_copy(update={"policy": policy})})
            if policy == "lru" and not above and _keeps_all(config):
                ends, room = np.cumsum(counts), [n // block for n in capacities.nbytes]
                if sample is None:
                    sums[number] += lru_hits(keys, ends, room, lookups=lookups)
                else:
                    estimate = estimated_lru_hits(keys, ends, room, sample, lookups)
                    sums[number] += np.rint(estimate.hits).astype(np.int64)
                    # Samples of one rank say nothing of those of another: their variances add up.
                    sums[-3] += np.rint(estimate.variances).astype(np.int64)
                continue
            for place, nbytes in enumerate(capacities.nbytes):
                sums[number, place] += decide(chosen, part, chains, [*above, nbytes], requests).found.sum()
        if sample is None:
            keys = references(keys, looked_up(counts, lookups))
            for place, nbytes in enumerate(capacities.nbytes):
                sums[-2, place] += belady_hits(keys, sum(size // block for size in above if size) + nbytes // block)
        sums[-1, 0] += lookups.sum()
    return sums


def check_sample(config: RunConfig, sample: float, policies: Sequence[str]) -> None:
    """Raise KvbenchError where a curve cannot be estimated from samples."""
    if not 0 < sample <= 0.5:
        raise KvbenchError(f"a sample is a share above 0 and at most 0.5, as 0.01 (given: {sample:g})")
    if tuple(policies) != ("lru",):
        raise KvbenchError("only the curve of LRU is estimated from a sample: give --policy lru, or leave --sample out")
    if len(config.tiers) > 1 or not _keeps_all(config):
        raise KvbenchError(
            "a curve is estimated from a sample where there is one tier that every block is kept on: leave --sample "
            "out, or use one tier, cache.admission=always, and neither cache.ttl_s nor cache.min_prefix_tokens"
        )


def _keeps_all(config: RunConfig) -> bool:
    """Whether every block of every request is kept where there is room, so that one pass has all capacities."""
    cache = config.cache
    return (
        cache.admission == "always"
        and cache.ttl_s is None
        and cache.min_prefix_tokens == 0
        and cache.prefetch == "none"
    )


def curve_of(
    sums: NDArray[np.int64],
    capacities: Capacities,
    policies: Sequence[str],
    unlimited: int,
    sample: float | None = None,
) -> Curve:
    """The curve of what `curve_sums` gave, summed over ranks."""
    rows: list[list[int]] = sums.tolist()
    return Curve(
        capacities=capacities.nbytes,
        blocks=rows[-1][0],
        hit_blocks={name: tuple(rows[number]) for number, name in enumerate(policies)},
        unlimited_hit_blocks=unlimited,
        optimum_blocks=tuple(rows[-2]) if sample is None else None,
        sample=sample,
        error_blocks=None if sample is None else tuple(2 * variance**0.5 for variance in rows[-3]),
    )
