"""Tiers that keep each object in a file of its own, one after the other or in flight together."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest
from tier_contract import (
    IO_BYTES,
    SMALL,
    TierContract,
    need_direct_io,
    new_batch,
    new_cell,
    new_rings,
    read,
    row_of,
    rows_of,
    write,
)

from kvbench.config.run_config import Layout
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Arena, Lease
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Part
from kvbench.units import SECTOR_BYTES

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
        need_direct_io(folder, *request.param)
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
        need_direct_io(folder, path)
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


RINGS = {
    "buffered": (Layout(), Path.BUFFERED, "object"),
    "direct": (Layout(), Path.DIRECT, "object"),
    "folders-renamed-unsynced": (Layout(levels=2, rename=True), Path.BUFFERED, "none"),
}


class TestFilesOnRings(TierContract):
    """Objects as files, those of a batch in flight together."""

    @pytest.fixture(params=list(RINGS.values()), ids=list(RINGS))
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        layout, path, sync = request.param
        need_direct_io(folder, path)
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
