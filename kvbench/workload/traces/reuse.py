"""Which blocks of a trace's contexts were had before, by a cache that never evicts and has all requests' blocks.

Worked out of a part of the ids at a time, those whose hash is in one range, so that its memory does not grow with the
trace: about 100 bytes for each of PART_IDS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.traces.trace import Trace

PART_IDS: Final = 1 << 22
"""About so many ids are looked at together."""
_PIECE_IDS: Final = 1 << 20
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): the upper bits of a product are the hash."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """Of the blocks of contexts (n requests)."""

    blocks: int
    distinct: int
    new: int
    """That no request had before, nor its answer."""
    new_tokens: int
    prefix_blocks: NDArray[np.int64]
    """(n,) Of each context, its blocks up to the first that no earlier request or its answer had."""
    most_used: int
    """The id that most blocks have; of several the lowest."""
    most_uses: int


def reuse_of(trace: Trace) -> Reuse:
    """Raises ValueError where no context has ids."""
    counts = trace.hash_counts
    if not counts.any():
        raise ValueError("no context has ids")
    found, distinct, new, new_tokens = counts.copy(), 0, 0, 0
    most = (0, 0)
    """Uses, and the negative of the id."""
    # The last block of a context holds what is left of it, if that is less.
    last_tokens = trace.hashed_tokens - (counts - 1) * trace.hash_block_tokens
    for places in _parts(trace):
        if not len(places):
            continue
        ids = trace.hash_ids[places]
        request = np.searchsorted(trace.hash_offsets, places, side="right") - 1
        place = places - trace.hash_offsets[request]
        of_context = place < counts[request]
        order = np.argsort(ids, kind="stable")
        first = np.concatenate([np.ones(1, np.bool_), ids[order[1:]] != ids[order[:-1]]])
        group = np.cumsum(first) - 1
        first_use = np.empty(len(ids), np.int64)
        first_use[order] = places[order[first]][group]
        uses = np.bincount(group, weights=of_context[order]).astype(np.int64)
        distinct += int(np.count_nonzero(uses))
        here = np.flatnonzero(of_context & (first_use == places))
        last = place[here] == counts[request[here]] - 1
        new += len(here)
        new_tokens += int(np.where(last, last_tokens[request[here]], trace.hash_block_tokens).sum())
        not_before = np.flatnonzero(of_context & (first_use >= trace.hash_offsets[request]))
        # In order of place: of each request the first stands first.
        asked, at = np.unique(request[not_before], return_index=True)
        found[asked] = np.minimum(found[asked], place[not_before[at]])
        often = int(uses.argmax())
        most = max(most, (int(uses[often]), -int(ids[order[first]][often])))
    return Reuse(int(counts.sum()), distinct, new, new_tokens, found, -most[1], most[0])


def _parts(trace: Trace) -> Iterator[NDArray[np.int64]]:
    """Where the ids stand that are looked at together, rising; equal ids are in one part."""
    ids, total = trace.hash_ids, len(trace.hash_ids)
    bits = max(0, (total - 1).bit_length() - (PART_IDS - 1).bit_length())
    if not bits:
        yield np.arange(total)
        return
    for part in range(1 << bits):
        yield np.concatenate(
            [
                start + np.flatnonzero(ids[start : start + _PIECE_IDS] * _GOLDEN >> np.uint64(64 - bits) == part)
                for start in range(0, total, _PIECE_IDS)
            ]
        )
