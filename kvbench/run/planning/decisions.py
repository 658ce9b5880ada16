"""What the requests of one rank come to in a cache of a size: the decisions of a run, counted and not carried out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.cache.chains import ChainCache
from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import chain_settings
from kvbench.engine.prefix_hits import prefix_sums
from kvbench.workload.chains import Chains
from kvbench.workload.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Decided:
    """What the decisions on the requests of one rank come to; T tiers, fastest first."""

    requests: int
    found: NDArray[np.int64]
    """(T,) Blocks that were found, by the tier that they are read from."""
    found_by_request: NDArray[np.int64]
    """(requests,) Blocks that were found."""
    written: NDArray[np.int64]
    """(T,) Blocks that were written to each tier, those that were moved there included."""
    read: NDArray[np.int64]
    """(T,) Blocks that were read from each tier, those that were moved from there included."""
    promoted: NDArray[np.int64]
    """(T,) Blocks that were moved up from each tier as they were read."""
    deleted: NDArray[np.int64]
    """(T,) Blocks that left each tier without being moved."""
    prefix: NDArray[np.int64]
    """Requests, blocks and tokens of each of `engine.prefix_hits.prefix_kinds`."""
    held: NDArray[np.int64]
    """(T,) Blocks on each tier at the end."""
    most_blocks: int
    """Different blocks that were held at a time, at most."""

    @property
    def operations(self) -> int:
        """Of a run that carries the decisions out: a move, up or down, is one."""
        return int((self.found + self.written - self.promoted + self.deleted).sum())


def decide(config: RunConfig, part: Trace, chains: Chains, capacities: Sequence[int | None], requests: int) -> Decided:
    """Decide the first `requests` of a rank's `part` of a trace; tiers have `capacities` bytes (None: never full)."""
    settings = chain_settings(config, capacities)
    cache, tiers = ChainCache(settings), len(settings.tiers)
    counts = np.zeros((requests, 4 * tiers + 4), np.int64)
    most = 0
    for first, end in chains.pieces(requests):
        lengths = chains.counts[first:end]
        cache.play(
            chains.keys(first, end),
            np.cumsum(lengths),
            lengths,
            chains.stored[first:end],
            part.arrival_ns[first:end],
            counts[first:end],
        )
        most = max(most, cache.blocks)
    sums = counts.sum(axis=0)
    moves_up = settings.promote and settings.tiers[0].blocks > 0
    return Decided(
        requests=requests,
        found=sums[:tiers],
        found_by_request=counts[:, :tiers].sum(axis=1),
        written=sums[tiers : 2 * tiers],
        read=sums[2 * tiers : 3 * tiers],
        promoted=np.where(np.arange(tiers) > 0, sums[:tiers], 0) if moves_up else np.zeros(tiers, np.int64),
        deleted=sums[3 * tiers : 4 * tiers],
        prefix=prefix_sums(
            counts[:, :tiers],
            counts[:, 4 * tiers : -1],
            counts[:, -1],
            part.context_tokens[:requests].astype(np.int64),
            chains.block_tokens,
        ),
        held=np.array(cache.held),
        most_blocks=most,
    )


def requests_within(config: RunConfig, part: Trace) -> int:
    """How many requests of `part` arrive before the run ends; all, where they do not wait for their time."""
    if config.duration_s is None or config.pacing.mode != "open":
        return len(part)
    end_ns = (config.warmup_s + config.duration_s) * 1e9 * config.pacing.speedup
    return int(np.searchsorted(part.arrival_ns, end_ns, side="right"))
