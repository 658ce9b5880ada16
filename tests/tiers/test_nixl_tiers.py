"""Tiers whose batches are transfers of NIXL."""

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
    rows_of,
)
from transfer_library import need_nixl

from kvbench.config.run_config import Layout
from kvbench.records.schema import Op, Path, TimedBy
from kvbench.tiers.arena import Arena, Lease
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.naming import SLAB_NAME
from kvbench.tiers.file.nixl_transfers import NixlTransfers
from kvbench.tiers.file.slab import SlabTier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES

TRANSFERS = {
    "buffered-aio": (Layout(), Path.BUFFERED, "object", {"use_aio": "true"}),
    "buffered-uring": (Layout(), Path.BUFFERED, "object", {"use_uring": "true"}),
    "direct-aio": (Layout(), Path.DIRECT, "object", {}),
    "direct-uring": (Layout(), Path.DIRECT, "none", {"use_uring": "true"}),
    "folders-renamed-unsynced": (Layout(levels=2, rename=True), Path.BUFFERED, "none", {"use_uring": "true"}),
}


def new_transfers(options: dict[str, str]) -> NixlTransfers:
    """Those of NIXL; the test is skipped where it is not installed."""
    need_nixl()
    return NixlTransfers("POSIX", options)


class TestFilesByNixl(TierContract):
    """Objects as files, those of a batch moved by one transfer."""

    @pytest.fixture(params=list(TRANSFERS.values()), ids=list(TRANSFERS))
    def tier(self, request: pytest.FixtureRequest, folder: FilePath, arena: Arena) -> Iterator[Tier]:
        layout, path, sync, options = request.param
        need_direct_io(folder, path)
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
        need_direct_io(folder, request.param)
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
