"""`ChainCache` without a compiler: the same decisions, slowly. `_core.pyi` documents it."""

from itertools import pairwise, takewhile
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache.chains._queues import KINDS, Queue, keys_of
from kvbench.cache.chains.settings import (
    ADMISSIONS,
    BEHIND_GAP,
    EVICTED,
    NEVER_NS,
    NEVER_SEEN,
    NO_BLOCK,
    POLICIES,
    PREFETCH,
    UNLIMITED,
    ChainSettings,
)
from kvbench.records.schema import Op

_READ, _WRITE, _DEMOTE, _PROMOTE, _DELETE = Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE, Op.DELETE
_MOST_TIERS: Final = 8
_KINDS: Final = (NEVER_SEEN, EVICTED, BEHIND_GAP)
BAD_PARTS: Final = "lookup and store are 0 to the number of keys of the request"
BAD_TIMES: Final = "the time is 0 ns or more and never falls"
BAD_ENDS: Final = "ends must not fall, and lie within keys"

_Step = tuple[int, int, int, int]


class ChainCache:
    """See `_core.pyi`."""

    def __init__(self, settings: ChainSettings) -> None:
        check(settings)
        self._settings = settings
        self._capacities = [tier.blocks for tier in settings.tiers]
        self._modelled = [tier.modelled for tier in settings.tiers]
        self._queues: list[Queue] = [KINDS[settings.policy](tier.blocks) for tier in settings.tiers]
        self._last = len(settings.tiers) - 1
        self._first_real = int(self._modelled[0])
        self._kept = [0] * len(settings.tiers)
        """Places of each tier that are not in its queue."""
        self._due: dict[int, int] = {}
        """Blocks that this request found and has not read yet, each with its tier."""
        self._times: dict[int, int] = {}
        """How often a block was asked for, as far as the admission has to know: 2 stands for more."""
        self._asked_ns: dict[int, int] = {}
        self._seen: set[int] = set()
        """All that requests asked for."""
        self._missed: list[int] = []
        self._pinned: frozenset[int] = frozenset()
        """Blocks that leave no tier while their chain is brought up."""
        self._now_ns = 0
        self._steps: list[_Step] = []

    @property
    def held(self) -> list[int]:
        return [len(queue) for queue in self._queues]

    @property
    def blocks(self) -> int:
        return len(set().union(*(set(keys_of(queue)) for queue in self._queues)))

    @property
    def missed(self) -> npt.NDArray[np.int8]:
        return np.array(self._missed, np.int8)

    def tiers_of(self, key: int) -> tuple[int, ...]:
        return tuple(tier for tier, queue in enumerate(self._queues) if key in queue)

    def serve(
        self, keys: npt.NDArray[np.uint64], lookup: int, store: int, now_ns: int
    ) -> tuple[npt.NDArray[np.int8], list[_Step]]:
        _check_array("keys", keys, np.uint64)
        if not (0 <= lookup <= len(keys) and 0 <= store <= len(keys)):
            raise ValueError(BAD_PARTS)
        if now_ns < self._now_ns:
            raise ValueError(BAD_TIMES)
        self._steps = []
        return np.array(self._serve(keys.tolist(), lookup, store, now_ns), np.int8), self._steps

    def serve_kinds(
        self, keys: npt.NDArray[np.uint64], lookup: int, store: int, now_ns: int
    ) -> tuple[npt.NDArray[np.int8], list[tuple[int, int, int, list[int]]]]:
        found, steps = self.serve(keys, lookup, store, now_ns)
        kinds: dict[tuple[int, int, int], list[int]] = {}
        for op, key, source, target in steps:
            kinds.setdefault((op, source, target), []).append(key)
        return found, [(*kind, of_kind) for kind, of_kind in kinds.items()]

    def last_steps(self) -> list[_Step]:
        return self._steps

    def prefetch(self, keys: npt.NDArray[np.uint64], now_ns: int) -> list[_Step]:
        _check_array("keys", keys, np.uint64)
        if now_ns < self._now_ns:
            raise ValueError(BAD_TIMES)
        self._steps = []
        self._prefetch(keys.tolist(), now_ns)
        return self._steps

    def play(
        self,
        keys: npt.NDArray[np.uint64],
        ends: npt.NDArray[np.int64],
        lookups: npt.NDArray[np.int64],
        stores: npt.NDArray[np.int64],
        times_ns: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
    ) -> None:
        tiers = len(self._queues)
        self._check_play(keys, ends, lookups, stores, times_ns, counts)
        counts[:] = 0
        for row, (begin, end) in enumerate(pairwise([0, *ends.tolist()])):
            self._steps = []
            chain, lookup, store, now_ns = keys[begin:end].tolist(), lookups[row], stores[row], int(times_ns[row])
            found = [] if store == PREFETCH else self._serve(chain, int(lookup), int(store), now_ns)
            if store == PREFETCH:
                self._prefetch(chain, now_ns)
            for tier in found:
                counts[row, tier] += 1
            for op, _, source, target in self._steps:
                if target >= 0:
                    counts[row, tiers + target] += 1
                if op == _DELETE:
                    counts[row, 3 * tiers + source] += 1
                elif source >= 0:
                    counts[row, 2 * tiers + source] += 1
            for kind in self._missed:
                counts[row, 4 * tiers + _KINDS.index(kind)] += 1
            counts[row, -1] = [NO_BLOCK, *found, *self._missed][-1]

    def _check_play(
        self,
        keys: npt.NDArray[np.uint64],
        ends: npt.NDArray[np.int64],
        lookups: npt.NDArray[np.int64],
        stores: npt.NDArray[np.int64],
        times_ns: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
    ) -> None:
        _check_array("keys", keys, np.uint64)
        for name, array in (("ends", ends), ("lookups", lookups), ("stores", stores), ("times_ns", times_ns)):
            _check_array(name, array, np.int64)
            if len(array) != len(ends):
                raise ValueError(f"{name} must have one element for each request")
        _check_array("counts", counts, np.int64, dimensions=2)
        if counts.shape != (len(ends), 4 * len(self._queues) + 4) or not counts.flags.writeable:
            raise ValueError("counts must be writable, and of shape (requests, 4 x tiers + 4)")
        sizes = np.diff(ends, prepend=0)
        if (sizes < 0).any() or (ends > len(keys)).any():
            raise ValueError(BAD_ENDS)
        stored = np.where((lookups == 0) & (stores == PREFETCH), 0, stores)
        if (np.minimum(lookups, stored) < 0).any() or (np.maximum(lookups, stores) > sizes).any():
            raise ValueError(BAD_PARTS)
        if (np.diff(times_ns, prepend=self._now_ns) < 0).any():
            raise ValueError(BAD_TIMES)

    def _serve(self, keys: list[int], lookup: int, store: int, now_ns: int) -> list[int]:
        self._now_ns = now_ns
        found: list[int] = []
        for key in keys[:lookup]:
            tier = self._fastest(key)
            if tier is None:
                break
            found.append(tier)
            self._ask(key)
        self._missed = [self._kind_of(key) for key in keys[len(found) : lookup]]
        self._seen.update(keys[: max(lookup, store)])
        self._due = dict(zip(keys[: len(found)], found, strict=True))
        for key in reversed(keys[: len(found)]):
            self._read(key)
        for key in reversed(keys[len(found) : store]):
            tier = self._fastest(key)
            self._ask(key)
            if tier is None:
                self._add(key)
            else:
                self._queues[tier].hit(key)
        if self._queues[0].renews:
            for at in reversed(range(len(found))):
                self._renew(keys[at], stored=at < store)
        return found

    def _kind_of(self, key: int) -> int:
        if self.tiers_of(key) and not self._is_too_old(key):
            return BEHIND_GAP
        return EVICTED if key in self._seen else NEVER_SEEN

    def _prefetch(self, keys: list[int], now_ns: int) -> None:
        self._now_ns, self._missed = now_ns, []
        top = next((tier for tier, blocks in enumerate(self._capacities) if blocks > 0), None)
        if top is None:
            return
        leading = list(takewhile(lambda key: self.tiers_of(key) and not self._is_too_old(key), keys))
        self._pinned = frozenset(leading)
        room = self._capacities[top] - sum(key in self._queues[top] for key in self._pinned)
        end = 0
        while end < len(leading) and room:
            room -= leading[end] not in self._queues[top]
            end += 1
        self._renew_chain(leading)
        for key in reversed(leading[:end]):
            if key not in self._queues[top] and not self._bring_up(key, top):
                break
        self._renew_chain(leading)
        self._pinned = frozenset()

    def _renew_chain(self, keys: list[int]) -> None:
        for key in reversed(keys if self._queues[0].renews else []):
            self._queues[self.tiers_of(key)[0]].hit(key)

    def _bring_up(self, key: int, top: int) -> bool:
        """Whether there was room for it."""
        tier, is_copied = self.tiers_of(key)[0], self._modelled[top]
        target = self._first_real if is_copied else top
        is_moved = tier > target and (not is_copied or (self._settings.promote and self._capacities[target] > 0))
        if not self._can_make_room(target if is_moved else top):
            return False
        if is_moved:
            # With the block in its queue, so that what leaves is what was looked at.
            self._make_room(target)
            self._queues[tier].remove(key)
            self._enter(key, target)
            self._steps.append((_PROMOTE, key, tier, target))
            if not is_copied:
                return True
            if not self._can_make_room(top):
                return False
        else:
            self._steps.append((_READ, key, tier, -1))
        self._enter(key, top)
        return True

    def _can_make_room(self, tier: int) -> bool:
        """Whether a block more can come to `tier`, and all that this pushes out go its way, without one of the chain
        that is brought up leaving the tier that it is on."""
        while len(self._queues[tier]) >= self._capacities[tier]:
            victim = self._queues[tier].victim()
            if victim in self._pinned:
                return False
            target = self._tier_for(victim, tier)
            if target is None:
                return True
            tier = target
        return True

    def _renew(self, key: int, stored: bool) -> None:
        """Count a found block as asked for once more. One that its own chain has pushed out is written again, if it is
        to be `stored` at all: of a chain that is longer than the cache the head stays, and not the tail."""
        tiers = self.tiers_of(key)
        if tiers:
            self._queues[tiers[0]].hit(key)
        elif stored:
            self._add(key)

    def _ask(self, key: int) -> None:
        if self._settings.admission == "second-use":
            self._times[key] = min(self._times.get(key, 0) + 1, 2)
        if self._settings.ttl_ns < NEVER_NS:
            self._asked_ns[key] = self._now_ns

    def _fastest(self, key: int) -> int | None:
        """The fastest tier that holds `key`; one that is too old leaves all of them."""
        tiers = self.tiers_of(key)
        if not tiers:
            return None
        if self._is_too_old(key):
            for tier in tiers:
                self._queues[tier].remove(key)
                self._left(key, tier)
            return None
        return tiers[0]

    def _is_too_old(self, key: int) -> bool:
        return self._now_ns - self._asked_ns.get(key, self._now_ns) > self._settings.ttl_ns

    def _read(self, key: int) -> None:
        tier = self._due.pop(key, None)
        if tier is None:
            # It had to leave its tier before its turn, and was read then.
            if tiers := self.tiers_of(key):
                self._queues[tiers[0]].hit(key)
            return
        queue = self._queues[tier]
        queue.hit(key)
        if self._modelled[tier]:
            return
        first = self._first_real
        if self._settings.promote and tier > first and self._capacities[first] > 0:
            # Until it is moved it keeps its place, so that room is made beside it.
            queue.remove(key)
            self._kept[tier] += 1
            self._enter(key, first)
            self._kept[tier] -= 1
            self._steps.append((_PROMOTE, key, tier, first))
        else:
            self._steps.append((_READ, key, tier, -1))
        if self._modelled[0] and self._capacities[0] > 0:
            self._enter(key, 0)

    def _add(self, key: int) -> None:
        target = next((tier for tier, blocks in enumerate(self._capacities) if blocks > 0), None)
        if target is None:
            return
        places = [target]
        if self._settings.write_through and target != self._last and self._capacities[self._last] > 0:
            places.append(self._last)
        for tier in reversed(places):
            if self._takes(key, tier):
                self._enter(key, tier)
                if not self._modelled[tier]:
                    self._steps.append((_WRITE, key, -1, tier))

    def _takes(self, key: int, tier: int) -> bool:
        return tier != self._last or self._settings.admission == "always" or self._times[key] > 1

    def _enter(self, key: int, tier: int) -> None:
        queue = self._queues[tier]
        back = queue.came_back(key)
        self._make_room(tier)
        queue.insert(key, back)

    def _make_room(self, tier: int) -> None:
        while len(self._queues[tier]) + self._kept[tier] >= self._capacities[tier]:
            key = self._queues[tier].evict()
            if self._due.get(key) == tier:
                del self._due[key]
                if not self._modelled[tier]:
                    self._steps.append((_READ, key, tier, -1))
            target = self._tier_for(key, tier)
            if target is None:
                self._left(key, tier)
                continue
            self._enter(key, target)
            self._steps.append((_WRITE, key, -1, target) if self._modelled[tier] else (_DEMOTE, key, tier, target))

    def _tier_for(self, key: int, tier: int) -> int | None:
        """Where what has to leave `tier` goes; None: it is gone from there."""
        below = range(tier + 1, self._last + 1)
        target = next((lower for lower in below if self._capacities[lower] > self._kept[lower]), None)
        if target is None or any(key in self._queues[lower] for lower in below) or not self._takes(key, target):
            return None
        return target

    def _left(self, key: int, tier: int) -> None:
        if not self._modelled[tier]:
            self._steps.append((_DELETE, key, tier, -1))


def _check_array(name: str, array: object, dtype: type, dimensions: int = 1) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be an array")
    if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be a C-contiguous {dtype.__name__} array of {dimensions} dimension(s)")


def check(settings: ChainSettings) -> None:
    """Raises ValueError for settings that do not fit together."""
    if not 1 <= len(settings.tiers) <= _MOST_TIERS:
        raise ValueError(f"{len(settings.tiers)} tiers: there may be 1 to {_MOST_TIERS}")
    if any(not 0 <= tier.blocks <= UNLIMITED for tier in settings.tiers):
        raise ValueError(f"a tier has 0 to {UNLIMITED} blocks")
    if any(tier.modelled for tier in settings.tiers[1:]):
        raise ValueError("only the first tier may be modelled")
    if settings.policy not in POLICIES:
        raise ValueError(f"no policy {settings.policy!r}: there are {', '.join(POLICIES)}")
    if settings.admission not in ADMISSIONS:
        raise ValueError(f"no admission {settings.admission!r}: there are {', '.join(ADMISSIONS)}")
    if settings.ttl_ns < 0:
        raise ValueError("a time to live is 0 ns or more")
