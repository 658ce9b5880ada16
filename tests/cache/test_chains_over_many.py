"""What holds of the tiered cache of chains for any settings and requests: drawn at random, and over long traces."""

import numpy as np
import pytest
from chain_cases import (
    DEL,
    DEM,
    PRO,
    CacheType,
    Carried,
    R,
    Request,
    W,
    any_requests,
    any_requests_and_prefetches,
    any_settings,
    decide,
    each_kind,
    needs_extension,
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
    ChainSettings,
    ChainTier,
)


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
