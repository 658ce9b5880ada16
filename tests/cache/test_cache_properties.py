"""What holds for every sequence of inserts, reads and removals, checked against a cache written for clarity alone."""

from dataclasses import dataclass

from carried_out import CarriedOut
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvbench.cache import Cache, Step
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.records.schema import Op

KEYS = st.integers(0, 30)


@dataclass
class Held:
    """One object of the reference."""

    tier: int
    nbytes: int
    last_use: int


class NaiveCache:
    """The reference: one list of objects, searched from end to end for every question."""

    def __init__(self, capacities: list[int], promote_on_hit: bool) -> None:
        self.capacities = capacities
        self.promote_on_hit = promote_on_hit
        self.held: dict[int, Held] = {}
        self.clock = 0

    def free(self, tier: int) -> int:
        return self.capacities[tier] - sum(held.nbytes for held in self.held.values() if held.tier == tier)

    def evict_until(self, tier: int, nbytes: int, capacities: list[int]) -> None:
        while self.free(tier) < nbytes:
            on_tier = {key: held for key, held in self.held.items() if held.tier == tier}
            oldest = min(on_tier, key=lambda key: on_tier[key].last_use)
            size = on_tier[oldest].nbytes
            below = [t for t in range(tier + 1, len(capacities)) if size <= capacities[t]]
            if below:
                self.evict_until(below[0], size, capacities)
                self.held[oldest].tier = below[0]
            else:
                del self.held[oldest]

    def insert(self, key: int, nbytes: int) -> None:
        fitting = [t for t, capacity in enumerate(self.capacities) if nbytes <= capacity]
        if fitting:
            self.evict_until(fitting[0], nbytes, self.capacities)
            self.clock += 1
            self.held[key] = Held(fitting[0], nbytes, self.clock)

    def read(self, key: int) -> None:
        if key not in self.held:
            return
        self.clock += 1
        held = self.held[key]
        held.last_use = self.clock
        faster = [t for t in range(held.tier) if held.nbytes <= self.capacities[t]]
        if self.promote_on_hit and faster:
            beside = [c - held.nbytes if t == held.tier else c for t, c in enumerate(self.capacities)]
            self.evict_until(faster[0], held.nbytes, beside)
            held.tier = faster[0]


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of calls, on any tiers, with and without promotion."""

    @initialize(capacities=st.lists(st.integers(0, 40), min_size=1, max_size=4), promote_on_hit=st.booleans())
    def start(self, capacities: list[int], promote_on_hit: bool) -> None:
        self.cache = Cache(capacities, WaterfallLru(promote_on_hit))
        self.naive = NaiveCache(capacities, promote_on_hit)
        self.replay = CarriedOut(capacities)
        self.bytes_in = 0
        self.bytes_out = 0

    def carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            self.replay.apply(step)
            self.bytes_in += step.nbytes if step.op == Op.WRITE else 0
            self.bytes_out += step.nbytes if step.op == Op.DELETE else 0

    @rule(key=KEYS, nbytes=st.integers(1, 45))
    def insert(self, key: int, nbytes: int) -> None:
        if self.cache.lookup(key) is None:
            steps = self.cache.insert(key, nbytes)
            self.naive.insert(key, nbytes)
            self.carry_out(steps)
            assert bool(steps) == (self.cache.lookup(key) is not None)
            assert not steps or steps[-1].op == Op.WRITE

    @rule(key=KEYS)
    def read(self, key: int) -> None:
        before = self.cache.lookup(key)
        steps = self.cache.read(key)
        self.naive.read(key)
        self.carry_out(steps)
        assert bool(steps) == (before is not None)
        assert not steps or (steps[0].op, steps[0].key, steps[0].source) == (Op.READ, key, before)

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        self.carry_out(self.cache.remove(key))
        self.naive.held.pop(key, None)

    @invariant()
    def agrees_with_the_replayed_steps_and_the_reference(self) -> None:
        contents = sorted(self.cache.contents())
        assert contents == self.replay.contents()
        assert contents == sorted((key, held.tier, held.nbytes) for key, held in self.naive.held.items())
        assert len({key for key, _, _ in contents}) == len(contents), "a key is on one tier only"
        assert self.cache.used == [sum(held.values()) for held in self.replay.tiers]
        assert self.cache.entries == [len(held) for held in self.replay.tiers]
        assert self.bytes_in - self.bytes_out == sum(self.cache.used)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_order_keeps_no_memory_of_objects_that_come_and_go() -> None:
    policy = WaterfallLru(promote_on_hit=True)
    cache = Cache([10, 10**9], policy)
    cache.insert(0, 10)
    cache.insert(1, 10)
    for turn in range(20_000):
        assert len(cache.read(turn % 2)) == 3, "the two take turns on the fast tier"
    assert sum(len(heap) for heap in policy._heaps.values()) < 3_000
