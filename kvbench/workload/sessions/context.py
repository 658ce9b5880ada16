"""A context that grows: what stands in it, and the names of its blocks.

A block's name stands for all up to its end. What users share (a system prompt, a document behind it) has names that
follow from what it is; from the first token on that is a session's own, names are the session's, and tell its blocks
apart by their place alone: behind it nothing is shared whatever stands there.
"""

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.keys import mixed


class Context:
    """Contents one behind the other, each named by a 64-bit number that stands for it and all before it."""

    def __init__(self, unit: int, name: int, tokens: int) -> None:
        """It begins with `tokens` that are named `name`. `unit`: tokens of a block."""
        self._unit = unit
        self._stretches: list[tuple[int, int]] = [(0, name)]
        self._ids = np.empty(0, np.uint64)
        self.tokens = tokens
        """All, of contexts and answers, so far."""
        self.own = False
        """Whether something of a session's own stands in it."""

    @property
    def name(self) -> int:
        """Of all of it, as far as it is shared."""
        return self._stretches[-1][1]

    def share(self, name: int, tokens: int) -> None:
        """Put `tokens` that others have too behind all; `name` stands for them behind what is there. Behind something
        of a session's own they are its own as well."""
        if not self.own:
            self._begin(name)
        self.tokens += tokens

    def add(self, tokens: int, name: int) -> None:
        """Put `tokens` of a session's own behind all; its first are named `name`, and what follows them likewise."""
        if not self.own and tokens:
            self._begin(name)
            self.own = True
        self.tokens += tokens

    def ids(self) -> NDArray[np.uint64]:
        """The names of all its whole blocks; of a part of it they are the first of these."""
        blocks = self.tokens // self._unit
        if blocks != len(self._ids):
            ends = [*(begin for begin, _ in self._stretches[1:]), blocks]
            pieces = [
                mixed(np.arange(begin, min(end, blocks), dtype=np.uint64) + np.uint64(name))
                for (begin, name), end in zip(self._stretches, ends, strict=True)
            ]
            self._ids = np.concatenate(pieces)
        return self._ids

    def _begin(self, name: int) -> None:
        """From the block on that the next token falls into, names are those of `name`."""
        first = self.tokens // self._unit
        self._stretches = [*(stretch for stretch in self._stretches if stretch[0] < first), (first, name)]
