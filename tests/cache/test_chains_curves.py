"""Whole traces of chains: what an LRU of each size finds, and what no policy can find more than."""

from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from chain_cases import KINDS, Request, any_requests, chain, one_tier, to_play, whole
from hypothesis import given
from hypothesis import strategies as st

from kvbench.cache.chains import _curves_python, distances
from kvbench.cache.chains.distances import estimated_lru_hits, looked_up, lru_hits
from kvbench.cache.chains.optimum import belady_hits, references
from kvbench.cache.chains.settings import POLICIES

try:
    from kvbench.cache.chains import _curves
except ImportError:
    _curves = None  # type: ignore[assignment]

WAYS: list[ModuleType] = [_curves_python, *([_curves] if _curves is not None else [])]
"""The stand-in, and the extension where there is one."""
needs_extension = pytest.mark.skipif(_curves is None, reason="needs the extension, which a C compiler builds")
each_way = pytest.mark.parametrize("way", WAYS)

any_chains = st.lists(st.builds(chain, st.integers(0, 4), st.integers(0, 2), st.integers(0, 12)), max_size=30)


def trace(chains: list[tuple[int, ...]]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    played = to_play([whole(keys) for keys in chains], 1)
    return played.keys, played.ends


def found(policy: str, capacity: int, chains: list[tuple[int, ...]]) -> int:
    played = to_play([whole(keys) for keys in chains], 1)
    KINDS[0](one_tier(capacity, policy)).play(*played.arguments)
    return int(played.counts[:, 0].sum())


def most_by_trying(accesses: tuple[tuple[int, bool], ...], capacity: int) -> int:
    """Whatever can be held after each access, of a key that is looked up or only stored, is tried."""

    @cache
    def most(at: int, held: frozenset[int]) -> int:
        if at == len(accesses):
            return 0
        key, is_looked_up = accesses[at]
        there = held | {key}
        kept = [held & there, *(there - {gone} for gone in there), there]
        return (is_looked_up and key in held) + max(most(at + 1, choice) for choice in kept if len(choice) <= capacity)

    return most(0, frozenset())


@each_way
@given(chains=any_chains, capacities=st.lists(st.integers(0, 60), max_size=8))
def test_the_curve_is_what_an_lru_of_each_size_finds(
    way: ModuleType, chains: list[tuple[int, ...]], capacities: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "prefix_distances", way.prefix_distances)
        hits = lru_hits(*trace(chains), capacities)
    assert hits.tolist() == [found("lru", capacity, chains) for capacity in capacities]


@each_way
@given(requests=any_requests(), capacities=st.lists(st.integers(0, 60), max_size=8))
def test_what_is_only_stored_is_found_later_and_never_when_it_is_stored(
    way: ModuleType, requests: list[Request], capacities: list[int]
) -> None:
    played = to_play([replace(one, store=len(one.keys), now_ns=0) for one in requests], 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "prefix_distances", way.prefix_distances)
        hits = lru_hits(played.keys, played.ends, capacities, lookups=played.lookups)
    for capacity, hit in zip(capacities, hits.tolist(), strict=True):
        KINDS[0](one_tier(capacity)).play(*played.arguments)
        assert hit == played.counts[:, 0].sum()


@needs_extension
def test_long_traces_have_the_same_curve_by_both_ways() -> None:
    rng = np.random.default_rng(3)
    chains = [chain(int(rng.zipf(1.3)) % 50, int(rng.integers(9)), int(rng.integers(1, 90))) for _ in range(400)]
    keys, ends = trace(chains)
    first, second = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    _curves.prefix_distances(keys, ends, first)
    _curves_python.prefix_distances(keys, ends, second)
    assert first.tolist() == second.tolist()
    capacities = [90, 150, 400, 1000, 5000]
    assert lru_hits(keys, ends, capacities).tolist() == [found("lru", each, chains) for each in capacities]


def test_a_sample_of_the_keys_comes_close() -> None:
    rng = np.random.default_rng(4)
    chains = [chain(int(rng.zipf(1.15)) % 500, int(rng.integers(3)), int(rng.integers(100, 300))) for _ in range(1500)]
    keys, ends = trace(chains)
    capacities = [2_000, 10_000, 30_000, 100_000]
    exact, estimated = lru_hits(keys, ends, capacities), lru_hits(keys, ends, capacities, sample=0.1)
    assert np.abs(estimated - exact).max() / len(keys) < 0.05
    assert lru_hits(keys, ends, capacities, sample=1.0).tolist() == exact.tolist()


def test_the_spread_of_disjoint_samples_says_how_far_off_an_estimate_is() -> None:
    rng = np.random.default_rng(4)
    chains = [chain(int(rng.zipf(1.15)) % 500, int(rng.integers(3)), int(rng.integers(100, 300))) for _ in range(1500)]
    keys, ends = trace(chains)
    capacities = [2_000, 10_000, 30_000, 100_000]
    exact, estimate = lru_hits(keys, ends, capacities), estimated_lru_hits(keys, ends, capacities, 0.05)
    assert estimate.samples == 8
    error = np.sqrt(estimate.variances)
    assert (error > 0).any()
    # Within what the samples say, and what they do not know: a block out of the sample can be the gap.
    assert (np.abs(estimate.hits - exact) <= 4 * error + 0.02 * len(keys)).all()
    halves = estimated_lru_hits(keys, ends, capacities, 0.5)
    assert (halves.samples, halves.variances.tolist()) == (2, [0.0] * 4), "nothing is left that was not sampled"
    assert np.abs(halves.hits - exact).max() < 0.02 * len(keys)
    for share in (0.0, 0.7):
        with pytest.raises(ValueError, match="two of them"):
            estimated_lru_hits(keys, ends, capacities, share)


@each_way
@given(keys=st.lists(st.integers(0, 4), max_size=9).map(tuple), capacity=st.integers(0, 4))
def test_the_optimum_is_the_most_that_trying_everything_finds(
    way: ModuleType, keys: tuple[int, ...], capacity: int
) -> None:
    tried = most_by_trying(tuple((key, True) for key in keys), capacity)
    assert way.optimal_hits(np.array(keys, np.uint64), capacity) == tried


@given(chains=any_chains, capacity=st.integers(0, 40), policy=st.sampled_from(POLICIES))
def test_no_policy_finds_more_than_the_optimum(chains: list[tuple[int, ...]], capacity: int, policy: str) -> None:
    keys = [key for keys in chains for key in keys]
    assert found(policy, capacity, chains) <= belady_hits(keys, capacity)


@given(
    accesses=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=9).map(tuple), capacity=st.integers(0, 4)
)
def test_the_optimum_counts_no_block_as_found_that_is_only_stored(
    accesses: tuple[tuple[int, bool], ...], capacity: int
) -> None:
    keys = np.array([key for key, _ in accesses], np.uint64)
    wanted = np.array([asked for _, asked in accesses], np.bool_)
    assert belady_hits(references(keys, wanted), capacity) == most_by_trying(accesses, capacity)


@given(requests=any_requests(), capacity=st.integers(0, 40), policy=st.sampled_from(POLICIES))
def test_no_policy_finds_more_than_the_optimum_where_answers_are_stored(
    requests: list[Request], capacity: int, policy: str
) -> None:
    played = to_play([replace(one, store=len(one.keys), now_ns=0) for one in requests], 1)
    KINDS[0](one_tier(capacity, policy)).play(*played.arguments)
    wanted = looked_up(np.diff(played.ends, prepend=0), played.lookups)
    assert played.counts[:, 0].sum() <= belady_hits(references(played.keys, wanted), capacity)


def test_room_for_everything_finds_all_but_the_first_of_each() -> None:
    keys = np.random.default_rng(3).integers(0, 50, 1000).astype(np.uint64)
    assert belady_hits(keys, 50) == 1000 - len(np.unique(keys))


@needs_extension
@given(keys=st.lists(st.integers(0, 200), max_size=1500), capacity=st.integers(0, 150))
def test_the_optimum_is_the_same_by_both_ways(keys: list[int], capacity: int) -> None:
    array = np.array(keys, np.uint64)
    assert _curves.optimal_hits(array, capacity) == _curves_python.optimal_hits(array, capacity)


@needs_extension
def test_the_optimum_of_a_long_trace_is_the_same_by_both_ways() -> None:
    keys = (np.random.default_rng(2).zipf(1.2, 100_000) % 20_000).astype(np.uint64)
    for capacity in (1, 100, 5_000, 30_000):
        assert _curves.optimal_hits(keys, capacity) == _curves_python.optimal_hits(keys, capacity)


def test_arguments_that_do_not_fit_are_refused() -> None:
    keys, ends = trace([(1, 2), (1, 3)])
    with pytest.raises(ValueError, match="0 blocks or more"):
        belady_hits(keys, -1)
    with pytest.raises(ValueError, match="one dimension"):
        belady_hits(keys.reshape(2, 2), 1)
    with pytest.raises(ValueError, match="0 blocks or more"):
        lru_hits(keys, ends, [-1])
    for wrong in ([1], [1, 5], [-1, 1]):
        with pytest.raises(ValueError, match="lookups are 0 to"):
            lru_hits(keys, ends, [1], lookups=np.array(wrong))
    for wrong in ([2, 1], [2, 5], [-1, 4]):
        with pytest.raises(ValueError, match="ends must not fall"):
            lru_hits(keys, np.array(wrong), [1])
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="a sample is"):
            lru_hits(keys, ends, [1], sample=share)
    assert lru_hits(keys[:0], ends[:0], [1, 2]).tolist() == [0, 0]
    assert belady_hits([], 3) == 0


@needs_extension
def test_the_extension_reads_nothing_out_of_bounds() -> None:
    keys, ends = trace([(1, 2), (1, 3)])
    for wrong in ([2, 1], [2, 5], [-1, 4]):
        with pytest.raises(ValueError, match="ends must not fall"):
            _curves.prefix_distances(keys, np.array(wrong), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="ends must not fall"):
        _curves.prefix_distances(keys, ends, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="8 bytes"):
        _curves.optimal_hits(keys.astype(np.uint32), 1)
