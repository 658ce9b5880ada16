"""What every tier must do, written once: a class of tests that each kind of tier is put through.

For a new tier, derive a class from `TierContract` and give it the fixture `tier`.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

from kvbench.records.schema import OVERLAPPING, RECORD_DTYPE, Op, Path
from kvbench.tiers.arena import Arena, Lease, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.rings import Rings, ring_trouble
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Batch, Cell, Part
from kvbench.units import KIB, MIB, SECTOR_BYTES, SEGMENT_BYTES

SMALL = 5 * SECTOR_BYTES
LARGE = 9 * MIB + 3 * SECTOR_BYTES
"""More than a lease of the arena holds."""

IO_BYTES = 256 * KIB


def new_cell(stopped: bool = False) -> Cell:
    rows = np.zeros(2 * RECORD_DTYPE.itemsize, dtype=np.uint8)
    return Cell(rows, 1, np.array([stopped], dtype=np.int32))


def row_of(cell: Cell) -> Any:
    return cell.rows.view(RECORD_DTYPE)[cell.row]


def parts_of(nbytes: int, at_most: int) -> Iterator[tuple[Part, int]]:
    for offset in range(0, nbytes, at_most):
        length = min(at_most, nbytes - offset)
        yield Part(offset, first=offset == 0, last=offset + length == nbytes), length


def moved(tier: Tier, nbytes: int) -> int:
    """What stands in the row of an operation on an object of `nbytes`."""
    return nbytes if tier.holds_bytes else 0


def write(tier: Tier, lease: Lease, payload: Payload, key: int, nbytes: int, part_bytes: int | None = None) -> Cell:
    """Write an object with the payload's content, in parts of at most a lease; returns where it was timed."""
    cell, handle = new_cell(), -1
    tier.allocate(key, nbytes)
    for part, length in parts_of(nbytes, part_bytes or lease.nbytes):
        source = lease.memory(key, nbytes, part.offset, length)
        payload.make(source, key, part.offset)
        handle = tier.write(cell, key, part, source, handle)
    assert handle == -1, "the last part leaves nothing open"
    return cell


def read(tier: Tier, lease: Lease, payload: Payload, key: int, nbytes: int, part_bytes: int | None = None) -> Cell:
    """Read an object and compare every byte of it, if the tier holds any; returns where it was timed."""
    cell, handle = new_cell(), -1
    resident = tier.prepare_read(key)
    assert 0 <= resident <= 100 or resident == 255
    for part, length in parts_of(nbytes, part_bytes or lease.nbytes) if tier.in_parts else [(WHOLE, nbytes)]:
        target = lease.memory(key, nbytes, part.offset, length)
        handle, landed = tier.read(cell, key, part, target, handle)
        if landed is None:
            tier.inspect(key, part.offset, target)
            landed = target
        assert int(landed.extents[:, 1].sum()) == length
        if tier.holds_bytes:
            assert payload.check_full(landed, key, nbytes, part.offset) == (length // SECTOR_BYTES, None)
    assert handle == -1
    return cell


def new_batch(tier: Tier, does: Op, leases: list[Lease], payload: Payload | None = None) -> Batch:
    """Five objects of SMALL bytes, with the payload's content where they are to be written."""
    keys = range(20, 25)
    memories = [lease.memory(key, SMALL, 0, SMALL) for key, lease in zip(keys, leases, strict=True)]
    if payload is not None:
        for key, memory in zip(keys, memories, strict=True):
            tier.allocate(key, SMALL)
            payload.make(memory, key, 0)
    rows = np.zeros(6 * RECORD_DTYPE.itemsize, dtype=np.uint8)
    return Batch(does, keys, () if does == Op.DELETE else memories, rows, 1, np.zeros(1, dtype=np.int32))


def rows_of(batch: Batch) -> Any:
    return batch.rows.view(RECORD_DTYPE)[batch.first_row :]


def scramble(arena: Arena, payload: Payload) -> None:
    """Put wrong stamps everywhere, so that a read that moves nothing is found out."""
    everywhere = Memory(arena.bytes, np.array([[0, arena.nbytes]], dtype=np.int64))
    Payload("stamped", run=payload.run + 1, seed=0).make(everywhere, 0xDEAD, 0)


class TierContract:
    """Each test takes `tier`, which can hold LARGE and SMALL together and is empty."""

    @pytest.fixture
    def lease(self, arena: Arena) -> Iterator[Lease]:
        with arena.lease(LARGE) as lease:
            assert lease.nbytes < LARGE
            yield lease

    @pytest.mark.parametrize("nbytes", [SECTOR_BYTES, SMALL])
    def test_what_is_written_in_one_call_is_read_back(
        self, tier: Tier, lease: Lease, payload: Payload, nbytes: int
    ) -> None:
        for key in (1, 2**64 - 1):
            written = row_of(write(tier, lease, payload, key, nbytes))
            scramble(lease.arena, payload)
            got = row_of(read(tier, lease, payload, key, nbytes))
            assert got["nbytes"] == moved(tier, nbytes)
            assert written["nbytes"] >= moved(tier, nbytes), "a file may have a header"
            assert got["errno"] == written["errno"] == 0
            for row in (written, got):
                assert row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"] > 0

    def test_an_object_larger_than_the_lease_is_read_back_in_parts(
        self, tier: Tier, lease: Lease, payload: Payload
    ) -> None:
        write(tier, lease, payload, 3, LARGE)
        scramble(lease.arena, payload)
        assert row_of(read(tier, lease, payload, 3, LARGE))["nbytes"] == moved(tier, LARGE)

    def test_an_object_larger_than_the_lease_is_read_in_one_call_that_goes_round(
        self, tier: Tier, lease: Lease, payload: Payload
    ) -> None:
        write(tier, lease, payload, 3, LARGE)
        scramble(lease.arena, payload)
        cell = new_cell()
        _, landed = tier.read(cell, 3, WHOLE, lease.memory(3, LARGE, 0, LARGE))
        assert row_of(cell)["nbytes"] == moved(tier, LARGE)
        if landed is not None and landed.buffer is lease.arena.bytes and tier.holds_bytes:
            tail = LARGE - lease.nbytes
            end = lease.memory(3, LARGE, tail, lease.nbytes)
            assert payload.check_full(end, 3, LARGE, tail) == (lease.nbytes // SECTOR_BYTES, None)

    @pytest.mark.parametrize("part_bytes", [SECTOR_BYTES, 3 * SECTOR_BYTES])
    def test_parts_of_any_size_add_up_in_one_row(
        self, tier: Tier, lease: Lease, payload: Payload, part_bytes: int
    ) -> None:
        key, nbytes = 4, 7 * SECTOR_BYTES
        whole = row_of(write(tier, lease, payload, key, nbytes))["nbytes"]
        parts = row_of(write(tier, lease, payload, key + 1, nbytes, part_bytes))
        assert parts["nbytes"] == whole
        scramble(lease.arena, payload)
        assert row_of(read(tier, lease, payload, key + 1, nbytes, part_bytes))["nbytes"] == moved(tier, nbytes)

    def test_objects_do_not_mix(self, tier: Tier, lease: Lease, payload: Payload) -> None:
        sizes = {key: (1 + key % 4) * SECTOR_BYTES for key in range(10, 17)}
        for key, nbytes in sizes.items():
            write(tier, lease, payload, key, nbytes)
        for key in list(sizes)[::2]:
            tier.delete(new_cell(), key)
            del sizes[key]
        for key in range(40, 43):
            sizes[key] = 6 * SECTOR_BYTES
            write(tier, lease, payload, key, sizes[key])
        for key, nbytes in sizes.items():
            read(tier, lease, payload, key, nbytes)

    def test_a_deleted_key_can_be_written_again(self, tier: Tier, lease: Lease, payload: Payload) -> None:
        for nbytes in (SMALL, SECTOR_BYTES, 2 * SMALL):
            write(tier, lease, payload, 5, nbytes)
            read(tier, lease, payload, 5, nbytes)
            cell = new_cell()
            tier.delete(cell, 5)
            assert (row_of(cell)["errno"], row_of(cell)["nbytes"]) == (0, 0)

    def test_memory_of_an_object_holds_its_bytes_unless_the_tier_is_storage(
        self, tier: Tier, lease: Lease, payload: Payload
    ) -> None:
        write(tier, lease, payload, 6, SMALL)
        assert (tier.addressable is None) == tier.storage
        if tier.addressable is not None:
            held = tier.addressable.memory_of(6)
            assert payload.check_full(held, 6, SMALL, 0) == (SMALL // SECTOR_BYTES, None)

    def test_reads_leave_the_arena_fit_for_stamping(self, tier: Tier, lease: Lease, payload: Payload) -> None:
        """A stamped write puts down stamps alone: what lies between them must still be the body, whatever was read."""
        rng = np.random.default_rng(3)
        sizes: dict[int, int] = {}
        for key in rng.integers(0, 2**63, 8).tolist():
            sizes[key] = int(rng.integers(1, 90)) * SECTOR_BYTES
            write(tier, lease, payload, key, sizes[key])
            again = list(sizes)[int(rng.integers(len(sizes)))]
            tier.read(new_cell(), again, WHOLE, lease.memory(again, sizes[again], 0, sizes[again]))
        segments = lease.arena.bytes[: lease.arena.nbytes].reshape(-1, SEGMENT_BYTES // SECTOR_BYTES, SECTOR_BYTES)
        body = payload.body.reshape(-1, SECTOR_BYTES)
        for segment in segments:
            assert (segment[:, 16:] == body[:, 16:]).all()
        for key, nbytes in sizes.items():
            read(tier, lease, payload, key, nbytes)

    def test_a_stopped_call_is_an_oserror_that_stands_in_its_row(
        self, tier: Tier, lease: Lease, payload: Payload
    ) -> None:
        write(tier, lease, payload, 7, SMALL)
        memory = lease.memory(7, SMALL, 0, SMALL)
        cell = new_cell(stopped=True)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
            tier.read(cell, 7, WHOLE, memory)
        assert caught.value.errno == row_of(cell)["errno"] == errno.ECANCELED
        tier.allocate(8, SMALL)
        cell = new_cell(stopped=True)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
            tier.write(cell, 8, WHOLE, memory)
        assert caught.value.errno == row_of(cell)["errno"] == errno.ECANCELED

    @pytest.fixture
    def leases(self, payload: Payload) -> Iterator[list[Lease]]:
        with Arena(5 * SEGMENT_BYTES, 1, payload.body).lease(SMALL) as lease:
            yield [lease, *lease.beside([SMALL] * 4)]

    def test_a_batch_is_written_read_and_deleted_with_a_row_for_each_object(
        self, tier: Tier, leases: list[Lease], payload: Payload
    ) -> None:
        written = new_batch(tier, Op.WRITE, leases, payload)
        tier.run(written)
        for lease in leases:
            scramble(lease.arena, payload)
        got = new_batch(tier, Op.READ, leases)
        tier.run(got)
        for at, (key, memory) in enumerate(zip(got.keys, got.memories, strict=True)):
            landed = got.landed_at(at)
            if landed is None:
                tier.inspect(key, 0, memory)
            if tier.holds_bytes:
                there = memory if landed is None else landed
                assert payload.check_full(there, key, SMALL, 0) == (SMALL // SECTOR_BYTES, None)
        deleted = new_batch(tier, Op.DELETE, leases)
        tier.run(deleted)
        for batch in (written, got, deleted):
            rows = rows_of(batch)
            assert (batch.begun, batch.errors) == (5, {})
            assert (rows["wall_ns"] > 0).all()
            ends = rows["t_start_ns"] + rows["wall_ns"]
            if batch.split is None:
                assert (rows["t_start_ns"][1:] >= ends[:-1]).all(), "one after the other"
                assert (rows["device_ns"] + rows["host_ns"] + rows["runq_ns"] == rows["wall_ns"]).all()
                continue
            assert set(rows["timed_by"]) <= set(OVERLAPPING)
            assert batch.split.wall_ns == batch.split.host_ns + batch.split.runq_ns + batch.split.device_ns
            assert batch.split.start_ns <= rows["t_start_ns"].min()
            assert batch.split.nbytes == rows["nbytes"].sum()
            assert batch.rows[: RECORD_DTYPE.itemsize].sum() == 0, "rows before its own are left alone"
        assert rows_of(got)["nbytes"].tolist() == [moved(tier, SMALL)] * 5

    def test_a_stopped_batch_says_what_was_not_done(self, tier: Tier, leases: list[Lease], payload: Payload) -> None:
        batch = new_batch(tier, Op.WRITE, leases, payload)
        batch.stop[0] = 1
        tier.run(batch)
        assert batch.begun == len(batch.errors) == 1
        assert batch.errors[0].errno == rows_of(batch)["errno"][0] == errno.ECANCELED
        assert (rows_of(batch)["t_start_ns"][1:] == 0).all()

    def test_messages_can_say_where_an_object_is(self, tier: Tier) -> None:
        assert f"{0xABCDEF:x}" in tier.where(0xABCDEF)


def new_rings() -> Rings:
    trouble = ring_trouble(4)
    if trouble and not os.environ.get("CI"):
        pytest.skip(trouble)
    return Rings(4)


def need_direct_io(folder: FilePath, *asked: object) -> None:
    """Skip the test where one of the paths that are `asked` for is direct and the filesystem refuses that."""
    if Path.DIRECT in asked and not _takes_direct_io(folder):
        pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")


def _takes_direct_io(folder: FilePath) -> bool:
    probe = FileTier(folder, Path.BUFFERED, Path.DIRECT, IO_BYTES, drop_page_cache=False)
    page = np.frombuffer(mmap.mmap(-1, SECTOR_BYTES), dtype=np.uint8)
    try:
        probe.write(new_cell(), 0, WHOLE, Memory(page, np.array([[0, SECTOR_BYTES]], dtype=np.int64)))
        probe.delete(new_cell(), 0)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    finally:
        probe.close()
    return True
