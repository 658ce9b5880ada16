"""A batch does what as many single calls do, and its rows say the same: for both backends of the stopwatch."""

import errno
import importlib
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvbench.records.schema import RECORD_DTYPE, STOPWATCH_BYTES

READ, WRITE, DELETE = 0, 1, 4
DIRECT, NO_SYNC, RENAME, FOLDERS, LOOK, DROP = 4, 8, 16, 32, 128, 256
KIB = 1024
KEYS = np.array([1, 0xFFFF_FFFF_FFFF_FFFF, 0x10, 7], np.uint64)


@pytest.fixture(params=["_stopwatch", "_python_batch"])
def calls(request: pytest.FixtureRequest) -> ModuleType:
    try:
        return importlib.import_module(f"kvbench.timed_io.{request.param}")
    except ImportError:
        if os.environ.get("CI") or request.param != "_stopwatch":
            raise
        pytest.skip("the C extension is not built: this machine has no C compiler")


def layout(count: int, nbytes: int, pieces: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Extents and ends of `count` objects, each in as many pieces, from the end of a buffer to its beginning."""
    piece = nbytes // pieces
    starts = [(count * pieces - 1 - at) * piece for at in range(count * pieces)]
    return np.array([(start, piece) for start in starts], np.int64), np.arange(1, count + 1) * pieces


def names() -> list[str]:
    return [f"sub/{int(key):016x}.kv" for key in KEYS]


def run(calls: ModuleType, rec: NDArray[Any], does: int, dirfd: int, memory: Any, where: Any, **given: Any) -> Any:
    extents, ends = where if where else (None, None)
    return calls.run_files(
        rec.view(np.uint8), 2, does, dirfd, "sub/", ".kv", *given.get("folders", (0, 1)), given.get("keys",
        KEYS), memory,
        extents, ends, given.get("io_bytes", 3 * KIB), given.get("flags", 0), given.get("stop", np.zeros(1, np.int32)),
        given.get("until_ns", 0), given.get("places"), given.get("descriptors"),
    )  # fmt: skip


@pytest.mark.parametrize("pieces", [1, 2])
def test_what_a_batch_writes_another_reads_and_a_third_removes(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int, pieces: int
) -> None:
    (tmp_path / "sub").mkdir()
    content = np.random.default_rng(1).integers(0, 256, 32 * KIB, np.uint8)
    where = layout(4, 8 * KIB, pieces)
    rec["queue_ns"] = 0
    assert run(calls, rec, WRITE, dirfd, content, where) == (4, 0, 0)
    written = rec[2:6].copy()
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == sorted(name[4:] for name in names())
    for at, name in enumerate(names()):
        parts = [content[start : start + length] for start, length in where[0][at * pieces : (at + 1) * pieces]]
        assert (tmp_path / name).read_bytes() == np.concatenate(parts).tobytes()
    landed = np.zeros_like(content)
    assert run(calls, rec, READ, dirfd, landed, where, flags=LOOK) == (4, 0, 0)
    assert np.array_equal(landed, content)
    assert (rec["resident_pct"][2:6] == 100).all(), "just written, and not dropped"
    read = rec[2:6].copy()
    assert run(calls, rec, DELETE, dirfd, None, None) == (4, 0, 0)
    assert list((tmp_path / "sub").iterdir()) == []
    for rows in (written, read, rec[2:6]):
        assert (rows["errno"] == 0).all()
        assert (rows["device_ns"] + rows["host_ns"] + rows["runq_ns"] == rows["wall_ns"]).all()
        assert (rows["wall_ns"] > 0).all()
        assert (rows["t_start_ns"][1:] >= (rows["t_start_ns"] + rows["wall_ns"])[:-1]).all(), "one after the other"
        assert (rows["queue_ns"] > 0).all()
    assert (written["nbytes"] == 8 * KIB).all()
    assert (read["nbytes"] == 8 * KIB).all()
    assert (rec["nbytes"][2:6] == 0).all()
    assert ((written["span_ns"] > 0) & (written["span_ns"] < written["wall_ns"])).all(), "of fdatasync"
    assert (read["span_ns"] == read["wall_ns"]).all()


def test_a_batch_touches_its_own_rows_and_of_these_only_what_is_its_own(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "sub").mkdir()
    run(calls, rec, WRITE, dirfd, np.zeros(16 * KIB, np.uint8), layout(4, 4 * KIB))
    raw = rec.view(np.uint8).reshape(8, RECORD_DTYPE.itemsize)
    assert (raw[[0, 1, 6, 7]] == 0xA5).all()
    assert (raw[2:6, STOPWATCH_BYTES:] == 0xA5).all()


@pytest.mark.parametrize("missing", [0, 2, 3])
@pytest.mark.parametrize("look", [0, LOOK, LOOK | DROP])
def test_nothing_is_begun_behind_what_fails(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int, missing: int, look: int
) -> None:
    (tmp_path / "sub").mkdir()
    memory, where = np.zeros(16 * KIB, np.uint8), layout(4, 4 * KIB)
    run(calls, rec, WRITE, dirfd, memory, where)
    (tmp_path / names()[missing]).unlink()
    rec["t_start_ns"] = 0
    end = run(calls, rec, READ, dirfd, memory, where, flags=look)
    assert end == ((missing, errno.ENOENT, 1) if look else (missing + 1, errno.ENOENT, 0))
    assert np.count_nonzero(rec["t_start_ns"]) == end[0]
    assert (rec["errno"][2 : 2 + missing] == 0).all()
    assert look or rec["errno"][2 + missing] == errno.ENOENT


def test_a_file_that_ends_early_is_an_input_output_error_of_its_row(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "sub").mkdir()
    memory, where = np.zeros(16 * KIB, np.uint8), layout(4, 4 * KIB)
    run(calls, rec, WRITE, dirfd, memory, where)
    os.truncate(tmp_path / names()[1], KIB)
    assert run(calls, rec, READ, dirfd, memory, where) == (2, errno.EIO, 0)
    assert (rec["errno"][3], rec["nbytes"][3]) == (errno.EIO, KIB)


@pytest.mark.parametrize("does", [READ, WRITE])
def test_a_stop_ends_a_batch_before_its_next_step(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int, does: int
) -> None:
    (tmp_path / "sub").mkdir()
    memory, where = np.zeros(16 * KIB, np.uint8), layout(4, 4 * KIB)
    run(calls, rec, WRITE, dirfd, memory, where)
    assert run(calls, rec, does, dirfd, memory, where, stop=np.ones(1, np.int32)) == (1, errno.ECANCELED, 0)


def test_when_it_is_too_late_nothing_but_the_first_is_begun(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "sub").mkdir()
    memory, where = np.zeros(16 * KIB, np.uint8), layout(4, 4 * KIB)
    assert run(calls, rec, WRITE, dirfd, memory, where, until_ns=time.monotonic_ns() + 10**12) == (4, 0, 0)
    for does in (READ, WRITE, DELETE):
        assert run(calls, rec, does, dirfd, memory, where, until_ns=1) == (1, 0, 0)
    nothing = np.empty(0, np.uint8), np.empty((0, 2), np.int64), np.zeros(3, np.int64)
    stop = np.zeros(1, np.int32)
    assert calls.run_copies(rec.view(np.uint8), 0, *nothing, *nothing, 1, 0, stop, 1) == (1, 0, 0)


def test_a_full_table_of_descriptors_is_the_error_of_a_row(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    import resource  # noqa: PLC0415

    (tmp_path / "sub").mkdir()
    memory, where = np.zeros(16 * KIB, np.uint8), layout(4, 4 * KIB)
    run(calls, rec, WRITE, dirfd, memory, where)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(dirfd)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        end = run(calls, rec, READ, dirfd, memory, where)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert end == (1, errno.EMFILE, 0)
    assert rec["errno"][2] == errno.EMFILE


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.integers(0, 700), max_size=3), max_size=4), st.integers(1, 900))
def test_copies_of_a_batch_move_every_byte_in_order(
    calls: ModuleType, rec: NDArray[Any], sizes: list[list[int]], io_bytes: int
) -> None:
    """Each object comes out of as many pieces as drawn, and goes into one."""
    pieces = [length for each in sizes for length in each]
    starts = np.concatenate([[0], np.cumsum(pieces)]).astype(np.int64)
    source = np.random.default_rng(3).integers(0, 256, max(1, sum(pieces)), np.uint8)
    from_extents = np.array([(s, n) for s, n in zip(starts, pieces, strict=False)], np.int64).reshape(-1, 2)
    whole = [sum(each) for each in sizes]
    ends = np.cumsum([len(each) for each in sizes]).astype(np.int64)
    to_starts = np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)
    to_extents = np.array([(s, n) for s, n in zip(to_starts, whole, strict=False)], np.int64).reshape(-1, 2)
    target = np.zeros_like(source)
    end = calls.run_copies(
        rec.view(np.uint8), 1, target, to_extents, np.arange(1, len(sizes) + 1), source, from_extents, ends, io_bytes,
        1, np.zeros(1, np.int32), 0,
    )  # fmt: skip
    assert end == (len(sizes), 0, 0)
    assert np.array_equal(target[: sum(pieces)], source[: sum(pieces)])
    assert rec["nbytes"][1 : 1 + len(sizes)].tolist() == whole
    assert (rec["copy_ns"][1 : 1 + len(sizes)] == rec["host_ns"][1 : 1 + len(sizes)]).all()


def test_a_copy_of_nothing_counts_no_copy_time(calls: ModuleType, rec: NDArray[Any]) -> None:
    nothing = np.empty(0, np.uint8), np.empty((0, 2), np.int64), np.zeros(3, np.int64)
    stop = np.zeros(1, np.int32)
    assert calls.run_copies(rec.view(np.uint8), 0, *nothing, *nothing, 1, 0, stop, 0) == (3, 0, 0)
    assert (rec["copy_ns"][:3] == 0).all()
    assert (rec["wall_ns"][:3] > 0).all()


def test_a_batch_makes_folders_renames_and_leaves_the_sync_out(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    content = np.random.default_rng(1).integers(0, 256, 16 * KIB, np.uint8)
    rec["queue_ns"] = 0
    flags = FOLDERS | RENAME | NO_SYNC
    assert run(calls, rec, WRITE, dirfd, content, layout(4, 4 * KIB), flags=flags, folders=(2, 3)) == (4, 0, 0)
    assert (rec["span_ns"][2:6] == 0).all(), "no fdatasync"
    digits = [f"{int(key):016x}" for key in KEYS]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == sorted(
        f"sub/{name[:3]}/{name[3:6]}/{name}.kv" for name in digits
    )
    landed = np.zeros_like(content)
    assert run(calls, rec, READ, dirfd, landed, layout(4, 4 * KIB), folders=(2, 3)) == (4, 0, 0)
    assert np.array_equal(landed, content)


@pytest.mark.parametrize("several", [False, True])
def test_objects_with_places_are_parts_of_open_files(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int, several: bool
) -> None:
    content = np.random.default_rng(3).integers(0, 256, 32 * KIB, np.uint8)
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("one", "two")]
    places = np.array([40, 24, 8, 0], np.int64) * KIB
    descriptors = np.array([files[0], files[1], files[1], files[0]], np.int64) if several else None
    where = layout(4, 8 * KIB, 2)
    rec["queue_ns"] = 0
    given = {"places": places, "descriptors": descriptors}
    assert run(calls, rec, WRITE, files[0], content, where, **given) == (4, 0, 0)
    assert (rec["span_ns"][2:6] > 0).all(), "synced"
    for at, place in enumerate(places.tolist()):
        parts = [content[start : start + length] for start, length in where[0][at * 2 : at * 2 + 2]]
        file = files[0] if descriptors is None else int(descriptors[at])
        assert os.pread(file, 8 * KIB, place) == np.concatenate(parts).tobytes()
    landed = np.zeros_like(content)
    assert run(calls, rec, READ, files[0], landed, where, flags=LOOK, **given) == (4, 0, 0)
    assert np.array_equal(landed, content)
    assert (rec["resident_pct"][2:6] == 100).all()
    assert (rec["nbytes"][2:6] == 8 * KIB).all()
    for file in files:
        os.close(file)


def test_sums_of_rows_are_those_of_their_columns(calls: ModuleType) -> None:
    rec = np.zeros(5, RECORD_DTYPE)
    rng = np.random.default_rng(2)
    for name in ("t_start_ns", "wall_ns", "host_ns", "runq_ns", "device_ns", "copy_ns", "nbytes"):
        rec[name] = rng.integers(1, 2**40, 5)
    part = rec[1:4]
    sums = [int(part[name].sum()) for name in ("wall_ns", "host_ns", "runq_ns", "device_ns", "copy_ns", "nbytes")]
    last = int((part["t_start_ns"] + part["wall_ns"]).max())
    assert list(calls.sum_rows(rec.view(np.uint8), 1, 3)) == [int(part["t_start_ns"].min()), last, *sums]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extents": np.array([(0, 4096)] * 3 + [(4096, 4097)])}, "an extent lies outside memory"),
        ({"ends": np.array([1, 2, 3])}, "ends must be"),
        ({"ends": np.array([1, 3, 2, 4])}, "ends must be"),
        ({"ends": np.array([1, 2, 3, 5])}, "ends must be"),
        ({"first_row": 5}, "rows of the batch lie outside rows"),
        ({"does": 2}, "reads, writes or deletes"),
        ({"suffix": "x" * 1010}, "names of the objects are too long"),
        ({"suffix": "x" * 240, "flags": RENAME}, "names of the objects are too long"),
        ({"levels": 5}, "levels must be from 0 to 4"),
        ({"width": 0}, "width from 1 to 4"),
        ({"io_bytes": 0}, "io_bytes must be positive"),
        ({"places": np.zeros(3, np.int64)}, "places and descriptors must be int64 buffers"),
        ({"places": np.array([0, -1, 0, 0])}, "places and descriptors must be int64 buffers"),
        ({"descriptors": np.zeros(4, np.int64)}, "descriptors go with places"),
        ({"does": DELETE, "places": np.zeros(4, np.int64)}, "what has a place in a file is not removed"),
    ],
)
def test_a_wrong_batch_is_refused_before_anything_is_done(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int, change: dict[str, Any], message: str
) -> None:
    asked = {
        "first_row": 2, "does": WRITE, "dirfd": dirfd, "prefix": "", "suffix": ".kv", "levels": 0,
        "width": 1, "keys": KEYS,
        "memory": np.zeros(2 * 4096, np.uint8), "extents": np.array([(0, 4096)] * 4), "ends": np.arange(1, 5),
        "io_bytes": 4096, "flags": 0, "stop": np.zeros(1, np.int32), "until_ns": 0,
        "places": None, "descriptors": None,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        calls.run_files(rec.view(np.uint8), *asked.values())
    assert list(tmp_path.iterdir()) == []
    assert (rec.view(np.uint8) == 0xA5).all()


def test_a_batch_that_is_not_synced_has_no_spans(
    calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int
) -> None:
    (tmp_path / "sub").mkdir()
    for flags, synced in ((0, True), (NO_SYNC, False)):
        assert run(calls, rec, WRITE, dirfd, np.ones(32 * KIB, np.uint8), layout(4, 8 * KIB), flags=flags) == (4, 0, 0)
        assert ((rec["span_ns"][2:6] > 0) == synced).all()


def test_files_are_synced_as_one_operation(calls: ModuleType, rec: NDArray[Any], tmp_path: Path, dirfd: int) -> None:
    (tmp_path / "sub").mkdir()
    run(calls, rec, WRITE, dirfd, np.ones(32 * KIB, np.uint8), layout(4, 8 * KIB), flags=NO_SYNC)
    stop = np.zeros(1, np.int32)
    open_before = len(os.listdir("/proc/self/fd"))
    for synced in (tuple(names()), ()):
        rec[0] = 0
        calls.sync_files(rec.view(np.uint8), 0, dirfd, synced, stop)
        row = rec[0]
        assert (row["errno"], row["nbytes"]) == (0, 0)
        assert row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"] > 0
        assert (row["span_ns"] > 0) == bool(synced)
        assert row["span_ns"] <= row["wall_ns"]
    (tmp_path / names()[2]).unlink()
    with pytest.raises(FileNotFoundError):
        calls.sync_files(rec.view(np.uint8), 0, dirfd, tuple(names()), stop)
    assert rec[0]["errno"] == errno.ENOENT
    stop[0] = 1
    with pytest.raises(OSError, match="canceled") as caught:
        calls.sync_files(rec.view(np.uint8), 0, dirfd, tuple(names()), stop)
    assert caught.value.errno == rec[0]["errno"] == errno.ECANCELED
    assert len(os.listdir("/proc/self/fd")) == open_before
    with pytest.raises(TypeError, match="tuple"):
        calls.sync_files(rec.view(np.uint8), 0, dirfd, names(), stop)
    with pytest.raises(ValueError, match="null character"):
        calls.sync_files(rec.view(np.uint8), 0, dirfd, ("a\0b",), stop)
    with pytest.raises(ValueError, match="row lies outside"):
        calls.sync_files(rec.view(np.uint8), 99, dirfd, (), stop)
