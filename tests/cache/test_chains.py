"""The tiered cache of chains: what it decides, by the extension and by the stand-in alike."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from chain_cases import (
    KINDS,
    AnyCache,
    CacheType,
    Carried,
    Request,
    any_requests,
    any_requests_and_prefetches,
    any_settings,
    decide,
    one_tier,
    to_play,
    whole,
)
from hypothesis import example, given
from hypothesis import strategies as st

from kvbench.cache import chains
from kvbench.cache.chains import _python
from kvbench.cache.chains.settings import (
    BEHIND_GAP,
    EVICTED,
    NEVER_SEEN,
    NO_BLOCK,
    POLICIES,
    PREFETCH,
    UNLIMITED,
    ChainSettings,
    ChainTier,
)
from kvbench.records.schema import Op

R, W, DEM, PRO, DEL = Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE, Op.DELETE
each_kind = pytest.mark.parametrize("kind", KINDS)
needs_extension = pytest.mark.skipif(not chains.COMPILED, reason="needs the extension, which a C compiler builds")


def serve(cache: AnyCache, *keys: int, now_ns: int = 0) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    found, steps = cache.serve(np.array(keys, np.uint64), len(keys), len(keys), now_ns)
    assert found.dtype == np.int8
    return found.tolist(), steps


# ---- over many -----------------------------------------------------------------------------------------------------


@needs_extension
@given(settings=any_settings(), requests=any_requests_and_prefetches())
def test_the_extension_decides_as_the_stand_in_does(settings: ChainSettings, requests: list[Request]) -> None:
    compiled, slow = chains.ChainCache(settings), _python.ChainCache(settings)
    for request in requests:
        assert decide(compiled, request) == decide(slow, request)
        assert compiled.missed.tolist() == slow.missed.tolist()
        assert compiled.held == slow.held
        assert compiled.blocks == slow.blocks
        assert [compiled.tiers_of(key) for key in request.keys] == [slow.tiers_of(key) for key in request.keys]


@each_kind
@given(settings=any_settings(), requests=any_requests_and_prefetches())
def test_every_step_can_be_carried_out_after_those_before_it(
    kind: CacheType, settings: ChainSettings, requests: list[Request]
) -> None:
    cache, carried = kind(settings), Carried(settings)
    seen: set[int] = set()
    for request in requests:
        found, steps = decide(cache, request)
        assert len(found) <= request.lookup
        assert set(request.keys[: len(found)]) <= seen
        if request.store != PREFETCH:
            seen.update(request.keys)
        carried.carry_out(steps)
        real = [tier for tier, item in enumerate(settings.tiers) if not item.modelled]
        assert [cache.held[tier] for tier in real] == [len(carried.held[tier]) for tier in real]
        assert all(held <= tier.blocks for held, tier in zip(cache.held, settings.tiers, strict=True))
        for key in request.keys:
            assert [tier for tier in cache.tiers_of(key) if tier in real] == [
                tier for tier in real if key in carried.held[tier]
            ]


@each_kind
@given(settings=any_settings(), requests=any_requests())
def test_what_was_found_is_read_once_from_where_it_was_found_and_nothing_else_is(
    kind: CacheType, settings: ChainSettings, requests: list[Request]
) -> None:
    cache = kind(settings)
    for request in requests:
        found, steps = cache.serve(request.array, request.lookup, request.store, request.now_ns)
        read = [(key, source) for op, key, source, _ in steps if op in {R, PRO}]
        wanted = zip(request.keys, found.tolist(), strict=False)
        assert sorted(read) == sorted((key, tier) for key, tier in wanted if not settings.tiers[tier].modelled)


@each_kind
@given(settings=any_settings(), requests=any_requests_and_prefetches())
def test_play_counts_what_serve_says(kind: CacheType, settings: ChainSettings, requests: list[Request]) -> None:
    tiers = len(settings.tiers)
    one, many = kind(settings), kind(settings)
    played = to_play(requests, tiers)
    many.play(*played.arguments)
    for row, request in zip(played.counts, requests, strict=True):
        found, steps = decide(one, request)
        missed = one.missed.tolist()
        counts = np.zeros((4, tiers), np.int64)
        np.add.at(counts[0], np.array(found, int), 1)
        for op, _, source, target in steps:
            if target >= 0:
                counts[1, target] += 1
            if source >= 0:
                counts[3 if op == DEL else 2, source] += 1
        assert row[:-4].tolist() == counts.ravel().tolist()
        assert row[-4:-1].tolist() == [missed.count(kind) for kind in (NEVER_SEEN, EVICTED, BEHIND_GAP)]
        assert row[-1] == [NO_BLOCK, *found, *missed][-1]
    assert one.held == many.held


@each_kind
@given(settings=any_settings(), requests=any_requests_and_prefetches())
def test_what_was_not_found_was_never_seen_or_is_gone_or_lies_behind_the_gap(
    kind: CacheType, settings: ChainSettings, requests: list[Request]
) -> None:
    cache = kind(settings)
    seen: set[int] = set()
    asked_ns: dict[int, int] = {}
    for request in requests:
        if request.store == PREFETCH:
            decide(cache, request)
            continue
        held = {
            key
            for key in request.keys
            if cache.tiers_of(key) and request.now_ns - asked_ns.get(key, 0) <= settings.ttl_ns
        }
        found, _ = decide(cache, request)
        missing = request.keys[len(found) : request.lookup]
        assert not missing or missing[0] not in held
        wanted = [BEHIND_GAP if key in held else EVICTED if key in seen else NEVER_SEEN for key in missing]
        assert cache.missed.tolist() == wanted
        seen.update(request.keys[: max(request.lookup, request.store)])
        # What is stored was asked for, and what was found.
        asked_ns.update(dict.fromkeys(request.keys[: max(len(found), request.store)], request.now_ns))


TAIL_TOO_OLD = [whole((0, 1001)), whole((0,), 1), whole((0, *range(2001, 2009)), 1)]
"""Where nothing lives on after its time, the tail of the first chain is too old in the end, and the next to leave."""


@each_kind
@given(settings=any_settings(), requests=any_requests(), chosen=st.integers(0, 39))
@example(settings=ChainSettings((ChainTier(1), ChainTier(9)), ttl_ns=0), requests=TAIL_TOO_OLD, chosen=0)
@example(settings=ChainSettings((ChainTier(1), ChainTier(9), ChainTier(99)), ttl_ns=0), requests=TAIL_TOO_OLD, chosen=0)
def test_a_prefetch_takes_nothing_from_its_chain_and_no_block_is_lost_to_it_that_a_request_would_not_lose(
    kind: CacheType, settings: ChainSettings, requests: list[Request], chosen: int
) -> None:
    cache = kind(settings)
    asked_ns: dict[int, int] = {}
    for request in requests:
        found, _ = decide(cache, request)
        asked_ns.update(dict.fromkeys(request.keys[: max(len(found), request.store)], request.now_ns))
    chain, now_ns = requests[chosen % len(requests)].keys, requests[-1].now_ns
    keys = np.array(chain, np.uint64)
    before = [cache.tiers_of(key) for key in chain]
    # The chain ends at its first gap, and a block that is too old is one: no request would find it.
    held = [bool(tiers) and now_ns - asked_ns[key] <= settings.ttl_ns for key, tiers in zip(chain, before, strict=True)]
    leading = held.index(False) if False in held else len(held)
    steps = cache.prefetch(keys, now_ns)
    after = [cache.tiers_of(int(key)) for key in keys]
    assert {op for op, _, _, _ in steps} <= {R, PRO, DEM, W, DEL}
    assert [key for op, key, _, _ in steps if op in {R, PRO}] == sorted(
        (key for op, key, _, _ in steps if op in {R, PRO}), key=keys.tolist().index, reverse=True
    )
    assert {key for op, key, _, _ in steps if op in {R, PRO}} <= set(keys[:leading].tolist())
    for old, new in zip(before[:leading], after, strict=False):
        assert min(new) <= min(old), "no block of the chain goes down"
    assert all(held <= tier.blocks for held, tier in zip(cache.held, settings.tiers, strict=True))


@needs_extension
@given(settings=any_settings(), keys=st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=12))
def test_a_key_that_comes_twice_in_a_request_breaks_nothing(settings: ChainSettings, keys: list[list[int]]) -> None:
    compiled, slow, carried = chains.ChainCache(settings), _python.ChainCache(settings), Carried(settings)
    for request in map(whole, keys):
        found, steps = decide(compiled, request)
        assert (found, steps) == decide(slow, request)
        assert compiled.missed.tolist() == slow.missed.tolist()
        carried.carry_out(steps)
        steps = compiled.prefetch(request.array, 0)
        assert steps == slow.prefetch(request.array, 0)
        carried.carry_out(steps)


@needs_extension
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("tiers", [(3000,), (700, 2500), (300, 500, 1500)])
def test_long_traces_are_decided_alike(policy: str, tiers: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    settings = ChainSettings(
        tuple(map(ChainTier, tiers)), policy, promote=True, admission="second-use" if len(tiers) > 2 else "always"
    )
    compiled, slow = chains.ChainCache(settings), _python.ChainCache(settings)
    requests = []
    for _ in range(600):
        family, blocks = int(rng.zipf(1.3)) % 300, int(rng.integers(1, 120))
        requests.append(whole([int(key) for key in family * 10_000 + np.arange(blocks)]))
    first, second = to_play(requests, len(tiers)), to_play(requests, len(tiers))
    compiled.play(*first.arguments)
    slow.play(*second.arguments)
    assert first.counts.tolist() == second.counts.tolist()
    assert first.counts[:, 4 * len(tiers) - 1].any(), "some had to leave"
    assert first.counts[:, -4:-2].any(axis=0).all(), "some misses were never seen, and some had to leave"


# ---- by hand -------------------------------------------------------------------------------------------------------


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


def prefetch(cache: AnyCache, *keys: int, now_ns: int = 0) -> list[tuple[int, int, int, int]]:
    return cache.prefetch(np.array(keys, np.uint64), now_ns)


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


# ---- what is refused -----------------------------------------------------------------------------------------------

BAD_SETTINGS = [
    (ChainSettings(()), "0 tiers"),
    (ChainSettings((ChainTier(1),) * 9), "9 tiers"),
    (ChainSettings((ChainTier(-1),)), "a tier has 0 to"),
    (ChainSettings((ChainTier(UNLIMITED + 1),)), "a tier has 0 to"),
    (ChainSettings((ChainTier(1), ChainTier(1, modelled=True))), "only the first tier"),
    (ChainSettings((ChainTier(1),), "mru"), "no policy 'mru'"),
    (ChainSettings((ChainTier(1),), admission="never"), "no admission 'never'"),
    (ChainSettings((ChainTier(1),), ttl_ns=-1), "a time to live"),
]


@each_kind
@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_settings_that_do_not_fit_are_refused(kind: CacheType, settings: ChainSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(settings)


@each_kind
def test_a_request_that_is_none_is_refused_and_changes_nothing(kind: CacheType) -> None:
    cache = kind(one_tier(5))
    keys = np.arange(4, dtype=np.uint64)
    cache.serve(keys, 4, 4, 10)
    for lookup, store in ((-1, 0), (0, -1), (5, 0), (0, 5)):
        with pytest.raises(ValueError, match="0 to the number of keys"):
            cache.serve(keys, lookup, store, 10)
    with pytest.raises(ValueError, match="never falls"):
        cache.serve(keys, 4, 4, 9)
    for wrong in (keys.astype(np.int64), keys[::2], keys.reshape(2, 2), keys.astype(">u8"), keys.astype(np.uint32)):
        with pytest.raises(ValueError, match="keys must be a C-contiguous uint64 array"):
            cache.serve(wrong, 0, 0, 10)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cache.serve([1, 2], 0, 0, 10)  # type: ignore[arg-type]
    assert cache.serve(keys, 4, 4, 10)[0].tolist() == [0] * 4
    with pytest.raises(ValueError, match="never falls"):
        kind(one_tier(5)).serve(keys, 4, 4, -1)


def changed(array: np.ndarray, at: int, value: int) -> np.ndarray:
    copy = array.copy()
    copy[at] = value
    return copy


@each_kind
def test_arrays_that_do_not_fit_are_refused_and_change_nothing(kind: CacheType) -> None:
    requests = [whole((1, 2, 3), 5), whole((1, 2), 6)]
    cache, good = kind(one_tier(5)), to_play(requests, 1)
    keys, ends, lookups, stores, times_ns, counts = good.arguments
    reading = counts.copy()
    reading.flags.writeable = False
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((keys, ends[:1], lookups, stores, times_ns, counts), "one element for each request"),
        ((keys, ends, lookups[:1], stores, times_ns, counts), "one element for each request"),
        ((keys, ends, lookups, stores[:1], times_ns, counts), "one element for each request"),
        ((keys, ends, lookups, stores, times_ns[:1], counts), "one element for each request"),
        ((keys, ends, lookups, stores, times_ns, counts[:1]), "requests, 4 x tiers"),
        ((keys, ends, lookups, stores, times_ns, counts[:, :3].copy()), "requests, 4 x tiers"),
        ((keys, ends, lookups, stores, times_ns, counts[:, :3]), "counts must be"),
        ((keys, ends, lookups, stores, times_ns, counts[0]), "counts must be a C-contiguous int64"),
        ((keys, ends, lookups, stores, times_ns, np.asfortranarray(counts)), "counts must be a C-contiguous int64"),
        ((keys.astype(np.int64), ends, lookups, stores, times_ns, counts), "keys must be"),
        ((keys, ends.astype(np.int32), lookups, stores, times_ns, counts), "ends must be"),
        ((keys, ends, lookups.astype(float), stores, times_ns, counts), "lookups must be"),
        ((keys, ends, lookups, stores, times_ns.astype(np.uint64), counts), "times_ns must be"),
        ((keys, changed(ends, 1, 6), lookups, stores, times_ns, counts), "ends must not fall"),
        ((keys, changed(ends, 1, 2), lookups, stores, times_ns, counts), "ends must not fall"),
        ((keys, changed(ends, 0, -1), lookups, stores, times_ns, counts), "ends must not fall"),
        ((keys, ends, changed(lookups, 1, 3), stores, times_ns, counts), "0 to the number of keys"),
        ((keys, ends, changed(lookups, 1, -1), stores, times_ns, counts), "0 to the number of keys"),
        ((keys, ends, lookups, changed(stores, 0, 4), times_ns, counts), "0 to the number of keys"),
        ((keys, ends, lookups, changed(stores, 0, -4), times_ns, counts), "0 to the number of keys"),
        ((keys, ends, lookups, changed(stores, 0, PREFETCH), times_ns, counts), "0 to the number of keys"),
        ((keys, ends, lookups, stores, changed(times_ns, 1, 4), counts), "never falls"),
        ((keys, ends, lookups, stores, changed(times_ns, 0, -4), counts), "never falls"),
        ((keys, ends, lookups, stores, times_ns, reading), "read-only|counts must be writable"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            cache.play(*arguments)
    assert (cache.held, counts.tolist()) == ([0], [[-1] * 8] * 2)
    with pytest.raises(TypeError):
        cache.play(keys, ends, lookups, stores, times_ns)  # type: ignore[call-arg]
    cache.play(*good.arguments)
    assert counts.tolist() == [[0, 3, 0, 0, 3, 0, 0, NEVER_SEEN], [2, 0, 2, 0, 0, 0, 0, 0]]
    empty = to_play([], 1)
    cache.play(*empty.arguments)


@needs_extension
def test_the_extension_alone_needs_nothing_else_and_an_unmade_cache_is_refused() -> None:
    path = sys.modules[chains.ChainCache.__module__].__file__
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('_core', {path!r})\n"
        "core = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(core)\n"
        "assert not [name for name in sys.modules if name.startswith(('numpy', 'kvbench'))]\n"
        "raw = core.ChainCache.__new__(core.ChainCache)\n"
        "uses = [lambda: raw.held, lambda: raw.blocks, lambda: raw.tiers_of(1), lambda: raw.serve(b'', 0, 0, 0)]\n"
        "for use in uses:\n"
        "    try:\n"
        "        use()\n"
        "    except RuntimeError:\n"
        "        continue\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
