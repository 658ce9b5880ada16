"""What a prefetch does to the tiered cache of chains."""

import numpy as np
import pytest
from chain_cases import (
    DEL,
    DEM,
    PRO,
    CacheType,
    R,
    W,
    each_kind,
    one_tier,
    prefetch,
    serve,
)

from kvbench.cache.chains.settings import (
    ChainSettings,
    ChainTier,
)


@each_kind
@pytest.mark.parametrize("policy", ["lru", "fifo"])
def test_a_prefetch_brings_a_chain_up_and_its_tail_leaves_first(kind: CacheType, policy: str) -> None:
    cache = kind(ChainSettings((ChainTier(3), ChainTier(9)), policy))
    serve(cache, 1, 2, 3)
    serve(cache, 7, 8, 9)
    assert cache.held == [3, 3]
    assert prefetch(cache, 1, 2, 5, 3) == [(DEM, 9, 0, 1), (PRO, 2, 1, 0), (DEM, 8, 0, 1), (PRO, 1, 1, 0)]
    assert [cache.tiers_of(key) for key in (1, 2, 3, 7)] == [(0,), (0,), (1,), (0,)]
    assert prefetch(cache, 1, 2) == [], "they are up"
    assert serve(cache, 50)[1][0] == (DEM, 7, 0, 1)
    assert serve(cache, 51)[1][0] == (DEM, 2, 0, 1)


@each_kind
def test_a_prefetch_of_more_than_fits_brings_up_the_head(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(2), ChainTier(20))))
    serve(cache, 1, 2, 3, 4)
    serve(cache, 7, 8)
    assert [step for step in prefetch(cache, 1, 2, 3, 4) if step[0] == PRO] == [(PRO, 2, 1, 0), (PRO, 1, 1, 0)]
    assert prefetch(cache, 1, 2, 3, 4) == []


@each_kind
def test_a_prefetch_pushes_no_block_of_its_chain_out_of_the_tier_that_it_is_on(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(1))))
    serve(cache, 1)
    serve(cache, 2)
    # What leaves the first tier would need the place of the block that is to come up.
    assert prefetch(cache, 1) == []
    assert [cache.tiers_of(key) for key in (1, 2)] == [(1,), (0,)]


@each_kind
def test_a_prefetch_reads_what_a_modelled_tier_gets(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(2, modelled=True), ChainTier(5))))
    serve(cache, 1, 2)
    serve(cache, 3, 4)
    assert cache.tiers_of(1) == (1,)
    assert prefetch(cache, 1, 2) == [(R, 2, 1, -1), (W, 4, -1, 1), (R, 1, 1, -1), (W, 3, -1, 1)]
    assert serve(cache, 1, 2) == ([0, 0], [])
    promoting = kind(ChainSettings((ChainTier(1, modelled=True), ChainTier(2), ChainTier(5)), promote=True))
    serve(promoting, 1)
    for key in (2, 3, 4):
        serve(promoting, key)
    assert promoting.tiers_of(1) == (2,)
    assert prefetch(promoting, 1)[:2] == [(DEM, 2, 1, 2), (PRO, 1, 2, 1)]
    assert promoting.tiers_of(1) == (0, 1)


@each_kind
def test_a_prefetch_is_no_use_of_a_block(kind: CacheType) -> None:
    twice = kind(ChainSettings((ChainTier(1), ChainTier(5)), admission="second-use"))
    serve(twice, 1)
    prefetch(twice, 1)
    assert serve(twice, 2)[1] == [(DEL, 1, 0, -1), (W, 2, -1, 0)]
    old = kind(ChainSettings((ChainTier(1), ChainTier(5)), ttl_ns=10))
    serve(old, 1, now_ns=0)
    serve(old, 2, now_ns=5)
    assert [step[0] for step in prefetch(old, 1, now_ns=10)] == [DEM, PRO]
    assert prefetch(old, 2, now_ns=16) == [], "it is too old"
    assert serve(old, 1, now_ns=16)[0] == []


@each_kind
def test_a_prefetch_that_is_none_is_refused_and_changes_nothing(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(5))))
    serve(cache, 1, 2, now_ns=7)
    with pytest.raises(ValueError, match="never falls"):
        prefetch(cache, 1, 2, now_ns=6)
    with pytest.raises(ValueError, match="keys must be"):
        cache.prefetch(np.array([1], np.int64), 7)
    with pytest.raises(TypeError):
        cache.prefetch(np.array([1], np.uint64))  # type: ignore[call-arg]
    assert prefetch(cache, now_ns=7) == []
    assert prefetch(kind(one_tier(0)), 1, 2) == []
    assert [cache.tiers_of(key) for key in (1, 2)] == [(0,), (1,)]
