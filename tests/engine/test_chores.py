"""What workers do beside operations: syncs of batches, and what a layout makes necessary, in rows of their own."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from rank_harness import Rank, Script, busy_script, config_of, finish, operations_of, ref, request

from kvbench.engine.chores import Chores
from kvbench.engine.equipment import Equipment
from kvbench.engine.operation import ActiveRequest
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, Op, Path, Phase, RequestState
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.bucket import BucketTier
from kvbench.tiers.file.buckets import room_bytes
from kvbench.tiers.file.rings import Rings, ring_trouble
from kvbench.tiers.file.slab import SlabTier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import Cell
from kvbench.units import MIB, SECTOR_BYTES, SEGMENT_BYTES

BUCKET = 16 * SECTOR_BYTES


def bucket_tier(folder: FilePath, capacity_bytes: int, sync: str = "object") -> Tier:
    return BucketTier(folder, Path.BUFFERED, Path.BUFFERED, 4096, True, capacity_bytes, BUCKET, 0.3, sync)


def slab_tier(folder: FilePath, capacity_bytes: int, sync: str) -> Tier:
    return SlabTier(folder / "objects.slab", Path.BUFFERED, Path.BUFFERED, 4096, True, capacity_bytes, sync)


def file_tier(folder: FilePath, capacity_bytes: int, sync: str) -> Tier:
    return FileTier(folder, Path.BUFFERED, Path.BUFFERED, 4096, True, sync=sync)


def ring_tier(folder: FilePath, capacity_bytes: int, sync: str) -> Tier:
    """Writes are in flight together, and the sync comes when all of them are there."""
    return FileTier(folder, Path.BUFFERED, Path.BUFFERED, 4096, True, sync=sync, overlapping=Rings(4))


def npy_tier(folder: FilePath, capacity_bytes: int, sync: str) -> Tier:
    return FileTier(folder, Path.NUMPY, Path.BUFFERED, 4096, True, sync=sync)


Make = Callable[..., Tier]
EACH = pytest.mark.parametrize("make", [file_tier, npy_tier, slab_tier, bucket_tier])


class OtherRank(Rank):
    """A rank whose storage tier is made by `make`."""

    def __init__(
        self, make: Make, folder: FilePath, sectors: Sequence[int], arena: Arena, payload: Payload, **more: Any
    ) -> None:
        self.make, self.sync = make, more.pop("sync", "batch")
        super().__init__(config_of(**more), folder, sectors, arena, payload)
        for worker in self.engine._workers:
            worker._room = 8

    def _tier(self, number: int, kind: str) -> Tier:
        if kind != "file":
            return super()._tier(number, kind)
        return self.make(self.folder, self.capacities[number], self.sync)

    def of(self, op: Op) -> Any:
        return self.rows[self.rows["op"] == op]


@pytest.fixture
def wide(payload: Payload) -> Arena:
    return Arena(16 * SEGMENT_BYTES, 4, payload.body)


@pytest.mark.skipif(ring_trouble(4) is not None, reason="this kernel gives no rings, or there is no extension")
def test_what_was_in_flight_together_is_synced_at_its_end(folder: FilePath, wide: Arena, payload: Payload) -> None:
    rank = OtherRank(ring_tier, folder, (100,), wide, payload, threads=1)
    rank.run(FIVE)
    writes, (sync,) = rank.of(Op.WRITE), rank.of(Op.SYNC)
    assert (len(writes), set(rank.rows["batch"])) == (5, {sync["batch"]})
    assert sync["t_start_ns"] >= (writes["t_start_ns"] + writes["wall_ns"]).max()
    rank.engine.batches.close()
    (batch,) = rank.engine.batches.rows()
    assert (batch["operations"], batch["op"]) == (5, Op.WRITE)
    (asked,) = rank.log
    assert asked["storage_ns"] == batch["wall_ns"] + sync["wall_ns"]
    rank.close()


FIVE = Script([[request(0, *(ref(n) for n in range(5)))]])


@EACH
def test_what_a_batch_wrote_is_synced_at_its_end(folder: FilePath, wide: Arena, payload: Payload, make: Make) -> None:
    rank = OtherRank(make, folder, (100,), wide, payload, threads=1)
    rank.run(FIVE)
    rows, writes, (sync,) = rank.rows, rank.of(Op.WRITE), rank.of(Op.SYNC)
    assert rows["op"].tolist() == [Op.WRITE] * 5 + [Op.SYNC]
    assert set(rows["batch"]) == {sync["batch"]}
    assert (writes["span_ns"] == 0).all()
    assert 0 < sync["span_ns"] <= sync["wall_ns"]
    assert sync["t_start_ns"] >= (writes["t_start_ns"] + writes["wall_ns"]).max()
    assert (sync["nbytes"], sync["tokens"], sync["errno"], sync["tier"], sync["phase"]) == (0, 0, 0, 0, Phase.MEASURE)
    assert 0 <= sync["queue_ns"] < sync["t_start_ns"] - writes["t_start_ns"][0]
    assert (rows["device_ns"] + rows["host_ns"] + rows["runq_ns"] == rows["wall_ns"]).all()
    (asked,) = rank.log
    assert (asked["operations"], asked["storage_ns"]) == (5, rows["wall_ns"].sum()), "the request waited for it"
    assert asked["end_ns"] >= sync["t_start_ns"] + sync["wall_ns"]
    rank.engine.batches.close()
    (batch,) = rank.engine.batches.rows()
    assert (batch["operations"], batch["op"], batch["wall_ns"]) == (5, Op.WRITE, writes["wall_ns"].sum())
    assert batch["nbytes"] == writes["nbytes"].sum()
    rank.close()


@EACH
@pytest.mark.parametrize("sync", ["none", "object", "end"])
def test_a_batch_has_no_sync_of_its_own_where_none_is_asked_for(
    folder: FilePath, wide: Arena, payload: Payload, make: Make, sync: str
) -> None:
    rank = OtherRank(make, folder, (100,), wide, payload, threads=1, sync=sync)
    rank.run(FIVE)
    assert rank.rows["op"].tolist() == [Op.WRITE] * 5
    assert ((rank.rows["span_ns"] > 0) == (sync == "object")).all()
    rank.close()


@EACH
def test_a_batch_that_cannot_be_synced_is_a_failure_that_stands_in_the_row_of_the_sync(
    folder: FilePath, wide: Arena, payload: Payload, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = OtherRank(make, folder, (100,), wide, payload, threads=1)
    tier = rank.tiers[0]

    def fail(cell: Cell, keys: Sequence[int]) -> None:
        with cell.around_python():
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(tier, "sync_batch", fail)
    load, _ = rank.start(FIVE)
    finish(load)
    (failure,) = rank.engine.failures
    assert failure.startswith(f"sync of {tier.where(4)} failed: Input/output error")
    assert rank.rows["errno"].tolist() == [0] * 5 + [errno.EIO]
    assert rank.log["state"].tolist() == [RequestState.FAILED]
    rank.close()


def test_what_was_canceled_is_not_synced(folder: FilePath, wide: Arena, payload: Payload) -> None:
    rank = OtherRank(file_tier, folder, (100,), wide, payload, threads=1)
    rank.engine.cancel()
    finish(rank.start(FIVE)[0])
    assert rank.engine.failures == []
    assert [(row["op"], row["errno"]) for row in rank.rows] == [(Op.WRITE, errno.ECANCELED)]
    rank.close()


@pytest.mark.parametrize("promote", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sync", ["object", "batch"])
def test_a_load_does_the_same_in_buckets_as_in_files(
    folder: FilePath, wide: Arena, payload: Payload, promote: bool, sync: str
) -> None:
    script, found = busy_script(200, keys=50), []
    for make in (file_tier, bucket_tier):
        (folder / make.__name__).mkdir()
        rank = OtherRank(
            make, folder / make.__name__, (10, 40), wide, payload, tiers=("memory", "file"), promote=promote, sync=sync
        )
        rank.run(script)
        beside = np.isin(rank.rows["op"], (Op.SYNC, Op.COMPACT))
        operations = [operation for operation in operations_of(rank) if operation[1] not in (Op.SYNC, Op.COMPACT)]
        found.append((rank.cache.decisions, operations, rank.log["operations"].tolist()))
        assert (rank.rows["errno"] == 0).all()
        assert rank.engine.verified_sectors > 0
        moved = rank.of(Op.COMPACT)
        assert bool(len(moved)) == (make is bucket_tier)
        if make is bucket_tier:
            check_compaction(rank, moved)
        assert len(rank.rows) == beside.sum() + len(operations)
        rank.close()
    assert found[0] == found[1]


def check_compaction(rank: OtherRank, moved: Any) -> None:
    tier = rank.tiers[-1]
    assert (moved["tier"] == 1).all()
    assert (moved["nbytes"] > 0).any()
    assert (moved["nbytes"] == 0).any(), "buckets were removed"
    assert (moved["device_ns"] + moved["host_ns"] + moved["runq_ns"] == moved["wall_ns"]).all()
    assert len(set(moved["batch"])) == len(moved), "none of them is of the batch of an operation"
    held = sum(path.stat().st_size for path in rank.folder.iterdir())
    assert held <= room_bytes(rank.capacities[1], BUCKET, 0.3)
    for key, number, _ in rank.cache.contents():
        assert number == 0 or tier.where(key).endswith(" on)")


def test_a_bucket_that_cannot_be_compacted_is_a_failure_of_the_load(
    folder: FilePath, wide: Arena, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tier: BucketTier, cell: Cell, *_: object) -> None:
        with cell.around_python():
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(BucketTier, "_copy", fail)
    rank = OtherRank(bucket_tier, folder, (10, 40), wide, payload, tiers=("memory", "file"))
    load, _ = rank.start(busy_script(200, keys=50))
    while not rank.engine.failures and not load.finished:
        pass
    load.stop()
    rank.engine.cancel()
    finish(load)
    assert rank.engine.failures[0].startswith(f"compact of bucket {folder}/objects-")
    assert "Input/output error" in rank.engine.failures[0]
    assert errno.EIO in rank.of(Op.COMPACT)["errno"]
    rank.close()


class Full:
    """Upkeep of a tier that has no room, and never will."""

    def __init__(self, waits: bool) -> None:
        self.waits = waits

    def reserve(self, sizes: Any) -> bool:
        return False

    def wait(self, sizes: Any, seconds: float) -> bool:
        return self.waits

    def due(self) -> None:
        return None


@pytest.mark.parametrize("how", ["full", "stopped", "over"])
def test_who_waits_for_room_is_told_when_there_will_be_none_or_the_load_ends(
    wide: Arena, payload: Payload, how: str
) -> None:
    class FullTier(NullTier):
        upkeep = Full(waits=how != "full")

    stop, until = np.array([how == "stopped"], np.int32), np.array([how == "over"], np.int64)
    tier = FullTier()
    equipment = Equipment(0, "here", [tier], wide, payload, False, stop, lambda text: None, None, until)  # type: ignore[arg-type]
    chores = Chores(0, equipment, RowStore(RECORD_DTYPE), lambda: 0)
    active = ActiveRequest(request(0, ref(1)), Phase.MEASURE, 0, 0)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
        chores.make_room(tier, 0, {1: MIB}, active)
    assert caught.value.errno == (errno.ENOSPC if how == "full" else errno.ECANCELED)
