"""The two lines that operations wait in: one for each key, and one for the room of each tier."""

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from rank_harness import request

from kvbench.cache import Step
from kvbench.engine.operation import ActiveRequest, Bundle, Operation, Unit
from kvbench.engine.order import KeyOrder, Room
from kvbench.records.schema import Op, Phase


def operation(op: Op, key: int = 1, nbytes: int = 1) -> Operation:
    return Operation(Step(op, key, nbytes, 0, 0), ActiveRequest(request(0), Phase.MEASURE, 0, 0), 1, None)


def add(order: KeyOrder, *ops: Op, key: int = 1) -> list[Operation]:
    made = [operation(op, key) for op in ops]
    for each in made:
        order.add(each)
    return made


def test_reads_of_a_key_may_overlap() -> None:
    assert [op.waits_for for op in add(KeyOrder(), Op.READ, Op.READ, Op.READ)] == [0, 0, 0]


def test_different_keys_do_not_wait_for_each_other() -> None:
    order = KeyOrder()
    add(order, Op.WRITE, key=1)
    assert add(order, Op.WRITE, key=2)[0].waits_for == 0


def test_a_read_waits_for_the_write_before_it() -> None:
    order = KeyOrder()
    write, read = add(order, Op.WRITE, Op.READ)
    assert read.waits_for == 1
    assert order.finish(write) == [read]
    assert read.waits_for == 0


def test_a_delete_waits_for_every_read_before_it() -> None:
    order = KeyOrder()
    *reads, delete = add(order, Op.READ, Op.READ, Op.READ, Op.DELETE)
    assert [order.finish(read) for read in reads] == [[], [], [delete]]


def test_what_moves_an_object_waits_and_is_waited_for() -> None:
    for move in (Op.DEMOTE, Op.PROMOTE):
        order = KeyOrder()
        first, moved, last = add(order, Op.READ, move, Op.READ)
        assert (moved.waits_for, last.waits_for) == (1, 1)
        assert order.finish(first) == [moved]
        assert order.finish(moved) == [last]


def test_an_operation_that_waits_for_something_else_too_is_not_freed() -> None:
    order = KeyOrder()
    write, read = add(order, Op.WRITE, Op.READ)
    read.waits_for += 1
    assert order.finish(write) == []
    assert read.waits_for == 1


def test_keys_that_nobody_uses_are_forgotten() -> None:
    order = KeyOrder()
    for key in range(1000):
        for each in add(order, Op.WRITE, Op.READ, Op.READ, Op.DELETE, key=key):
            order.finish(each)
    assert (order._exclusive, order._readers) == ({}, {})


OPS = st.sampled_from([Op.READ, Op.READ, Op.WRITE, Op.DELETE, Op.DEMOTE, Op.PROMOTE])


@given(plan=st.lists(st.tuples(OPS, st.integers(0, 2)), max_size=25), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_order_of_completion_keeps_the_order_of_decisions(plan: list[tuple[Op, int]], data: st.DataObject) -> None:
    """Operations are added one by one and finished in any order that the line allows, mixed in any way."""
    order = KeyOrder()
    waiting = [operation(op, key) for op, key in plan]
    added: list[Operation] = []
    ready: list[Operation] = []
    while waiting or ready:
        if waiting and (not ready or data.draw(st.booleans())):
            new = waiting.pop(0)
            order.add(new)
            added.append(new)
            ready += [new] if new.waits_for == 0 else []
            continue
        done = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
        for earlier in added[: added.index(done)]:
            both_read = earlier.step.op == done.step.op == Op.READ
            assert earlier.done or both_read or earlier.step.key != done.step.key
        freed = order.finish(done)
        assert not set(map(id, freed)) & set(map(id, ready))
        ready += [each for each in freed if isinstance(each, Operation)]
    assert all(each.done for each in added), "nothing waits for ever"
    assert (order._exclusive, order._readers) == ({}, {})


def test_room_is_given_at_once_while_there_is_some() -> None:
    room = Room(10)
    first, second = operation(Op.WRITE, nbytes=6), operation(Op.WRITE, nbytes=4)
    room.ask(first)
    room.ask(second)
    assert (first.waits_for, second.waits_for, room.free_bytes) == (0, 0, 0)


def test_nobody_overtakes_in_the_line_for_room() -> None:
    room = Room(10)
    room.ask(operation(Op.WRITE, nbytes=8))
    large, small = operation(Op.WRITE, nbytes=5), operation(Op.WRITE, nbytes=1)
    room.ask(large)
    room.ask(small)
    assert (large.waits_for, small.waits_for, room.free_bytes) == (1, 1, 2), "the small one would fit, but came later"
    assert room.release(2) == []
    assert room.release(6) == [large, small]
    assert room.free_bytes == 4


def test_room_that_came_free_is_held_for_one_that_waits_for_something_else_too() -> None:
    room = Room(4)
    room.ask(operation(Op.WRITE, nbytes=4))
    held = operation(Op.WRITE, nbytes=4)
    held.waits_for = 1
    room.ask(held)
    assert room.release(4) == []
    assert (held.waits_for, room.free_bytes) == (1, 0)


@given(sizes=st.lists(st.integers(1, 10), max_size=30), data=st.data())
@settings(max_examples=100, deadline=None)
def test_room_never_goes_below_zero_and_goes_to_everyone_in_turn(sizes: list[int], data: st.DataObject) -> None:
    room = Room(10)
    asked = [operation(Op.WRITE, nbytes=size) for size in sizes]
    given_to: list[Operation] = []
    holding: list[Operation] = []
    waiting = asked.copy()
    while waiting or holding:
        if waiting and (not holding or data.draw(st.booleans())):
            new = waiting.pop(0)
            room.ask(new)
            got: Sequence[Operation] = [new] if new.waits_for == 0 else []
        else:
            released = room.release(holding.pop(data.draw(st.integers(0, len(holding) - 1))).step.nbytes)
            got = [each for each in released if isinstance(each, Operation)]
        given_to += got
        holding += got
        assert room.free_bytes == 10 - sum(each.step.nbytes for each in holding) >= 0
    assert given_to == asked


# Bundles


def bundle(op: Op, *keys: int, nbytes: int = 1) -> Bundle:
    return Bundle(op, keys, nbytes, 1, (0, 0), ActiveRequest(request(0), Phase.MEASURE, 0, 0), None)


def test_a_bundle_waits_for_what_any_of_its_keys_has_to_wait_for() -> None:
    order = KeyOrder()
    (write,) = add(order, Op.WRITE, key=1)
    (read,) = add(order, Op.READ, key=2)
    reads, deletes = bundle(Op.READ, 1, 2, 3), bundle(Op.DELETE, 1, 2, 3)
    order.add_bundle(reads)
    order.add_bundle(deletes)
    assert (reads.waits_for, deletes.waits_for) == (1, 3)
    assert order.finish(read) == []
    assert order.finish(write) == [reads]
    assert order.finish(reads) == [deletes]
    order.finish(deletes)
    assert (order._exclusive, order._readers) == ({}, {})


def test_a_delete_waits_for_a_reader_before_one_that_ended_first() -> None:
    order = KeyOrder()
    first, second = bundle(Op.READ, 1, 2), bundle(Op.READ, 2, 3)
    order.add_bundle(first)
    order.add_bundle(second)
    order.finish(second)
    (delete,) = add(order, Op.DELETE, key=2)
    assert delete.waits_for == 1
    assert order.finish(first) == [delete]


UNITS = st.lists(
    st.tuples(st.sampled_from([Op.READ, Op.READ, Op.WRITE, Op.DELETE]), st.sets(st.integers(0, 6), min_size=1)),
    max_size=30,
)


@settings(max_examples=300)
@given(UNITS, st.randoms(use_true_random=False))
def test_operations_on_a_key_take_effect_as_decided_whoever_is_first(
    asked: list[tuple[Op, set[int]]], random: Random
) -> None:
    """Units of one key are operations, others bundles; those that wait for nothing end in any order."""
    order = KeyOrder()
    units = [bundle(op, *keys) if len(keys) > 1 else operation(op, *keys) for op, keys in asked]
    ready: list[Unit] = []
    for unit in units:
        order.add_bundle(unit) if isinstance(unit, Bundle) else order.add(unit)
        if not unit.waits_for:
            ready.append(unit)
        # Some end while others are still being decided.
        if ready and random.random() < 0.3:
            ready += order.finish(ready.pop(random.randrange(len(ready))))
    numbers = {id(unit): number for number, unit in enumerate(units)}
    while ready:
        for unit in ready:
            op, keys = asked[numbers[id(unit)]]
            for before, (other, others) in zip(units[: numbers[id(unit)]], asked, strict=False):
                assert before.done or not keys & others or (op == other == Op.READ)
        ready += order.finish(ready.pop(random.randrange(len(ready))))
    assert all(unit.done for unit in units), "none waits for ever"
    assert (order._exclusive, order._readers) == ({}, {})


def test_room_for_a_bundle_is_given_at_once_for_all_of_it() -> None:
    room = Room(10)
    first, second, third = bundle(Op.WRITE, 1, 2, nbytes=4), bundle(Op.WRITE, 3, 4, nbytes=2), operation(Op.WRITE, 5)
    for unit in (first, second, third):
        room.ask(unit)
    assert (first.waits_for, second.waits_for, third.waits_for) == (0, 1, 1)
    assert room.release(1) == []
    assert room.release(4) == [second, third]
    assert room.free_bytes == 2
