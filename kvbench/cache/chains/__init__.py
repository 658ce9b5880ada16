"""A tiered cache of equal blocks that are found by chains, decided a request at a time: what a serving engine asks.

`_core.pyi` documents `ChainCache`. It comes from the C extension, or from the Python stand-in where that was not
built; both decide the same, block by block. Never: bytes, names of files, or a clock of its own.
"""

from typing import Final

from kvbench.cache.chains.settings import (
    ADMISSIONS,
    BEHIND_GAP,
    EVICTED,
    NEVER_NS,
    NEVER_SEEN,
    NO_BLOCK,
    POLICIES,
    PREFETCH,
    UNLIMITED,
    ChainSettings,
    ChainTier,
)

try:
    from kvbench.cache.chains._core import ChainCache

    _compiled = True
except ImportError:
    from kvbench.cache.chains._python import ChainCache  # type: ignore[assignment]

    _compiled = False

COMPILED: Final = _compiled
"""Whether the extension decides, or the stand-in, which is some hundred times slower."""

__all__ = [
    "ADMISSIONS",
    "BEHIND_GAP",
    "COMPILED",
    "EVICTED",
    "NEVER_NS",
    "NEVER_SEEN",
    "NO_BLOCK",
    "POLICIES",
    "PREFETCH",
    "UNLIMITED",
    "ChainCache",
    "ChainSettings",
    "ChainTier",
]
