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
from obstore.store import LocalStore

from kvbench.config.run_config import Io, Layout, TierSection
from kvbench.errors import KvbenchError
from kvbench.records.schema import OVERLAPPING, RECORD_DTYPE, Op, Path, TimedBy
from kvbench.tiers.arena import Arena, Lease, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.bucket import BucketTier
from kvbench.tiers.file.device import DeviceTarget
from kvbench.tiers.file.naming import SLAB_NAME
from kvbench.tiers.file.nixl_library import load
from kvbench.tiers.file.nixl_transfers import NixlTransfers
from kvbench.tiers.file.rings import Rings, ring_trouble
from kvbench.tiers.file.slab import SlabTier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.memory import MemoryTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.tier import ObjectTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.target import TierSettings
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


class TestMemoryTier(TierContract):
    """Objects in the node's memory."""

    @pytest.fixture
    def tier(self) -> Iterator[Tier]:
        tier = MemoryTier(LARGE + 64 * SMALL, IO_BYTES)
        yield tier
        tier.close()

    def test_a_full_tier_refuses_and_takes_what_was_given_back(self, lease: Lease, payload: Payload) -> None:
        tier = MemoryTier(4 * SECTOR_BYTES + 100, IO_BYTES)
        for key in range(4):
            write(tier, lease, payload, key, SECTOR_BYTES)
        with pytest.raises(MemoryError):
            tier.allocate(4, SECTOR_BYTES)
        tier.delete(new_cell(), 0)
        tier.release(2)
        write(tier, lease, payload, 5, 2 * SECTOR_BYTES)
        for key, nbytes in ((1, SECTOR_BYTES), (3, SECTOR_BYTES), (5, 2 * SECTOR_BYTES)):
            read(tier, lease, payload, key, nbytes)

    def test_memory_is_there_before_anything_is_timed(self) -> None:
        tier = MemoryTier(8 * MIB, IO_BYTES)
        tier.allocate(1, 8 * MIB)
        source = np.zeros(8 * MIB, dtype=np.uint8)
        source[:] = 1
        cell = new_cell()
        tier.write(cell, 1, WHOLE, Memory(source, np.array([[0, 8 * MIB]], dtype=np.int64)))
        assert row_of(cell)["minor_faults"] < 8 * MIB // mmap.PAGESIZE // 10

    def test_objects_are_aligned_for_direct_io(self) -> None:
        tier = MemoryTier(64 * SECTOR_BYTES, IO_BYTES)
        tier.allocate(1, 3 * SECTOR_BYTES)
        memory = tier.memory_of(1)
        assert memory.buffer.ctypes.data % SECTOR_BYTES == 0
        assert (memory.extents % SECTOR_BYTES == 0).all()


class TestNullTier(TierContract):
    """Objects that are only remembered."""

    @pytest.fixture
    def tier(self) -> Tier:
        return NullTier()

    def test_nothing_lands_anywhere(self, tier: Tier, lease: Lease, payload: Payload) -> None:
        before = lease.arena.bytes.copy()
        cell = new_cell()
        tier.write(cell, 1, WHOLE, lease.memory(1, SMALL, 0, SMALL))
        tier.read(cell, 1, WHOLE, lease.memory(1, SMALL, 0, SMALL))
        assert (lease.arena.bytes == before).all()
        assert (row_of(cell)["nbytes"], row_of(cell)["copy_ns"]) == (0, 0)
        assert row_of(cell)["wall_ns"] > 0

    def test_an_object_that_it_does_not_have_is_an_oserror_that_stands_in_its_row(
        self, tier: Tier, lease: Lease
    ) -> None:
        tier.write(new_cell(), 9, Part(0, first=True, last=False), lease.memory(9, SMALL, 0, SMALL))
        for call in (tier.read, lambda cell, key, *_: tier.delete(cell, key)):
            cell = new_cell()
            with pytest.raises(FileNotFoundError, match="object 0x9 in the null tier"):
                call(cell, 9, WHOLE, lease.memory(9, SMALL, 0, SMALL))
            assert row_of(cell)["errno"] == errno.ENOENT


PATHS = [
    *((path, Path.BUFFERED) for path in Path if path <= Path.DIRECT),
    (Path.BUFFERED, Path.DIRECT),
    (Path.DIRECT, Path.DIRECT),
    (Path.NUMPY, Path.DIRECT),
]


class TestFileTier(TierContract):
    """Objects as files, through every read path and write path, in memory and on disk."""

    @pytest.fixture(params=PATHS, ids=lambda paths: f"{paths[0].name}-{paths[1].name}".lower())
    def tier(self, request: pytest.FixtureRequest, folder: FilePath) -> Iterator[Tier]:
        read_path, write_path = request.param
        if Path.DIRECT in request.param and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        tier = FileTier(folder, read_path, write_path, IO_BYTES, drop_page_cache=True)
        yield tier
        tier.close()

    def test_a_missing_object_is_an_oserror_that_stands_in_its_row(self, tier: Tier, lease: Lease) -> None:
        for call in (tier.read, lambda cell, key, *_: tier.delete(cell, key)):
            cell = new_cell()
            with pytest.raises(FileNotFoundError):
                call(cell, 9, WHOLE, lease.memory(9, SMALL, 0, SMALL))
            assert row_of(cell)["errno"] == errno.ENOENT
            assert row_of(cell)["nbytes"] == 0

    def test_nothing_is_begun_behind_what_fails_in_a_batch(
        self, tier: Tier, leases: list[Lease], payload: Payload
    ) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        tier.delete(new_cell(), 22)
        batch = new_batch(tier, Op.READ, leases)
        tier.run(batch)
        # Where it looks at each file right before it reads it, that is what fails, and there is nothing in its row yet.
        assert batch.begun == (2 if tier.moves_together else 3)
        assert {number: error.errno for number, error in batch.errors.items()} == {2: errno.ENOENT}
        assert rows_of(batch)["errno"].tolist() == [0, 0, 0 if tier.moves_together else errno.ENOENT, 0, 0]
        assert (rows_of(batch)["t_start_ns"][3:] == 0).all()

    @pytest.mark.parametrize("kept_bytes", [0, SECTOR_BYTES, 2 * SECTOR_BYTES])
    def test_a_file_cut_short_is_an_input_output_error(
        self, tier: Tier, lease: Lease, payload: Payload, kept_bytes: int
    ) -> None:
        write(tier, lease, payload, 9, SMALL)
        FilePath(tier.where(9)).write_bytes(FilePath(tier.where(9)).read_bytes()[:kept_bytes])
        cell = new_cell()
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
            tier.read(cell, 9, WHOLE, lease.memory(9, SMALL, 0, SMALL))
        assert caught.value.errno == row_of(cell)["errno"] == errno.EIO
        lease.renew()  # as after every error: nobody knows what landed there

    def test_deleting_leaves_no_file(self, tier: Tier, lease: Lease, payload: Payload, folder: FilePath) -> None:
        write(tier, lease, payload, 9, SMALL)
        assert [str(path) for path in folder.iterdir()] == [tier.where(9)]
        tier.delete(new_cell(), 9)
        assert list(folder.iterdir()) == []


LAYOUTS = {
    "flat-renamed": (Layout(rename=True), Path.BUFFERED, "object"),
    "folders": (Layout(levels=2), Path.BUFFERED, "object"),
    "folders-renamed-direct": (Layout(levels=1, width=3, rename=True, ask_first=True), Path.DIRECT, "object"),
    "folders-renamed-numpy": (Layout(levels=4, width=1, rename=True), Path.NUMPY, "object"),
    "flat-unsynced": (Layout(), Path.BUFFERED, "none"),
}


class TestLaidOutFiles(TierContract):
    """Objects as files in folders, renamed when they are whole, or not synced."""

    @pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
    def tier(self, request: pytest.FixtureRequest, folder: FilePath) -> Iterator[Tier]:
        layout, path, sync = request.param
        if path == Path.DIRECT and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        write_path = path if path == Path.DIRECT else Path.BUFFERED
        tier = FileTier(folder, path, write_path, IO_BYTES, drop_page_cache=True, layout=layout, sync=sync)
        yield tier
        tier.close()

    def test_only_the_synced_have_a_span(self, lease: Lease, payload: Payload, folder: FilePath) -> None:
        for sync, synced in (("object", True), ("none", False), ("end", False)):
            tier = FileTier(folder, Path.BUFFERED, Path.BUFFERED, IO_BYTES, drop_page_cache=True, sync=sync)
            assert (row_of(write(tier, lease, payload, 1, SMALL))["span_ns"] > 0) == synced
            tier.close()

    def test_files_lie_in_folders_named_after_their_first_digits(
        self, lease: Lease, payload: Payload, folder: FilePath
    ) -> None:
        layout = Layout(levels=2, width=3, rename=True)
        tier = FileTier(folder, Path.BUFFERED, Path.BUFFERED, IO_BYTES, drop_page_cache=True, layout=layout)
        key = 0x0123456789ABCDEF
        write(tier, lease, payload, key, SMALL)
        found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        assert found == ["012/345/0123456789abcdef.kv"]
        assert tier.where(key) == f"{folder}/{found[0]}"
        assert tier.size_bytes(key) == SMALL
        tier.delete(new_cell(), key)
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        tier.close()

    def test_a_write_that_was_stopped_leaves_the_object_as_it_was(
        self, lease: Lease, payload: Payload, folder: FilePath
    ) -> None:
        layout = Layout(rename=True)
        tier = FileTier(folder, Path.BUFFERED, Path.BUFFERED, IO_BYTES, drop_page_cache=True, layout=layout)
        write(tier, lease, payload, 9, SMALL)
        cell = new_cell()
        handle = tier.write(cell, 9, Part(0, last=False), lease.memory(9, SMALL, 0, SECTOR_BYTES))
        assert sorted(path.name[16:] for path in folder.iterdir()) == [".kv", ".kv.tmp"]
        cell.stop[0] = 1
        with pytest.raises(OSError, match="canceled"):
            tier.write(cell, 9, Part(SECTOR_BYTES, first=False), lease.memory(9, SMALL, SECTOR_BYTES, SMALL), handle)
        read(tier, lease, payload, 9, SMALL)
        tier.close()


SLAB_PATHS = [
    (Path.BUFFERED, Path.BUFFERED, "object"),
    (Path.BUFFERED, Path.BUFFERED, "none"),
    (Path.BUFFERED, Path.BUFFERED, "batch"),
    (Path.MMAP_TOUCH, Path.BUFFERED, "object"),
    (Path.MMAP_COPY, Path.BUFFERED, "object"),
    (Path.DIRECT, Path.DIRECT, "object"),
    (Path.DIRECT, Path.BUFFERED, "object"),
]


RINGS = {
    "buffered": (Layout(), Path.BUFFERED, "object"),
    "direct": (Layout(), Path.DIRECT, "object"),
    "folders-renamed-unsynced": (Layout(levels=2, rename=True), Path.BUFFERED, "none"),
}


def new_rings() -> Rings:
    trouble = ring_trouble(4)
    if trouble and not os.environ.get("CI"):
        pytest.skip(trouble)
    return Rings(4)


class TestFilesOnRings(TierContract):
    """Objects as files, those of a batch in flight together."""

    @pytest.fixture(params=list(RINGS.values()), ids=list(RINGS))
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        layout, path, sync = request.param
        if path == Path.DIRECT and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        tier = FileTier(folder, path, path, IO_BYTES, True, layout=layout, sync=sync, overlapping=new_rings())
        tier.begin_thread(arena.bytes)
        yield tier
        tier.close()

    def test_it_says_which_object_failed(self, tier: Tier, leases: list[Lease], payload: Payload) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        os.truncate(tier.where(22), SECTOR_BYTES)
        batch = new_batch(tier, Op.READ, leases)
        tier.run(batch)
        assert {number: error.errno for number, error in batch.errors.items()} == {2: errno.EIO}
        assert f"{22:016x}" in str(batch.errors[2])

    def test_the_memory_is_registered(self, tier: Tier) -> None:
        assert tier.unregistered_errno == 0


TRANSFERS = {
    "buffered-aio": (Layout(), Path.BUFFERED, "object", {"use_aio": "true"}),
    "buffered-uring": (Layout(), Path.BUFFERED, "object", {"use_uring": "true"}),
    "direct-aio": (Layout(), Path.DIRECT, "object", {}),
    "direct-uring": (Layout(), Path.DIRECT, "none", {"use_uring": "true"}),
    "folders-renamed-unsynced": (Layout(levels=2, rename=True), Path.BUFFERED, "none", {"use_uring": "true"}),
}


def new_transfers(options: dict[str, str]) -> NixlTransfers:
    """Those of NIXL; the test is skipped where it is not installed."""
    try:
        load()
    except KvbenchError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return NixlTransfers("POSIX", options)


class TestFilesByNixl(TierContract):
    """Objects as files, those of a batch moved by one transfer."""

    @pytest.fixture(params=list(TRANSFERS.values()), ids=list(TRANSFERS))
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        layout, path, sync, options = request.param
        if path == Path.DIRECT and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        transfers = new_transfers(options)
        tier = FileTier(folder, path, path, IO_BYTES, True, layout=layout, sync=sync, overlapping=transfers)
        tier.begin_thread(arena.bytes)
        yield tier
        tier.close()

    def test_a_short_file_is_told_before_it_is_moved(self, tier: Tier, leases: list[Lease], payload: Payload) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        os.truncate(tier.where(22), SECTOR_BYTES)
        batch = new_batch(tier, Op.READ, leases)
        tier.run(batch)
        assert batch.begun == 3
        assert {number: error.errno for number, error in batch.errors.items()} == {2: errno.EIO}
        assert f"{22:016x}" in str(batch.errors[2])
        rows = rows_of(batch)
        assert rows["errno"][:3].tolist() == [0, 0, errno.EIO]
        assert rows["nbytes"][:3].tolist() == [SMALL, SMALL, 0]

    def test_a_missing_file_is_the_one_behind_those_that_were_moved(
        self, tier: Tier, leases: list[Lease], payload: Payload
    ) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        os.unlink(tier.where(22))
        batch = new_batch(tier, Op.READ, leases)
        tier.run(batch)
        assert batch.begun == 2
        assert {number: error.errno for number, error in batch.errors.items()} == {2: errno.ENOENT}

    def test_every_row_has_the_times_of_the_transfer(self, tier: Tier, leases: list[Lease], payload: Payload) -> None:
        batch = new_batch(tier, Op.WRITE, leases, payload)
        tier.run(batch)
        rows, split = rows_of(batch), batch.split
        assert split is not None
        assert (rows["t_start_ns"] == split.start_ns).all()
        assert (rows["wall_ns"] == split.wall_ns).all()
        assert (rows["timed_by"] == TimedBy.NIXL).all()
        assert split.depth == 5


class TestSlabByNixl(TierContract):
    """Objects in slots of one file, those of a batch moved by one transfer."""

    @pytest.fixture(params=[Path.BUFFERED, Path.DIRECT], ids=["buffered", "direct"])
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        if request.param == Path.DIRECT and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        most, transfers = LARGE + 64 * SMALL, new_transfers({})
        tier = SlabTier(folder / SLAB_NAME, request.param, request.param, IO_BYTES, True, most, overlapping=transfers)
        tier.begin_thread(arena.bytes)
        yield tier
        tier.close()

    def test_a_slab_cut_short_is_an_error_of_the_first_object_behind_its_end(
        self, tier: Tier, leases: list[Lease], payload: Payload, folder: FilePath
    ) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        os.truncate(folder / SLAB_NAME, 2 * SMALL + SECTOR_BYTES)
        batch = new_batch(tier, Op.READ, leases)
        tier.run(batch)
        assert {number: error.errno for number, error in batch.errors.items()} == {2: errno.EIO}


class TestPlacesOnRings(TierContract):
    """Objects in slots of one file or in buckets, those of a batch in flight together."""

    @pytest.fixture(params=["slab-buffered", "slab-direct", "bucket-buffered", "bucket-direct"])
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        kind, _, name = request.param.partition("-")
        path = Path.DIRECT if name == "direct" else Path.BUFFERED
        if path == Path.DIRECT and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        most, rings = LARGE + 64 * SMALL, new_rings()
        tier: Tier
        if kind == "slab":
            tier = SlabTier(folder / SLAB_NAME, path, path, IO_BYTES, True, most, overlapping=rings)
        else:
            tier = BucketTier(folder, path, path, IO_BYTES, True, most, LARGE, 0.2, rings=rings)
        tier.begin_thread(arena.bytes)
        yield tier
        tier.close()

    def test_a_batch_with_an_object_that_is_gone_goes_one_by_one(
        self, tier: Tier, leases: list[Lease], payload: Payload
    ) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        tier.delete(new_cell(), 22)
        batch = new_batch(tier, Op.READ, leases)
        tier.run(batch)
        assert {number: error.errno for number, error in batch.errors.items()} == {2: errno.ENOENT}
        assert batch.split is None
        assert (rows_of(batch)["resident_pct"][:2] <= 100).all()


class TestSlabTier(TierContract):
    """Objects in slots of one file."""

    @pytest.fixture(params=SLAB_PATHS, ids=lambda paths: f"{paths[0].name}-{paths[1].name}-{paths[2]}".lower())
    def tier(self, request: pytest.FixtureRequest, folder: FilePath) -> Iterator[Tier]:
        read_path, write_path, sync = request.param
        if Path.DIRECT in request.param and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        tier = SlabTier(folder / SLAB_NAME, read_path, write_path, IO_BYTES, True, LARGE + 64 * SMALL, sync)
        yield tier
        tier.close()

    @pytest.fixture
    def small(self, folder: FilePath) -> Iterator[SlabTier]:
        """One with room for four sectors."""
        tier = SlabTier(folder / SLAB_NAME, Path.BUFFERED, Path.BUFFERED, IO_BYTES, True, 4 * SECTOR_BYTES + 100)
        yield tier
        tier.close()

    def test_it_is_one_file_as_large_as_the_tier_from_the_beginning(self, small: SlabTier, folder: FilePath) -> None:
        (file,) = folder.iterdir()
        assert (file.name, file.stat().st_size) == ("objects.slab", 4 * SECTOR_BYTES)
        assert file.stat().st_blocks * 512 >= 4 * SECTOR_BYTES
        assert small.most_bytes == 4 * SECTOR_BYTES

    def test_a_slot_that_was_freed_is_used_again_and_nothing_else_is_touched(
        self, small: SlabTier, lease: Lease, payload: Payload, folder: FilePath
    ) -> None:
        for key in range(4):
            write(small, lease, payload, key, SECTOR_BYTES)
        with pytest.raises(OSError, match="No space left"):
            small.allocate(4, SECTOR_BYTES)
        before = (folder / "objects.slab").read_bytes()
        small.delete(new_cell(), 2)
        write(small, lease, payload, 5, SECTOR_BYTES)
        after = (folder / "objects.slab").read_bytes()
        changed = [at // SECTOR_BYTES for at in range(0, len(after), 16) if after[at : at + 16] != before[at : at + 16]]
        assert set(changed) == {2}
        assert len(after) == 4 * SECTOR_BYTES
        for key in (0, 1, 3, 5):
            read(small, lease, payload, key, SECTOR_BYTES)

    def test_an_object_in_several_pieces_is_one_row(self, small: SlabTier, lease: Lease, payload: Payload) -> None:
        for key in range(4):
            write(small, lease, payload, key, SECTOR_BYTES)
        for key in (0, 2):
            small.delete(new_cell(), key)
        assert row_of(write(small, lease, payload, 9, 2 * SECTOR_BYTES))["nbytes"] == 2 * SECTOR_BYTES
        scramble(lease.arena, payload)
        assert row_of(read(small, lease, payload, 9, 2 * SECTOR_BYTES))["nbytes"] == 2 * SECTOR_BYTES
        for key in (1, 3):
            read(small, lease, payload, key, SECTOR_BYTES)

    def test_a_missing_object_is_an_oserror_that_stands_in_its_row(self, tier: Tier, lease: Lease) -> None:
        for call in (tier.read, lambda cell, key, *_: tier.delete(cell, key)):
            cell = new_cell()
            with pytest.raises(FileNotFoundError, match="0000000000000009"):
                call(cell, 9, WHOLE, lease.memory(9, SMALL, 0, SMALL))
            assert row_of(cell)["errno"] == errno.ENOENT

    def test_a_slab_cut_short_is_an_input_output_error(
        self, tier: Tier, lease: Lease, payload: Payload, folder: FilePath
    ) -> None:
        write(tier, lease, payload, 9, SMALL)
        os.truncate(folder / "objects.slab", SECTOR_BYTES)
        cell = new_cell()
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
            tier.read(cell, 9, WHOLE, lease.memory(9, SMALL, 0, SMALL))
        assert caught.value.errno == row_of(cell)["errno"] == errno.EIO
        lease.renew()

    def test_what_was_not_synced_is_synced_at_the_end(self, lease: Lease, payload: Payload, folder: FilePath) -> None:
        tier = SlabTier(folder / SLAB_NAME, Path.BUFFERED, Path.BUFFERED, IO_BYTES, True, 16 * SMALL, "end")
        assert row_of(write(tier, lease, payload, 1, SMALL))["span_ns"] == 0
        cell = new_cell()
        tier.sync(cell)
        assert (row_of(cell)["errno"], row_of(cell)["nbytes"]) == (0, 0)
        assert row_of(cell)["span_ns"] > 0
        tier.close()

    def test_a_slab_for_which_there_is_no_room_is_refused(self, folder: FilePath) -> None:
        with pytest.raises(KvbenchError, match=r"objects\.slab of 4096 PiB: .*; free space there, or set a smaller"):
            SlabTier(folder / SLAB_NAME, Path.BUFFERED, Path.BUFFERED, IO_BYTES, True, 2**62)


@pytest.mark.slow
class TestSlabOnDevice(TierContract):
    """Objects in slots of a block device."""

    @pytest.fixture(params=["buffered", "direct", "mmap-copy", "mmap-touch"])
    def tier(self, request: pytest.FixtureRequest, device: str) -> Iterator[Tier]:
        target = DeviceTarget(device)
        target.check()
        target.consent([device])
        area = target.area("20260101-000000-abc123", 0)
        area.create()
        io = Io(
            read_path=request.param,
            write_path="direct" if request.param == "direct" else "buffered",
            io_bytes=IO_BYTES,
        )
        section = TierSection(kind="file", layout=Layout(kind="slab"))
        tier = area.open_tier(TierSettings(section, io, LARGE + 64 * SMALL))
        yield tier
        tier.close()
        assert area.remove() == ()


class TestBucketTier(TierContract):
    """Objects appended to files; what of them it does besides is in test_bucket.py."""

    @pytest.fixture(params=SLAB_PATHS, ids=lambda paths: f"{paths[0].name}-{paths[1].name}-{paths[2]}".lower())
    def tier(self, request: pytest.FixtureRequest, folder: FilePath) -> Iterator[Tier]:
        read_path, write_path, sync = request.param
        if Path.DIRECT in request.param and not takes_direct_io(folder):
            pytest.skip(f"the filesystem of {folder} refuses O_DIRECT")
        capacity = LARGE + 64 * SMALL
        tier = BucketTier(folder, read_path, write_path, IO_BYTES, True, capacity, 2 * LARGE, 0.5, sync)
        yield tier
        tier.close()


class TestObjectTier(TierContract):
    """Objects in a bucket, several in flight, in parts of 5 MiB where they are longer."""

    @pytest.fixture(params=[1, 3, 32])
    def depth(self, request: pytest.FixtureRequest) -> int:
        depth: int = request.param
        return depth

    @pytest.fixture
    def tier(self, depth: int, folder: FilePath) -> Iterator[Tier]:
        tier = ObjectTier(
            Requests(LocalStore(folder), "s3", 0), "some/prefix", "s3://bucket/some/prefix", depth, 5 * MIB
        )
        yield tier
        tier.close()


def takes_direct_io(folder: FilePath) -> bool:
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
