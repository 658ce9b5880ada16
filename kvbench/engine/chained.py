"""From a configuration to the cache that decides requests which are served as an engine does it."""

from collections.abc import Sequence

from kvbench.cache.chains import NEVER_NS, UNLIMITED, ChainCache, ChainSettings, ChainTier
from kvbench.config.run_config import RunConfig
from kvbench.tiers.arena import stored_bytes


def block_bytes(config: RunConfig) -> int:
    """What a block takes on any tier."""
    return stored_bytes(config.cache.block_tokens * config.geometry.bytes_per_token)


def chain_settings(config: RunConfig, capacities: Sequence[int | None]) -> ChainSettings:
    """For tiers of `capacities` bytes, fastest first; None: never full."""
    cache, block = config.cache, block_bytes(config)
    blocks = (UNLIMITED if capacity is None else min(UNLIMITED, capacity // block) for capacity in capacities)
    return ChainSettings(
        tuple(ChainTier(n, tier.facts.modelled) for n, tier in zip(blocks, config.tiers, strict=True)),
        policy="lru" if cache.policy == "waterfall-lru" else cache.policy,
        write_through=cache.write == "write-through",
        promote=cache.promote_on_hit,
        admission=cache.admission,
        ttl_ns=NEVER_NS if cache.ttl_s is None else round(cache.ttl_s * 1e9),
    )


def chain_cache(config: RunConfig, capacities: Sequence[int]) -> ChainCache | None:
    """An empty cache for a rank; None where requests are not served as an engine does it."""
    return ChainCache(chain_settings(config, capacities)) if config.serves_as_engine else None
