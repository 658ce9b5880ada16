"""What requests that are served as an engine does it found of their contexts, by the tier that it was found on.

Counted as it is decided, of the measured phase. Reads are another matter: what was found on a modelled tier is not
read, and a read may be cut short.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

PREFIX_DTYPE: Final = np.dtype(
    [("rank", "<i8"), ("tier", "<i8"), ("requests", "<i8"), ("blocks", "<i8"), ("tokens", "<i8")]
)
"""`tier` is -1 for what was not found, from the first missing block on. `requests` are those with any such block."""


class PrefixHits:
    """The sums of one rank."""

    def __init__(self, tiers: int) -> None:
        self._sums = np.zeros((tiers + 1, 3), np.int64)

    def add(self, found: NDArray[np.int8], blocks: int, block_tokens: int, context_tokens: int) -> None:
        """A request whose chain has `blocks`; `found` has the tier of each of the leading ones that were found."""
        by_tier = np.bincount(found, minlength=len(self._sums) - 1)
        counts = np.append(by_tier, blocks - len(found))
        tokens = by_tier * block_tokens
        if len(found) * block_tokens > context_tokens:
            # The last block is not full.
            tokens[found[-1]] -= len(found) * block_tokens - context_tokens
        self._sums[:, 0] += counts > 0
        self._sums[:, 1] += counts
        self._sums[:-1, 2] += tokens
        self._sums[-1, 2] += context_tokens - int(tokens.sum())

    def rows(self, rank: int) -> list[Mapping[str, int]]:
        """The rows of a rank (PREFIX_DTYPE)."""
        sums: list[list[int]] = self._sums.tolist()
        tiers = [*range(len(sums) - 1), -1]
        return [
            {"rank": rank, "tier": tier, "requests": requests, "blocks": blocks, "tokens": tokens}
            for tier, (requests, blocks, tokens) in zip(tiers, sums, strict=True)
        ]
