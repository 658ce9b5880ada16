"""What requests that are served as an engine does it found of their contexts, by the tier that it was found on, and why
they did not find the rest.

Counted as it is decided: of the measured phase of a run, or of all requests of a plan, by the same rules. Reads are
another matter: what was found on a modelled tier is not read, and a read may be cut short.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cache.chains import BEHIND_GAP, EVICTED, NEVER_SEEN, NO_BLOCK
from kvbench.records.tables import PREFIX_WORDS

LOOKED_UP, HIT, *_MISSES, IN_NO_BLOCK = PREFIX_WORDS
MISSES: Final = dict(zip((NEVER_SEEN, EVICTED, BEHIND_GAP), _MISSES, strict=True))
"""`ChainCache.missed` says what each is."""

_MOST_WAITING: Final = 1024


def prefix_kinds(tiers: int) -> list[tuple[str, int]]:
    """(what, tier) of each row of `prefix_sums`."""
    found = [(HIT, tier) for tier in range(tiers)]
    return [(LOOKED_UP, -1), (HIT, -1), *found, *((name, -1) for name in MISSES.values()), (IN_NO_BLOCK, -1)]


def prefix_sums(
    found: NDArray[np.int64],
    missed: NDArray[np.int64],
    last: NDArray[np.int64],
    context_tokens: NDArray[np.int64],
    block_tokens: int,
) -> NDArray[np.int64]:
    """Requests, blocks and tokens (columns) of each of `prefix_kinds` (rows), of n requests and T tiers.

    `found` (n, T) are blocks by the tier that they were found on, `missed` (n, 3) those that were not, in the order of
    `MISSES`, and `last` (n,) says what became of the last: its tier, one of MISSES, or NO_BLOCK. A last block that is
    not full counts the tokens that it holds.
    """
    tiers = found.shape[1]
    blocks = np.concatenate([found, missed], axis=1)
    looked_up = blocks.sum(axis=1)
    tokens = blocks * block_tokens
    # Columns of misses stand behind those of tiers.
    column = np.where(last >= 0, last, tiers - 1 - last)
    is_there = last != NO_BLOCK
    lacking = np.maximum(0, looked_up * block_tokens - context_tokens)
    tokens[is_there, column[is_there]] -= lacking[is_there]
    outside = context_tokens - tokens.sum(axis=1)
    by_kind = np.stack([(blocks > 0).sum(axis=0), blocks.sum(axis=0), tokens.sum(axis=0)], axis=1)
    hits = found.sum(axis=1)
    return np.concatenate(
        [
            [[len(found), looked_up.sum(), context_tokens.sum()]],
            [[np.count_nonzero(hits), hits.sum(), tokens[:, :tiers].sum()]],
            by_kind,
            [[np.count_nonzero(outside), 0, outside.sum()]],
        ]
    ).astype(np.int64)


class PrefixHits:
    """The sums of one rank."""

    def __init__(self, tiers: int) -> None:
        self._tiers = tiers
        self._sums = np.zeros((len(prefix_kinds(tiers)), 3), np.int64)
        self._block_tokens = 0
        self._waiting: list[tuple[int, ...]] = []
        """Requests that are not in the sums yet: found by tier, missed by kind, the last, and the context's tokens."""

    def add(self, found: NDArray[np.int8], missed: NDArray[np.int8], block_tokens: int, context_tokens: int) -> None:
        """A request: the tiers of its leading blocks that were found, and why each of the others was not, as
        `ChainCache` says them. `block_tokens` is the same for all of them."""
        self._block_tokens = block_tokens
        by_tier = np.bincount(found, minlength=self._tiers)
        by_kind = np.bincount(-missed, minlength=len(MISSES) + 1)[1:]
        last = int(missed[-1]) if len(missed) else int(found[-1]) if len(found) else NO_BLOCK
        self._waiting.append((*by_tier.tolist(), *by_kind.tolist(), last, context_tokens))
        if len(self._waiting) == _MOST_WAITING:
            self._add_up()

    def _add_up(self) -> None:
        if not self._waiting:
            return
        rows = np.array(self._waiting, np.int64)
        tiers = self._tiers
        self._sums += prefix_sums(rows[:, :tiers], rows[:, tiers:-2], rows[:, -2], rows[:, -1], self._block_tokens)
        self._waiting.clear()

    def rows(self, rank: int) -> list[Mapping[str, int | str]]:
        """The rows of a rank (PREFIX_DTYPE)."""
        self._add_up()
        sums: list[list[int]] = self._sums.tolist()
        return [
            {"rank": rank, "what": what, "tier": tier, "requests": requests, "blocks": blocks, "tokens": tokens}
            for (what, tier), (requests, blocks, tokens) in zip(prefix_kinds(self._tiers), sums, strict=True)
        ]
