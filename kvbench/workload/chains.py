"""The chains of blocks that the requests of a trace ask for: their keys, for any size of block that fits the trace's.

A hash id of a trace stands for its block and all before it. A block of several of them is named by the id of its last,
one that is a part of such a block by that id and its place in it. Where a trace has no ids, every request is alone.

Behind the blocks of a context come those of its answer, where the trace has ids for it: those of context and answer
together, from the first on that is not of the context alone. Where a context does not fill its last block, that has a
name as the context leaves it, by which it is looked up, and another as the answer goes on with it, by which a next turn
looks it up. Of blocks smaller than those of the ids that holds for all that lie in the block of the last id.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.workload.keys import mixed
from kvbench.workload.request import Chain
from kvbench.workload.traces.id_store import within
from kvbench.workload.traces.trace import Trace
from kvbench.workload.turns import Rows

PIECE_BLOCKS: Final = 1 << 20
"""Blocks of the requests that are named at a time, but for a single one that has more."""

_NAMED_BLOCKS: Final = 1 << 14
_NAMED_REQUESTS: Final = 1 << 10
"""At most so many are named together where chains are asked for one after the other, but for a single longer one."""

_Named = tuple[int, int, NDArray[np.uint64], list[int]]
"""Requests from the first on, before the second, have these keys, and where each one's begin and end."""


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
        self._id_counts = part.hash_counts
        tokens = part.context_tokens.astype(np.int64)
        self.full_blocks: NDArray[np.int64] = tokens // block
        """(n,) Whole blocks of each context, whether the trace names them or not."""
        self._keeps_partial = config.cache.partial_blocks == "keep"
        lookups = self._blocks_of(tokens)
        if unit:
            lookups = np.minimum(lookups, self._blocks_of(self._id_counts * unit))
        self.lookups: NDArray[np.int64] = lookups
        """(n,) Blocks of each context, which are looked up."""
        self._answers: NDArray[np.int64] | None = None
        """(n,) Blocks of each answer; None where there are none at all."""
        if config.cache.store_answers and part.answer_counts.any():
            self._answers = self._answer_blocks()
        self.counts: NDArray[np.int64] = lookups if self._answers is None else lookups + self._answers
        """(n,) Blocks of each chain: those that are looked up, and behind them those of the answer."""
        long_enough = tokens >= config.cache.min_prefix_tokens
        self.stored: NDArray[np.int64] = np.where(long_enough, self.counts, 0)
        """(n,) How many of them are kept."""
        self._named: _Named = (0, 0, np.empty(0, np.uint64), [0])

    def _blocks_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        return -(-tokens // self.block_tokens) if self._keeps_partial else tokens // self.block_tokens

    def _first_answer_blocks(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which block of context and answer is the first that has an id of the answer, where contexts have `tokens`."""
        if self.block_tokens >= self._unit:
            return tokens // self.block_tokens
        return tokens // self._unit * (self._unit // self.block_tokens)

    def _answer_blocks(self) -> NDArray[np.int64]:
        """(n,) Blocks of each answer that the trace names."""
        part = self._part
        tokens = part.context_tokens.astype(np.int64)
        named = np.minimum(tokens + part.output_tokens, (tokens // self._unit + part.answer_counts) * self._unit)
        blocks = self._blocks_of(named) - self._first_answer_blocks(tokens)
        return np.where(part.answer_counts > 0, np.maximum(0, blocks), 0)

    def __len__(self) -> int:
        return len(self.counts)

    def chain(self, position: int) -> Chain:
        """Of the request at `position`."""
        first, end, keys, offsets = self._named
        if not first <= position < end:
            first, end, keys, offsets = self._named = self._name_from(position)
        return Chain(
            keys=keys[offsets[position - first] : offsets[position - first + 1]],
            block_tokens=self.block_tokens,
            lookup=int(self.lookups[position]),
            stored=int(self.stored[position]),
            time_ns=int(self._part.arrival_ns[position]),
        )

    def pieces(self, positions: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(first, end) of those of the requests at `positions` that are named at a time, in order."""
        return list(within(self.counts[positions], PIECE_BLOCKS))

    def session_chain(self, position: int) -> Chain:
        """What the request at `position` leaves for the next turn of its session: the blocks of its context and answer
        that lie in both contexts."""
        chosen = np.array([position])
        keys = self._keys(chosen, self._runs(chosen, shared=True))
        return Chain(keys, self.block_tokens, 0, 0, int(self._part.arrival_ns[position]))

    def _name_from(self, position: int) -> _Named:
        """The request at `position` and some behind it, which are most often asked for next."""
        counts = self.counts[position : position + _NAMED_REQUESTS]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        some = max(1, int(np.searchsorted(offsets, _NAMED_BLOCKS, side="right")) - 1)
        end = position + min(some, len(counts))
        return position, end, self.keys(position, end), offsets.tolist()

    def keys(self, first: int, end: int) -> NDArray[np.uint64]:
        """The keys of the requests from `first` to before `end`, one chain after the other."""
        chosen = np.arange(first, end)
        return self._keys(chosen, self._runs(chosen))

    def of_rows(self, rows: Rows) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The keys of what a rank decides on, one chain after the other, and (n,) how many each row has: all of a
        request, the `session_chain` of a prefetch."""
        runs = self._runs(rows.position, shared=rows.prefetch)
        return self._keys(rows.position, runs), runs.counts.reshape(len(rows.position), -1).sum(axis=1)

    def _keys(self, chosen: NDArray[np.int64], runs: "_Runs") -> NDArray[np.uint64]:
        total = int(runs.counts.sum())
        at = np.cumsum(runs.counts) - runs.counts
        block = np.arange(total) - np.repeat(at - runs.blocks, runs.counts)
        if not self._unit:
            number = np.repeat(self._part.number[chosen].astype(np.uint64), runs.counts)
            return mixed(mixed(number) + block.astype(np.uint64))
        ids, at = self._part.hash_ids, np.repeat(runs.ids, runs.counts)
        if self.block_tokens >= self._unit:
            of_block = self.block_tokens // self._unit
            last = np.minimum((block + 1) * of_block, np.repeat(runs.id_counts, runs.counts)) - 1
            return mixed(ids[at + last])
        parts = self._unit // self.block_tokens
        return mixed(mixed(ids[at + block // parts]) + (block % parts).astype(np.uint64))

    def _runs(self, chosen: NDArray[np.int64], shared: "NDArray[np.bool_] | bool" = False) -> "_Runs":
        """Those of the requests at `chosen`: one for each, or with answers two. Where `shared`, contexts without what
        the answer goes on with."""
        part, lookups = self._part, self.lookups[chosen]
        ids, counts = part.hash_offsets[:-1][chosen], self._id_counts[chosen]
        nothing = np.zeros(len(chosen), np.int64)
        if self._answers is None:
            return _Runs(lookups, nothing, ids, counts)
        tokens, answers = part.context_tokens[chosen].astype(np.int64), self._answers[chosen]
        full, first = tokens // self._unit, self._first_answer_blocks(tokens)
        lookups = np.where(shared & (answers > 0), np.minimum(lookups, first), lookups)
        of_contexts = _Runs(lookups, nothing, ids, counts)
        # The first id of an answer stands for the block behind the full ones of the context.
        of_answers = _Runs(answers, first, ids + counts - full, full + part.answer_counts[chosen])
        return _Runs(*(np.stack(both, axis=1).ravel() for both in zip(of_contexts, of_answers, strict=True)))


class _Runs(NamedTuple):
    """Runs of blocks, each of which follow each other in one request."""

    counts: NDArray[np.int64]
    """Blocks."""
    blocks: NDArray[np.int64]
    """Which block of its request is the first."""
    ids: NDArray[np.int64]
    """Where the id of its request's first block stands, or would."""
    id_counts: NDArray[np.int64]
    """Blocks from there on that have ids."""
