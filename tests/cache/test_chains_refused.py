"""What the tiered cache of chains refuses."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from chain_cases import (
    CacheType,
    each_kind,
    needs_extension,
    one_tier,
    to_play,
    whole,
)

from kvbench.cache import chains
from kvbench.cache.chains.settings import (
    NEVER_SEEN,
    PREFETCH,
    UNLIMITED,
    ChainSettings,
    ChainTier,
)

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
