"""Bytes land where they belong, and each row says what happened: for both backends of the stopwatch."""

import mmap
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvbench.records import schema

FIRST, LAST, DIRECT = 1, 2, 4
WHOLE = FIRST | LAST
MIB = 1 << 20
SHM = "/dev/shm"


def extents(*pairs: tuple[int, int]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def data(nbytes: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


def rows(rec: NDArray[Any]) -> NDArray[np.uint8]:
    return rec.view(np.uint8)


def adds_up(row: Any) -> bool:
    parts = [int(row[name]) for name in ("device_ns", "host_ns", "runq_ns")]
    return min(parts) >= 0 and sum(parts) == row["wall_ns"] and 0 <= row["copy_ns"] <= row["host_ns"]


def is_tmpfs(path: str) -> bool:
    with open("/proc/mounts", encoding="utf-8") as mounts:
        return any(line.split()[1:3] == [path, "tmpfs"] for line in mounts)


def test_the_layout_is_the_schemas(timer: ModuleType) -> None:
    assert schema.RECORD_DTYPE.itemsize == timer.ROW_BYTES
    assert timer.STOPWATCH_BYTES == schema.STOPWATCH_BYTES
    assert (timer.FIRST, timer.LAST, timer.DIRECT) == (FIRST, LAST, DIRECT)


@pytest.mark.parametrize("io_bytes", [1 << 30, 4096, 1000])
def test_a_read_lands_in_the_extents_in_order(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int, io_bytes: int
) -> None:
    content, memory = data(10_000), np.zeros(16_384, np.uint8)
    content.tofile(tmp_path / "object")
    where = extents((12_000, 4_000), (0, 0), (100, 1_000), (5_000, 4_000))
    result = timer.read_file(rows(rec), 2, dirfd, "object", -1, 500, memory, where, io_bytes, WHOLE, stop)
    assert result == -1
    landed = np.concatenate([memory[offset : offset + length] for offset, length in where])
    assert np.array_equal(landed, content[500:9_500])
    assert np.count_nonzero(memory) == np.count_nonzero(content[500:9_500])
    row = rec[2]
    assert (row["nbytes"], row["errno"], row["copy_ns"]) == (9_000, 0, 0)
    assert row["span_ns"] == row["wall_ns"] > 0
    assert adds_up(row)


def test_a_call_touches_only_the_stopwatch_part_of_its_own_row(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], dirfd: int
) -> None:
    memory = data(100)
    timer.write_file(rows(rec), 3, dirfd, "object", -1, 0, memory, extents((0, 100)), 4096, WHOLE, stop)
    table = rows(rec).reshape(8, schema.RECORD_DTYPE.itemsize)
    table[3, : schema.STOPWATCH_BYTES] = 0xA5
    assert (table == 0xA5).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 1_096)), max_size=8),
    io_bytes=st.integers(1, 5_000),
    cycles=st.integers(1, 3),
)
def test_what_was_written_from_any_extents_is_read_back_into_any_others(
    timer: ModuleType,
    rec: NDArray[Any],
    stop: NDArray[np.int32],
    tmp_path: Path,
    dirfd: int,
    where: list[tuple[int, int]],
    io_bytes: int,
    cycles: int,
) -> None:
    memory = data(4_096)
    lease = extents(*(where * cycles))  # a small lease that the object goes round in
    expected = b"".join(memory[offset : offset + length].tobytes() for offset, length in lease)
    timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, lease, io_bytes, WHOLE, stop)
    assert (tmp_path / "object").read_bytes() == expected
    assert rec[0]["nbytes"] == len(expected)
    back, half = np.zeros(len(expected), np.uint8), len(expected) // 2
    where_back = extents((half, len(expected) - half), (0, half))
    timer.read_file(rows(rec), 1, dirfd, "object", -1, 0, back, where_back, io_bytes, WHOLE, stop)
    assert (back[half:].tobytes() + back[:half].tobytes()) == expected
    timer.copy(rows(rec), 2, back, extents((0, len(expected))), memory, lease, io_bytes, WHOLE, stop)
    assert back.tobytes() == expected
    assert all(adds_up(row) for row in rec[:3])


def test_a_cycling_lease_keeps_the_last_round(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    content, memory = data(8 * 512), np.zeros(1024, np.uint8)
    content.tofile(tmp_path / "object")
    lease = extents((0, 512), (512, 512))
    timer.read_file(rows(rec), 0, dirfd, "object", -1, 0, memory, np.tile(lease, (4, 1)), 512, WHOLE, stop)
    assert np.array_equal(memory, content[-1024:])
    assert rec[0]["nbytes"] == 8 * 512


def test_pieces_of_one_operation_add_up_in_its_row(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    content, memory = data(3_000), np.zeros(1_000, np.uint8)
    content.tofile(tmp_path / "object")
    where = extents((0, 1_000))
    intended_ns = timer.now_ns()
    rec[0]["queue_ns"] = intended_ns
    fd, walls = -1, [0]
    for piece, flags in enumerate((FIRST, 0, LAST)):
        fd = timer.read_file(rows(rec), 0, dirfd, "object", fd, 1_000 * piece, memory, where, 4096, flags, stop)
        assert (fd >= 0) == (flags != LAST)
        assert np.array_equal(memory, content[1_000 * piece :][:1_000])
        assert rec[0]["nbytes"] == 1_000 * (piece + 1)
        assert rec[0]["t_start_ns"] - rec[0]["queue_ns"] == intended_ns
        assert adds_up(rec[0])
        walls.append(int(rec[0]["wall_ns"]))
    assert walls == sorted(set(walls))
    assert rec[0]["span_ns"] == rec[0]["wall_ns"] <= timer.now_ns() - rec[0]["t_start_ns"]


def test_only_a_finished_write_has_the_span_of_its_fdatasync(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    memory, where = data(2_000), extents((0, 2_000))
    fd = timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, where, 512, FIRST, stop)
    assert rec[0]["span_ns"] == 0
    assert timer.write_file(rows(rec), 0, dirfd, "object", fd, 2_000, memory, where, 512, LAST, stop) == -1
    assert 0 < rec[0]["span_ns"] < rec[0]["wall_ns"]
    assert (tmp_path / "object").read_bytes() == memory.tobytes() * 2
    assert (tmp_path / "object").stat().st_mode & 0o777 == 0o600
    assert adds_up(rec[0])


def test_a_write_replaces_a_longer_file(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "object").write_bytes(bytes(5_000))
    memory = data(10)
    timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, extents((0, 10)), 512, WHOLE, stop)
    assert (tmp_path / "object").read_bytes() == memory.tobytes()


@pytest.mark.parametrize("file_offset", [0, mmap.PAGESIZE, 1_234])
def test_mmap_reads_copy_or_touch_the_same_bytes(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int, file_offset: int
) -> None:
    content, memory = data(3 * MIB), np.zeros(3 * MIB, np.uint8)
    content.tofile(tmp_path / "object")
    nbytes = 2 * MIB + 77
    where = extents((MIB, 2 * MIB), (0, 77))
    timer.mmap_read(rows(rec), 0, dirfd, "object", file_offset, nbytes, memory, where, WHOLE, stop)
    landed = np.concatenate([memory[MIB:], memory[:77]])
    assert np.array_equal(landed, content[file_offset : file_offset + nbytes])
    timer.mmap_read(rows(rec), 1, dirfd, "object", file_offset, nbytes, None, None, WHOLE, stop)
    for row in rec[:2]:
        assert row["nbytes"] == nbytes
        assert row["span_ns"] == row["wall_ns"]
        assert row["minor_faults"] + row["major_faults"] > 0
        assert adds_up(row)
    assert rec[0]["copy_ns"] > 0
    assert rec[1]["copy_ns"] == 0


def test_a_copy_is_all_host_time_and_takes_the_wall_as_its_span(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32]
) -> None:
    source, target = data(MIB), np.zeros(MIB, np.uint8)
    split = extents((0, 1_000), (1_000, MIB - 1_000))
    timer.copy(rows(rec), 0, target, split, source, extents((0, MIB)), 4_096, WHOLE, stop)
    assert np.array_equal(source, target)
    row = rec[0]
    assert (row["nbytes"], row["span_ns"], row["copy_ns"]) == (MIB, row["wall_ns"], row["host_ns"])
    assert adds_up(row)


def test_unlink_removes_the_file_as_one_whole_operation(
    timer: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "object").touch()
    rec[0]["queue_ns"] = 5
    timer.unlink(rows(rec), 0, dirfd, "object")
    assert not (tmp_path / "object").exists()
    row = rec[0]
    assert (row["nbytes"], row["errno"], row["span_ns"]) == (0, 0, row["wall_ns"])
    assert row["queue_ns"] == row["t_start_ns"] - 5
    assert adds_up(row)


def test_begin_and_end_enclose_python_code(timer: ModuleType, rec: NDArray[Any]) -> None:
    rec[0]["queue_ns"] = rec[1]["queue_ns"] = 7
    timer.begin(rows(rec), 0)
    timer.begin(rows(rec), 1)
    sum(range(20_000))
    timer.end(rows(rec), 1, 11, 12, 13)
    timer.end(rows(rec), 0, 21, 2**62, 23)
    inner, outer = rec[1], rec[0]
    assert outer["t_start_ns"] <= inner["t_start_ns"]
    assert outer["wall_ns"] > inner["wall_ns"] > 0
    assert (inner["span_ns"], inner["copy_ns"], inner["nbytes"], inner["errno"]) == (11, 12, 13, 0)
    assert outer["copy_ns"] == outer["host_ns"], "a copy takes no more than the host time"
    assert outer["queue_ns"] == outer["t_start_ns"] - 7
    assert adds_up(inner)
    assert adds_up(outer)


def test_waiting_for_nothing_but_another_thread_counts_as_device_not_as_host(
    timer: ModuleType, rec: NDArray[Any]
) -> None:
    """A pipe that another process fills is the blocking read that needs no disk."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        sum(range(300_000))
        os.write(writing, b"x")
        os._exit(0)
    timer.begin(rows(rec), 0)
    os.read(reading, 1)
    timer.end(rows(rec), 0, 0, 0, 1)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    assert rec[0]["device_ns"] + rec[0]["runq_ns"] > rec[0]["host_ns"]
    assert adds_up(rec[0])


def test_reads_of_tmpfs_have_no_device_time(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path
) -> None:
    if not is_tmpfs(SHM):
        pytest.skip(f"{SHM} is no tmpfs here")
    if not timer.SCHEDSTAT:
        pytest.skip("this kernel does not show run-queue time (CONFIG_SCHED_INFO)")
    name, dirfd = f"kvbench-test-{os.getpid()}", os.open(SHM, os.O_RDONLY)
    memory, device_ns, wall_ns = data(MIB), 0, 0
    try:
        timer.write_file(rows(rec), 0, dirfd, name, -1, 0, memory, extents((0, MIB)), MIB, WHOLE, stop)
        for _ in range(200):
            timer.read_file(rows(rec), 0, dirfd, name, -1, 0, memory, extents((0, MIB)), MIB, WHOLE, stop)
            device_ns += int(rec[0]["device_ns"])
            wall_ns += int(rec[0]["wall_ns"])
    finally:
        os.unlink(name, dir_fd=dirfd)
        os.close(dirfd)
    assert device_ns < 0.02 * wall_ns


def test_direct_io_writes_and_reads_the_same_bytes(
    timer: ModuleType, rec: NDArray[Any], stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    try:
        os.close(os.open("probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600, dir_fd=dirfd))
    except OSError:
        pytest.skip("the filesystem of the temporary directory refuses O_DIRECT")
    arena = np.frombuffer(mmap.mmap(-1, MIB), np.uint8)
    content = data(MIB // 2)
    arena[: MIB // 2] = content
    there, back = extents((0, MIB // 2)), extents((MIB // 2, MIB // 2))
    timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, arena, there, 65_536, WHOLE | DIRECT, stop)
    assert timer.page_cache(dirfd, "object", False) == 0, "O_DIRECT leaves the page cache alone"
    timer.read_file(rows(rec), 1, dirfd, "object", -1, 0, arena, back, 65_536, WHOLE | DIRECT, stop)
    assert np.array_equal(arena[MIB // 2 :], content)
    assert rec[0]["nbytes"] == rec[1]["nbytes"] == MIB // 2
    assert adds_up(rec[0])
    assert adds_up(rec[1])


def test_page_cache_says_how_much_of_a_file_is_cached(timer: ModuleType, tmp_path: Path, dirfd: int) -> None:
    (tmp_path / "empty").touch()
    assert timer.page_cache(dirfd, "empty", True) == 0
    (tmp_path / "object").write_bytes(bytes(100 * mmap.PAGESIZE + 1))
    assert timer.page_cache(dirfd, "object", False) == 100
    with open(tmp_path / "sparse", "wb") as file:  # 1 of 1000 pages: rounded up, so that 0 means none at all
        file.truncate(1000 * mmap.PAGESIZE)
        file.write(b"x")
    assert timer.page_cache(dirfd, "sparse", False) == 1


def test_the_clocks_are_pythons(timer: ModuleType) -> None:
    import time  # noqa: PLC0415 - no other test here may look at a clock

    before = time.monotonic_ns(), time.thread_time_ns()
    between = timer.now_ns(), timer.thread_cpu_ns()
    after = time.monotonic_ns(), time.thread_time_ns()
    assert before[0] <= between[0] <= after[0]
    assert before[1] <= between[1] <= after[1]
