"""Belady's optimum: the most that can be found, and no policy finds more."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.cache.chains import POLICIES, ChainCache, ChainSettings, ChainTier
from kvbench.cache.chains.optimum import belady_hits


def tried(keys: tuple[int, ...], capacity: int) -> int:
    """By trying everything that could be kept after each reference."""

    @cache
    def most(place: int, held: frozenset[int]) -> int:
        if place == len(keys):
            return 0
        hit, candidates = keys[place] in held, held | {keys[place]}
        if len(candidates) <= capacity:
            return hit + most(place + 1, candidates)
        return hit + max(most(place + 1, candidates - {gone}) for gone in candidates)

    return most(0, frozenset())


@settings(max_examples=150, deadline=None)
@given(keys=st.lists(st.integers(0, 4), max_size=9), capacity=st.integers(0, 3))
def test_nothing_that_could_be_kept_finds_more(keys: list[int], capacity: int) -> None:
    assert belady_hits(np.array(keys, np.uint64), capacity) == (tried(tuple(keys), capacity) if capacity else 0)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(
    chains=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=40),
    capacity=st.integers(1, 30),
)
def test_no_policy_finds_more(policy: str, chains: list[tuple[int, int]], capacity: int) -> None:
    requests = [[first * 100 + place for place in range(length)] for first, length in chains]
    decider = ChainCache(ChainSettings((ChainTier(capacity),), policy))
    found = sum(len(decider.serve(np.array(keys, np.uint64), len(keys), len(keys), 0)[0]) for keys in requests)
    assert found <= belady_hits(np.array([key for keys in requests for key in keys], np.uint64), capacity)


def test_room_for_everything_finds_all_but_the_first_of_each() -> None:
    keys = np.random.default_rng(3).integers(0, 50, 1000).astype(np.uint64)
    assert belady_hits(keys, 50) == 1000 - len(np.unique(keys))
