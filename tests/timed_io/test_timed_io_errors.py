"""An operation that fails says so in its row and its exception, and leaves no descriptor behind: for both backends."""

import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

FIRST, LAST, DIRECT = 1, 2, 4
WHOLE = FIRST | LAST
MIB = 1 << 20
ARRAY = NDArray[Any]


def extents(*pairs: tuple[int, int]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def rows(rec: ARRAY) -> NDArray[np.uint8]:
    return rec.view(np.uint8)


def open_descriptors() -> int:
    """But for those of schedstat, which live as long as their threads."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum("schedstat" not in os.readlink(link) for link in links if os.path.lexists(link))


def check_failure(rec: ARRAY, code: int, name: str | None, operation: Callable[[], object]) -> Any:
    """Run an operation on row 0 that must fail with `code`; its row."""
    before = open_descriptors()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is compared below
        operation()
    assert caught.value.errno == code
    assert caught.value.strerror == os.strerror(code)
    assert caught.value.filename == name
    assert open_descriptors() == before
    row = rec[0]
    assert row["errno"] == code
    assert row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"] > 0
    return row


@pytest.mark.parametrize("path", ["read", "mmap", "unlink", "page_cache"])
def test_a_missing_file_is_named(timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], dirfd: int, path: str) -> None:
    memory, where = np.zeros(10, np.uint8), extents((0, 10))
    operations: dict[str, Callable[[], object]] = {
        "read": lambda: timer.read_file(rows(rec), 0, dirfd, "gone", -1, 0, memory, where, 1, WHOLE, stop),
        "mmap": lambda: timer.mmap_read(rows(rec), 0, dirfd, "gone", 0, 10, memory, where, WHOLE, stop),
        "unlink": lambda: timer.unlink(rows(rec), 0, dirfd, "gone"),
    }
    if path == "page_cache":
        with pytest.raises(FileNotFoundError, match="gone"):
            timer.page_cache(dirfd, "gone", True)
    else:
        row = check_failure(rec, errno.ENOENT, "gone", operations[path])
        assert row["nbytes"] == 0


def test_a_file_that_ends_early_is_an_error_with_the_bytes_there_were(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "short").write_bytes(b"y" * 2_500)
    memory = np.zeros(4_000, np.uint8)

    def read() -> object:
        return timer.read_file(rows(rec), 0, dirfd, "short", -1, 0, memory, extents((0, 4_000)), 1_000, FIRST, stop)

    row = check_failure(rec, errno.EIO, "short", read)
    assert row["nbytes"] == 2_500
    assert np.count_nonzero(memory) == 2_500


@pytest.mark.parametrize("offset", [0, 2_000, 5_000])
def test_a_mapping_longer_than_the_file_is_an_error_and_not_a_signal(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], tmp_path: Path, dirfd: int, offset: int
) -> None:
    (tmp_path / "short").write_bytes(b"y" * 2_500)

    def touch() -> object:
        return timer.mmap_read(rows(rec), 0, dirfd, "short", offset, 3_000, None, None, WHOLE, stop)

    row = check_failure(rec, errno.EIO, "short", touch)
    assert row["nbytes"] == 0


def test_a_full_device_is_an_error_of_the_write(timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32]) -> None:
    """/dev/full takes any file's place: it opens like one, and refuses every write with ENOSPC."""
    dev = os.open("/dev", os.O_RDONLY)
    memory, where = np.zeros(4_096, np.uint8), extents((0, 4_096))
    try:
        row = check_failure(
            rec,
            errno.ENOSPC,
            "full",
            lambda: timer.write_file(rows(rec), 0, dev, "full", -1, 0, memory, where, 4_096, WHOLE, stop),
        )
    finally:
        os.close(dev)
    assert (row["nbytes"], row["span_ns"]) == (0, 0)


def test_a_failing_fdatasync_is_an_error_of_the_write(timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32]) -> None:
    """/dev/null takes every write but cannot be synchronised (EINVAL)."""
    dev = os.open("/dev", os.O_RDONLY)
    memory, where = np.zeros(4_096, np.uint8), extents((0, 4_096))
    try:
        row = check_failure(
            rec,
            errno.EINVAL,
            "null",
            lambda: timer.write_file(rows(rec), 0, dev, "null", -1, 0, memory, where, 4_096, WHOLE, stop),
        )
    finally:
        os.close(dev)
    assert row["nbytes"] == 4_096
    assert row["span_ns"] > 0


def test_a_stop_before_the_start_leaves_the_old_file_alone(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "object").write_bytes(b"old")
    stop[0] = 1
    memory, where = np.zeros(10, np.uint8), extents((0, 10))

    def write() -> object:
        return timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, where, 10, WHOLE, stop)

    assert check_failure(rec, errno.ECANCELED, "object", write)["nbytes"] == 0
    assert (tmp_path / "object").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["mmap", "copy"])
def test_a_stopped_mapping_or_copy_is_cancelled(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], tmp_path: Path, dirfd: int, path: str
) -> None:
    (tmp_path / "object").write_bytes(b"old")
    stop[0] = 1
    memory, where = np.zeros(3, np.uint8), extents((0, 3))

    def run() -> object:
        if path == "copy":
            return timer.copy(rows(rec), 0, memory, where, memory, where, 1, WHOLE, stop)
        return timer.mmap_read(rows(rec), 0, dirfd, "object", 0, 3, memory, where, WHOLE, stop)

    name = None if path == "copy" else "object"
    assert check_failure(rec, errno.ECANCELED, name, run)["nbytes"] == 0


def test_a_stop_between_two_pieces_keeps_the_first_and_closes_the_file(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], dirfd: int
) -> None:
    memory, where = np.zeros(10, np.uint8), extents((0, 10))
    before = open_descriptors()
    fd = timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, where, 4, FIRST, stop)
    stop[0] = 1
    with pytest.raises(OSError, match="object") as caught:
        timer.write_file(rows(rec), 0, dirfd, "object", fd, 10, memory, where, 4, LAST, stop)
    assert caught.value.errno == rec[0]["errno"] == errno.ECANCELED
    assert rec[0]["nbytes"] == 10
    assert rec[0]["span_ns"] == 0
    assert open_descriptors() == before


@pytest.mark.parametrize("path", ["read", "copy", "mmap-touch", "mmap-copy"])
def test_a_long_operation_is_stopped_from_another_thread(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], tmp_path: Path, dirfd: int, path: str
) -> None:
    """Each of these would run for many seconds; the stop ends it, so the test ends."""
    total = 256 << 30
    where = np.tile(extents((0, MIB)), (total // MIB, 1))
    memory, source = np.zeros(MIB, np.uint8), np.zeros(MIB, np.uint8)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(total)
    dev = os.open("/dev", os.O_RDONLY)
    caught: list[int | None] = []

    def run() -> None:
        try:
            if path == "read":
                timer.read_file(rows(rec), 0, dev, "zero", -1, 0, memory, where, MIB, WHOLE, stop)
            elif path == "copy":
                timer.copy(rows(rec), 0, memory, where, source, where, MIB, WHOLE, stop)
            else:
                target = (None, None) if path == "mmap-touch" else (memory, where)
                timer.mmap_read(rows(rec), 0, dirfd, "sparse", 0, total, *target, WHOLE, stop)
        except OSError as error:
            caught.append(error.errno)

    thread = threading.Thread(target=run)
    thread.start()
    stop[0] = 1
    thread.join()
    os.close(dev)
    assert caught == [errno.ECANCELED]
    assert rec[0]["errno"] == errno.ECANCELED
    assert rec[0]["nbytes"] < total


def call_read(timer: ModuleType, rec: ARRAY, **changed: Any) -> None:
    """A read that would fail with EBADF if it were ever started, but for what is `changed`."""
    arguments: dict[str, Any] = {
        "rows": rows(rec),
        "row": 0,
        "dirfd": -1,
        "name": "object",
        "fd": -1,
        "file_offset": 0,
        "memory": np.zeros(100, np.uint8),
        "extents": extents((0, 100)),
        "io_bytes": 4_096,
        "flags": WHOLE,
        "stop": np.zeros(1, np.int32),
    }
    timer.read_file(*(arguments | changed).values())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"row": 8}, "row"),
        ({"row": -1}, "row"),
        ({"extents": extents((0, 101))}, "extent"),
        ({"extents": extents((0, 10), (101, 0))}, "extent"),
        ({"extents": extents((-1, 10))}, "extent"),
        ({"extents": extents((0, -1))}, "extent"),
        ({"extents": extents((2**63 - 1, 2**63 - 1))}, "extent"),
        ({"extents": np.zeros((2, 3), np.int64)}, "shape"),
        ({"extents": np.zeros(2, np.int64)}, "shape"),
        ({"extents": np.zeros((2, 2), np.float64)}, "int64"),
        ({"extents": np.zeros((2, 2), np.int32)}, "int64"),
        ({"file_offset": -1}, "file_offset"),
        ({"file_offset": 2**63 - 1}, "file_offset"),
        ({"io_bytes": 0}, "io_bytes"),
        ({"name": "a\0b"}, "null"),
        ({"fd": 0}, "fd"),
        ({"flags": LAST}, "fd"),
        ({"stop": np.zeros(0, np.int32)}, "stop"),
        ({"stop": np.zeros(3, np.uint8)}, "stop"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_done(
    timer: ModuleType, rec: ARRAY, changed: dict[str, Any], reason: str
) -> None:
    untouched = rec.copy()
    with pytest.raises(ValueError, match=reason):
        call_read(timer, rec, **changed)
    assert np.array_equal(rows(rec), rows(untouched))


def test_read_only_memory_is_refused_for_a_read_and_taken_for_a_write(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    memory = np.ones(100, np.uint8)
    memory.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        call_read(timer, rec, memory=memory)
    timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, extents((0, 100)), 100, WHOLE, stop)
    assert (tmp_path / "object").read_bytes() == memory.tobytes()


def test_copies_and_mappings_need_extents_of_the_right_size(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], dirfd: int
) -> None:
    memory = np.zeros(100, np.uint8)
    with pytest.raises(ValueError, match="same number"):
        timer.copy(rows(rec), 0, memory, extents((0, 10)), memory, extents((0, 11)), 1, WHOLE, stop)
    with pytest.raises(ValueError, match="nbytes"):
        timer.mmap_read(rows(rec), 0, dirfd, "object", 0, 11, memory, extents((0, 10)), WHOLE, stop)


def test_a_thread_that_cannot_open_its_schedstat_fails_instead_of_recording_no_run_queue_time(
    timer: ModuleType, rec: ARRAY, stop: NDArray[np.int32], dirfd: int
) -> None:
    if not timer.SCHEDSTAT:
        pytest.skip("this kernel does not show run-queue time (CONFIG_SCHED_INFO)")
    memory, where = np.zeros(10, np.uint8), extents((0, 10))
    fd = timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, memory, where, 10, FIRST, stop)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    caught: list[int | None] = []

    def run() -> None:
        try:
            timer.write_file(rows(rec), 0, dirfd, "object", fd, 10, memory, where, 10, LAST, stop)
        except OSError as error:
            caught.append(error.errno)

    thread = threading.Thread(target=run)
    before = open_descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        thread.start()
        thread.join()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught == [errno.EMFILE]
    assert rec[0]["errno"] == errno.EMFILE
    assert rec[0]["nbytes"] == 10
    assert open_descriptors() == before - 1, "the file was closed"
