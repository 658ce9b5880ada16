"""The chains of blocks that the requests of a trace ask for: their keys, for any size of block that fits the trace's.

A hash id of a trace stands for its block and all before it. A block of several of them is named by the id of its last,
one that is a part of such a block by that id and its place in it. Where a trace has no ids, every request is alone.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.workload.keys import mixed
from kvbench.workload.request import Chain
from kvbench.workload.traces.trace import Trace

PIECE_BLOCKS: Final = 1 << 20
"""Blocks of the requests that are named at a time, but for a single one that has more."""


class Chains:
    """Of every request of a part of a trace (n of them), made piece by piece: all keys at once may be gigabytes."""

    def __init__(self, config: RunConfig, part: Trace) -> None:
        """Raises KvbenchError where the size of blocks does not fit the trace's hash ids."""
        self._part = part
        self._unit = unit = part.hash_block_tokens
        self.block_tokens = block = config.cache.block_tokens
        if unit and block % unit and unit % block:
            raise KvbenchError(
                f"cache.block_tokens: {block} does not fit {part.source}, whose hash ids stand for blocks of {unit} "
                f"tokens: use a multiple or a divisor of {unit}"
            )
        tokens = part.context_tokens.astype(np.int64)
        self.full_blocks: NDArray[np.int64] = tokens // block
        """(n,) Whole blocks of each context, whether the trace names them or not."""
        blocks = self.full_blocks if config.cache.partial_blocks == "drop" else -(-tokens // block)
        if unit:
            named = part.hash_counts * unit
            blocks = np.minimum(blocks, -(-named // block) if config.cache.partial_blocks == "keep" else named // block)
        self.counts: NDArray[np.int64] = blocks
        """(n,) Blocks of each chain."""
        long_enough = tokens >= config.cache.min_prefix_tokens
        self.stored: NDArray[np.int64] = np.where(long_enough, blocks, 0)
        """(n,) How many of them are kept."""

    def __len__(self) -> int:
        return len(self.counts)

    def chain(self, position: int) -> Chain:
        """Of the request at `position`."""
        keys = self.keys(position, position + 1)
        return Chain(keys, self.block_tokens, int(self.stored[position]), int(self._part.arrival_ns[position]))

    def pieces(self, requests: int) -> list[tuple[int, int]]:
        """(first, end) of those of the first `requests` that are named at a time, in order."""
        ends = np.cumsum(self.counts[:requests])
        found, first = [], 0
        while first < len(ends):
            before = int(ends[first - 1]) if first else 0
            end = max(first + 1, int(np.searchsorted(ends, before + PIECE_BLOCKS, side="right")))
            found.append((first, end))
            first = end
        return found

    def keys(self, first: int, end: int) -> NDArray[np.uint64]:
        """The keys of the requests from `first` to before `end`, one chain after the other."""
        counts = self.counts[first:end]
        total = int(counts.sum())
        begins = np.cumsum(counts) - counts
        place = np.arange(total) - np.repeat(begins, counts)
        if not self._unit:
            number = np.repeat(self._part.number[first:end].astype(np.uint64), counts)
            return mixed(mixed(number) + place.astype(np.uint64))
        ids, at = self._part.hash_ids, np.repeat(self._part.hash_offsets[:-1][first:end], counts)
        if self.block_tokens >= self._unit:
            of_block = self.block_tokens // self._unit
            last = np.minimum((place + 1) * of_block, np.repeat(self._part.hash_counts[first:end], counts)) - 1
            return mixed(ids[at + last])
        parts = self._unit // self.block_tokens
        return mixed(mixed(ids[at + place // parts]) + (place % parts).astype(np.uint64))
