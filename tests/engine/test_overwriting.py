"""What is written before a load: never more than there is room for, as much as was asked for, and nothing is left."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench import timed_io
from kvbench.engine.arrivals import Timeline
from kvbench.engine.bundle import Share
from kvbench.engine.operation import Operation
from kvbench.engine.overwriting import Overwriting
from kvbench.records.schema import Op, Phase, RequestState

LONG_S = 3600.0


def begun(source: Overwriting, seconds: float | None, most_bytes: int | None = None) -> Overwriting:
    source.begin_round(seconds, most_bytes)
    source.begin(Timeline.untimed(timed_io.now_ns(), Phase.PRECONDITION))
    return source


def made(capacity: int, sizes: list[int], together: int = 1) -> Overwriting:
    return Overwriting(1, capacity, sizes, np.random.default_rng(1), together)


class Disk:
    """What lies there when operations are carried out as they are handed out."""

    def __init__(self) -> None:
        self.objects: dict[int, int] = {}
        self.most = 0
        self.written = 0

    def carry_out(self, operation: Operation) -> None:
        step = operation.step
        if step.op == Op.WRITE:
            assert step.key not in self.objects
            assert step.target == 1
            self.objects[step.key] = step.nbytes
            self.written += step.nbytes
        else:
            assert (step.op, step.source) == (Op.DELETE, 1)
            assert self.objects.pop(step.key) == step.nbytes
        self.most = max(self.most, sum(self.objects.values()))


def taken(source: Overwriting, done: Sequence[Operation] = (), room: int = 1) -> list[Operation]:
    """The next batch."""
    batch = source.take(done, room)
    assert not isinstance(batch, Share)
    return list(batch)


def play(source: Overwriting, disk: Disk, room: int = 1, batches: int = 10_000) -> int:
    """Take and carry out until there is nothing more; the number of batches."""
    done: list[Operation] = []
    for number in range(batches):
        done = taken(source, done, room)
        if not done:
            return number
        assert len(done) <= room
        for operation in done:
            assert operation.request.phase == Phase.PRECONDITION
            disk.carry_out(operation)
    return batches


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    capacity=st.integers(40, 300),
    asked=st.integers(0, 2000),
    together=st.integers(1, 8),
    room=st.integers(1, 16),
)
def test_so_many_bytes_are_written_and_never_more_lie_there_than_there_is_room_for(
    sizes: list[int], capacity: int, asked: int, together: int, room: int
) -> None:
    source, disk = made(capacity, sizes, together), Disk()
    play(begun(source, LONG_S, asked), disk, room)
    assert disk.most <= capacity
    assert asked <= disk.written < asked + max(sizes)
    assert (source.written_bytes, source.writes > 0) == (disk.written, asked > 0)
    play(begun(source, None), disk, room)
    assert disk.objects == {}


def test_full_storage_is_overwritten_in_the_place_of_objects_drawn_at_random() -> None:
    source, disk = made(100, [1]), Disk()
    play(begun(source, LONG_S, 100), disk)
    oldest = list(disk.objects)
    play(begun(source, LONG_S, 150), disk)
    gone = [place for place, key in enumerate(oldest) if key not in disk.objects]
    assert len(disk.objects) == 100
    assert 20 < len(gone) < 50
    assert np.std(gone) > 15, "not those that came first"


def test_a_round_whose_time_is_over_hands_out_nothing_and_the_next_goes_on() -> None:
    source, disk = made(100, [1]), Disk()
    assert play(begun(source, 0.0), disk) == 0
    assert play(begun(source, LONG_S, 10), disk) == 10


def test_whoever_writes_nothing_has_no_round() -> None:
    assert play(begun(made(0, []), LONG_S), Disk()) == 0


def test_a_worker_waits_for_room_that_another_has_in_flight() -> None:
    source = begun(made(10, [10]), LONG_S, 20)
    (first,) = taken(source)
    others: list[object] = []
    other = threading.Thread(target=lambda: others.append(source.take()))
    other.start()
    (delete,) = taken(source, [first])
    assert delete.step.op == Op.DELETE
    source.take([delete])
    source.stop()
    other.join(10)
    assert not other.is_alive()


@pytest.mark.parametrize("how", ["stop", "give up"])
def test_when_it_is_stopped_no_worker_gets_anything_more(how: str) -> None:
    source = begun(made(100, [10]), LONG_S)
    (write,) = taken(source)
    if how == "stop":
        source.stop()
    else:
        source.give_up((), [write], RequestState.FAILED)
    assert source.take() == ()
    assert source.written_bytes == 0
