"""What the extension's cache of chains takes of memory, and does without any; and that one thread at a time has it."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from chain_cases import one_tier, to_play, whole

from kvbench.cache import chains
from kvbench.cache.chains.settings import NEVER_NS, ChainSettings, ChainTier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chains.COMPILED, reason="needs the extension, which a C compiler builds"),
]

BLOCKS = 1_500_000
GONE_BYTES = 14
"""Of a block that was asked for and is not held: that it was seen is remembered."""

GROWS = """
import sys
import numpy as np
from kvbench.cache.chains import ChainCache, ChainSettings, ChainTier

def bytes_of(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

blocks, policy, tiers, ttl_ns = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
gone_bytes = int(sys.argv[5])
settings = ChainSettings((ChainTier(blocks // tiers),) * tiers, policy, promote=True, ttl_ns=ttl_ns)
chain, requests = 1000, 50
keys = np.zeros(chain * requests, np.uint64)
ends = np.arange(1, requests + 1, dtype=np.int64) * chain
sizes, times_ns = np.full(requests, chain, np.int64), np.zeros(requests, np.int64)
counts = np.zeros((requests, 4 * tiers + 4), np.int64)
rng = np.random.default_rng(3)
cache = ChainCache(settings)

def more():
    keys[:] = rng.integers(0, 2**64, len(keys), dtype=np.uint64)
    cache.play(keys, ends, sizes, sizes, times_ns, counts)

ChainCache(ChainSettings((ChainTier(1000),) * tiers)).play(keys, ends, sizes, sizes, times_ns, counts)
before, most, asked = bytes_of("VmRSS"), 0.0, 0

def of_a_block(name):
    return (bytes_of(name) - before - (asked - cache.blocks) * gone_bytes) / cache.blocks

for _ in range(2 * blocks // len(keys)):
    more()
    asked += len(keys)
    if cache.blocks > blocks // 8:
        most = max(most, of_a_block("VmRSS"))
# The most at any moment, within a request too.
peak = of_a_block("VmHWM")
print(max(most, peak))
"""


@pytest.mark.parametrize(("policy", "tiers", "ttl_ns"), [("lru", 1, NEVER_NS), ("lfu", 3, 10), ("s3-fifo", 3, 10)])
def test_a_cached_block_takes_at_most_100_bytes_of_memory_whatever_the_policy(
    policy: str, tiers: int, ttl_ns: int
) -> None:
    command = [sys.executable, "-c", GROWS, str(BLOCKS), policy, str(tiers), str(ttl_ns), str(GONE_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 100


def test_places_of_blocks_that_left_are_used_again() -> None:
    program = GROWS.replace("2 * blocks // len(keys)", "8 * blocks // len(keys)")
    command = [sys.executable, "-c", program, str(BLOCKS // 2), "lru", "1", str(NEVER_NS), str(GONE_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 100


LACKS = """
import resource
import numpy as np
from kvbench.cache.chains import ChainCache, ChainSettings, ChainTier, UNLIMITED

cache = ChainCache(ChainSettings((ChainTier(UNLIMITED),) * 2, {policy!r}, promote=True, admission={admission!r}))
small = ChainCache(ChainSettings((ChainTier(40_000), ChainTier(40_000)), {policy!r}, admission={admission!r}))
rng = np.random.default_rng(3)
rows = rng.integers(0, 2**64, (60, 20_000), dtype=np.uint64)
with open("/proc/self/statm") as statm:
    now = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 25_000_000, now + 25_000_000))
lacked = 0
for keys in rows:
    for each in (cache, small):
        try:
            each.serve(keys, len(keys), len(keys), 0)
        except MemoryError:
            lacked += 1
            each.tiers_of(int(keys[0]))
assert lacked
few = keys[:10].copy()
try:
    small.serve(few, 10, 10, 0)
    assert small.serve(few, 10, 10, 0)[0].tolist() in ([0] * 10, [1] * 10)
except MemoryError:
    pass
del cache, small
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["lru", "lfu", "s3-fifo"])
@pytest.mark.parametrize("admission", ["always", "second-use"])
def test_memory_that_is_lacking_is_an_error_and_the_cache_goes_on(policy: str, admission: str) -> None:
    program = LACKS.format(policy=policy, admission=admission)
    subprocess.run([sys.executable, "-c", program], check=True, env={"OPENBLAS_NUM_THREADS": "1"})


def test_a_second_thread_is_refused_while_the_first_decides() -> None:
    cache = chains.ChainCache(ChainSettings((ChainTier(100),), "lfu"))
    played = to_play([whole(range(20_000))] * 60, 1)
    begun = threading.Event()

    def play() -> None:
        begun.set()
        cache.play(*played.arguments)

    thread = threading.Thread(target=play)
    thread.start()
    begun.wait()
    refused = 0
    while thread.is_alive():
        try:
            assert cache.held[0] <= 100
        except RuntimeError:
            refused += 1
    thread.join()
    assert refused
    assert cache.held == [100]


def test_arrays_that_another_thread_changes_break_nothing() -> None:
    cache = chains.ChainCache(ChainSettings((ChainTier(50), ChainTier(80)), "2q", promote=True))
    rng = np.random.default_rng(5)
    played = to_play([whole(range(begin, begin + 40)) for begin in range(2000)], 2)
    done = threading.Event()

    def scribble() -> None:
        while not done.is_set():
            at = rng.integers(0, 2000, 50)
            played.keys[at] = rng.integers(0, 99, 50)
            played.ends[at] += rng.integers(-30, 30, 50)
            played.lookups[at] = rng.integers(-5, 50, 50)

    good = [array.copy() for array in played.arguments]
    thread = threading.Thread(target=scribble)
    thread.start()
    refused = 0
    for _ in range(50):
        for array, before in zip(played.arguments, good, strict=True):
            array[...] = before
        try:
            cache.play(*played.arguments)
        except ValueError:
            refused += 1
    done.set()
    thread.join()
    assert all(held <= most for held, most in zip(cache.held, (50, 80), strict=True))


def test_a_cache_is_told_its_settings_once() -> None:
    cache = chains.ChainCache(one_tier(5))
    with pytest.raises(RuntimeError, match="was told its settings"):
        cache.__init__(one_tier(6))  # type: ignore[misc]
    assert cache.held == [0]
