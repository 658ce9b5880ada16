"""What every policy must do, written once: a class of tests that each policy is put through; and the table of them.

For a new policy, derive a class from `PolicyContract` and give it `make`.
"""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from carried_out import CarriedOut
from fifo import Fifo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.cache import Cache, Policy, Step, make_policy
from kvbench.cache.policies import POLICIES, register
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.config.load import parse_config
from kvbench.config.names import CACHE_POLICIES
from kvbench.errors import KvbenchError
from kvbench.records.schema import Op

CAPACITIES = st.lists(st.integers(0, 40), min_size=1, max_size=4)
CALLS = st.lists(
    st.tuples(st.sampled_from(["insert", "insert", "read", "read", "remove"]), st.integers(0, 20), st.integers(1, 45)),
    max_size=120,
)
Calls = Sequence[tuple[str, int, int]]

# Every class derived from the contract runs the same tests; they keep nothing between two examples.
of_each_policy = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])


def call(cache: Cache, what: str, key: int, nbytes: int) -> list[Step]:
    """One call; an object that is there is not inserted again."""
    if what == "insert":
        return cache.insert(key, nbytes) if cache.lookup(key) is None else []
    return cache.read(key) if what == "read" else cache.remove(key)


class PolicyContract:
    """Each test makes the policy anew."""

    def make(self) -> Policy:
        raise NotImplementedError

    @given(capacities=CAPACITIES, calls=CALLS)
    @of_each_policy
    def test_whatever_is_asked_no_tier_overflows_and_nothing_is_lost(self, capacities: list[int], calls: Calls) -> None:
        cache, carried_out = Cache(capacities, self.make()), CarriedOut(capacities)
        for what, key, nbytes in calls:
            there = cache.lookup(key)
            steps = call(cache, what, key, nbytes)
            for step in steps:
                carried_out.apply(step)
            assert what != "read" or bool(steps) == (there is not None)
            assert sorted(cache.contents()) == carried_out.contents()
            assert cache.used == [sum(held.values()) for held in carried_out.tiers]

    @given(capacities=CAPACITIES, calls=CALLS)
    @of_each_policy
    def test_the_same_calls_lead_to_the_same_decisions(self, capacities: list[int], calls: Calls) -> None:
        first, second = Cache(capacities, self.make()), Cache(capacities, self.make())
        for each in calls:
            assert call(first, *each) == call(second, *each)

    def test_what_is_gone_is_forgotten(self) -> None:
        policy = self.make()
        cache = Cache([10, 20], policy)
        sizes = []
        for key in range(6000):
            cache.read(key)
            cache.insert(key, 1 + key % 7)
            cache.read(key - key % 3)
            if key % 5 == 0:
                cache.remove(key)
            sizes.append(len(pickle.dumps(policy)))
        assert max(sizes[3000:]) <= 1.5 * max(sizes[:3000])

    def test_a_tier_without_capacity_is_never_used(self) -> None:
        cache = Cache([0, 10, 0, 20], self.make())
        steps = [step for key in range(50) for step in (*cache.insert(key, 1 + key % 9), *cache.read(key - 1))]
        assert {tier for step in steps for tier in (step.source, step.target)} <= {None, 1, 3}


class TestWaterfallLru(PolicyContract):
    """The policy of the reference."""

    def make(self) -> Policy:
        return WaterfallLru()


class TestWaterfallLruThatPromotes(PolicyContract):
    """The same with `promote_on_hit`."""

    def make(self) -> Policy:
        return WaterfallLru(promote_on_hit=True)


class TestFifo(PolicyContract):
    """A policy that kvbench does not have."""

    def make(self) -> Policy:
        return Fifo()


class SecondUse(Fifo):
    """Admits an object when it comes for the second time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def admits(self, key: int, nbytes: int) -> bool:
        known = key in self.seen
        self.seen.add(key)
        return known


def test_an_object_that_the_policy_does_not_admit_is_counted_and_changes_nothing() -> None:
    cache = Cache([4], SecondUse())
    assert cache.insert(1, 3) == []
    assert (cache.refused, cache.too_large, cache.used) == (1, 0, [0])
    assert cache.insert(1, 3) == [Step(Op.WRITE, 1, 3, None, 0)]
    assert cache.insert(2, 3) == []
    assert cache.lookup(1) == 0, "nothing had to leave for what was not admitted"


def test_an_object_that_no_tier_can_hold_is_not_offered_for_admission() -> None:
    policy = SecondUse()
    assert Cache([4], policy).insert(1, 5) == []
    assert policy.seen == set()


class Told(WaterfallLru):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(promote_on_hit=True)
        self.events: list[tuple[Any, ...]] = []

    def inserted(self, key: int, nbytes: int, tier: int) -> None:
        self.events.append(("inserted", key, nbytes, tier))
        super().inserted(key, nbytes, tier)

    def hit(self, key: int, nbytes: int, tier: int) -> None:
        self.events.append(("hit", key, nbytes, tier))
        super().hit(key, nbytes, tier)

    def moved(self, key: int, nbytes: int, source: int, target: int) -> None:
        self.events.append(("moved", key, nbytes, source, target))
        super().moved(key, nbytes, source, target)

    def evicted(self, key: int, nbytes: int, tier: int) -> None:
        self.events.append(("evicted", key, nbytes, tier))
        super().evicted(key, nbytes, tier)

    def removed(self, key: int, nbytes: int, tier: int) -> None:
        self.events.append(("removed", key, nbytes, tier))
        WaterfallLru.evicted(self, key, nbytes, tier)


def told_of(step: Step, what: str) -> tuple[Any, ...]:
    """What a policy is told of a step of a call."""
    if step.op == Op.WRITE:
        return ("inserted", step.key, step.nbytes, step.target)
    if step.op == Op.READ:
        return ("hit", step.key, step.nbytes, step.source)
    if step.op == Op.DELETE:
        return ("removed" if what == "remove" else "evicted", step.key, step.nbytes, step.source)
    return ("moved", step.key, step.nbytes, step.source, step.target)


@given(capacities=CAPACITIES, calls=CALLS)
@settings(max_examples=60, deadline=None)
def test_a_policy_is_told_of_everything_with_key_size_and_tier_in_the_order_of_the_steps(
    capacities: list[int], calls: Calls
) -> None:
    policy = Told()
    cache = Cache(capacities, policy)
    for what, key, nbytes in calls:
        policy.events.clear()
        steps = call(cache, what, key, nbytes)
        assert policy.events == [told_of(step, what) for step in steps]


def test_a_policy_that_chooses_what_is_not_there_is_found_out() -> None:
    class Wrong(Fifo):
        def victim(self, tier: int) -> int:
            return 0xBAD

    cache = Cache([4], Wrong())
    cache.insert(1, 3)
    with pytest.raises(LookupError, match="0xbad, which is not on tier 0"):
        cache.insert(2, 3)


@pytest.fixture
def with_fifo() -> Iterator[None]:
    """The table of policies with one more."""
    register("fifo", Fifo)
    yield
    del POLICIES["fifo"]
    CACHE_POLICIES.remove("fifo")


def test_the_configuration_decides_on_the_policy(with_fifo: None) -> None:
    lru = make_policy(parse_config({"cache": {"promote_on_hit": True}}, "test").cache)
    assert isinstance(lru, WaterfallLru)
    assert lru.tier_after_read(1, 5, [10, 10]) == 0
    assert isinstance(make_policy(parse_config({"cache": {"policy": "fifo"}}, "test").cache), Fifo)


@pytest.mark.parametrize("wrong", ["fifi", 5, None])
def test_a_policy_that_is_not_in_the_table_is_an_error_that_names_those_in_it(with_fifo: None, wrong: object) -> None:
    with pytest.raises(KvbenchError, match=r"^test: cache.policy: expected one of .*waterfall-lru, fifo \(given: "):
        parse_config({"cache": {"policy": wrong}}, "test")
