"""From a configuration to the cache that decides requests which are served as an engine does it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvbench.cache.chains import NEVER_NS, UNLIMITED, ChainCache, ChainSettings, ChainTier
from kvbench.config.run_config import RunConfig
from kvbench.records.schema import MOST_LAYERS
from kvbench.tiers.arena import stored_bytes
from kvbench.workload.keys import KeyKind, object_key


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Of a block of tokens on any tier of a rank."""

    parts: int
    """Objects that it is stored in."""
    object_bytes: int
    """Of each."""
    tokens: int
    parts_per_layer: int = 0
    """Objects of each group of layers; 0: every object is of all layers."""
    ranks: int = 1
    """That have a part of every block each; what is said here is of one of these parts."""
    modelled: bool = False
    """Whether the first tier is not there."""
    modelled_bytes_per_s: int | None = None
    """Of the first tier, where it is not there; None: what is found on it takes no time."""
    follows: bool = False
    """Whether requests wait for answers, so that the workload's clock says nothing of when they come."""
    asks: int | None = None
    """The tier whose filesystem is asked for each block that is looked up there; None: the rank knows by itself."""
    speedup: float = 1.0
    """By which the workload's clock is faster."""

    def modelled_ns(self, blocks: int) -> int:
        """What reading so many blocks from the first tier takes where that is not there: modelled."""
        return 0 if self.modelled_bytes_per_s is None else round(blocks * self.nbytes / self.modelled_bytes_per_s * 1e9)

    @property
    def nbytes(self) -> int:
        """Of the whole block."""
        return self.parts * self.object_bytes

    def layer(self, part: int) -> int:
        """The group of layers, from 1 on, that the object number `part` of a block is of; 0: of all, or of too many to
        be told."""
        many = self.parts_per_layer and self.parts // self.parts_per_layer
        return part // self.parts_per_layer + 1 if 1 < many <= MOST_LAYERS else 0

    def objects(self, key: int) -> list[tuple[int, int]]:
        """The key of each object of the block `key`, and its share of the tokens."""
        if self.parts == 1:
            return [(key, self.tokens)]
        first = self.tokens - self.tokens // self.parts * (self.parts - 1)
        return [
            (object_key(KeyKind.BLOCK_PART, key, part), self.tokens // self.parts if part else first)
            for part in range(self.parts)
        ]


def block_shape(config: RunConfig) -> BlockShape:
    """As `cache.split` and `tensor_parallel` cut it: into layers, keys and values, and the parts of ranks."""
    split, geometry, tokens = config.cache.split, config.geometry, config.cache.block_tokens
    parts = 1 if split.layers is None else geometry.layers // split.layers
    of_each = 2 if split.keys_values == "apart" else 1
    parts *= of_each
    ranks, modelled = config.tensor_parallel, config.tiers[0].facts.modelled
    nbytes = -(-tokens * geometry.bytes_per_token // (parts * ranks))
    follows = config.pacing.mode == "closed"
    asks = len(config.tiers) - 1 if config.cache.lookup == "stat" else None
    return BlockShape(
        parts,
        stored_bytes(nbytes),
        tokens,
        parts_per_layer=0 if split.layers is None else of_each,
        ranks=ranks,
        modelled=modelled,
        modelled_bytes_per_s=config.tiers[0].bandwidth_bytes_per_s,
        follows=follows,
        asks=asks,
        speedup=config.pacing.speedup,
    )


def stretched_shape(shape: BlockShape, times: float) -> BlockShape:
    """The same where all that is modelled takes so many `times` as long, and real times count by that less."""
    if times == 1:
        return shape
    modelled = shape.modelled_bytes_per_s
    return replace(
        shape,
        modelled_bytes_per_s=None if modelled is None else max(1, round(modelled / times)),
        speedup=shape.speedup / times,
    )


def block_bytes(config: RunConfig) -> int:
    """What a block takes on any tier of a rank."""
    return block_shape(config).nbytes


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
