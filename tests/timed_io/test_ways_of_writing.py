"""What a write may leave out or add, objects in a part of an open file, look-ups and syncs: for both backends."""

import errno
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SECTOR = np.arange(4096, dtype=np.uint32).astype(np.uint8)
WHERE = np.array([[0, 4096]], np.int64)
Stop = NDArray[np.int32]


def rows(rec: NDArray[Any]) -> NDArray[np.uint8]:
    return rec.view(np.uint8)


def test_a_write_without_sync_has_no_span(timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int) -> None:
    flags = timer.FIRST | timer.LAST
    for row, extra in enumerate((0, timer.NO_SYNC)):
        timer.write_file(rows(rec), row, dirfd, "object", -1, 0, SECTOR, WHERE, 4096, flags | extra, stop)
    assert (rec[0]["span_ns"] > 0, rec[1]["span_ns"]) == (True, 0)
    assert rec[1]["nbytes"] == 4096


def test_a_file_has_its_name_only_when_it_is_whole(
    timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int, tmp_path: Path
) -> None:
    way = timer.RENAME
    fd = timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, SECTOR, WHERE, 4096, timer.FIRST | way, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["object.tmp"]
    timer.write_file(rows(rec), 0, dirfd, "object", fd, 4096, SECTOR, WHERE, 4096, timer.LAST | way, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["object"]
    assert (tmp_path / "object").read_bytes() == SECTOR.tobytes() * 2
    assert rec[0]["nbytes"] == 8192


def test_a_stopped_write_leaves_what_was_there_under_the_name(
    timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int, tmp_path: Path
) -> None:
    (tmp_path / "object").write_bytes(b"before")
    fd = timer.write_file(rows(rec), 0, dirfd, "object", -1, 0, SECTOR, WHERE, 4096, timer.FIRST | timer.RENAME, stop)
    stop[0] = 1
    with pytest.raises(OSError, match="object") as caught:
        timer.write_file(rows(rec), 0, dirfd, "object", fd, 0, SECTOR, WHERE, 4096, timer.LAST | timer.RENAME, stop)
    assert caught.value.errno == rec[0]["errno"] == errno.ECANCELED
    assert (tmp_path / "object").read_bytes() == b"before"


def test_folders_are_made_where_they_are_not_there(
    timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int, tmp_path: Path
) -> None:
    flags = timer.FIRST | timer.LAST | timer.RENAME
    arguments = (-1, 0, SECTOR, WHERE, 4096)
    with pytest.raises(FileNotFoundError):
        timer.write_file(rows(rec), 0, dirfd, "ab/cd/object", *arguments, flags, stop)
    for name in ("ab/cd/object", "ab/cd/other", "ab/ef/object"):
        timer.write_file(rows(rec), 0, dirfd, name, *arguments, flags | timer.FOLDERS, stop)
        assert (tmp_path / name).read_bytes() == SECTOR.tobytes()
    assert sorted(path.name for path in (tmp_path / "ab" / "cd").iterdir()) == ["object", "other"]


def test_a_name_that_is_too_long_to_be_made_a_temporary_one_is_refused(
    timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int
) -> None:
    flags = timer.FIRST | timer.LAST | timer.RENAME
    with pytest.raises(ValueError, match="too long"):
        timer.write_file(rows(rec), 0, dirfd, "a" * 252, -1, 0, SECTOR, WHERE, 4096, flags, stop)


def test_a_part_of_an_open_file_is_written_and_read_and_the_file_stays_open(
    timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int, tmp_path: Path
) -> None:
    (tmp_path / "slab").write_bytes(bytes(4 * 4096))
    flags = timer.FIRST | timer.LAST | timer.IN_PLACE
    fd, back = os.open(tmp_path / "slab", os.O_RDWR), np.zeros(4096, np.uint8)
    try:
        assert timer.write_file(rows(rec), 0, dirfd, "slab", fd, 8192, SECTOR, WHERE, 4096, flags, stop) == fd
        assert timer.read_file(rows(rec), 1, dirfd, "slab", fd, 8192, back, WHERE, 1024, flags, stop) == fd
        with pytest.raises(OSError, match="slab"):
            timer.read_file(rows(rec), 2, dirfd, "slab", fd, 4 * 4096, back, WHERE, 1024, flags, stop)
        os.fstat(fd)
    finally:
        os.close(fd)
    assert np.array_equal(back, SECTOR)
    assert (tmp_path / "slab").read_bytes() == bytes(8192) + SECTOR.tobytes() + bytes(4096)
    assert [row["nbytes"] for row in rec[:2]] == [4096, 4096]
    assert rec[2]["errno"] == errno.EIO


def test_a_part_of_no_file_is_refused(timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int) -> None:
    flags = timer.FIRST | timer.LAST | timer.IN_PLACE
    with pytest.raises(ValueError, match="fd must be"):
        timer.write_file(rows(rec), 0, dirfd, "slab", -1, 0, SECTOR, WHERE, 4096, flags, stop)


def test_a_look_up_says_whether_a_file_is_there_and_both_are_answers(
    timer: ModuleType, rec: NDArray[Any], dirfd: int, tmp_path: Path
) -> None:
    (tmp_path / "object").touch()
    assert timer.look_up(rows(rec), 0, dirfd, "object") is True
    assert timer.look_up(rows(rec), 1, dirfd, "other") is False
    for row in rec[:2]:
        assert (row["errno"], row["nbytes"]) == (0, 0)
        assert row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"] == row["span_ns"] > 0
    with pytest.raises(NotADirectoryError):
        timer.look_up(rows(rec), 2, dirfd, "object/in")
    assert rec[2]["errno"] == errno.ENOTDIR


def test_a_filesystem_is_synced(timer: ModuleType, rec: NDArray[Any], dirfd: int) -> None:
    timer.sync_filesystem(rows(rec), 0, dirfd)
    assert (rec[0]["errno"], rec[0]["nbytes"]) == (0, 0)
    assert rec[0]["wall_ns"] > 0
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
        timer.sync_filesystem(rows(rec), 1, -1)
    assert caught.value.errno == rec[1]["errno"] == errno.EBADF


def test_the_page_cache_is_asked_about_a_range(timer: ModuleType, dirfd: int, tmp_path: Path) -> None:
    with (tmp_path / "object").open("wb") as file:
        file.write(bytes(8 * 4096))
    assert timer.page_cache(dirfd, "object", False, 4096, 4096) == 100
    assert timer.page_cache(dirfd, "object", False, 8 * 4096, 4096) == 0
    with pytest.raises(ValueError, match="multiple of the page"):
        timer.page_cache(dirfd, "object", False, 1, 4096)


def test_a_write_that_asks_first_goes_on_whatever_the_answer(
    timer: ModuleType, rec: NDArray[Any], stop: Stop, dirfd: int, tmp_path: Path
) -> None:
    flags = timer.FIRST | timer.LAST | timer.ASK_FIRST | timer.RENAME | timer.FOLDERS
    for before in (None, b"before"):
        if before is not None:
            (tmp_path / "ab" / "object").write_bytes(before)
        timer.write_file(rows(rec), 0, dirfd, "ab/object", -1, 0, SECTOR, WHERE, 4096, flags, stop)
        assert (tmp_path / "ab" / "object").read_bytes() == SECTOR.tobytes()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        timer.write_file(rows(rec), 0, dirfd, "file/object", -1, 0, SECTOR, WHERE, 4096, flags, stop)
