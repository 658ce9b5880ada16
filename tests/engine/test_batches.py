"""Batches: what goes into one, how many operations a worker takes at a time, and what becomes of one that fails."""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from rank_harness import (
    Rank,
    Script,
    busy_script,
    check_end_state,
    config_of,
    finish,
    operations_from,
    operations_of,
    ref,
    request,
)

from kvbench import timed_io
from kvbench.cache import Cache
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.engine.arrivals import Timeline
from kvbench.engine.bundle import Work
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.operation import Operation
from kvbench.engine.planner import Books
from kvbench.engine.ready import Limits
from kvbench.engine.worker import MOST_TOGETHER
from kvbench.records.recorder import RowStore
from kvbench.records.schema import REQUEST_DTYPE, Op, Phase, RequestState
from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES

MakeRank = Callable[..., Rank]


def dispatcher_of(script: Script, capacities: Sequence[int], requests: int = 4, promote: bool = False) -> Dispatcher:
    sizes = [sectors * SECTOR_BYTES for sectors in capacities]
    books = Books(Cache(sizes, WaterfallLru(promote)), sizes, [True] * len(sizes))
    limits = Limits(requests, writes=0)
    dispatcher = Dispatcher(books, script, "asap", limits, SECTOR_BYTES, 0, RowStore(REQUEST_DTYPE))
    now_ns = timed_io.now_ns()
    dispatcher.begin(Timeline(now_ns, now_ns, None, Phase.MEASURE))
    return dispatcher


def batches_of(dispatcher: Dispatcher, room: int) -> list[Sequence[Operation]]:
    """All batches that one worker gets."""
    taken, batch = [], operations_from(dispatcher, (), room)
    while batch:
        taken.append(batch)
        batch = operations_from(dispatcher, batch, room)
    return taken


def told(operations: Sequence[Operation]) -> list[tuple[Op, int]]:
    return [(operation.step.op, operation.step.key) for operation in operations]


@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize("room", [1, 2, 7, 1000])
def test_a_batch_is_what_one_stage_moves_between_two_places(room: int, promote: bool) -> None:
    batches = batches_of(dispatcher_of(busy_script(200, keys=60), (20, 50), promote=promote), room)
    assert max(len(batch) for batch in batches) <= room
    assert room == 1 or max(len(batch) for batch in batches) > 1
    for batch in batches:
        places = {(op.request, op.stage, op.step.op, op.step.source, op.step.target, op.writer) for op in batch}
        assert len(places) == 1
        alone = batch[0].step.op != Op.READ
        assert not alone or len({op.step.key for op in batch}) == len(batch), "none waits for another"


def test_a_stage_is_one_batch_where_there_is_room_for_it() -> None:
    script = Script([[request(0, *(ref(n) for n in range(5)), decode_passes=1)]])
    batches = batches_of(dispatcher_of(script, (100,)), 10)
    assert [told(batch) for batch in batches] == [[(op, n) for n in range(5)] for op in (Op.WRITE, Op.READ)]
    batches = batches_of(dispatcher_of(script, (100,)), 3)
    assert [len(batch) for batch in batches] == [3, 2, 3, 2]


def test_the_order_of_decisions_does_not_depend_on_the_room() -> None:
    found = []
    for room in (1, 5, 64):
        dispatcher = dispatcher_of(busy_script(150, keys=50), (10, 20, 30), promote=True)
        done = [each for batch in batches_of(dispatcher, room) for each in batch]
        found.append((sorted((op.request.request.number, *op.step) for op in done), dispatcher._log.count))
    assert found[1:] == found[:1] * 2


def test_every_operation_of_a_batch_counts_for_its_request() -> None:
    dispatcher = dispatcher_of(Script([[request(0, *(ref(n) for n in range(5)))]]), (100,))
    batch = operations_from(dispatcher, (), 10)
    for number, operation in enumerate(batch):
        operation.wall_ns = 10**number
    assert operations_from(dispatcher, batch, 10) == ()
    (row,) = dispatcher._log.views()[0]
    assert (row["operations"], row["storage_ns"], row["state"]) == (5, 11111, RequestState.DONE)


def test_of_a_batch_that_was_given_up_what_was_carried_out_counts() -> None:
    dispatcher = dispatcher_of(Script([[request(0, *(ref(n) for n in range(5)))]]), (100,))
    batch = operations_from(dispatcher, (), 10)
    dispatcher.give_up(batch[:2], batch[2:], RequestState.FAILED)
    assert operations_from(dispatcher) == ()
    dispatcher.close()
    (row,) = dispatcher._log.views()[0]
    assert (row["operations"], row["state"]) == (2, RequestState.FAILED)


# Carried out


def with_room(rank: Rank, room: int) -> Rank:
    """A rank whose workers take so many operations at a time, as those of an engine that overlaps them would."""
    for worker in rank.engine._workers:
        worker._room = room
    return rank


@pytest.fixture
def wide(payload: Payload) -> Arena:
    """More segments than threads: some for the further objects of a batch."""
    return Arena(16 * SEGMENT_BYTES, 4, payload.body)


@pytest.mark.parametrize(
    "read_path",
    ["buffered", *(pytest.param(each, marks=pytest.mark.slow) for each in ("mmap-touch", "mmap-copy", "numpy"))],
)
@pytest.mark.parametrize("verify", ["full", pytest.param("sampled", marks=pytest.mark.slow)])
def test_a_load_does_the_same_however_many_operations_a_batch_has(
    folder: FilePath, wide: Arena, payload: Payload, read_path: str, verify: str
) -> None:
    runs = []
    for room in (1, 3, 64):
        (folder / f"{room}").mkdir()
        config = config_of(("memory", "memory", "file"), "asap", 4, promote=True, read_path=read_path, verify=verify)
        rank = with_room(Rank(config, folder / f"{room}", (10, 20, 40), wide, payload), room)
        rank.run(busy_script(120, keys=50))
        check_end_state(rank, SECTOR_BYTES if read_path == "numpy" else 0)
        runs.append((rank.cache.decisions, operations_of(rank), rank.log["operations"].tolist()))
        moved = rank.rows[np.isin(rank.rows["op"], (Op.READ, Op.PROMOTE))]
        assert (moved["nbytes"] == moved["tokens"].astype(np.int64) * SECTOR_BYTES).all()
        rank.close()
    assert runs[1:] == runs[:1] * 2


def test_objects_longer_than_a_lease_are_moved_in_parts_beside_others_that_are_not(
    folder: FilePath, payload: Payload
) -> None:
    arena = Arena(3 * SEGMENT_BYTES, 1, payload.body)
    sectors = SEGMENT_BYTES // SECTOR_BYTES
    rank = with_room(Rank(config_of(threads=1, io_bytes=SEGMENT_BYTES), folder, (9 * sectors,), arena, payload), 8)
    objects = [ref(1), ref(2, 4 * sectors), ref(3), ref(4, 2), ref(5, 2 * sectors), ref(6)]
    rank.run(Script([[request(0, *objects, decode_passes=1)]]))
    check_end_state(rank, 0)
    assert sorted(rank.rows["tokens"].tolist()) == sorted([reference.tokens for reference in objects] * 2)
    assert rank.engine.verified_sectors == sum(reference.tokens for reference in objects)
    rank.close()


def test_operations_on_storage_that_are_ready_together_are_in_flight_together(make_rank: MakeRank) -> None:
    """One worker that took them all would carry them out one after the other."""
    rank = make_rank(threads=4)
    rank.run(Script([[request(0, *(ref(n) for n in range(4)))]]))
    reading, really_run = threading.Barrier(4), rank.files.run

    def run(batch: Any) -> None:
        reading.wait(timeout=20)
        really_run(batch)

    rank.files.run = run  # type: ignore[method-assign]
    rank.run(Script([[request(1, *(ref(n) for n in range(4)), prefill=False)]]))
    assert not reading.broken


def test_operations_that_move_nothing_are_carried_out_a_batch_at_a_time(
    make_rank: MakeRank, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    really_take = Dispatcher.take

    def take(dispatcher: Dispatcher, done: Work = (), room: int = 1) -> Work:
        taken.append(len(done))
        return really_take(dispatcher, done, room)

    monkeypatch.setattr(Dispatcher, "take", take)
    rank = make_rank((200,), tiers=("null",), threads=1, allocs=0)
    rank.run(Script([[request(0, *(ref(n) for n in range(100)), decode_passes=1)]]))
    assert taken == [0, MOST_TOGETHER, 100 - MOST_TOGETHER, MOST_TOGETHER, 100 - MOST_TOGETHER]
    assert (rank.rows["inflight"] == 1).all(), "one after the other"
    assert len(rank.rows) == 200


# What goes wrong


def asked_again(rank: Rank, keys: Sequence[int]) -> None:
    """Read what was written before, in one batch."""
    load, _ = rank.start(Script([[request(100, *(ref(n) for n in keys), prefill=False)]]))
    finish(load)


@pytest.mark.parametrize("missing", [0, 2, 4])
def test_what_fails_in_a_batch_has_its_row_and_nothing_is_begun_behind_it(
    folder: FilePath, wide: Arena, payload: Payload, missing: int
) -> None:
    rank = with_room(Rank(config_of(threads=1), folder, (100,), wide, payload), 8)
    rank.run(Script([[request(0, *(ref(n) for n in range(5)))]]))
    os.unlink(rank.files.where(missing))
    asked_again(rank, range(5))
    assert rank.engine.failures == [f"read of {rank.files.where(missing)} failed: {os.strerror(errno.ENOENT)}"]
    reads = rank.rows[rank.rows["op"] == Op.READ]
    assert reads["errno"].tolist() == [0] * missing + [errno.ENOENT]
    assert (rank.log["state"][-1], rank.log["operations"][-1]) == (RequestState.FAILED, missing)
    rank.close()


def test_what_is_found_wrong_after_a_batch_was_read_leaves_the_rows_of_all_that_was_read(
    folder: FilePath, wide: Arena, payload: Payload
) -> None:
    rank = with_room(Rank(config_of(threads=1), folder, (100,), wide, payload), 8)
    rank.run(Script([[request(0, *(ref(n) for n in range(5)))]]))
    FilePath(rank.files.where(1)).write_bytes(bytes(SECTOR_BYTES))
    asked_again(rank, range(5))
    assert len(rank.engine.failures) == 1
    reads = rank.rows[rank.rows["op"] == Op.READ]
    assert reads["errno"].tolist() == [0, errno.EBADMSG, 0, 0, 0]
    assert rank.log["operations"][-1] == 4
    rank.close()


def test_a_batch_that_is_canceled_is_cut_short(make_rank: MakeRank) -> None:
    rank = with_room(make_rank(threads=1), 8)
    rank.run(Script([[request(0, *(ref(n) for n in range(5)))]]))
    rank.engine.cancel()
    asked_again(rank, range(5))
    assert rank.engine.failures == []
    assert rank.rows["errno"].tolist()[5:] == [errno.ECANCELED]
    assert rank.log["state"].tolist() == [RequestState.DONE, RequestState.CUT_SHORT]
