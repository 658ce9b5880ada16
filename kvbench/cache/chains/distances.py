"""What an LRU of each of many sizes finds in a trace of chains, in one pass: the hit rate over the size of a tier.

After a request the blocks of its chain are those asked for last, its head after its tail, whatever the size; so a block
is found where its stack distance before the request, and those of all before it in its chain, are below the size
(Mattson et al., IBM Systems Journal 9, 1970). Only where a chain is longer than the size is that not so: then blocks
that were found have left before the chain is through. Such sizes are played. One tier, no time to live, all of a
request stored, and looked up but for an end of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache import chains
from kvbench.cache.chains.settings import ChainSettings, ChainTier

try:
    from kvbench.cache.chains._curves import prefix_distances
except ImportError:
    from kvbench.cache.chains._curves_python import prefix_distances


MOST_SAMPLES: Final = 8
"""Of one estimate."""


def lru_hits(
    keys: npt.NDArray[np.uint64],
    ends: npt.NDArray[np.int64],
    capacities: Sequence[int],
    sample: float | None = None,
    lookups: npt.NDArray[np.int64] | None = None,
    part: int = 0,
) -> npt.NDArray[np.int64]:
    """Blocks found in all requests together, as an array with one number for each of `capacities` (blocks).

    `ends[i]` is where the keys of request i end (they begin where those before end); the keys of one request differ.

    `lookups`: how many of each request's keys are looked up; the others, behind them, are stored and never found. None:
    all.

    `sample`: None for exact numbers, those of a `ChainCache` of one tier, whatever the capacity; or the share of the
    keys, above 0 and at most 1, chosen by their hash, from which the numbers are estimated (SHARDS, Waldspurger et al.,
    FAST 2015, at a fixed rate); `part` says which of the samples of that share that have no key in common. An estimate
    does not know that chains can be longer than a capacity, and that a block which is not in the sample can be the gap
    before one that is. Raises ValueError for arguments that do not fit together.
    """
    ends = np.ascontiguousarray(ends, np.int64)
    keys = np.ascontiguousarray(keys, np.uint64)
    sizes = np.diff(ends, prepend=0)
    if keys.ndim != 1 or ends.ndim != 1 or (sizes < 0).any() or (ends > len(keys)).any():
        raise ValueError("ends must not fall, and lie within keys")
    lookups = sizes if lookups is None else np.ascontiguousarray(lookups, np.int64)
    if lookups.shape != ends.shape or (lookups < 0).any() or (lookups > sizes).any():
        raise ValueError("lookups are 0 to the number of keys of the request")
    if any(capacity < 0 for capacity in capacities):
        raise ValueError("a cache has room for 0 blocks or more")
    keys = keys[: ends[-1] if len(ends) else 0]
    wanted = np.array(capacities, np.int64)
    if sample is not None:
        return _estimated(keys, ends, lookups, wanted, sample, part)
    found = _found_below(_distances(keys, ends, looked_up(sizes, lookups)), wanted)
    for number in np.flatnonzero(wanted < sizes.max(initial=0)):
        found[number] = _played(keys, ends, lookups, sizes, int(wanted[number]))
    return found


def looked_up(sizes: npt.NDArray[np.int64], lookups: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Of each key of requests of `sizes` keys, whether it is among the first `lookups` of its request."""
    begins = np.cumsum(sizes) - sizes
    which: npt.NDArray[np.bool_] = np.arange(int(sizes.sum())) < np.repeat(begins + lookups, sizes)
    return which


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an LRU of each size finds, from several samples that have no key in common."""

    hits: npt.NDArray[np.float64]
    """The mean of the samples."""
    variances: npt.NDArray[np.float64]
    """Of that mean, from the spread of the samples: how much it would change with other samples of as many keys. It is
    not about what no sample knows (`lru_hits`)."""
    samples: int


def estimated_lru_hits(
    keys: npt.NDArray[np.uint64],
    ends: npt.NDArray[np.int64],
    capacities: Sequence[int],
    sample: float,
    lookups: npt.NDArray[np.int64] | None = None,
) -> Estimate:
    """As `lru_hits` with `sample`, of as many disjoint samples of that share as there are, at most MOST_SAMPLES.

    Raises ValueError for a share of which there are not two, and as `lru_hits`.
    """
    if not 0 < sample <= 0.5:
        raise ValueError("a sample is a share above 0 and at most 0.5, so that there are two of them to be compared")
    samples = min(MOST_SAMPLES, int(1 / sample + 1e-9))
    found = np.array([lru_hits(keys, ends, capacities, sample, lookups, part) for part in range(samples)], np.float64)
    variances = found.var(axis=0, ddof=1) / samples * (1 - min(1.0, samples * sample))
    return Estimate(found.mean(axis=0), variances, samples)


def _distances(
    keys: npt.NDArray[np.uint64], ends: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Those of all `wanted` blocks that were asked for before, as were all before them in their chain."""
    distances = np.empty(len(keys), np.int64)
    prefix_distances(keys, ends, distances)
    return distances[(distances >= 0) & wanted]


def _found_below(
    distances: npt.NDArray[np.int64] | npt.NDArray[np.float64], capacities: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.searchsorted(np.sort(distances), capacities, side="left").astype(np.int64)
    return found


def _estimated(
    keys: npt.NDArray[np.uint64],
    ends: npt.NDArray[np.int64],
    lookups: npt.NDArray[np.int64],
    capacities: npt.NDArray[np.int64],
    sample: float,
    part: int,
) -> npt.NDArray[np.int64]:
    if not 0 < sample <= 1:
        raise ValueError("a sample is a share above 0 and at most 1")
    hashes = _hashes(keys)
    chosen = (hashes >= part * sample) & (hashes < (part + 1) * sample)
    taken = np.concatenate([[0], np.cumsum(chosen)])
    wanted = looked_up(np.diff(ends, prepend=0), lookups)
    taken_wanted = np.count_nonzero(wanted & chosen)
    if not taken_wanted:
        return np.zeros(len(capacities), np.int64)
    found = _found_below(_distances(keys[chosen], taken[ends], wanted[chosen]) / sample, capacities)
    # By the share that was really taken, which keys that are asked for often move.
    estimated: npt.NDArray[np.int64] = np.rint(found * (np.count_nonzero(wanted) / taken_wanted)).astype(np.int64)
    return estimated


def _hashes(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Evenly in [0, 1): the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _played(
    keys: npt.NDArray[np.uint64],
    ends: npt.NDArray[np.int64],
    lookups: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    capacity: int,
) -> int:
    counts = np.zeros((len(ends), 8), np.int64)
    cache = chains.ChainCache(ChainSettings((ChainTier(capacity),)))
    cache.play(keys, ends, lookups, sizes, np.zeros(len(ends), np.int64), counts)
    return int(counts[:, 0].sum())
