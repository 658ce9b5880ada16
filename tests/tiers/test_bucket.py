"""A tier of buckets as it works on files: what it compacts and removes, who reads meanwhile, and what goes wrong."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE, Path
from kvbench.tiers.arena import Memory, anonymous_memory
from kvbench.tiers.contract import Chore
from kvbench.tiers.file.bucket import BucketTier
from kvbench.tiers.file.naming import is_name_of_object
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Cell, Part
from kvbench.units import MIB, SECTOR_BYTES, SEGMENT_BYTES

OBJECT = 4 * SECTOR_BYTES
BUCKET = 4 * OBJECT


@pytest.fixture
def payload(unique: Payload) -> Payload:
    """Every byte of an object is its own."""
    return unique


def new_cell() -> Cell:
    return Cell(np.zeros(RECORD_DTYPE.itemsize, np.uint8), 0, np.zeros(1, np.int32))


def row_of(cell: Cell) -> Any:
    return cell.rows.view(RECORD_DTYPE)[0]


def memory_of(nbytes: int = OBJECT) -> Memory:
    # A stream cipher asks for room for one more block than it writes.
    return Memory(np.frombuffer(anonymous_memory(nbytes + SECTOR_BYTES), np.uint8), np.array([[0, nbytes]], np.int64))


def new_tier(folder: FilePath, sync: str = "object", path: Path = Path.BUFFERED, garbage: float = 0.5) -> BucketTier:
    return BucketTier(folder, path, path, MIB, True, 16 * OBJECT, BUCKET, garbage, sync)


@pytest.fixture
def tier(folder: FilePath) -> Iterator[BucketTier]:
    tier = new_tier(folder)
    yield tier
    tier.close()


def write(tier: BucketTier, payload: Payload, *keys: int) -> None:
    for key in keys:
        memory = memory_of()
        payload.make(memory, key, 0)
        tier.allocate(key, OBJECT)
        tier.write(new_cell(), key, WHOLE, memory)


def check(tier: BucketTier, payload: Payload, *keys: int) -> None:
    for key in keys:
        memory = memory_of()
        tier.prepare_read(key)
        _, landed = tier.read(new_cell(), key, WHOLE, memory)
        assert landed is memory
        assert payload.check_full(memory, key, OBJECT, 0) == (OBJECT // SECTOR_BYTES, None)


def next_chore(tier: BucketTier) -> Chore:
    chore = tier.upkeep.due()
    assert chore is not None
    return chore


def names_in(folder: FilePath) -> list[str]:
    found = sorted(path.name for path in folder.iterdir())
    assert all(map(is_name_of_object, found))
    return found


def bytes_of(folder: FilePath) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(path.read_bytes() for path in sorted(folder.iterdir())), np.uint8)


def test_objects_lie_one_behind_the_other(tier: BucketTier, payload: Payload, folder: FilePath) -> None:
    write(tier, payload, *range(5))
    assert names_in(folder) == ["objects-000000.bucket", "objects-000001.bucket"]
    assert [path.stat().st_size for path in sorted(folder.iterdir())] == [BUCKET, OBJECT]
    assert tier.where(2).endswith(f"/objects-000000.bucket (from byte {2 * OBJECT} on)")
    assert tier.where(7) == f"object 0000000000000007 in {folder}"


@pytest.mark.parametrize("sync", ["none", "object", "batch", "end"])
def test_a_bucket_with_much_garbage_is_compacted_into_rows_of_its_own(
    folder: FilePath, payload: Payload, sync: str
) -> None:
    tier = new_tier(folder, sync)
    write(tier, payload, *range(5))
    before = bytes_of(folder)
    for key in (0, 1, 3):
        tier.delete(new_cell(), key)
    assert (bytes_of(folder) == before).all(), "a deletion only marks"
    chore, cell = next_chore(tier), new_cell()
    assert tier.where(2).endswith(f"/objects-000000.bucket (from byte {2 * OBJECT} on)")
    chore.carry_out(cell)
    row = row_of(cell)
    assert (row["nbytes"], row["errno"]) == (OBJECT, 0), "what is read and written counts once"
    assert row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"] == row["span_ns"] > 0
    assert tier.where(2).endswith(f"/objects-000001.bucket (from byte {OBJECT} on)")
    assert len(names_in(folder)) == 2
    removal, cell = next_chore(tier), new_cell()
    removal.carry_out(cell)
    assert (row_of(cell)["nbytes"], row_of(cell)["errno"]) == (0, 0)
    assert names_in(folder) == ["objects-000001.bucket"]
    assert chore.where == removal.where == f"bucket {folder}/objects-000000.bucket"
    assert tier.upkeep.due() is None
    check(tier, payload, 2, 4)
    tier.close()


def test_what_is_moved_over_the_end_of_a_bucket_goes_on_in_the_next(folder: FilePath, payload: Payload) -> None:
    tier = new_tier(folder, garbage=0.25)
    write(tier, payload, *range(7))
    for key in (0, 1):
        tier.delete(new_cell(), key)
    cell = new_cell()
    next_chore(tier).carry_out(cell)
    assert row_of(cell)["nbytes"] == 2 * OBJECT
    assert [tier.where(key).split("/")[-1].split(" ")[0] for key in (2, 3)] == [
        "objects-000001.bucket",
        "objects-000002.bucket",
    ]
    check(tier, payload, *range(2, 7))
    tier.close()


def test_objects_larger_than_a_piece_are_moved_whole(folder: FilePath) -> None:
    nbytes = SEGMENT_BYTES + 3 * SECTOR_BYTES
    tier = BucketTier(folder, Path.BUFFERED, Path.BUFFERED, MIB, True, 4 * nbytes, 2 * nbytes, 0.4)
    rng = np.random.default_rng(1)
    written = [memory_of(nbytes) for _ in range(3)]
    for key, memory in enumerate(written):
        memory.buffer[:] = rng.integers(0, 256, len(memory.buffer), np.uint8)
        tier.allocate(key, nbytes)
        tier.write(new_cell(), key, WHOLE, memory)
    tier.delete(new_cell(), 0)
    cell = new_cell()
    next_chore(tier).carry_out(cell)
    assert row_of(cell)["nbytes"] == nbytes
    memory = memory_of(nbytes)
    tier.read(new_cell(), 1, WHOLE, memory)
    assert (memory.buffer[:nbytes] == written[1].buffer[:nbytes]).all()
    tier.close()


def test_who_reads_keeps_the_bucket(tier: BucketTier, payload: Payload, folder: FilePath) -> None:
    write(tier, payload, *range(5))
    memory = memory_of()
    half = Memory(memory.buffer, np.array([[0, OBJECT // 2]], np.int64))
    handle, _ = tier.read(new_cell(), 2, Part(0, last=False), half)
    for key in (0, 1, 3):
        tier.delete(new_cell(), key)
    next_chore(tier).carry_out(new_cell())
    assert tier.upkeep.due() is None, "not before it was read"
    rest = Memory(memory.buffer, np.array([[OBJECT // 2, OBJECT // 2]], np.int64))
    assert tier.read(new_cell(), 2, Part(OBJECT // 2, first=False), rest, handle) == (-1, rest)
    assert payload.check_full(memory, 2, OBJECT, 0) == (OBJECT // SECTOR_BYTES, None)
    next_chore(tier).carry_out(new_cell())
    assert names_in(folder) == ["objects-000001.bucket"]
    handle, _ = tier.read(new_cell(), 2, Part(0, last=False), half)
    tier.abandon(handle)
    write(tier, payload, *range(10, 15))
    for key in (2, 4, 10, 11):
        tier.delete(new_cell(), key)
    next_chore(tier).carry_out(new_cell())
    assert names_in(folder)[0] == "objects-000002.bucket"


def test_moved_objects_are_not_left_in_the_page_cache(tmp_path: FilePath, payload: Payload) -> None:
    tier = new_tier(tmp_path)
    write(tier, payload, *range(5))
    if tier.prepare_read(2) > 0:
        pytest.skip(f"what lies in {tmp_path} cannot be dropped from the page cache")
    for key in (0, 1, 3):
        tier.delete(new_cell(), key)
    next_chore(tier).carry_out(new_cell())
    looking = BucketTier(tmp_path, Path.BUFFERED, Path.BUFFERED, MIB, False, 16 * OBJECT, BUCKET, 0.5)
    looking._buckets = tier._buckets
    assert looking.prepare_read(2) == 0
    tier.close()


def test_a_canceled_move_leaves_all_where_it_was(tier: BucketTier, payload: Payload, folder: FilePath) -> None:
    write(tier, payload, *range(5))
    for key in (0, 1, 3):
        tier.delete(new_cell(), key)
    chore, cell = next_chore(tier), new_cell()
    cell.stop[0] = 1
    with pytest.raises(OSError, match="canceled"):
        chore.carry_out(cell)
    assert (row_of(cell)["errno"], row_of(cell)["nbytes"]) == (errno.ECANCELED, 0)
    check(tier, payload, 2, 4)
    next_chore(tier).carry_out(new_cell())
    check(tier, payload, 2, 4)


def test_a_bucket_that_cannot_be_read_is_an_error_of_the_move_alone(
    tier: BucketTier, payload: Payload, folder: FilePath
) -> None:
    write(tier, payload, *range(5))
    for key in (0, 1, 3):
        tier.delete(new_cell(), key)
    os.truncate(folder / "objects-000000.bucket", OBJECT)
    chore, cell = next_chore(tier), new_cell()
    with pytest.raises(OSError, match="Input/output error"):
        chore.carry_out(cell)
    assert row_of(cell)["errno"] == errno.EIO
    assert tier.upkeep.due() is None, "it is not tried again"
    check(tier, payload, 4)
    with pytest.raises(OSError, match="Input/output error"):
        tier.read(new_cell(), 2, WHOLE, memory_of())


def test_what_a_batch_wrote_is_synced_once_for_all(folder: FilePath, payload: Payload) -> None:
    tier = new_tier(folder, "batch")
    write(tier, payload, *range(5))
    cell = new_cell()
    tier.sync_batch(cell, range(5))
    row = row_of(cell)
    assert (row["errno"], row["nbytes"]) == (0, 0)
    assert 0 < row["span_ns"] <= row["wall_ns"]
    tier.sync_batch(new_cell(), [77])
    for key in range(4):
        tier.delete(new_cell(), key)
    next_chore(tier).carry_out(new_cell())
    assert names_in(folder) == ["objects-000001.bucket"]
    tier.close()


def test_a_missing_object_is_an_oserror_that_stands_in_its_row(tier: BucketTier) -> None:
    for call in (tier.read, tier.write, lambda cell, key, *_: tier.delete(cell, key)):
        cell = new_cell()
        with pytest.raises(FileNotFoundError, match="0000000000000009"):
            call(cell, 9, WHOLE, memory_of())
        assert row_of(cell)["errno"] == errno.ENOENT
    for look in (tier.prepare_read, lambda key: tier.inspect(key, 0, memory_of())):
        with pytest.raises(FileNotFoundError, match="0000000000000009"):
            look(9)


def test_threads_write_read_and_delete_while_buckets_are_compacted(folder: FilePath, payload: Payload) -> None:
    tier, threads, rounds = new_tier(folder, "none", garbage=0.2), 4, 150
    wrong: list[BaseException] = []
    moved = np.zeros(threads, np.int64)

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        mine: list[int] = []
        for number in range(rounds):
            key = thread * 1_000_000 + number
            while not tier.upkeep.reserve({key: OBJECT}):
                chore = tier.upkeep.due()
                if chore is None:
                    assert tier.upkeep.wait({key: OBJECT}, 0.01)
                else:
                    chore.carry_out(new_cell())
            memory = memory_of()
            payload.make(memory, key, 0)
            tier.write(new_cell(), key, WHOLE, memory)
            mine.append(key)
            check(tier, payload, int(rng.choice(mine)))
            if len(mine) == 4:
                tier.delete(new_cell(), mine.pop(int(rng.integers(4))))
            while chore := tier.upkeep.due():
                cell = new_cell()
                chore.carry_out(cell)
                moved[thread] += row_of(cell)["nbytes"]
        check(tier, payload, *mine)

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:  # noqa: BLE001 - told below
            wrong.append(error)

    workers = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert not wrong, wrong
    assert not any(worker.is_alive() for worker in workers)
    assert moved.sum() > 0
    held = sum(path.stat().st_size for path in folder.iterdir())
    assert held <= 16 * OBJECT / 0.8 + 2 * BUCKET
    tier.close()


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5])
def test_wherever_a_move_fails_no_file_stays_open_and_none_of_others_is_closed(
    folder: FilePath, payload: Payload, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Canceled before the call of that number, of those that read and write three objects."""
    tier = new_tier(folder, garbage=0)
    write(tier, payload, *range(5))
    tier.delete(new_cell(), 0)
    open_before = sorted(os.listdir("/proc/self/fd"))
    chore, cell, made = next_chore(tier), new_cell(), []
    for name in ("read_file", "write_file"):
        really = getattr(timed_io, name)

        def call(*given: Any, really: Any = really) -> Any:
            made.append(given)
            cell.stop[0] = len(made) == calls
            return really(*given)

        monkeypatch.setattr(timed_io, name, call)
    with pytest.raises(OSError, match="canceled"):
        chore.carry_out(cell)
    monkeypatch.undo()
    assert len(made) == calls
    assert row_of(cell)["nbytes"] == (calls - 1) // 2 * OBJECT
    assert sorted(os.listdir("/proc/self/fd")) == open_before
    check(tier, payload, 1, 2, 3, 4)
    tier.close()
