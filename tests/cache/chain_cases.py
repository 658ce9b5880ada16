"""What the tests of chains share: settings and requests at random, and a model that carries steps out one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from kvbench.cache import chains
from kvbench.cache.chains import _python
from kvbench.cache.chains.settings import (
    ADMISSIONS,
    NEVER_NS,
    POLICIES,
    PREFETCH,
    UNLIMITED,
    ChainSettings,
    ChainTier,
)
from kvbench.records.schema import Op

AnyCache = chains.ChainCache | _python.ChainCache
CacheType = type[chains.ChainCache] | type[_python.ChainCache]
KINDS: Final[list[CacheType]] = list(dict.fromkeys([chains.ChainCache, _python.ChainCache]))
"""The extension, where there is one, and the stand-in."""
Step = tuple[int, int, int, int]

R, W, DEM, PRO, DEL = Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE, Op.DELETE
each_kind = pytest.mark.parametrize("kind", KINDS)
needs_extension = pytest.mark.skipif(not chains.COMPILED, reason="needs the extension, which a C compiler builds")


@dataclass(frozen=True)
class Request:
    """One line of a trace."""

    keys: tuple[int, ...]
    lookup: int
    store: int
    now_ns: int

    @property
    def array(self) -> npt.NDArray[np.uint64]:
        return np.array(self.keys, np.uint64)


def whole(keys: Sequence[int], now_ns: int = 0) -> Request:
    """A request of which all is looked up and all stored."""
    return Request(tuple(keys), len(keys), len(keys), now_ns)


def one_tier(blocks: int, policy: str = "lru") -> ChainSettings:
    return ChainSettings((ChainTier(blocks),), policy)


@st.composite
def any_settings(draw: st.DrawFn) -> ChainSettings:
    capacities = draw(st.lists(st.one_of(st.integers(0, 12), st.just(UNLIMITED)), min_size=1, max_size=4))
    modelled = draw(st.booleans())
    return ChainSettings(
        tuple(ChainTier(blocks, modelled and not number) for number, blocks in enumerate(capacities)),
        draw(st.sampled_from(POLICIES)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(ADMISSIONS)),
        draw(st.sampled_from((NEVER_NS, 0, 3, 10))),
    )


def chain(family: int, branch: int, blocks: int) -> tuple[int, ...]:
    """Keys of a conversation: those of a family have their first blocks in common. The first key of all is 0."""
    common = 1 + family * 3
    key = (1 << 40) * family
    return tuple(key + (at if at < common else at + 1000 * (branch + 1)) for at in range(blocks))


@st.composite
def any_requests(draw: st.DrawFn) -> list[Request]:
    now_ns, requests = 0, []
    for _ in range(draw(st.integers(1, 40))):
        keys = chain(draw(st.integers(0, 4)), draw(st.integers(0, 2)), draw(st.integers(0, 12)))
        now_ns += draw(st.sampled_from((0, 0, 1, 4)))
        uses_all = draw(st.booleans())
        lookup = len(keys) if uses_all else draw(st.integers(0, len(keys)))
        store = len(keys) if uses_all else draw(st.integers(0, len(keys)))
        requests.append(Request(keys, lookup, store, now_ns))
    return requests


@st.composite
def any_requests_and_prefetches(draw: st.DrawFn) -> list[Request]:
    """Some of them prefetches, of the next request's chain or of another."""
    requests: list[Request] = []
    for request in draw(any_requests()):
        if draw(st.booleans()):
            again = draw(st.booleans())
            keys = request.keys if again else chain(draw(st.integers(0, 4)), draw(st.integers(0, 2)), 12)
            requests.append(Request(keys, 0, PREFETCH, request.now_ns))
        requests.append(request)
    return requests


def decide(cache: AnyCache, request: Request) -> tuple[list[int], list[Step]]:
    """A request or a prefetch: the tiers of what it found, and its steps."""
    if request.store == PREFETCH:
        return [], cache.prefetch(request.array, request.now_ns)
    found, steps = cache.serve(request.array, request.lookup, request.store, request.now_ns)
    return found.tolist(), steps


@dataclass
class Played:
    """The arrays of `play` for some requests."""

    keys: npt.NDArray[np.uint64]
    ends: npt.NDArray[np.int64]
    lookups: npt.NDArray[np.int64]
    stores: npt.NDArray[np.int64]
    times_ns: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def arguments(
        self,
    ) -> tuple[
        npt.NDArray[np.uint64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
    ]:
        return self.keys, self.ends, self.lookups, self.stores, self.times_ns, self.counts


def to_play(requests: Sequence[Request], tiers: int) -> Played:
    return Played(
        np.array([key for request in requests for key in request.keys], np.uint64),
        np.cumsum([len(request.keys) for request in requests], dtype=np.int64),
        np.array([request.lookup for request in requests], np.int64),
        np.array([request.store for request in requests], np.int64),
        np.array([request.now_ns for request in requests], np.int64),
        np.full((len(requests), 4 * tiers + 4), -1, np.int64),
    )


class Carried:
    """Tiers on which steps are carried out one after the other; it fails where one cannot be.

    A modelled tier is not among them: nothing is moved there by steps.
    """

    def __init__(self, settings: ChainSettings) -> None:
        self.capacities = [tier.blocks for tier in settings.tiers]
        self.modelled = [tier.modelled for tier in settings.tiers]
        self.held: list[set[int]] = [set() for _ in settings.tiers]

    def carry_out(self, steps: Sequence[Step]) -> None:
        for op, key, source, target in steps:
            assert not any(self.modelled[tier] for tier in (source, target) if tier >= 0)
            assert (source >= 0) == (op != Op.WRITE)
            assert (target >= 0) == (op in {Op.WRITE, Op.DEMOTE, Op.PROMOTE})
            if source >= 0:
                assert key in self.held[source]
            if target >= 0:
                assert key not in self.held[target]
                self.held[target].add(key)
                assert len(self.held[target]) <= self.capacities[target]
            if op in {Op.DEMOTE, Op.PROMOTE, Op.DELETE}:
                self.held[source].remove(key)
            if op == Op.DEMOTE:
                assert source < target
            if op == Op.PROMOTE:
                assert target < source


def serve(cache: AnyCache, *keys: int, now_ns: int = 0) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    found, steps = cache.serve(np.array(keys, np.uint64), len(keys), len(keys), now_ns)
    assert found.dtype == np.int8
    return found.tolist(), steps


def prefetch(cache: AnyCache, *keys: int, now_ns: int = 0) -> list[tuple[int, int, int, int]]:
    return cache.prefetch(np.array(keys, np.uint64), now_ns)
