"""How many blocks a second the cache of chains decides. The rates asserted are what is required, far below the usual.

They count the processor time of the thread, so that what else runs on the machine is left out as far as can be.
"""

from collections.abc import Callable
from time import thread_time_ns

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Figure

from kvbench.cache import chains
from kvbench.cache.chains import _python
from kvbench.cache.chains.settings import POLICIES, ChainSettings, ChainTier

Report = Callable[[Figure], None]
Cache = chains.ChainCache | _python.ChainCache
pytestmark = pytest.mark.skipif(not chains.COMPILED, reason="needs the extension, which a C compiler builds")

HITS_PER_S = 1e6
"""On long chains of which nearly all is found."""
MIX_PER_S = 3e5
"""On as many hits as misses, in a cache that is full."""


def play(cache: Cache, keys: npt.NDArray[np.uint64], tiers: int) -> tuple[float, npt.NDArray[np.int64]]:
    """Blocks a second, and the counts, of requests that are the rows of `keys`."""
    requests, blocks = keys.shape
    sizes, times_ns = np.full(requests, blocks, np.int64), np.zeros(requests, np.int64)
    counts = np.zeros((requests, 4 * tiers + 4), np.int64)
    flat = keys.ravel()
    begin_ns = thread_time_ns()
    cache.play(flat, np.cumsum(sizes), sizes, sizes, times_ns, counts)
    return keys.size * 1e9 / (thread_time_ns() - begin_ns), counts


def settings(policy: str, blocks: int, tiers: int) -> ChainSettings:
    return ChainSettings((ChainTier(blocks // tiers),) * tiers, policy, promote=tiers > 1)


@pytest.mark.parametrize("tiers", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_long_chains_that_are_found(policy: str, tiers: int, report: Report) -> None:
    """1000 requests of 9400 blocks, of which 95 % are found: 50 conversations, each of them going on in its own way."""
    rng = np.random.default_rng(1)
    requests, blocks, conversations = 1000, 9400, 50
    head = blocks * 95 // 100
    heads = rng.integers(0, 2**64, (conversations, head), dtype=np.uint64)
    keys = rng.integers(0, 2**64, (requests, blocks), dtype=np.uint64)
    keys[:, :head] = heads[np.arange(requests) % conversations]
    cache = chains.ChainCache(settings(policy, 3_000_000, tiers))
    play(cache, keys[:conversations], tiers)
    rate, counts = play(cache, keys, tiers)
    assert counts[:, :tiers].sum() >= 0.949 * keys.size
    report(Figure(f"million blocks a second, hits, {policy}, {tiers} tiers", [rate / 1e6], ">= 1", ""))
    assert rate >= HITS_PER_S


@pytest.mark.parametrize("tiers", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_hits_misses_and_evictions_alike(policy: str, tiers: int, report: Report) -> None:
    """Chains of 200 blocks, of which a full cache of 2 million blocks holds about half."""
    rng = np.random.default_rng(1)
    requests, blocks, room = 20_000, 200, 2_000_000
    families = rng.integers(0, 2 * room // blocks, requests).astype(np.uint64)
    keys = np.left_shift(families[:, None], 20, dtype=np.uint64) + np.arange(blocks, dtype=np.uint64)
    cache = chains.ChainCache(settings(policy, room, tiers))
    play(cache, keys, tiers)
    rate, counts = play(cache, keys, tiers)
    found = counts[:, :tiers].sum() / keys.size
    assert 0.3 < found < 0.8
    detail = f"{found:.0%} found, {counts[:, 3 * tiers : 4 * tiers].sum() / keys.size:.0%} left"
    report(Figure(f"million blocks a second, mix, {policy}, {tiers} tiers", [rate / 1e6], ">= 0.3", detail))
    assert rate >= MIX_PER_S


def test_the_extension_is_much_faster_than_the_stand_in(report: Report) -> None:
    rng = np.random.default_rng(1)
    families = rng.integers(0, 200, 1000).astype(np.uint64)
    keys = np.left_shift(families[:, None], 20, dtype=np.uint64) + np.arange(100, dtype=np.uint64)
    ratios = []
    for _ in range(3):
        rates = [play(kind(settings("lru", 10_000, 1)), keys, 1)[0] for kind in (chains.ChainCache, _python.ChainCache)]
        ratios.append(rates[0] / rates[1])
    report(Figure("blocks a second, extension / stand-in", ratios, "> 10", ""))
    assert sorted(ratios)[1] > 10
