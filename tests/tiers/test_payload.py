"""The content of objects: no two sectors alike, nothing to compress, the same every time, and every change is found."""

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench.tiers.arena import Arena, Memory
from kvbench.tiers.payload import STAMP, Payload
from kvbench.units import MIB, SECTOR_BYTES, SEGMENT_BYTES

KEY = 0xFEED_5EED_0000_0001
NBYTES = 9 * SECTOR_BYTES
Make = Callable[[Payload, int, int], NDArray[np.uint8]]


@pytest.fixture(params=["stamped", "unique"])
def kind(request: pytest.FixtureRequest, payload: Payload, unique: Payload) -> Payload:
    """Each kind of payload."""
    return {"stamped": payload, "unique": unique}[request.param]


@pytest.fixture
def arena(payload: Payload) -> Arena:
    """One of its own for each test: a run makes one kind of payload, not two by turns."""
    return Arena(2 * SEGMENT_BYTES, 1, payload.body)


@pytest.fixture
def content(arena: Arena) -> Iterator[Make]:
    """The bytes of an object, as they leave the arena."""
    with arena.lease(SEGMENT_BYTES) as lease:

        def make(payload: Payload, key: int, nbytes: int) -> NDArray[np.uint8]:
            pieces = []
            for offset in range(0, nbytes, lease.nbytes):
                memory = lease.memory(key, nbytes, offset, min(lease.nbytes, nbytes - offset))
                payload.make(memory, key, offset)
                pieces += [memory.buffer[start : start + length].copy() for start, length in memory.extents.tolist()]
            return np.concatenate(pieces)

        yield make


def whole(data: NDArray[np.uint8]) -> Memory:
    return Memory(data, np.array([[0, len(data)]], dtype=np.int64))


def sectors(data: NDArray[np.uint8]) -> set[bytes]:
    return {sector.tobytes() for sector in data.reshape(-1, SECTOR_BYTES)}


def test_every_sector_of_an_object_is_different(kind: Payload, content: Make) -> None:
    nbytes = 9 * MIB
    assert len(sectors(content(kind, KEY, nbytes))) == nbytes // SECTOR_BYTES


def test_two_objects_share_no_sector(kind: Payload, content: Make) -> None:
    assert not sectors(content(kind, KEY, NBYTES)) & sectors(content(kind, KEY + 1, NBYTES))


def test_two_runs_share_no_sector(kind: Payload, content: Make) -> None:
    other = Payload("unique" if kind._unique else "stamped", run=kind.run + 1, seed=7)
    assert not sectors(content(kind, KEY, NBYTES)) & sectors(content(other, KEY, NBYTES))


def test_unique_sectors_are_not_even_similar(unique: Payload, content: Make) -> None:
    nbytes = 5 * MIB
    first, second = content(unique, KEY, nbytes), content(unique, KEY + 1, nbytes)
    assert np.mean(first == second) < 0.01
    assert np.mean(first[: nbytes - SEGMENT_BYTES] == first[SEGMENT_BYTES:]) < 0.01


def test_content_does_not_compress(kind: Payload, content: Make) -> None:
    data = content(kind, KEY, MIB).tobytes()
    assert len(zlib.compress(data, 1)) > 0.99 * len(data)


def test_the_same_run_and_key_give_the_same_content(kind: Payload, content: Make) -> None:
    again = Payload("unique" if kind._unique else "stamped", run=kind.run, seed=7)
    assert (content(kind, KEY, NBYTES) == content(again, KEY, NBYTES)).all()


def test_unique_content_is_the_same_wherever_parts_begin(unique: Payload) -> None:
    data = np.zeros(NBYTES + SECTOR_BYTES, dtype=np.uint8)
    unique.make(Memory(data, np.array([[0, NBYTES]], dtype=np.int64)), KEY, 0)
    pieces = np.zeros(NBYTES + SECTOR_BYTES, dtype=np.uint8)
    for start in range(0, NBYTES, 3 * SECTOR_BYTES):
        unique.make(Memory(pieces, np.array([[start, 3 * SECTOR_BYTES]], dtype=np.int64)), KEY, start)
    assert (data == pieces).all()


def test_nothing_is_written_beside_the_extents(kind: Payload) -> None:
    """The cipher asks for room behind what it writes, where another thread's data may lie."""
    data = np.full(4 * SECTOR_BYTES, 0x77, dtype=np.uint8)
    kind.make(Memory(data, np.array([[SECTOR_BYTES, SECTOR_BYTES]], dtype=np.int64)), KEY, 0)
    assert (data[:SECTOR_BYTES] == 0x77).all()
    assert (data[2 * SECTOR_BYTES :] == 0x77).all()


def test_every_sector_begins_with_its_stamp(kind: Payload, content: Make) -> None:
    data = content(kind, KEY, NBYTES)
    stamps = data.reshape(-1, SECTOR_BYTES)[:, : STAMP.itemsize].copy().view(STAMP).ravel()
    assert stamps.tolist() == [(kind.run, sector, KEY) for sector in range(9)]


def test_the_full_check_finds_any_flipped_byte(kind: Payload, content: Make) -> None:
    data = content(kind, KEY, NBYTES)
    for position in np.random.default_rng(1).integers(0, NBYTES, 40).tolist():
        data[position] ^= 1
        _, mismatch = kind.check_full(whole(data), KEY, NBYTES, 0)
        assert mismatch is not None
        assert mismatch.offset == position // SECTOR_BYTES * SECTOR_BYTES
        assert str(mismatch.offset) in str(mismatch)
        data[position] ^= 1
    assert kind.check_full(whole(data), KEY, NBYTES, 0) == (9, None)


def test_the_full_check_finds_a_flipped_byte_far_into_a_large_object(kind: Payload, content: Make) -> None:
    nbytes = 9 * MIB
    data = content(kind, KEY, nbytes)
    data[2 * SEGMENT_BYTES + 5000] ^= 0x80
    checked, mismatch = kind.check_full(whole(data), KEY, nbytes, 0)
    assert mismatch is not None
    assert mismatch.offset == 2 * SEGMENT_BYTES + SECTOR_BYTES
    assert checked == nbytes // SECTOR_BYTES


@pytest.mark.parametrize("sector", [0, 4, 8])
def test_the_sampled_check_finds_a_wrong_stamp_at_the_ends_and_in_the_middle(
    kind: Payload, content: Make, sector: int
) -> None:
    data = content(kind, KEY, NBYTES)
    assert kind.check_sampled(whole(data), KEY, 0) == (3, None)
    data[sector * SECTOR_BYTES + 3] ^= 1
    _, mismatch = kind.check_sampled(whole(data), KEY, 0)
    assert mismatch is not None
    assert mismatch.offset == sector * SECTOR_BYTES
    assert mismatch.found != mismatch.expected


def test_the_sampled_check_covers_the_extents_at_the_ends_and_in_the_middle(kind: Payload, content: Make) -> None:
    data = content(kind, KEY, NBYTES)
    extents = np.array([[s * SECTOR_BYTES, SECTOR_BYTES] for s in range(9)], dtype=np.int64)
    for sector in (0, 4, 8):
        spoilt = data.copy()
        spoilt[sector * SECTOR_BYTES] ^= 1
        _, mismatch = kind.check_sampled(Memory(spoilt, extents), KEY, 0)
        assert mismatch is not None
        assert mismatch.offset == sector * SECTOR_BYTES


def check(payload: Payload, how: str, data: NDArray[np.uint8], offset: int = 0) -> int | None:
    memory = whole(data)
    if how == "full":
        mismatch = payload.check_full(memory, KEY, NBYTES, offset)[1]
    else:
        mismatch = payload.check_sampled(memory, KEY, offset)[1]
    return None if mismatch is None else mismatch.offset


@pytest.mark.parametrize("how", ["sampled", "full"])
def test_another_object_or_one_of_another_run_is_found(kind: Payload, content: Make, how: str) -> None:
    stale = Payload("unique" if kind._unique else "stamped", run=kind.run - 1, seed=7)
    assert check(kind, how, content(kind, KEY, NBYTES)) is None
    assert check(kind, how, content(kind, KEY + 1, NBYTES)) == 0
    assert check(kind, how, content(stale, KEY, NBYTES)) == 0
    assert check(kind, how, np.zeros(NBYTES, dtype=np.uint8)) == 0


@pytest.mark.parametrize("how", ["sampled", "full"])
def test_sectors_in_the_wrong_place_are_found(kind: Payload, content: Make, how: str) -> None:
    data = content(kind, KEY, NBYTES)
    swapped = data.reshape(-1, SECTOR_BYTES).copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    assert check(kind, how, swapped.ravel()) == 4 * SECTOR_BYTES
    assert check(kind, how, data[2 * SECTOR_BYTES :], offset=SECTOR_BYTES) == SECTOR_BYTES


def test_one_object_in_scattered_extents_is_checked_as_one(kind: Payload, content: Make) -> None:
    data = content(kind, KEY, NBYTES)
    order = [6, 2, 8, 0, 1, 7, 3, 5, 4]
    scattered = np.empty_like(data)
    for sector, place in enumerate(order):
        begin = sector * SECTOR_BYTES
        scattered[place * SECTOR_BYTES : (place + 1) * SECTOR_BYTES] = data[begin : begin + SECTOR_BYTES]
    memory = Memory(scattered, np.array([[place * SECTOR_BYTES, SECTOR_BYTES] for place in order], dtype=np.int64))
    assert kind.check_full(memory, KEY, NBYTES, 0) == (9, None)
    assert kind.check_sampled(memory, KEY, 0)[1] is None
    scattered[order[7] * SECTOR_BYTES + 100] ^= 1
    mismatch = kind.check_full(memory, KEY, NBYTES, 0)[1]
    assert mismatch is not None
    assert mismatch.offset == 7 * SECTOR_BYTES
    assert "behind the stamp" in str(mismatch)
