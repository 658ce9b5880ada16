"""What the cache decides, case by case."""

from collections.abc import Sequence

import pytest

from kvbench.cache import Cache, Step
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.records.schema import Op


def cache_of(capacities: Sequence[int], promote_on_hit: bool = False) -> Cache:
    return Cache(capacities, WaterfallLru(promote_on_hit))


def told(steps: list[Step]) -> list[tuple[str, int, int | None, int | None]]:
    """Steps without sizes, in words."""
    return [(step.op.name, step.key, step.source, step.target) for step in steps]


def test_new_data_goes_to_the_fastest_tier() -> None:
    cache = cache_of([10, 100])
    assert cache.insert(1, 4) == [Step(Op.WRITE, 1, 4, None, 0)]
    assert cache.lookup(1) == 0
    assert (cache.used, cache.entries) == ([4, 0], [1, 0])


def test_an_object_larger_than_the_fastest_tier_goes_to_the_next() -> None:
    cache = cache_of([10, 100])
    cache.insert(1, 10)
    assert told(cache.insert(2, 11)) == [("WRITE", 2, None, 1)]
    assert cache.lookup(1) == 0


def test_a_tier_without_capacity_is_skipped() -> None:
    cache = cache_of([0, 10])
    assert told(cache.insert(1, 1)) == [("WRITE", 1, None, 1)]


def test_an_object_larger_than_every_tier_is_counted_and_changes_nothing() -> None:
    cache = cache_of([10, 20])
    cache.insert(1, 10)
    assert cache.insert(2, 21) == []
    assert cache.too_large == 1
    assert sorted(cache.contents()) == [(1, 0, 10)]


def test_the_least_recently_used_object_moves_down_one_tier() -> None:
    cache = cache_of([10, 100])
    cache.insert(1, 5)
    cache.insert(2, 5)
    cache.read(1)
    assert told(cache.insert(3, 5)) == [("DEMOTE", 2, 0, 1), ("WRITE", 3, None, 0)]


def test_the_last_tier_deletes() -> None:
    cache = cache_of([10])
    cache.insert(1, 6)
    assert told(cache.insert(2, 6)) == [("DELETE", 1, 0, None), ("WRITE", 2, None, 0)]
    assert cache.lookup(1) is None


def test_room_is_made_from_the_bottom_up() -> None:
    cache = cache_of([10, 10, 10])
    for key in (1, 2, 3):
        cache.insert(key, 10)
    assert told(cache.insert(4, 10)) == [
        ("DELETE", 1, 2, None),
        ("DEMOTE", 2, 1, 2),
        ("DEMOTE", 3, 0, 1),
        ("WRITE", 4, None, 0),
    ]


def test_an_object_that_the_next_tier_cannot_hold_skips_it_on_its_way_down() -> None:
    cache = cache_of([10, 5, 100])
    cache.insert(1, 8)
    assert told(cache.insert(2, 8)) == [("DEMOTE", 1, 0, 2), ("WRITE", 2, None, 0)]


def test_an_object_that_no_slower_tier_can_hold_is_deleted() -> None:
    cache = cache_of([10, 5])
    cache.insert(1, 8)
    assert told(cache.insert(2, 8)) == [("DELETE", 1, 0, None), ("WRITE", 2, None, 0)]


def test_a_read_serves_the_object_where_it_is() -> None:
    cache = cache_of([10, 100])
    cache.insert(1, 10)
    cache.insert(2, 10)
    assert cache.read(1) == [Step(Op.READ, 1, 10, 1, None)]
    assert cache.lookup(1) == 1


def test_a_miss_is_no_step() -> None:
    assert cache_of([10]).read(7) == []


def test_a_demoted_object_keeps_its_age() -> None:
    cache = cache_of([10, 20])
    cache.insert(1, 10)
    cache.insert(2, 10)  # 1 goes down
    cache.read(1)
    cache.insert(3, 10)  # 2 goes down, last used before 1 was read
    assert told(cache.insert(4, 10))[0] == ("DELETE", 2, 1, None)


def test_lookup_is_not_a_use() -> None:
    cache = cache_of([10])
    cache.insert(1, 5)
    cache.insert(2, 5)
    cache.lookup(1)
    assert told(cache.insert(3, 5))[0] == ("DELETE", 1, 0, None)


def test_with_promotion_a_hit_is_read_first_and_moved_up_after_room_was_made() -> None:
    cache = cache_of([10, 20], promote_on_hit=True)
    cache.insert(1, 10)
    cache.insert(2, 10)
    assert told(cache.read(1)) == [("READ", 1, 1, None), ("DEMOTE", 2, 0, 1), ("PROMOTE", 1, 1, 0)]
    assert (cache.used, cache.entries) == ([10, 10], [1, 1])


def test_what_promotion_moves_down_must_fit_beside_the_object_that_is_still_there() -> None:
    cache = cache_of([10, 10], promote_on_hit=True)
    cache.insert(1, 10)
    cache.insert(2, 10)
    assert told(cache.read(1)) == [("READ", 1, 1, None), ("DELETE", 2, 0, None), ("PROMOTE", 1, 1, 0)]


def test_an_object_that_no_faster_tier_can_hold_is_not_promoted() -> None:
    cache = cache_of([5, 10], promote_on_hit=True)
    cache.insert(1, 8)
    assert told(cache.read(1)) == [("READ", 1, 1, None)]


def test_a_removed_object_is_gone_and_its_room_is_free() -> None:
    cache = cache_of([10, 100])
    cache.insert(1, 10)
    assert cache.remove(1) == [Step(Op.DELETE, 1, 10, 0, None)]
    assert cache.remove(1) == []
    assert told(cache.insert(2, 10)) == [("WRITE", 2, None, 0)]


def test_inserting_a_key_twice_or_nothing_at_all_is_a_mistake_of_the_caller() -> None:
    cache = cache_of([10])
    cache.insert(1, 1)
    with pytest.raises(ValueError, match="already"):
        cache.insert(1, 1)
    with pytest.raises(ValueError, match="at least 1"):
        cache.insert(2, 0)


@pytest.mark.parametrize("capacities", [[], [1, -1]])
def test_a_cache_needs_tiers_of_some_capacity(capacities: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one tier"):
        cache_of(capacities)
