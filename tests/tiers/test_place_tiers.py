"""Tiers that keep many objects in one file: slots of a slab or of a device, and buckets."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest
from tier_contract import (
    IO_BYTES,
    LARGE,
    SMALL,
    TierContract,
    need_direct_io,
    new_batch,
    new_cell,
    new_rings,
    read,
    row_of,
    rows_of,
    scramble,
    write,
)

from kvbench.config.run_config import Io, Layout, TierSection
from kvbench.errors import KvbenchError
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Arena, Lease
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.bucket import BucketTier
from kvbench.tiers.file.device import DeviceTarget
from kvbench.tiers.file.naming import SLAB_NAME
from kvbench.tiers.file.slab import SlabTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.target import TierSettings
from kvbench.tiers.transfer import WHOLE
from kvbench.units import SECTOR_BYTES

SLAB_PATHS = [
    (Path.BUFFERED, Path.BUFFERED, "object"),
    (Path.BUFFERED, Path.BUFFERED, "none"),
    (Path.BUFFERED, Path.BUFFERED, "batch"),
    (Path.MMAP_TOUCH, Path.BUFFERED, "object"),
    (Path.MMAP_COPY, Path.BUFFERED, "object"),
    (Path.DIRECT, Path.DIRECT, "object"),
    (Path.DIRECT, Path.BUFFERED, "object"),
]


class TestPlacesOnRings(TierContract):
    """Objects in slots of one file or in buckets, those of a batch in flight together."""

    @pytest.fixture(params=["slab-buffered", "slab-direct", "bucket-buffered", "bucket-direct"])
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        kind, _, name = request.param.partition("-")
        path = Path.DIRECT if name == "direct" else Path.BUFFERED
        need_direct_io(folder, path)
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
        need_direct_io(folder, *request.param)
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
        need_direct_io(folder, *request.param)
        capacity = LARGE + 64 * SMALL
        tier = BucketTier(folder, read_path, write_path, IO_BYTES, True, capacity, 2 * LARGE, 0.5, sync)
        yield tier
        tier.close()
