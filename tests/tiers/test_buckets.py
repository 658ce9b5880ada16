"""Which object lies in which bucket: whatever is written and deleted, nothing overlaps, all has room, and no more."""

import itertools
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.tiers.file.buckets import Bucket, Buckets, Move, Place, capacity_within, room_bytes
from kvbench.units import SECTOR_BYTES

descriptors = itertools.count(1000)


def new_buckets(capacity: int, bucket: int, garbage: float) -> Buckets:
    """Sizes in sectors."""
    return Buckets(capacity * SECTOR_BYTES, bucket * SECTOR_BYTES, garbage, lambda number: next(descriptors))


def write(buckets: Buckets, *keys: int, sectors: int = 1) -> bool:
    if not buckets.reserve(dict.fromkeys(keys, sectors * SECTOR_BYTES)):
        return False
    for key in keys:
        buckets.written(key)
    return True


def close_full(buckets: Buckets) -> int:
    """How many there were to close."""
    found = buckets.closing()
    for bucket in found:
        buckets.closed(bucket)
    return len(found)


def do_one(buckets: Buckets) -> str:
    """What a worker does about buckets, without any I/O."""
    close_full(buckets)
    empty = buckets.take_empty()
    if empty is not None:
        buckets.removed(empty)
        return "removed"
    found = buckets.take_garbage()
    if found is None:
        return ""
    buckets.moved(*found, done=True)
    return "moved"


def numbers_of(buckets: Buckets, *keys: int) -> list[int]:
    places = [buckets.place_of(key) for key in keys]
    assert None not in places
    return [place.bucket.number for place in places if place is not None]


def check_apart(buckets: Buckets, keys: Iterator[int]) -> None:
    """Objects lie one behind the other, each within its bucket."""
    places = sorted(
        (place.bucket.number, place.offset, place.nbytes) for place in map(buckets.place_of, keys) if place is not None
    )
    for (number, offset, nbytes), (following, at, _) in itertools.pairwise(places):
        assert number < following or offset + nbytes <= at


def test_objects_are_appended_and_a_bucket_that_is_full_is_followed_by_another() -> None:
    buckets = new_buckets(20, 4, 0.5)
    assert write(buckets, 1, 2, 3, sectors=1)
    assert write(buckets, 4, sectors=2), "it does not fit behind them"
    assert write(buckets, 5)
    assert numbers_of(buckets, 1, 2, 3, 4, 5) == [0, 0, 0, 1, 1]
    places = [buckets.place_of(key) for key in (1, 2, 3, 4, 5)]
    assert [place.offset // SECTOR_BYTES for place in places if place] == [0, 1, 2, 0, 2]
    assert close_full(buckets) == 1, "nothing is written to the first any more"


def test_a_bucket_goes_once_nothing_in_it_is_live_and_nobody_reads_it() -> None:
    buckets = new_buckets(20, 2, 0.5)
    write(buckets, 1, 2, 3)
    place = buckets.pin(1)
    assert place is not None
    assert buckets.delete(1)
    assert buckets.delete(2)
    assert do_one(buckets) == "", "somebody reads"
    buckets.unpin(place)
    assert do_one(buckets) == "removed"
    assert (buckets.used_bytes, buckets.live_bytes) == (SECTOR_BYTES, SECTOR_BYTES)
    assert not buckets.delete(1)


def test_what_is_live_moves_from_a_bucket_with_more_garbage_than_is_allowed() -> None:
    buckets = new_buckets(20, 4, 0.5)
    write(buckets, 1, 2, 3, 4, 5)
    buckets.delete(1)
    buckets.delete(3)
    assert do_one(buckets) == "", "half of it is no more than half"
    buckets.delete(2)
    assert do_one(buckets) == "moved"
    assert numbers_of(buckets, 4, 5) == [1, 1]
    assert do_one(buckets) == "removed"
    assert buckets.used_bytes == 2 * SECTOR_BYTES


def test_a_bucket_is_not_removed_before_its_file_is_closed() -> None:
    buckets = new_buckets(20, 1, 0.5)
    write(buckets, 1, 2)
    buckets.delete(1)
    assert buckets.take_empty() is None
    (full,) = buckets.closing()
    assert buckets.closing() == [], "by one caller"
    assert (full.descriptor >= 0, buckets.take_empty()) == (True, None)
    buckets.closed(full)
    assert buckets.take_empty() is full
    assert len(buckets.close()) == 1, "the open one"


def test_a_bucket_that_is_being_written_is_left_alone() -> None:
    buckets = new_buckets(20, 2, 0)
    buckets.reserve({1: SECTOR_BYTES, 2: SECTOR_BYTES, 3: SECTOR_BYTES})
    buckets.delete(1)
    assert do_one(buckets) == ""
    buckets.written(2)
    assert do_one(buckets) == "moved"


def test_places_that_nothing_was_written_to_are_kept_for_another_try() -> None:
    buckets = new_buckets(20, 4, 0.5)
    buckets.reserve({1: SECTOR_BYTES, 2: SECTOR_BYTES})
    first = buckets.place_of(1)
    buckets.written(2)
    buckets.reserve({1: SECTOR_BYTES, 2: SECTOR_BYTES})
    assert buckets.place_of(1) is first
    assert buckets.used_bytes == 3 * SECTOR_BYTES, "what was written is written anew elsewhere"
    buckets.reserve({1: 2 * SECTOR_BYTES})
    assert buckets.live_bytes == 3 * SECTOR_BYTES


def test_what_is_deleted_or_written_anew_while_it_moves_does_not_come_back() -> None:
    buckets = new_buckets(20, 3, 0)
    write(buckets, 1, 2, 3, 4)
    buckets.delete(3)
    close_full(buckets)
    found = buckets.take_garbage()
    assert found is not None
    buckets.delete(1)
    write(buckets, 2)
    anew = buckets.place_of(2)
    buckets.moved(*found, done=True)
    assert buckets.place_of(1) is None
    assert buckets.place_of(2) is anew
    assert buckets.live_bytes == 2 * SECTOR_BYTES
    assert do_one(buckets) == "removed"


@pytest.mark.parametrize("again", [True, False])
def test_what_could_not_be_moved_stays_where_it_was(again: bool) -> None:
    buckets = new_buckets(20, 2, 0)
    write(buckets, 1, 2, 3)
    buckets.delete(1)
    close_full(buckets)
    found = buckets.take_garbage()
    assert found is not None
    buckets.moved(*found, done=False, again=again)
    assert numbers_of(buckets, 2) == [0]
    assert (do_one(buckets) == "moved") == again


def test_one_bucket_is_compacted_at_a_time() -> None:
    buckets = new_buckets(20, 2, 0)
    write(buckets, *range(6))
    buckets.delete(0)
    buckets.delete(2)
    close_full(buckets)
    first = buckets.take_garbage()
    assert first is not None
    assert buckets.take_garbage() is None
    buckets.moved(*first, done=True)
    assert buckets.take_garbage() is not None


def test_what_can_never_have_room_is_refused() -> None:
    buckets = new_buckets(4, 3, 0.5)
    with pytest.raises(OSError, match="No space left"):
        write(buckets, 1, sectors=4)
    write(buckets, 1, 2, 3, 4)
    with pytest.raises(OSError, match="No space left"):
        write(buckets, 5)
    assert buckets.live_bytes == 4 * SECTOR_BYTES


def test_a_bucket_that_cannot_be_made_is_an_error_and_nothing_is_lost() -> None:
    def make(number: int) -> int:
        if number == 1:
            raise OSError(28, os.strerror(28))
        return 1000 + number

    buckets = Buckets(20 * SECTOR_BYTES, 2 * SECTOR_BYTES, 0, make)
    write(buckets, 1, 2)
    with pytest.raises(OSError, match="No space left"):
        write(buckets, 3)
    buckets.delete(1)
    assert do_one(buckets) == "", "the bucket is still the open one"
    assert numbers_of(buckets, 2) == [0]


def test_a_writer_waits_for_who_reads_and_is_told_when_nothing_will_change() -> None:
    buckets = new_buckets(2, 2, 0)
    write(buckets, 1, 2)
    pinned = [buckets.pin(1), buckets.pin(2)]
    for key in (1, 2):
        buckets.delete(key)
    assert write(buckets, 3, 4)
    for key in (3, 4):
        buckets.delete(key)
    assert not write(buckets, 5, 6), "two buckets full of garbage, of which one is being read and one is open"
    woken = threading.Event()

    def wait() -> None:
        assert buckets.wait({5: SECTOR_BYTES}, 60)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    for place in pinned:
        assert place is not None
        buckets.unpin(place)
    thread.join(60)
    assert woken.is_set()
    assert do_one(buckets) == "removed"
    assert write(buckets, 5, 6)
    full = new_buckets(2, 2, 0)
    full.used_bytes = 100 * SECTOR_BYTES
    assert not full.wait({1: SECTOR_BYTES}, 60)


shapes = st.tuples(st.integers(1, 60), st.integers(1, 12), st.sampled_from([0, 0.1, 0.3, 0.5, 0.9]))


class Load:
    """Objects come and go, some are read and some are being written meanwhile, buckets are compacted late."""

    def __init__(self, shape: tuple[int, int, float], seed: int) -> None:
        self.capacity, self.bucket, _ = shape
        self.rng = np.random.default_rng(seed)
        self.buckets = new_buckets(*shape)
        self.live: dict[int, int] = {}
        """Sectors of each object that is there, or is to be written."""
        self.pinned: list[Place] = []
        self.unwritten: list[int] = []
        self.underway: list[tuple[Bucket, list[Move]]] = []
        self.keys = itertools.count()

    def step(self) -> None:
        steps = (self.write, self.write, self.finish_write, self.delete, self.read, self.begin_move, self.do_one)
        steps[int(self.rng.integers(len(steps)))]()

    def write(self) -> None:
        size = int(self.rng.integers(1, self.bucket + 1))
        count = min(int(self.rng.integers(1, 5)), (self.capacity - sum(self.live.values())) // size)
        sizes = dict.fromkeys(itertools.islice(self.keys, count), size * SECTOR_BYTES)
        if not self.buckets.reserve(sizes):
            self.finish()
            assert self.buckets.reserve(sizes), "there is always room once nothing is under way"
        self.live |= dict.fromkeys(sizes, size)
        self.unwritten += sizes

    def finish_write(self) -> None:
        if self.unwritten:
            self.buckets.written(self.unwritten.pop(int(self.rng.integers(len(self.unwritten)))))

    def delete(self) -> None:
        there = [key for key in self.live if key not in self.unwritten]
        if there:
            key = int(self.rng.choice(there))
            assert self.buckets.delete(key)
            del self.live[key]

    def read(self) -> None:
        if self.live:
            place = self.buckets.pin(int(self.rng.choice(list(self.live))))
            assert place is not None
            self.pinned.append(place)

    def begin_move(self) -> None:
        close_full(self.buckets)
        found = self.buckets.take_garbage()
        if found is not None:
            self.underway.append(found)

    def do_one(self) -> None:
        do_one(self.buckets)

    def finish(self) -> None:
        """End all that is under way, and do what is due then."""
        while self.unwritten:
            self.buckets.written(self.unwritten.pop())
        while self.pinned:
            self.buckets.unpin(self.pinned.pop())
        while self.underway:
            self.buckets.moved(*self.underway.pop(), done=bool(self.rng.random() < 0.8))
        while do_one(self.buckets):
            pass


@settings(deadline=None)
@given(shapes, st.integers(0, 2**32))
def test_all_that_is_live_has_room_and_garbage_no_more_than_was_said(shape: tuple[int, int, float], seed: int) -> None:
    load, (capacity, bucket, garbage) = Load(shape, seed), shape
    room = room_bytes(capacity * SECTOR_BYTES, bucket * SECTOR_BYTES, garbage)
    for _ in range(120):
        load.step()
        assert load.buckets.used_bytes <= room
        assert load.buckets.live_bytes == sum(load.live.values()) * SECTOR_BYTES
        check_apart(load.buckets, iter(load.live))
    load.finish()
    # What the open bucket holds besides is garbage of its own.
    most = load.buckets.live_bytes / (1 - garbage) + bucket * SECTOR_BYTES
    assert load.buckets.used_bytes <= most + 1, "but for rounding"


@given(shapes, st.integers(0, 2**40))
def test_what_fits_into_room_has_that_room(shape: tuple[int, int, float], room: int) -> None:
    _, bucket, garbage = shape
    capacity = capacity_within(room, bucket * SECTOR_BYTES, garbage)
    assert capacity % SECTOR_BYTES == 0
    assert capacity == 0 or room_bytes(capacity, bucket * SECTOR_BYTES, garbage) <= room
    assert room_bytes(capacity + 2 * SECTOR_BYTES, bucket * SECTOR_BYTES, garbage) > room
