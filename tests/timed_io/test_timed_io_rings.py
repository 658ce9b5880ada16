"""Batches on a ring of the kernel: what they move, what their rows say, and what the batch took."""

import errno
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE
from kvbench.timed_io import _python_ring

READ, WRITE = 0, 1
KIB = 1024
DEPTH = 8


def ring_or_skip(depth: int, memory: Any) -> object:
    try:
        return timed_io.open_ring(depth, memory)[0]
    except OSError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no io_uring here: {error.strerror}")


class Split(NamedTuple):
    start_ns: int
    wall_ns: int
    host_ns: int
    runq_ns: int
    device_ns: int
    copy_ns: int
    nbytes: int
    helper_ns: int
    depth: int


class Asked:
    """What a batch is asked to do, of objects of one size one behind the other in memory."""

    def __init__(self, folder: Path, count: int, nbytes: int, registered: bool = True) -> None:
        self.memory = np.random.default_rng(count).integers(0, 256, count * nbytes, np.uint8)
        self.ring = ring_or_skip(DEPTH, self.memory if registered else None)
        self.count, self.nbytes = count, nbytes
        self.rows = np.full(count + 2, 0xA5, np.uint8).repeat(RECORD_DTYPE.itemsize)
        self.rec["queue_ns"] = 0
        self.stop = np.zeros(1, np.int32)
        self.descriptor = os.open(folder, os.O_RDONLY)
        self.keys = np.arange(1, count + 1, dtype=np.uint64)
        self.folders = (0, 1)
        self.io_bytes, self.flags, self.until_ns, self.depth = 1024 * KIB, 0, 0, DEPTH
        self.places: NDArray[np.int64] | None = None
        self.descriptors: NDArray[np.int64] | None = None

    @property
    def rec(self) -> NDArray[Any]:
        return self.rows.view(RECORD_DTYPE)

    def run(self, does: int) -> tuple[int, int, int, int, Split]:
        starts = np.arange(self.count) * self.nbytes
        begun, failed, unprepared, broken, split = timed_io.run_ring(
            self.ring, self.rows, 1, does, self.descriptor, "", ".kv", *self.folders, self.keys, self.memory,
            np.stack([starts, np.full(self.count, self.nbytes)], axis=1), np.arange(1, self.count + 1), self.io_bytes,
            self.flags, self.stop, self.until_ns, self.places, self.descriptors,
            self.depth,
        )  # fmt: skip
        return begun, failed, unprepared, broken, Split(*split)

    def close(self) -> None:
        timed_io.close_ring(self.ring)
        os.close(self.descriptor)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    asked = Asked(tmp_path, 50, 16 * KIB)
    yield asked
    asked.close()


@pytest.mark.parametrize("io_bytes", [16 * KIB, 4 * KIB, 6 * KIB])
@pytest.mark.parametrize("flags", [0, timed_io.NO_SYNC, timed_io.DIRECT, timed_io.RENAME | timed_io.FOLDERS])
@pytest.mark.parametrize("depth", [1, 2, DEPTH])
def test_what_a_batch_writes_another_reads(asked: Asked, tmp_path: Path, io_bytes: int, flags: int, depth: int) -> None:
    if flags & timed_io.DIRECT and io_bytes == 6 * KIB:
        pytest.skip("not a whole number of sectors")
    asked.io_bytes, asked.flags, asked.depth = io_bytes, flags, depth
    asked.folders = (1, 2) if flags & timed_io.FOLDERS else (0, 1)
    memory = aligned_memory(asked)
    begun, failed, unprepared, broken, split = asked.run(WRITE)
    assert (begun, failed, unprepared, broken) == (50, 0, 0, 0)
    assert split.nbytes == 50 * 16 * KIB
    assert 1 <= split.depth <= depth
    assert split.wall_ns == split.host_ns + split.runq_ns + split.device_ns > 0
    rows = asked.rec[1:51].copy()
    assert (rows["nbytes"] == 16 * KIB).all()
    assert (rows["errno"] == 0).all()
    assert (rows["wall_ns"] > 0).all()
    for column in ("host_ns", "runq_ns", "device_ns", "copy_ns"):
        assert (rows[column] == 0).all(), "nobody knows them"
    assert ((rows["span_ns"] > 0) == (not flags & timed_io.NO_SYNC)).all()
    assert (rows["span_ns"] <= rows["wall_ns"]).all()
    assert (rows["t_start_ns"] >= split.start_ns).all()
    assert (rows["t_start_ns"] + rows["wall_ns"] <= split.start_ns + split.wall_ns).all()
    assert (asked.rec[[0, 51]]["nbytes"] == np.frombuffer(b"\xa5" * 8, np.int64)[0]).all(), "rows of others"
    content = memory.copy()
    digits = [f"{number:016x}" for number in range(1, 51)]
    for at, name in enumerate(digits):
        path = tmp_path / (f"{name[:2]}/{name}.kv" if flags & timed_io.FOLDERS else f"{name}.kv")
        assert path.read_bytes() == content[at * 16 * KIB : (at + 1) * 16 * KIB].tobytes()
    assert not list(tmp_path.rglob("*.tmp"))
    memory[:] = 0
    asked.flags = (flags & timed_io.DIRECT) | timed_io.LOOK
    assert asked.run(READ)[:4] == (50, 0, 0, 0)
    assert np.array_equal(memory, content)
    assert (asked.rec["resident_pct"][1:51] <= 100).all(), "looked at"


def aligned_memory(asked: Asked) -> NDArray[np.uint8]:
    """The memory of `asked`, from now on at whole sectors, and no more registered."""
    timed_io.close_ring(asked.ring)
    aligned = np.frombuffer(mmap.mmap(-1, len(asked.memory)), np.uint8)
    aligned[:] = asked.memory
    asked.memory = aligned
    asked.ring = timed_io.open_ring(DEPTH, aligned)[0]
    return aligned


def test_objects_in_one_file_are_where_their_places_say(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 20, 8 * KIB, registered=False)
    path = tmp_path / "slab"
    path.write_bytes(bytes(40 * 8 * KIB))
    os.close(asked.descriptor)
    asked.descriptor = os.open(path, os.O_RDWR)
    asked.places = np.random.default_rng(1).permutation(40)[:20].astype(np.int64) * 8 * KIB
    content = asked.memory.copy()
    assert asked.run(WRITE)[:4] == (20, 0, 0, 0)
    for at, place in enumerate(asked.places.tolist()):
        expected = content[at * 8 * KIB : (at + 1) * 8 * KIB].tobytes()
        assert os.pread(asked.descriptor, 8 * KIB, place) == expected
    asked.memory[:] = 0
    asked.flags = timed_io.LOOK
    assert asked.run(READ)[:4] == (20, 0, 0, 0)
    assert np.array_equal(asked.memory, content)
    asked.close()


def test_objects_in_several_files_are_in_those_that_their_descriptors_say(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 20, 8 * KIB)
    files = [os.open(tmp_path / f"bucket{number}", os.O_RDWR | os.O_CREAT) for number in range(3)]
    asked.places = np.arange(20, dtype=np.int64) * 8 * KIB
    asked.descriptors = np.array([files[at % 3] for at in range(20)], np.int64)
    content = asked.memory.copy()
    assert asked.run(WRITE)[:4] == (20, 0, 0, 0)
    for at in range(20):
        expected = content[at * 8 * KIB : (at + 1) * 8 * KIB].tobytes()
        assert os.pread(files[at % 3], 8 * KIB, at * 8 * KIB) == expected
    asked.memory[:] = 0
    asked.flags = timed_io.LOOK
    assert asked.run(READ)[:4] == (20, 0, 0, 0)
    assert np.array_equal(asked.memory, content)
    for file in files:
        os.close(file)
    asked.close()


def test_of_what_is_missing_and_what_is_too_short_the_rows_say_why(asked: Asked, tmp_path: Path) -> None:
    asked.run(WRITE)
    os.truncate(tmp_path / f"{3:016x}.kv", 5000)
    begun, failed, unprepared, broken, split = asked.run(READ)
    assert (unprepared, broken) == (0, 0)
    assert failed == 1
    assert DEPTH <= begun < 50, "none is begun any more, and those in flight come to their end"
    rows = asked.rec[1 : 1 + begun]
    assert rows["errno"].tolist() == [0, 0, errno.EIO] + [0] * (begun - 3)
    assert rows["nbytes"][2] == 5000
    assert split.nbytes == (begun - 1) * 16 * KIB + 5000
    (tmp_path / f"{1:016x}.kv").unlink()
    assert asked.run(READ)[:2] == (1, 1)
    assert asked.rec["errno"][1] == errno.ENOENT


def test_an_object_that_cannot_be_looked_at_is_the_one_behind_those_that_were_begun(
    asked: Asked, tmp_path: Path
) -> None:
    asked.run(WRITE)
    (tmp_path / f"{6:016x}.kv").unlink()
    asked.flags = timed_io.LOOK
    assert asked.run(READ)[:4] == (5, 0, errno.ENOENT, 0)


def test_once_it_is_to_stop_or_too_late_nothing_more_is_begun(asked: Asked) -> None:
    asked.run(WRITE)
    asked.until_ns = 1
    assert asked.run(READ)[:4] == (1, 0, 0, 0)
    asked.stop[0] = 1
    begun, failed, _, broken, _ = asked.run(READ)
    assert (begun, failed, broken) == (1, 1, 0)
    assert asked.rec["errno"][1] == errno.ECANCELED


def test_processor_time_of_the_kernels_workers_is_told(tmp_path: Path) -> None:
    """A sync always goes to a worker."""
    asked = Asked(tmp_path, 50, 64 * KIB)
    synced = asked.run(WRITE)[4]
    assert synced.helper_ns > 0
    assert synced.helper_ns < 60 * 10**9
    asked.close()


def test_each_thread_has_the_workers_of_its_own_ring(tmp_path: Path) -> None:
    """One thread syncs, the other moves nothing: what the workers did is the first one's."""
    told: dict[str, int] = {}
    begin, end = threading.Barrier(2), threading.Barrier(2)

    def work(name: str, count: int) -> None:
        (tmp_path / name).mkdir()
        asked = Asked(tmp_path / name, count, 64 * KIB)
        asked.until_ns = 0
        if not count:
            asked.stop[0] = 1
        begin.wait()
        told[name] = asked.run(WRITE)[4].helper_ns
        end.wait()
        told[name] += asked.run(WRITE)[4].helper_ns if name == "idle" else 0
        asked.close()

    threads = [threading.Thread(target=work, args=("busy", 50)), threading.Thread(target=work, args=("idle", 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told["busy"] > 10 * told["idle"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("depth", DEPTH + 1, "opened for less depth"),
        ("depth", 0, "depth must be positive"),
        ("io_bytes", 0, "io_bytes must be positive"),
        ("places", np.zeros(3, np.int64), "places and descriptors must be"),
        ("places", np.full(50, -1, np.int64), "places and descriptors must be"),
        ("descriptors", np.zeros(50, np.int64), "descriptors go with places"),
        ("folders", (5, 1), "levels must be"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_done(
    asked: Asked, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    setattr(asked, name, value)
    with pytest.raises(ValueError, match=message):
        asked.run(WRITE)
    assert list(tmp_path.iterdir()) == []
    asked.folders = (0, 1)


def test_a_ring_that_is_closed_is_refused(asked: Asked) -> None:
    timed_io.close_ring(asked.ring)
    with pytest.raises(ValueError, match="the ring is closed"):
        asked.run(READ)


def test_rings_need_a_depth_and_the_extension() -> None:
    for depth in (0, 4097):
        with pytest.raises(ValueError, match="depth must be from 1 to 4096"):
            timed_io.open_ring(depth, None)
    with pytest.raises(OSError, match="need the C extension"):
        _python_ring.open_ring(1, None)
