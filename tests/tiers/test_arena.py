"""Leases of the arena: never the same memory twice, never nothing for a thread, and always the oldest segments."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.tiers.arena import Arena, Lease, object_phase, stored_bytes
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES

SIZES = st.integers(1, 5 * SEGMENT_BYTES // SECTOR_BYTES).map(lambda sectors: sectors * SECTOR_BYTES)


@pytest.fixture(scope="module")
def five(payload: Payload) -> Arena:
    """Five segments for three threads; every test gives all leases back."""
    return Arena(5 * SEGMENT_BYTES + 17, threads=3, body=payload.body)


@given(steps=st.lists(st.one_of(SIZES, st.none()), max_size=40))
@settings(max_examples=60, deadline=None)
def test_leases_never_overlap_are_bounded_and_leave_a_segment_for_each_other_thread(
    five: Arena, steps: list[int | None]
) -> None:
    leases: list[Lease] = []
    returned: list[int] = list(five._free)
    for nbytes in steps:
        if nbytes is not None and len(leases) < 3:
            lease = five.lease(nbytes)
            assert 1 <= len(lease.segments) <= max(1, -(-nbytes // SEGMENT_BYTES))
            assert list(lease.segments) == returned[: len(lease.segments)], "the one given back longest ago comes first"
            del returned[: len(lease.segments)]
            leases.append(lease)
            held = [segment for lease in leases for segment in lease.segments]
            assert len(held) == len(set(held)) <= 5 - (3 - len(leases))
        elif nbytes is None and leases:
            with leases.pop(0) as ended:
                returned += ended.segments
    for lease in leases:
        with lease:
            pass
    assert sorted(five._free) == list(range(5))


def test_a_single_thread_walks_through_the_whole_arena(five: Arena) -> None:
    seen: list[int] = []
    for _ in range(5):
        with five.lease(SECTOR_BYTES) as lease:
            seen += lease.segments
    assert sorted(seen) == list(range(5))


def test_more_leases_than_threads_are_refused(five: Arena) -> None:
    with (
        five.lease(5 * SEGMENT_BYTES),
        five.lease(SEGMENT_BYTES),
        five.lease(5 * SEGMENT_BYTES),
        pytest.raises(RuntimeError, match="more leases"),
    ):
        five.lease(1)
    with five.lease(1):
        pass


def test_a_lease_is_given_back_when_its_operation_fails(five: Arena) -> None:
    for _ in range(10):
        with pytest.raises(OSError, match="no"), five.lease(3 * SEGMENT_BYTES):
            raise OSError("no")


def test_threads_never_share_a_segment(five: Arena) -> None:
    held: set[int] = set()
    shared: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            with five.lease(int(rng.integers(1, 4 * SEGMENT_BYTES))) as lease:
                shared.extend(held.intersection(lease.segments))
                held.update(lease.segments)
                held.difference_update(lease.segments)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert shared == []


def test_an_arena_with_less_than_a_segment_for_each_thread_is_refused(payload: Payload) -> None:
    with pytest.raises(ValueError, match="fewer than one segment"):
        Arena(3 * SEGMENT_BYTES - 1, threads=3, body=payload.body)


@given(key=st.integers(0, 2**64 - 1), sectors=st.integers(1, 3000), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_byte_of_an_object_lies_at_the_same_place_of_a_segment_whatever_the_lease(
    five: Arena, key: int, sectors: int, data: st.DataObject
) -> None:
    nbytes = sectors * SECTOR_BYTES
    phase = object_phase(key, nbytes)
    assert phase % SECTOR_BYTES == 0
    assert nbytes > SEGMENT_BYTES or phase + nbytes <= SEGMENT_BYTES, "a small object needs one segment"
    with five.lease(data.draw(SIZES)) as lease:
        offset = data.draw(st.integers(0, sectors - 1)) * SECTOR_BYTES
        extents = lease.memory(key, nbytes, offset, nbytes - offset).extents
        position = phase + offset
        for start, length in extents.tolist():
            assert start % SEGMENT_BYTES == position % SEGMENT_BYTES
            assert start // SEGMENT_BYTES == (start + length - 1) // SEGMENT_BYTES
            assert start // SEGMENT_BYTES in lease.segments
            assert start % SECTOR_BYTES == length % SECTOR_BYTES == 0
            position += length
        assert position == phase + nbytes


def test_small_objects_do_not_all_land_at_the_start_of_a_segment() -> None:
    phases = {object_phase(key, 16 * SECTOR_BYTES) for key in range(1000)}
    assert len(phases) > 0.9 * SEGMENT_BYTES // (16 * SECTOR_BYTES)


def test_the_arena_is_aligned_for_direct_io_and_backed_by_the_body(five: Arena, payload: Payload) -> None:
    assert five.bytes.ctypes.data % SECTOR_BYTES == 0
    assert five.nbytes == 5 * SEGMENT_BYTES
    assert len(five.bytes) > five.nbytes, "the cipher asks for room behind the last segment"
    fresh = Arena(2 * SEGMENT_BYTES, threads=1, body=payload.body)
    assert (fresh.bytes[: fresh.nbytes].reshape(2, -1) == payload.body).all()


def test_sizes_are_rounded_up_to_sectors() -> None:
    assert [stored_bytes(n) for n in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


def test_leases_beside_one_take_whole_objects_and_leave_a_segment_for_each_other_thread(payload: Payload) -> None:
    arena = Arena(8 * SEGMENT_BYTES, threads=3, body=payload.body)
    with arena.lease(SECTOR_BYTES) as lease:
        beside = lease.beside([2 * SEGMENT_BYTES, SECTOR_BYTES, 3 * SEGMENT_BYTES, SECTOR_BYTES])
        assert [len(each.segments) for each in beside] == [2, 1], "the third has no room for the whole of it"
        held = [segment for each in (lease, *beside) for segment in each.segments]
        assert len(set(held)) == 4
        with arena.lease(8 * SEGMENT_BYTES) as other, arena.lease(SECTOR_BYTES) as last:
            assert (len(other.segments), len(last.segments)) == (3, 1)
            assert lease.beside([SECTOR_BYTES]) == []
    assert sorted(arena._free) == list(range(8))
