"""Transfers of NIXL: what is cut into which pieces, what happens to a batch when one fails, and what is refused before.

That batches are moved as any other tier moves them is in test_nixl_tiers.py.
"""

import errno
import os
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvbench.config.sections import Nixl
from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, Op, TimedBy
from kvbench.records.schema import Path as HowMoved
from kvbench.tiers.failures import why_failed
from kvbench.tiers.file import nixl_agent, nixl_library
from kvbench.tiers.file.descriptors import bytes_of_objects, pieces_of
from kvbench.tiers.file.nixl_agent import Agent, TransferCanceledError, TransferFailedError
from kvbench.tiers.file.nixl_transfers import NixlTransfers
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.transfer import Batch, Memories
from kvbench.units import KIB

COUNT, NBYTES = 6, 20 * KIB
RING = {"use_uring": "true"}


@pytest.fixture(scope="module")
def installed() -> None:
    """Skips where NIXL is not."""
    try:
        nixl_library.load()
    except KvbenchError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


# What is cut into which pieces


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40)), min_size=0, max_size=4), max_size=6),
    st.integers(1, 20),
)
def test_pieces_are_the_bytes_of_their_objects_in_order(objects: list[list[tuple[int, int]]], most: int) -> None:
    extents = np.array([extent for extents in objects for extent in extents], np.int64).reshape(-1, 2)
    ends = np.cumsum([len(extents) for extents in objects], dtype=np.int64)
    memories = Memories(np.zeros(100, np.uint8), extents, ends)
    pieces = pieces_of(memories, most)
    assert (pieces.lengths <= most).all()
    found: list[dict[int, int]] = [{} for _ in objects]
    for start, length, offset, number in zip(*pieces, strict=True):
        found[number] |= {int(offset) + i: int(start) + i for i in range(length)}
    wanted = [[start + i for start, length in extents for i in range(length)] for extents in objects]
    assert [list(bytes_at.values()) for bytes_at in found] == wanted
    assert [list(bytes_at) for bytes_at in found] == [list(range(len(at))) for at in wanted]
    assert bytes_of_objects(memories).tolist() == [len(at) for at in wanted]
    first = pieces.of_first(2)
    assert set(first.objects) <= {0, 1}
    assert len(first.objects) == (pieces.objects < 2).sum()


# What happens to a batch


@pytest.fixture
def transfers(installed: None) -> NixlTransfers:
    return NixlTransfers("POSIX", RING)


@pytest.fixture
def memory() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, COUNT * NBYTES, np.uint8)


@pytest.fixture
def tier(tmp_path: Path, transfers: NixlTransfers, memory: NDArray[np.uint8]) -> Iterator[FileTier]:
    paths = HowMoved.BUFFERED, HowMoved.BUFFERED
    tier = FileTier(tmp_path, *paths, 8 * KIB, drop_page_cache=True, overlapping=transfers)
    tier.begin_thread(memory)
    yield tier
    tier.close()


def batch_of(does: Op, memory: NDArray[np.uint8]) -> Batch:
    starts = np.arange(COUNT) * NBYTES
    extents = np.stack([starts, np.full(COUNT, NBYTES)], axis=1)
    rows = np.zeros(COUNT * RECORD_DTYPE.itemsize, np.uint8)
    memories = Memories(memory, extents, np.arange(1, COUNT + 1))
    return Batch(does, range(COUNT), memories, rows, 0, np.zeros(1, np.int32))


def rows_of(batch: Batch) -> NDArray[np.void]:
    return batch.rows.view(RECORD_DTYPE)


def break_next_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files opened so that the kernel refuses what NIXL asks it."""
    real = os.open
    monkeypatch.setattr(os, "open", lambda name, flags, *more, **where: real(name, flags ^ os.O_WRONLY, *more, **where))


def test_of_a_transfer_that_fails_all_rows_say_so_and_the_next_is_moved(
    tier: FileTier, memory: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.run(batch_of(Op.WRITE, memory))
    with monkeypatch.context() as patch:
        break_next_open(patch)
        batch = batch_of(Op.READ, memory)
        tier.run(batch)
    assert batch.begun == COUNT
    assert (rows_of(batch)["errno"] == errno.EIO).all()
    assert (rows_of(batch)["nbytes"] == 0).all()
    assert (rows_of(batch)["timed_by"] == TimedBy.NIXL).all()
    assert sorted(batch.errors) == list(range(COUNT))
    said = why_failed("read", tier.where(0), batch.errors[0])
    assert f"{0:016x}.kv failed: Input/output error (NIXL's backend POSIX said NIXL_ERR_BACKEND)" in said
    content = memory.copy()
    memory[:] = 0
    again = batch_of(Op.READ, memory)
    tier.run(again)
    assert (again.begun, again.errors) == (COUNT, {})
    assert np.array_equal(memory, content)


def test_a_write_that_is_called_done_and_was_not_is_an_error(
    tier: FileTier, memory: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Agent, "transfer", lambda *arguments: os.truncate(tmp_path / f"{0:016x}.kv", NBYTES))
    batch = batch_of(Op.WRITE, memory)
    tier.run(batch)
    assert batch.begun == COUNT
    assert sorted(batch.errors) == list(range(1, COUNT))
    assert rows_of(batch)["errno"].tolist() == [0] + [errno.EIO] * (COUNT - 1)
    assert "shorter than what NIXL reported as written" in why_failed("write", "x", batch.errors[1])


def test_nixl_itself_fails_a_short_write(tier: FileTier, memory: NDArray[np.uint8]) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (NBYTES - 2 * KIB, usual[1]))
    try:
        batch = batch_of(Op.WRITE, memory)
        tier.run(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert sorted(batch.errors) == list(range(COUNT))


def test_what_fails_for_want_of_room_says_so(
    tier: FileTier, memory: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs

    def full(descriptor: int) -> os.statvfs_result:
        return os.statvfs_result([*real(descriptor)[:4], 0, *real(descriptor)[5:]])

    monkeypatch.setattr(os, "fstatvfs", full)
    break_next_open(monkeypatch)
    batch = batch_of(Op.WRITE, memory)
    tier.run(batch)
    assert {error.errno for error in batch.errors.values()} == {errno.ENOSPC}
    assert (rows_of(batch)["errno"] == errno.ENOSPC).all()


def test_an_open_that_fails_ends_the_batch_there(tier: FileTier, memory: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / f"{2:016x}.kv").mkdir()
    batch = batch_of(Op.WRITE, memory)
    tier.run(batch)
    assert batch.begun == 3
    assert {at: error.errno for at, error in batch.errors.items()} == {2: errno.EISDIR}
    assert rows_of(batch)["errno"][:3].tolist() == [0, 0, errno.EISDIR]
    assert (tmp_path / f"{1:016x}.kv").read_bytes() == memory[NBYTES : 2 * NBYTES].tobytes()
    assert not (tmp_path / f"{3:016x}.kv").exists()


def test_when_it_is_too_late_only_the_first_is_moved(tier: FileTier, memory: NDArray[np.uint8], tmp_path: Path) -> None:
    batch = batch_of(Op.WRITE, memory)
    batch.until_ns = 1
    tier.run(batch)
    assert (batch.begun, batch.errors, len(list(tmp_path.iterdir()))) == (1, {}, 1)
    assert batch.split is not None
    assert batch.split.depth == 1


def test_a_transfer_that_does_not_end_is_given_up_when_it_is_canceled(
    installed: None, memory: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of a pipe that nobody writes to."""
    monkeypatch.setattr(nixl_agent, "_CANCEL_NS", 10**7)
    reads, writes = os.pipe()
    agent = Agent("POSIX", RING)
    address = agent.hold_memory(memory)
    agent.know_files([(reads, NBYTES)])
    stop = np.zeros(1, np.int32)
    timer = threading.Timer(0.05, lambda: stop.fill(1))
    timer.start()
    with pytest.raises(TransferCanceledError):
        agent.transfer(True, np.array([[address, 100, 0]], np.uint64), np.array([[0, 100, reads]], np.uint64), stop)
    timer.join()
    agent.close()
    os.close(writes)
    os.close(reads)


def test_memory_that_was_not_made_known_is_an_error(installed: None, memory: NDArray[np.uint8]) -> None:
    agent = Agent("POSIX", {})
    where = np.array([[memory.ctypes.data, 100, 0]], np.uint64)
    with pytest.raises(TransferFailedError, match="NIXL_ERR_NOT_FOUND"):
        agent.transfer(True, where, np.array([[0, 100, 0]], np.uint64), np.zeros(1, np.int32))
    agent.close()


def rings_open() -> int:
    """Rings of the kernel that this process has, NIXL's and ours."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return links.count("anon_inode:[io_uring]")


def test_agents_leave_no_ring_open(tmp_path: Path, installed: None, memory: NDArray[np.uint8]) -> None:
    def move() -> None:
        transfers = NixlTransfers("POSIX", RING)
        tier = FileTier(tmp_path, HowMoved.BUFFERED, HowMoved.BUFFERED, NBYTES, False, overlapping=transfers)
        workers = [threading.Thread(target=lambda: tier.run(batch_of(Op.WRITE, memory))) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        tier.close()

    before = rings_open()
    for _ in range(3):
        move()
        assert rings_open() == before


# What is refused before a run


def refusal(section: Nixl, depth: int = 32) -> str:
    with pytest.raises(KvbenchError) as caught:
        nixl_library.check_nixl(section, depth)
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"backend": "NOPE"}, r"has no backend NOPE; those that move files here: POSIX"),
        ({"backend": "UCX"}, r"the backend UCX moves no files; those that move files here: POSIX"),
        ({"options": {"use_urin": True}}, r"POSIX has no use_urin; it has .*use_uring \(false\)"),
        (
            {"options": {"use_uring": True, "use_aio": True}},
            r"POSIX does not start with use_aio=true, use_uring=true: .*; set NIXL_LOG_LEVEL=ERROR to see why",
        ),
    ],
)
def test_what_nixl_has_not_is_refused_with_what_it_has(installed: None, section: object, said: str) -> None:
    found = refusal(Nixl.model_validate(section))
    assert re.search(said, found), found


@pytest.mark.parametrize("found", ["1.4.9", "0.10.1", "1.5rc1"])
def test_an_old_nixl_is_refused(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(nixl_library, "version", lambda name: found)
    nixl_library.load.cache_clear()
    message = f"nixl {found} is installed, and 1.5 or newer is needed: install kvbench"
    with pytest.raises(KvbenchError, match=message):
        nixl_library.load()


def test_where_there_is_no_nixl_one_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(nixl_library, "version", missing)
    nixl_library.load.cache_clear()
    with pytest.raises(KvbenchError, match=r"the package nixl is not installed: install kvbench\[nixl\], or"):
        nixl_library.load()


def test_options_become_what_nixl_takes() -> None:
    asked = Nixl(options={"use_uring": True, "use_aio": False, "ios_pool_size": 128})
    made = nixl_library.options_of(asked, 300)
    assert made == {"use_uring": "true", "use_aio": "false", "ios_pool_size": "128", "kernel_queue_size": "300"}
    assert nixl_library.uses_ring("POSIX", made)
    assert not nixl_library.uses_ring("POSIX", nixl_library.options_of(Nixl(), 32))
    assert nixl_library.options_of(Nixl(backend="GDS"), 300) == {}
