"""Tiers that keep objects elsewhere than in files: in memory, nowhere, in a bucket of a store."""

import errno
import mmap
from collections.abc import Iterator
from pathlib import Path as FilePath

import numpy as np
import pytest
from obstore.store import LocalStore
from tier_contract import (
    IO_BYTES,
    LARGE,
    SMALL,
    TierContract,
    new_cell,
    read,
    row_of,
    write,
)

from kvbench.tiers.arena import Lease, Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.memory import MemoryTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.tier import ObjectTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Part
from kvbench.units import MIB, SECTOR_BYTES


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
