"""What a `ChainCache` is told once: its tiers, its policy, and what is written where."""

from dataclasses import dataclass
from typing import Final

from kvbench.config.names import CACHE_ADMISSIONS, CHAIN_POLICIES

UNLIMITED: Final = 2**40
"""Blocks of a tier that is never full."""
NEVER_NS: Final = 2**62
NEVER_SEEN: Final = -1
"""Of a block that was looked up and not found: no request before asked for it."""
EVICTED: Final = -2
"""One did, and no tier holds it any more, or ever did."""
BEHIND_GAP: Final = -3
"""A tier holds it, but one before it in its chain was missing."""
NO_BLOCK: Final = -4
"""None was looked up."""
PREFETCH: Final = -1
"""In the place of what a request stores: it is a prefetch."""
POLICIES: Final = CHAIN_POLICIES
"""What leaves a tier that is full. `lru`: what was not asked for longest, of a chain its tail before its head. `fifo`:
what came first. `lfu`: what was asked for least often, of these what came to that number first. `s3-fifo`: see Yang et
al., SOSP 2023. `2q`: Johnson and Shasha, VLDB 1994 (the full version)."""
ADMISSIONS: Final = CACHE_ADMISSIONS
"""What is written to the last tier: every block, or one from the second request on that asks for it."""


@dataclass(frozen=True, slots=True)
class ChainTier:
    """One level, the fastest first."""

    blocks: int
    """What it can hold; 0: it takes no part."""
    modelled: bool = False
    """The memory of a GPU that is not there: only ever the first tier. Nothing is moved to or from it but what a real
    tier is asked for: what a request finds below is read from there, and stays there; what is pushed out of it is
    written to the next tier below, unless a tier below has it."""


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """Of the whole cache."""

    tiers: tuple[ChainTier, ...]
    policy: str = "lru"
    """One of POLICIES; every tier has one of its own."""
    write_through: bool = False
    """A new block is written to the last tier too when it is new. False: it gets there when it is pushed out above."""
    promote: bool = False
    """A block that is found below the first real tier is moved up to it (a modelled tier always gets a copy)."""
    admission: str = "always"
    """One of ADMISSIONS; of the last tier. A block that it does not take is dropped where it would have come to it."""
    ttl_ns: int = NEVER_NS
    """A block that was not asked for so long is gone when it is looked up next."""
