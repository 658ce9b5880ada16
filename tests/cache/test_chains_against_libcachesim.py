"""The cache of chains against libCacheSim, which is not ours: the same blocks are found, request by request.

libCacheSim knows single objects. It is asked for each block of a request in the order in which ours counts them as
asked for, each of size 1; what a request finds there are its leading blocks that libCacheSim holds before the first of
them.
"""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_cases import KINDS, CacheType, chain, one_tier, whole

from kvbench.cache.chains.settings import POLICIES

libcachesim = pytest.importorskip("libcachesim", reason="needs libcachesim, which `pip install -e '.[dev]'` installs")

TRACE = (
    Path(os.environ.get("KVBENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    / "traces"
    / "mooncake_synthetic.jsonl"
)
LEAST = {"s3-fifo": 20, "2q": 4}
"""Blocks below which libCacheSim's s3-fifo and 2q take no block of size 1: their first queue would be shorter than two
blocks (s3-fifo), or than one (2q), and it never takes an object of the queue's own size (s3-fifo) or larger (2q). Ours
then has a first queue of one block."""
_HASH_POWER = 14


def theirs(policy: str, blocks: int) -> Any:
    """With the parameters of our policies."""
    if policy == "s3-fifo":
        sizes = {"small_size_ratio": 0.1, "ghost_size_ratio": 0.9, "move_to_main_threshold": 2}
        return libcachesim.S3FIFO(blocks, hashpower=_HASH_POWER, **sizes)
    if policy == "2q":
        return libcachesim.TwoQ(blocks, hashpower=_HASH_POWER, a_in_size_ratio=0.25, a_out_size_ratio=0.5)
    kinds = {"lru": libcachesim.LRU, "fifo": libcachesim.FIFO, "lfu": libcachesim.LFU}
    return kinds[policy](blocks, hashpower=_HASH_POWER)


class Theirs:
    """A cache of libCacheSim that is asked for chains."""

    def __init__(self, policy: str, blocks: int) -> None:
        self.cache, self.renews = theirs(policy, blocks), policy == "lru"
        self.request = libcachesim.Request()
        self.request.obj_size = 1

    def holds(self, key: int) -> bool:
        self.request.obj_id = key
        return self.cache.find(self.request, False) is not None

    def get(self, key: int) -> None:
        self.request.obj_id = key
        self.cache.get(self.request)

    def serve(self, keys: tuple[int, ...]) -> int:
        """Blocks of the request that were found."""
        found = next((at for at, key in enumerate(keys) if not self.holds(key)), len(keys))
        for key in (*reversed(keys[:found]), *reversed(keys[found:])):
            self.get(key)
        for key in reversed(keys[:found]):
            if self.renews:
                self.get(key)
        return found


def zipf_chains(seed: int, requests: int, longest: int) -> Iterator[tuple[int, ...]]:
    """Conversations of which some are asked for far more often than others, cut off anywhere."""
    rng = np.random.default_rng(seed)
    for _ in range(requests):
        family, branch = int(rng.zipf(1.2)) % 300, int(rng.zipf(1.4)) % 20
        yield chain(family, branch, int(rng.integers(1, longest + 1)))


def assert_same(kind: CacheType, policy: str, blocks: int, requests: Iterator[tuple[int, ...]]) -> None:
    ours, other = kind(one_tier(blocks, policy)), Theirs(policy, blocks)
    for number, keys in enumerate(requests):
        request = whole(keys)
        found, _ = ours.serve(request.array, request.lookup, request.store, 0)
        assert len(found) == other.serve(keys), f"request {number}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("blocks", [1, 4, 9, 20, 33, 100, 257, 1000])
def test_chains_find_what_libcachesim_finds(kind: CacheType, policy: str, blocks: int) -> None:
    if blocks < LEAST.get(policy, 1):
        pytest.skip(f"libCacheSim's {policy} takes no block where it has room for fewer than {LEAST[policy]}")
    assert_same(kind, policy, blocks, zipf_chains(blocks, 500, 3))
    assert_same(kind, policy, blocks, zipf_chains(blocks + 1, 500, 40))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("blocks", [500, 4_000, 20_000])
def test_a_trace_finds_what_libcachesim_finds(policy: str, blocks: int) -> None:
    if not TRACE.is_file():
        message = f"the real trace {TRACE} is missing (KVBENCH_DATA says where the data folder is)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with TRACE.open(encoding="utf-8") as lines:
        requests = (tuple(json.loads(line)["hash_ids"]) for line in islice(lines, 1500))
        assert_same(KINDS[0], policy, blocks, requests)
