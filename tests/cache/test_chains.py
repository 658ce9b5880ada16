"""What the tiered cache of chains decides, case by case, by the extension and by the stand-in alike."""

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
    serve,
)

from kvbench.cache.chains.settings import (
    BEHIND_GAP,
    EVICTED,
    NEVER_SEEN,
    POLICIES,
    UNLIMITED,
    ChainSettings,
    ChainTier,
)


@each_kind
def test_a_chain_is_found_up_to_its_first_gap(kind: CacheType) -> None:
    cache = kind(one_tier(10))
    assert serve(cache, 1, 2, 3) == ([], [(W, 3, -1, 0), (W, 2, -1, 0), (W, 1, -1, 0)])
    assert serve(cache, 1, 2, 9) == ([0, 0], [(R, 2, 0, -1), (R, 1, 0, -1), (W, 9, -1, 0)])
    found, steps = serve(cache, 7, 2, 3)
    assert (found, steps) == ([], [(W, 7, -1, 0)]), "what lies behind the gap is neither read nor written"
    assert cache.tiers_of(9) == (0,)
    assert cache.tiers_of(8) == ()
    assert (cache.held, cache.blocks) == ([5], 5)


@each_kind
def test_only_the_first_blocks_are_looked_up_or_stored(kind: CacheType) -> None:
    cache = kind(one_tier(10))
    keys = np.array([1, 2, 3, 4], np.uint64)
    assert [key for _, key, _, _ in cache.serve(keys, 0, 3, 0)[1]] == [3, 2, 1]
    found, steps = cache.serve(keys, 2, 0, 0)
    assert (found.tolist(), steps) == ([0, 0], [(R, 2, 0, -1), (R, 1, 0, -1)])


@each_kind
def test_lru_lets_go_of_tails_before_heads(kind: CacheType) -> None:
    cache = kind(one_tier(4))
    serve(cache, 1, 2, 3)
    assert serve(cache, 8, 9)[1] == [(W, 9, -1, 0), (DEL, 3, 0, -1), (W, 8, -1, 0)]
    serve(cache, 1, 2)
    assert serve(cache, 5)[1] == [(DEL, 9, 0, -1), (W, 5, -1, 0)]


@each_kind
def test_fifo_lets_go_of_what_came_first_however_often_it_was_read(kind: CacheType) -> None:
    cache = kind(one_tier(2, "fifo"))
    serve(cache, 1)
    serve(cache, 2)
    serve(cache, 1)
    assert serve(cache, 3)[1] == [(DEL, 1, 0, -1), (W, 3, -1, 0)]


@each_kind
def test_lfu_lets_go_of_what_was_asked_for_least_and_came_to_that_first(kind: CacheType) -> None:
    cache = kind(one_tier(3, "lfu"))
    for key in (1, 2, 3, 1, 3):
        serve(cache, key)
    assert serve(cache, 4)[1] == [(DEL, 2, 0, -1), (W, 4, -1, 0)]
    serve(cache, 4)
    assert serve(cache, 5)[1] == [(DEL, 1, 0, -1), (W, 5, -1, 0)]


@each_kind
def test_s3_fifo_keeps_what_was_asked_for_twice_in_the_small_queue_and_what_comes_back(kind: CacheType) -> None:
    cache = kind(one_tier(20, "s3-fifo"))
    for key in range(20):
        serve(cache, key)
    for key in (0, 0):
        serve(cache, key)
    # 0 and 1 are in the small queue, as it was filled first: 0 goes to the main one, 1 leaves, and is remembered.
    assert serve(cache, 100)[1] == [(DEL, 1, 0, -1), (W, 100, -1, 0)]
    # The main queue is over its size by 0, which came last: what came to it first leaves.
    assert serve(cache, 1)[1] == [(DEL, 2, 0, -1), (W, 1, -1, 0)]
    assert serve(cache, 200)[1] == [(DEL, 3, 0, -1), (W, 200, -1, 0)]


@each_kind
def test_2q_keeps_what_comes_again_while_it_is_remembered(kind: CacheType) -> None:
    cache = kind(one_tier(4, "2q"))
    for key in range(5):
        serve(cache, key)
    # 0 left first and is remembered; as it comes again it goes to the queue that the new ones do not push it out of.
    assert serve(cache, 0)[1] == [(DEL, 1, 0, -1), (W, 0, -1, 0)]
    for key in range(10, 20):
        serve(cache, key)
    assert cache.tiers_of(0) == (0,)


@each_kind
def test_what_a_tier_has_no_room_for_goes_down_and_from_the_last_it_leaves(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(0), ChainTier(1))))
    assert serve(cache, 1)[1] == [(W, 1, -1, 0)]
    assert serve(cache, 2)[1] == [(DEM, 1, 0, 2), (W, 2, -1, 0)]
    assert serve(cache, 3)[1] == [(DEL, 1, 2, -1), (DEM, 2, 0, 2), (W, 3, -1, 0)]


@each_kind
def test_write_through_writes_to_the_last_tier_too_and_what_is_there_is_not_moved(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(5)), write_through=True))
    assert serve(cache, 1)[1] == [(W, 1, -1, 1), (W, 1, -1, 0)]
    assert cache.tiers_of(1) == (0, 1)
    assert (cache.held, cache.blocks) == ([1, 1], 1)
    assert serve(cache, 2)[1] == [(W, 2, -1, 1), (DEL, 1, 0, -1), (W, 2, -1, 0)]
    assert serve(cache, 1) == ([1], [(R, 1, 1, -1)])


@each_kind
def test_promotion_moves_a_block_up_and_another_makes_room(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(2)), promote=True))
    serve(cache, 1)
    serve(cache, 2)
    assert serve(cache, 1) == ([1], [(DEM, 2, 0, 1), (PRO, 1, 1, 0)])
    full = kind(ChainSettings((ChainTier(1), ChainTier(1)), promote=True))
    serve(full, 1)
    serve(full, 2)
    # Below there is no place but that of the block itself, which is still there while room is made.
    assert serve(full, 1) == ([1], [(DEL, 2, 0, -1), (PRO, 1, 1, 0)])


@each_kind
def test_a_found_block_that_has_to_go_before_its_turn_is_read_before_it_goes(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(2)), "fifo", promote=True))
    serve(cache, 2)
    serve(cache, 1)
    assert serve(cache, 1, 2) == ([0, 1], [(R, 1, 0, -1), (DEM, 1, 0, 1), (PRO, 2, 1, 0)])


@each_kind
def test_second_use_keeps_from_the_last_tier_what_one_request_alone_asked_for(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1), ChainTier(5)), admission="second-use"))
    serve(cache, 1)
    assert serve(cache, 2)[1] == [(DEL, 1, 0, -1), (W, 2, -1, 0)]
    serve(cache, 2)
    assert serve(cache, 3)[1] == [(DEM, 2, 0, 1), (W, 3, -1, 0)]
    single = kind(ChainSettings((ChainTier(5),), admission="second-use"))
    assert serve(single, 1) == ([], [])
    assert serve(single, 1) == ([], [(W, 1, -1, 0)])
    assert serve(single, 1) == ([0], [(R, 1, 0, -1)])


@each_kind
def test_a_block_that_was_not_asked_for_too_long_is_gone_when_it_is_looked_up(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(5),), ttl_ns=10))
    serve(cache, 1, 2, now_ns=0)
    assert serve(cache, 1, now_ns=10)[0] == [0]
    assert serve(cache, 1, 2, now_ns=11) == ([0], [(DEL, 2, 0, -1), (R, 1, 0, -1), (W, 2, -1, 0)])


@each_kind
def test_a_modelled_tier_costs_no_steps_and_what_it_pushes_out_is_written_below(kind: CacheType) -> None:
    cache = kind(ChainSettings((ChainTier(1, modelled=True), ChainTier(5))))
    assert serve(cache, 1) == ([], [])
    assert serve(cache, 1) == ([0], [])
    assert serve(cache, 2) == ([], [(W, 1, -1, 1)])
    # Read from below, it stays there; the modelled tier has a copy.
    assert serve(cache, 1) == ([1], [(R, 1, 1, -1), (W, 2, -1, 1)])
    assert cache.tiers_of(1) == (0, 1)
    assert serve(cache, 2) == ([1], [(R, 2, 1, -1)])


@each_kind
def test_no_place_at_all_and_places_without_end(kind: CacheType) -> None:
    nothing = kind(ChainSettings((ChainTier(0), ChainTier(0)), write_through=True, promote=True))
    assert serve(nothing, 1, 2) == serve(nothing, 1, 2) == ([], [])
    for policy in POLICIES:
        endless = kind(one_tier(UNLIMITED, policy))
        keys = [0, 2**64 - 1, *range(5, 3000)]
        serve(endless, *keys)
        assert serve(endless, *keys)[0] == [0] * len(keys)


@each_kind
def test_a_request_longer_than_the_cache_keeps_its_head(kind: CacheType) -> None:
    cache = kind(one_tier(3))
    serve(cache, *range(10))
    assert serve(cache, *range(10))[0] == [0, 0, 0]
    assert cache.held == [3]


@each_kind
def test_misses_are_told_apart_by_what_was_there_at_the_look_up(kind: CacheType) -> None:
    cache = kind(one_tier(3))
    serve(cache, 1, 2, 3)
    assert cache.missed.tolist() == [NEVER_SEEN] * 3
    serve(cache, 8, 2)
    assert cache.missed.tolist() == [NEVER_SEEN, BEHIND_GAP], "2 is there, but nothing is found behind 8"
    assert serve(cache, 1, 2, 3, 4)[0] == [0, 0]
    assert cache.missed.tolist() == [EVICTED, NEVER_SEEN], "3 had to leave for 8"
    serve(cache)
    assert cache.missed.tolist() == []


@each_kind
@pytest.mark.parametrize("admission", ["always", "second-use"])
def test_what_was_looked_up_and_not_stored_was_seen(kind: CacheType, admission: str) -> None:
    cache = kind(ChainSettings((ChainTier(9),), admission=admission))
    keys = np.array([0, 2**64 - 1, 5], np.uint64)
    for wanted in (NEVER_SEEN, EVICTED):
        cache.serve(keys, 2, 0, 0)
        assert cache.missed.tolist() == [wanted] * 2
    cache.serve(keys, 3, 0, 0)
    assert cache.missed.tolist() == [EVICTED, EVICTED, NEVER_SEEN]


@each_kind
def test_only_blocks_that_are_looked_up_are_missed(kind: CacheType) -> None:
    cache = kind(one_tier(9))
    serve(cache, 3, 4)
    cache.serve(np.array([1, 3, 4], np.uint64), 2, 3, 0)
    assert cache.missed.tolist() == [NEVER_SEEN, BEHIND_GAP], "4 is there too, and was only stored"


@each_kind
def test_what_is_refused_or_too_old_was_there_before(kind: CacheType) -> None:
    refused = kind(ChainSettings((ChainTier(5),), admission="second-use"))
    serve(refused, 1)
    serve(refused, 1)
    assert refused.missed.tolist() == [EVICTED]
    old = kind(ChainSettings((ChainTier(5),), ttl_ns=10))
    serve(old, 1, 2, now_ns=0)
    serve(old, 9, 2, now_ns=20)
    assert old.missed.tolist() == [NEVER_SEEN, EVICTED]
    nowhere = kind(one_tier(0))
    serve(nowhere, 1)
    serve(nowhere, 1)
    assert nowhere.missed.tolist() == [EVICTED]
