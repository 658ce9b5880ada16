"""What a user learns of a failed operation, and that a load always ends: nothing hangs, no failure counts as done."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

import pytest
from numpy.typing import NDArray
from rank_harness import SEED, Rank, Script, config_of, finish, ref, request

from kvbench.records.schema import Op, RequestState
from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import STAMP, Payload
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES
from kvbench.workload.request import Request

MakeRank = Callable[..., Rank]
READ_PATHS = ["double-copy", "numpy", "buffered", "mmap-touch", "mmap-copy"]


@pytest.fixture
def arena(payload: Payload) -> Arena:
    """One of its own for each test: what is wrong in a file lands in it."""
    return Arena(4 * SEGMENT_BYTES, 4, payload.body)


def fail(rank: Rank, script: Script) -> str:
    """Carry out a load that ends with one failure; returns its message."""
    load, _ = rank.start(script)
    finish(load)
    assert len(rank.engine.failures) == 1
    return rank.engine.failures[0]


def failed_row(rank: Rank) -> Any:
    rows = rank.rows
    wrong = rows[rows["errno"] != 0]
    assert len(wrong) == 1
    return wrong[0]


def reading(key: int, tokens: int = 2) -> Script:
    return Script([[request(100, ref(key, tokens), prefill=False)]])


def writing(*keys: int, tokens: int = 2) -> Script:
    return Script([[request(number, ref(key, tokens)) for number, key in enumerate(keys)]])


def states(rank: Rank) -> NDArray[Any]:
    found: NDArray[Any] = rank.log["state"]
    return found


def test_a_full_disk_ends_the_load_with_the_file_and_what_to_do(make_rank: MakeRank) -> None:
    rank = make_rank(threads=2)
    file = FilePath(rank.files.where(5))
    file.symlink_to("/dev/full")
    message = fail(rank, writing(1, 5, 6))
    assert message == (
        f"write of {file} failed: {os.strerror(errno.ENOSPC)}; free space there, or set a smaller capacity_bytes for "
        "the file tier"
    )
    row = failed_row(rank)
    assert (row["errno"], row["op"], row["request"], row["nbytes"]) == (errno.ENOSPC, Op.WRITE, 1, 0)
    assert states(rank)[1] == RequestState.FAILED


def test_a_full_disk_is_found_by_what_moves_down_too(make_rank: MakeRank) -> None:
    rank = make_rank((2, 100), tiers=("memory", "file"), threads=2)
    file = FilePath(rank.files.where(1))
    file.symlink_to("/dev/full")
    message = fail(rank, writing(1, 2))
    assert message.startswith(f"demote of {file} failed: {os.strerror(errno.ENOSPC)}")
    row = failed_row(rank)
    assert (row["errno"], row["op"], row["tier"]) == (errno.ENOSPC, Op.DEMOTE, 1)


@pytest.mark.parametrize("read_path", READ_PATHS)
def test_a_file_cut_short_is_a_read_error(make_rank: MakeRank, read_path: str) -> None:
    rank = make_rank(read_path=read_path)
    rank.run(writing(1))
    os.truncate(rank.files.where(1), SECTOR_BYTES)
    message = fail(rank, reading(1))
    assert message.startswith(f"read of {rank.files.where(1)} failed: {os.strerror(errno.EIO)}")
    assert message.endswith("or the file was shortened: see the kernel's log)")
    assert failed_row(rank)["errno"] == errno.EIO
    assert states(rank)[-1] == RequestState.FAILED


@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize("read_path", READ_PATHS)
def test_a_file_that_vanished_is_a_read_error_in_a_whole_row(
    make_rank: MakeRank, read_path: str, promote: bool
) -> None:
    rank = make_rank((2, 100), tiers=("memory", "file"), read_path=read_path, promote=promote)
    rank.run(writing(1, 2))
    os.unlink(rank.files.where(1))
    message = fail(rank, reading(1))
    assert message == f"{'promote' if promote else 'read'} of {rank.files.where(1)} failed: {os.strerror(errno.ENOENT)}"
    row = failed_row(rank)
    assert (row["errno"], row["nbytes"], row["request"]) == (errno.ENOENT, 0, 100)
    assert row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"]
    if not promote:
        assert row["t_start_ns"] - row["queue_ns"] == rank.log["intended_ns"][-1], "it waited from its intended start"


def test_deleting_what_is_not_there_is_an_error(make_rank: MakeRank) -> None:
    rank = make_rank((2,))
    rank.run(writing(1))
    os.unlink(rank.files.where(1))
    assert fail(rank, writing(2)) == f"delete of {rank.files.where(1)} failed: {os.strerror(errno.ENOENT)}"
    assert failed_row(rank)["op"] == Op.DELETE


def spoil(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("verify", ["sampled", "full"])
@pytest.mark.parametrize("kind", ["stamped", "unique"])
@pytest.mark.parametrize("read_path", READ_PATHS)
def test_wrong_data_is_an_error_that_names_file_and_offset(
    folder: FilePath, arena: Arena, read_path: str, kind: Literal["stamped", "unique"], verify: str
) -> None:
    config = config_of(read_path=read_path, verify=verify)
    rank = Rank(config, folder, (100,), arena, Payload(kind, run=0x600D, seed=SEED))
    rank.run(writing(1, tokens=3))
    header_bytes = SECTOR_BYTES if read_path in ("numpy", "double-copy") else 0
    spoil(rank.files.where(1), header_bytes + 2 * SECTOR_BYTES)
    message = fail(rank, reading(1, tokens=3))
    assert message.startswith(f"{rank.files.where(1)}: the data is not what was written: at offset {2 * SECTOR_BYTES} ")
    row = failed_row(rank)
    assert (row["errno"], row["nbytes"]) == (errno.EBADMSG, 3 * SECTOR_BYTES)
    assert states(rank)[-1] == RequestState.FAILED
    rank.close()


def test_wrong_data_is_found_when_it_moves_up(make_rank: MakeRank) -> None:
    rank = make_rank((2, 100), tiers=("memory", "file"), promote=True)
    rank.run(writing(1, 2))
    spoil(rank.files.where(1), SECTOR_BYTES + 77)
    message = fail(rank, reading(1))
    assert message == (
        f"{rank.files.where(1)}: the data is not what was written: the bytes behind the stamp at offset 4096 differ "
        "from what was written"
    )
    assert (failed_row(rank)["op"], failed_row(rank)["errno"]) == (Op.PROMOTE, errno.EBADMSG)


@pytest.mark.parametrize("sector", range(13))
def test_wrong_data_that_moves_up_is_never_blamed_on_memory(make_rank: MakeRank, sector: int) -> None:
    """Of a read only some sectors are compared, and later reads of the memory tier may compare others."""
    rank = make_rank((16, 100), tiers=("memory", "file"), promote=True, verify="sampled")
    rank.run(writing(1, 2, tokens=13))
    spoil(rank.files.where(1), sector * SECTOR_BYTES + 3)
    message = fail(rank, reading(1, tokens=13))
    assert message.startswith(f"{rank.files.where(1)}: the data is not what was written: at offset ")


def test_what_a_bad_read_leaves_in_the_arena_is_not_written_anywhere(make_rank: MakeRank, arena: Arena) -> None:
    rank = make_rank((100,))
    rank.run(writing(1, tokens=3))
    spoil(rank.files.where(1), SECTOR_BYTES + 2000)
    fail(rank, reading(1, tokens=3))
    segments = arena.bytes[: arena.nbytes].reshape(-1, SEGMENT_BYTES // SECTOR_BYTES, SECTOR_BYTES)
    behind_stamps = segments[:, :, STAMP.itemsize :]
    assert (behind_stamps == behind_stamps[0]).all(), "the same body in every segment"


def test_a_failure_between_two_parts_of_an_object_leaves_no_file_open(make_rank: MakeRank) -> None:
    """An open file would stay behind on NFS, under another name, in the directory that is removed."""
    tokens = 2 * SEGMENT_BYTES // SECTOR_BYTES
    rank = make_rank((tokens,), threads=4, io_bytes=SEGMENT_BYTES)
    rank.run(writing(1, tokens=tokens))
    spoil(rank.files.where(1), 5)
    fail(rank, reading(1, tokens))
    held = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    assert os.path.realpath(rank.files.where(1)) not in held


@pytest.mark.parametrize("threads", [1, 4])
def test_after_a_failure_nothing_new_is_begun(make_rank: MakeRank, threads: int) -> None:
    rank = make_rank((1000,), threads=threads)
    FilePath(rank.files.where(20)).symlink_to("/dev/full")
    fail(rank, writing(*range(500), tokens=1))
    logged = rank.log
    assert threads > 1 or rank.rows["request"].tolist() == list(range(21))
    assert logged["state"][20] == RequestState.FAILED
    others = logged[logged["request"] != 20]
    assert set(others["state"].tolist()) <= {RequestState.DONE, RequestState.CUT_SHORT}
    assert (others["state"] == RequestState.CUT_SHORT).sum() < threads


@dataclass(frozen=True)
class Breaking(Script):
    """A schedule that fails in the middle."""

    def stream(self, user: int) -> Iterator[Request]:
        yield from self.streams[user]
        raise ValueError("no more lines in the script")


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("pacing", ["asap", "closed"])
def test_a_schedule_that_breaks_ends_the_load_with_a_report(make_rank: MakeRank, pacing: str, threads: int) -> None:
    rank = make_rank(pacing=pacing, threads=threads)
    script = Breaking([[request(n, ref(n)) for n in range(10)]], closed_loop=pacing == "closed")
    message = fail(rank, script)
    assert message.startswith("internal error")
    assert "no more lines in the script" in message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOMEM, "no memory for it"), "a thread cannot begin: no memory for it"),
        (RuntimeError("quite unforeseen"), "internal error\n"),
    ],
)
def test_a_thread_that_cannot_begin_ends_the_load_before_it_began(
    make_rank: MakeRank, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    rank = make_rank(threads=2)

    def refuse(memory: object) -> None:
        raise error

    monkeypatch.setattr(rank.files, "begin_thread", refuse)
    load, _ = rank.start(writing(1, 2))
    finish(load)
    assert len(rank.engine.failures) == 2, "one of each thread"
    assert all(failure.startswith(said) for failure in rank.engine.failures)
    assert len(rank.rows) == 0
    assert os.listdir(rank.folder) == []


def test_each_thread_begins_and_ends_once(make_rank: MakeRank, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = make_rank(threads=3)
    told: list[str] = []
    monkeypatch.setattr(rank.files, "begin_thread", lambda memory: told.append("begin"))
    monkeypatch.setattr(rank.files, "end_thread", lambda: told.append("end"))
    rank.run(writing(1, 2))
    assert sorted(told[:3]) == ["begin"] * 3, "before anything is done"
    assert sorted(told) == ["begin"] * 3 + ["end"] * 3
