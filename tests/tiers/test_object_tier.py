"""What the tier of objects in a bucket does besides what every tier must do (tier_contract.py), and when a store
fails."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import obstore
import pytest
from obstore.store import LocalStore, MemoryStore

from kvbench.records.schema import RECORD_DTYPE, Op, TimedBy
from kvbench.tiers.arena import Arena, Lease
from kvbench.tiers.object import requests as requests_module
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.helpers import HelperTime, LibraryThreads, wait_until_quiet
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.tier import ObjectTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Batch, Cell, Part
from kvbench.units import MIB, SECTOR_BYTES, SEGMENT_BYTES

SMALL = 5 * SECTOR_BYTES
LARGE = 9 * MIB
PART_BYTES = 5 * MIB
BUSY = "Generic S3 error: Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>"


class Failing:
    """The library, of which a call fails whenever `fails` says so; it counts them."""

    def __init__(self, fails: Callable[[str, int], str | None]) -> None:
        self._fails = fails
        self._lock = threading.Lock()
        self.calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(obstore, name)
        if not name.endswith("_async"):
            return found

        async def called(*args: Any, **options: Any) -> Any:
            with self._lock:
                self.calls[name] = self.calls.get(name, 0) + 1
                words = self._fails(name, self.calls[name])
            if words is not None:
                raise obstore.exceptions.GenericError(words)
            return await found(*args, **options)

        return called


@pytest.fixture
def store(folder: FilePath) -> LocalStore:
    return LocalStore(folder)


@pytest.fixture
def lease(arena: Arena) -> Iterator[Lease]:
    with arena.lease(LARGE) as lease:
        yield lease


@pytest.fixture
def leases(payload: Payload) -> Iterator[list[Lease]]:
    with Arena(5 * SEGMENT_BYTES, 1, payload.body).lease(SMALL) as lease:
        yield [lease, *lease.beside([SMALL] * 4)]


def tier_of(store: MemoryStore | LocalStore, depth: int = 4, retries: int = 5) -> ObjectTier:
    return ObjectTier(Requests(store, "s3", retries), "p/rank-0", "s3://b/p/rank-0", depth, PART_BYTES)


def new_cell() -> Cell:
    return Cell(np.zeros(RECORD_DTYPE.itemsize, np.uint8), 0, np.zeros(1, np.int32))


def row_of(cell: Cell) -> Any:
    return cell.rows.view(RECORD_DTYPE)[cell.row]


def rows_of(batch: Batch) -> Any:
    return batch.rows.view(RECORD_DTYPE)


def new_batch(tier: ObjectTier, does: Op, leases: list[Lease], payload: Payload) -> Batch:
    """Five objects of SMALL bytes, with the payload's content where they are to be written."""
    keys = range(20, 25)
    memories = [lease.memory(key, SMALL, 0, SMALL) for key, lease in zip(keys, leases, strict=True)]
    if does == Op.WRITE:
        for key, memory in zip(keys, memories, strict=True):
            payload.make(memory, key, 0)
    rows = np.zeros(5 * RECORD_DTYPE.itemsize, np.uint8)
    return Batch(does, keys, () if does == Op.DELETE else memories, rows, 0, np.zeros(1, np.int32))


def write(tier: ObjectTier, lease: Lease, payload: Payload, key: int, nbytes: int) -> None:
    memory = lease.memory(key, nbytes, 0, nbytes)
    payload.make(memory, key, 0)
    assert tier.write(new_cell(), key, WHOLE, memory) == -1


def read(tier: ObjectTier, lease: Lease, payload: Payload, key: int, nbytes: int) -> None:
    memory = lease.memory(key, nbytes, 0, nbytes)
    assert tier.read(new_cell(), key, WHOLE, memory) == (-1, memory)
    assert payload.check_full(memory, key, nbytes, 0) == (nbytes // SECTOR_BYTES, None)


class TestObjectTier:
    """Objects in a bucket."""

    @pytest.fixture(params=[1, 3, 32])
    def tier(self, request: pytest.FixtureRequest, store: LocalStore) -> Iterator[ObjectTier]:
        tier = tier_of(store, request.param)
        yield tier
        tier.close()

    def test_as_many_are_in_flight_as_may_be(self, tier: ObjectTier, leases: list[Lease], payload: Payload) -> None:
        batch = new_batch(tier, Op.WRITE, leases, payload)
        tier.run(batch)
        assert batch.split is not None
        assert batch.split.depth == min(5, tier._depth)
        assert set(rows_of(batch)["timed_by"].tolist()) == {TimedBy.LIBRARY}

    def test_the_first_byte_of_a_read_is_there_before_the_last(
        self, tier: ObjectTier, leases: list[Lease], payload: Payload
    ) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        batch = new_batch(tier, Op.READ, leases, payload)
        tier.run(batch)
        rows = rows_of(batch)
        assert (rows["span_ns"] > 0).all()
        assert (rows["span_ns"] < rows["wall_ns"]).all()
        assert batch.split is not None
        assert 0 < batch.split.copy_ns <= batch.split.host_ns

    def test_a_missing_object_is_told_from_one_that_is_there(
        self, tier: ObjectTier, lease: Lease, payload: Payload
    ) -> None:
        write(tier, lease, payload, 9, SMALL)
        for key, there in ((9, True), (10, False)):
            cell = new_cell()
            assert tier.look_up(cell, key) is there
            assert (row_of(cell)["errno"], row_of(cell)["nbytes"]) == (0, 0)
        cell = new_cell()
        with pytest.raises(OSError, match="there is no such object") as caught:
            tier.read(cell, 10, WHOLE, lease.memory(10, SMALL, 0, SMALL))
        assert caught.value.errno == row_of(cell)["errno"] == errno.ENOENT

    def test_objects_are_looked_up_together(self, tier: ObjectTier, leases: list[Lease], payload: Payload) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        tier.delete(new_cell(), 21)
        batch = new_batch(tier, Op.LOOKUP, leases, payload)
        tier.run(batch)
        assert (batch.begun, batch.errors, batch.missing) == (5, {}, {1})
        assert (rows_of(batch)["nbytes"] == 0).all()
        assert batch.split is not None

    def test_an_object_of_another_length_is_an_error(self, tier: ObjectTier, lease: Lease, payload: Payload) -> None:
        write(tier, lease, payload, 9, SMALL)
        cell = new_cell()
        with pytest.raises(RequestError, match=f"gave {SMALL} bytes and not {SECTOR_BYTES}"):
            tier.read(cell, 9, WHOLE, lease.memory(9, SECTOR_BYTES, 0, SECTOR_BYTES))
        assert row_of(cell)["errno"] == errno.EIO

    def test_an_upload_that_was_stopped_leaves_no_object(
        self, tier: ObjectTier, lease: Lease, payload: Payload
    ) -> None:
        cell = new_cell()
        handle = tier.write(cell, 9, Part(0, last=False), lease.memory(9, SMALL, 0, SECTOR_BYTES))
        cell.stop[0] = 1
        with pytest.raises(OSError, match="canceled"):
            tier.write(cell, 9, Part(SECTOR_BYTES, first=False), lease.memory(9, SMALL, SECTOR_BYTES, SMALL), handle)
        assert tier.look_up(new_cell(), 9) is False
        assert tier._uploads == {}

    def test_nothing_is_begun_behind_what_fails_in_a_batch(
        self, tier: ObjectTier, leases: list[Lease], payload: Payload
    ) -> None:
        tier.run(new_batch(tier, Op.WRITE, leases, payload))
        tier.delete(new_cell(), 20)
        batch = new_batch(tier, Op.READ, leases, payload)
        tier.run(batch)
        # Others of those in flight may be done before the first is known to fail, and be followed by the next.
        assert min(5, tier._depth) <= batch.begun <= 5
        assert batch.begun == 1 or tier._depth > 1
        assert {number: error.errno for number, error in batch.errors.items()} == {0: errno.ENOENT}
        assert rows_of(batch)["errno"].tolist() == [errno.ENOENT, 0, 0, 0, 0]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_module, "FIRST_PAUSE_S", 0.0)


def failing_tier(fails: Callable[[str, int], str | None], retries: int = 2) -> tuple[ObjectTier, Failing]:
    tier, library = tier_of(MemoryStore(), retries=retries), Failing(fails)
    tier._requests._library = library
    return tier, library


@pytest.mark.usefixtures("no_pauses")
def test_what_may_pass_is_sent_again_and_counted(leases: list[Lease], payload: Payload) -> None:
    tier, _ = failing_tier(lambda name, call: BUSY if call % 3 == 1 else None)
    for does in (Op.WRITE, Op.READ, Op.DELETE):
        batch = new_batch(tier, does, leases, payload)
        tier.run(batch)
        assert (batch.begun, batch.errors) == (5, {})
    # Of each: calls 1, 4 and 7 fail, so that five that work take eight.
    assert tier.retried_requests == 3 * 3
    tier.close()


@pytest.mark.usefixtures("no_pauses")
def test_what_does_not_pass_fails_with_one_sentence(leases: list[Lease], payload: Payload) -> None:
    tier, library = failing_tier(lambda name, call: BUSY)
    batch = new_batch(tier, Op.WRITE, leases, payload)
    tier.run(batch)
    assert {error.errno for error in batch.errors.values()} == {errno.EBUSY}
    assert str(batch.errors[0].strerror) == (
        "the store answered 503 SlowDown: it is overloaded, or fails; ask for less at once (io.depth)"
    )
    assert (rows_of(batch)["errno"][: batch.begun] == errno.EBUSY).all()
    assert tier.retried_requests == 2 * batch.begun
    assert library.calls["put_async"] == 3 * batch.begun
    tier.close()


@pytest.mark.usefixtures("no_pauses")
def test_what_cannot_pass_is_not_sent_again(leases: list[Lease], payload: Payload) -> None:
    words = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code></Error>"
    tier, library = failing_tier(lambda name, call: words)
    batch = new_batch(tier, Op.WRITE, leases, payload)
    tier.run(batch)
    assert batch.errors[0].errno == errno.EACCES
    assert library.calls["put_async"] == batch.begun
    assert tier.retried_requests == 0
    tier.close()


@pytest.mark.usefixtures("no_pauses")
def test_a_request_of_an_upload_is_never_sent_again(lease: Lease, payload: Payload) -> None:
    tier, _ = failing_tier(lambda name, call: None)

    class Broken:
        async def write(self, piece: memoryview) -> int:
            raise obstore.exceptions.GenericError(BUSY)

    tier._requests._library.open_writer_async = lambda *args, **options: Broken()
    cell = new_cell()
    with pytest.raises(RequestError, match="503 SlowDown"):
        tier.write(cell, 9, Part(0, last=False), lease.memory(9, SMALL, 0, SECTOR_BYTES))
    assert row_of(cell)["errno"] == errno.EBUSY
    assert (tier.retried_requests, tier._uploads) == (0, {})
    tier.close()


def test_a_request_that_hangs_ends_when_the_run_is_to_end(leases: list[Lease], payload: Payload) -> None:
    tier, _ = failing_tier(lambda name, call: None)

    async def hangs(*args: Any, **options: Any) -> None:
        batch.stop[0] = 1
        await asyncio.Event().wait()

    tier._requests._library.put_async = hangs
    batch = new_batch(tier, Op.WRITE, leases, payload)
    tier.run(batch)
    assert batch.begun == len(batch.errors) >= 1
    assert {error.errno for error in batch.errors.values()} == {errno.ECANCELED}
    tier.close()


def test_workers_have_loops_of_their_own(payload: Payload, store: LocalStore) -> None:
    tier, wrong = tier_of(store), list[BaseException]()

    def work(first: int) -> None:
        try:
            with Arena(SEGMENT_BYTES, 1, payload.body).lease(SMALL) as lease:
                tier.begin_thread(lease.arena.bytes)
                for key in range(first, first + 20):
                    write(tier, lease, payload, key, SMALL)
                    read(tier, lease, payload, key, SMALL)
                loops.append(len(tier._loops))
                barrier.wait()
                tier.end_thread()
        except BaseException as error:  # noqa: BLE001 - it is told below
            wrong.append(error)

    loops, barrier = list[int](), threading.Barrier(3)
    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert max(loops) == 3
    assert tier._loops == []
    write_from_here(tier, payload)
    assert len(tier._loops) == 1
    tier.close()
    assert tier._loops == []


def write_from_here(tier: ObjectTier, payload: Payload) -> None:
    with Arena(SEGMENT_BYTES, 1, payload.body).lease(SMALL) as lease:
        write(tier, lease, payload, 1, SMALL)


def test_what_the_librarys_threads_spend_is_accounted() -> None:
    store, threads = MemoryStore(), LibraryThreads()
    before = threads.spent_ns()

    async def put() -> None:
        content = np.ones(MIB, np.uint8)
        for number in range(50):
            await obstore.put_async(store, f"{number}", content.data, use_multipart=False)

    asyncio.run(put())
    assert threads.spent_ns() > before


def test_what_is_spent_while_several_batches_are_under_way_is_divided_among_them() -> None:
    helpers = HelperTime()
    spent = iter([0, 100, 300, 340, 1000, 1000])
    helpers._threads.spent_ns = lambda: next(spent)  # type: ignore[method-assign]
    first = helpers.begin()
    second = helpers.begin()
    assert helpers.end(first) == 100 + 100
    third = helpers.begin()
    assert helpers.end(second) == 100 + 40 + 330
    assert helpers.end(third) == 330


@pytest.mark.usefixtures("no_pauses")
def test_a_list_that_breaks_off_goes_on_behind_what_is_known() -> None:
    class Library:
        exceptions = obstore.exceptions

        def __init__(self) -> None:
            self.offsets: list[str | None] = []

        async def _pages(self, offset: str | None) -> AsyncIterator[list[Any]]:
            behind = [path for path in ("a", "b", "c", "d", "e") if offset is None or path > offset]
            for at in range(0, len(behind), 2):
                if at == 2 and len(self.offsets) == 1:
                    raise obstore.exceptions.GenericError(BUSY)
                now = datetime.now(UTC)
                yield [{"path": path, "size": 1, "last_modified": now} for path in behind[at : at + 2]]

        def list(self, store: Any, prefix: str, *, offset: str | None, chunk_size: int) -> AsyncIterator[list[Any]]:
            self.offsets.append(offset)
            return self._pages(offset)

    requests, library = Requests(MemoryStore(), "s3", 2), Library()
    requests._library = library

    async def every() -> list[str]:
        return [entry.path async for entry in requests.listed("x")]

    assert asyncio.run(every()) == ["a", "b", "c", "d", "e"]
    assert library.offsets == [None, "b"]
    assert requests.retried == 1


def test_a_process_ends_once_the_threads_of_the_library_are_quiet() -> None:
    assert wait_until_quiet()
    stop, named = threading.Event(), threading.Event()

    def be_busy() -> None:
        FilePath(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("tokio-busy", encoding="utf-8")
        named.set()
        while not stop.is_set():
            hash("work")

    thread = threading.Thread(target=be_busy)
    thread.start()
    named.wait()
    try:
        assert not wait_until_quiet(0.1)
    finally:
        stop.set()
        thread.join()
    assert wait_until_quiet()
