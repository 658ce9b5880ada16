"""What the requests of one rank come to in a cache of a size: the decisions of a run, counted and not carried out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.cache.chains import PREFETCH, ChainCache
from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import chain_settings
from kvbench.engine.prefix_hits import prefix_sums
from kvbench.workload.chains import Chains
from kvbench.workload.traces.trace import Trace
from kvbench.workload.turns import Rows, rows_of


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
    asked_for: int
    """Blocks that the filesystem of the last tier is asked for, where it is asked at all: those found there, and the
    first of each request that was missing."""
    copied: int
    """Blocks that were read ahead for a modelled tier, at most."""

    @property
    def operations(self) -> int:
        """Of a run that carries the decisions out: a move, up or down, is one."""
        return int((self.found + self.written - self.promoted + self.deleted).sum()) + self.copied


def decide(config: RunConfig, part: Trace, chains: Chains, capacities: Sequence[int | None], requests: int) -> Decided:
    """Decide the first `requests` of a rank's `part` of a trace; tiers have `capacities` bytes (None: never full)."""
    settings = chain_settings(config, capacities)
    cache, tiers = ChainCache(settings), len(settings.tiers)
    rows = rows_within(config, part, requests)
    counts = np.zeros((len(rows.position), 4 * tiers + 4), np.int64)
    most = 0
    for first, end in chains.pieces(rows.position):
        piece = rows.at(slice(first, end))
        keys, lengths = chains.of_rows(piece)
        cache.play(
            keys,
            np.cumsum(lengths),
            np.where(piece.prefetch, 0, chains.lookups[piece.position]),
            np.where(piece.prefetch, PREFETCH, chains.stored[piece.position]),
            piece.time_ns,
            counts[first:end],
        )
        most = max(most, cache.blocks)
    ahead, counts = counts[rows.prefetch], counts[~rows.prefetch]
    sums = counts.sum(axis=0)
    before = ahead.sum(axis=0)
    moves_up = settings.promote and settings.tiers[0].blocks > 0
    return Decided(
        requests=requests,
        found=sums[:tiers],
        found_by_request=counts[:, :tiers].sum(axis=1),
        written=(sums + before)[tiers : 2 * tiers],
        read=(sums + before)[2 * tiers : 3 * tiers],
        promoted=np.where(np.arange(tiers) > 0, sums[:tiers], 0) if moves_up else np.zeros(tiers, np.int64),
        deleted=(sums + before)[3 * tiers : 4 * tiers],
        prefix=prefix_sums(
            counts[:, :tiers],
            counts[:, 4 * tiers : -1],
            counts[:, -1],
            part.context_tokens[:requests].astype(np.int64),
            chains.block_tokens,
        ),
        held=np.array(cache.held),
        most_blocks=most,
        asked_for=int(sums[tiers - 1]) + int(np.count_nonzero(counts[:, 4 * tiers : -1].any(axis=1))),
        # What is copied to a modelled tier is read and not written.
        copied=int(before[2 * tiers : 3 * tiers].sum()) if settings.tiers[0].modelled else 0,
    )


def requests_within(config: RunConfig, part: Trace) -> int:
    """How many requests of `part` arrive before the run ends; all, where they do not wait for their time."""
    return int(np.searchsorted(part.arrival_ns, _end_ns(config), side="right"))


def rows_within(config: RunConfig, part: Trace, requests: int) -> Rows:
    """What is decided on until the run ends: the first `requests` of `part`, and prefetches among and behind them."""
    rows = rows_of(config, part)
    kept = (rows.prefetch & (rows.time_ns <= _end_ns(config))) | (~rows.prefetch & (rows.position < requests))
    return rows.at(kept)


def _end_ns(config: RunConfig) -> float:
    """When the run ends, by the clock of the trace."""
    if config.duration_s is None or config.pacing.mode != "open":
        return math.inf
    return (config.warmup_s + config.duration_s) * 1e9 * config.pacing.speedup
