"""Only what carries this run's marker is ever removed; everything else is found as it was."""

import itertools
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvbench.errors import KvbenchError
from kvbench.tiers.file import marked
from kvbench.tiers.file.run_directory import RunDirectory, check_directory
from kvbench.tiers.marker import MARKER

RUN = "20260101-000000-abc123"


def fill(rundir: RunDirectory, objects: int = 3) -> None:
    for key in range(objects):
        (rundir.objects / f"{key:016x}.kv").write_bytes(b"data")
        (rundir.objects / f"{key:016x}.npy").write_bytes(b"data")


def everything(directory: Path) -> dict[str, bytes | str]:
    """Content of every file below `directory`, target of every link, and the folders."""
    found: dict[str, bytes | str] = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
    return found


@pytest.fixture
def rundir(tmp_path: Path) -> RunDirectory:
    rundir = RunDirectory(tmp_path, RUN, rank=0)
    rundir.create()
    return rundir


def test_both_levels_are_marked_with_the_run(rundir: RunDirectory) -> None:
    for directory in (rundir.top, rundir.objects):
        assert json.loads((directory / MARKER).read_text()) == {"program": "kvbench", "run_id": RUN}
        assert directory.stat().st_mode & 0o077 == 0, "nobody else's business"
    assert rundir.objects == rundir.directory / f"kvbench-{RUN}" / "rank-0"


def test_nothing_is_left_of_a_run(rundir: RunDirectory) -> None:
    fill(rundir)
    assert rundir.remove() == []
    assert list(rundir.directory.iterdir()) == []


def test_what_is_deleted_and_not_gone_yet_is_waited_for(rundir: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE renames a file that is deleted while it is open, and hears late of a close."""
    delete, hidden = os.unlink, itertools.count()

    def hide(name: str, *, dir_fd: int | None = None) -> None:
        os.rename(name, f".fuse_hidden{next(hidden):016x}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def hear_of_the_close(_: float) -> None:
        for path in rundir.directory.rglob(".fuse_hidden*"):
            delete(path)

    (rundir.objects / "0123456789abcdef.kv").write_bytes(b"data")
    monkeypatch.setattr(os, "unlink", hide)
    monkeypatch.setattr(marked, "time", SimpleNamespace(monotonic=time.monotonic, sleep=hear_of_the_close))
    assert rundir.remove() == []
    assert list(rundir.directory.iterdir()) == []
    assert next(hidden) == 3, "the object and both markers"


def test_what_never_goes_is_waited_for_no_longer_than_a_moment(
    rundir: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rundir.objects / ".nfs0123456789abcdef").write_bytes(b"open elsewhere")
    waited: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(waited), sleep=waited.append)
    monkeypatch.setattr(marked, "time", clock)
    assert rundir.remove() == [".nfs0123456789abcdef"]
    assert 0.9 < sum(waited) < 1.2
    assert (rundir.objects / MARKER).exists()


def test_removing_twice_does_nothing(rundir: RunDirectory) -> None:
    assert rundir.remove() == []
    assert rundir.remove() == []


def test_the_last_rank_to_leave_removes_the_directory_of_the_run(rundir: RunDirectory) -> None:
    others = [RunDirectory(rundir.directory, RUN, rank) for rank in (1, 12)]
    for other in others:
        other.create()
        fill(other)
    assert rundir.remove() == []
    assert sorted(path.name for path in rundir.top.iterdir()) == [MARKER, "rank-1", "rank-12"]
    assert len(list(others[0].objects.iterdir())) == 7, "another rank's objects are its own"
    assert others[1].remove() == others[0].remove() == []
    assert list(rundir.directory.iterdir()) == []


def test_ranks_that_leave_at_the_same_time_do_not_trip_over_each_other(tmp_path: Path) -> None:
    for turn in range(20):
        rundirs = [RunDirectory(tmp_path, f"{RUN}-{turn}", rank) for rank in range(6)]
        problems: list[BaseException] = []
        together = threading.Barrier(len(rundirs))

        def leave(
            own: RunDirectory, together: threading.Barrier = together, to: list[BaseException] = problems
        ) -> None:
            try:
                together.wait(30)
                own.create()
                together.wait(30)
                own.remove()
            except (OSError, KvbenchError, threading.BrokenBarrierError) as error:
                to.append(error)

        threads = [threading.Thread(target=leave, args=(own,)) for own in rundirs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert list(tmp_path.iterdir()) == []


def test_two_runs_side_by_side_do_not_touch_each_other(rundir: RunDirectory) -> None:
    other = RunDirectory(rundir.directory, "20260101-000000-def456", rank=0)
    other.create()
    fill(rundir)
    fill(other)
    before = everything(other.top)
    assert rundir.remove() == []
    assert everything(other.top) == before
    assert [path.name for path in rundir.directory.iterdir()] == [other.top.name]


def test_what_stands_beside_the_run_survives(rundir: RunDirectory) -> None:
    (rundir.directory / "thesis.npy").write_bytes(b"years of work")
    (rundir.directory / "0000000000000001.kv").write_bytes(b"looks like ours")
    (rundir.directory / "kvbench-notes").mkdir()
    (rundir.directory / "kvbench-notes" / "0000000000000001.kv").write_bytes(b"looks like ours")
    fill(rundir)
    rundir.remove()
    assert everything(rundir.directory) == {
        "thesis.npy": b"years of work",
        "0000000000000001.kv": b"looks like ours",
        "kvbench-notes": "",
        "kvbench-notes/0000000000000001.kv": b"looks like ours",
    }


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "1.kv",
        "0000000000000001.KV",
        "000000000000000g.kv",
        "00000000000000001.npy",
        "0000000000000001.kv~",
    ],
)
def test_files_of_other_names_survive_and_are_reported(rundir: RunDirectory, name: str) -> None:
    fill(rundir)
    stranger = rundir.objects / name
    stranger.write_bytes(b"mine")
    assert rundir.remove() == [stranger.name]
    assert stranger.read_bytes() == b"mine"
    assert sorted(path.name for path in rundir.objects.iterdir()) == sorted([MARKER, name])
    stranger.unlink()
    assert rundir.remove() == []
    assert not rundir.top.exists(), "once the stranger is gone it can be removed after all"


def test_directories_and_links_survive_whatever_their_name(
    rundir: RunDirectory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "0000000000000003.kv").write_bytes(b"mine")
    strangers = [rundir.objects / f"{key:016x}.kv" for key in (10, 11, 12, 13)]
    strangers[0].mkdir()
    (strangers[0] / "0000000000000004.kv").write_bytes(b"mine")
    strangers[1].symlink_to(outside)
    strangers[2].symlink_to(outside / "0000000000000003.kv")
    strangers[3].symlink_to(outside / "nothing")
    fill(rundir)
    assert sorted(rundir.remove()) == [path.name for path in strangers]
    assert everything(outside) == {"0000000000000003.kv": b"mine"}
    assert (strangers[0] / "0000000000000004.kv").read_bytes() == b"mine"
    assert [path.is_symlink() for path in strangers] == [False, True, True, True]


def test_what_someone_put_beside_the_ranks_survives_and_the_last_rank_says_so(rundir: RunDirectory) -> None:
    other = RunDirectory(rundir.directory, RUN, rank=1)
    other.create()
    stranger = rundir.top / "notes.txt"
    stranger.write_bytes(b"mine")
    assert rundir.remove() == []
    assert other.remove() == [stranger.name]
    assert sorted(path.name for path in rundir.top.iterdir()) == [MARKER, "notes.txt"]


@pytest.mark.parametrize(
    "marker",
    [
        None,
        b"",
        b"kvbench",
        b"[]",
        b'"kvbench"',
        b"\xff\xfe",
        b'{"program": "kvbench"}',
        b'{"program": "kvbench", "run_id": "20250101-000000-abc123"}',
        b'{"program": "another", "run_id": "20260101-000000-abc123"}',
    ],
)
def test_a_directory_without_this_runs_marker_is_left_alone(rundir: RunDirectory, marker: bytes | None) -> None:
    fill(rundir)
    for directory in (rundir.top, rundir.objects):
        (directory / MARKER).unlink()
        if marker is not None:
            (directory / MARKER).write_bytes(marker)
    before = everything(rundir.directory)
    assert rundir.remove() == []
    assert everything(rundir.directory) == before


def test_a_marker_that_is_a_directory_marks_nothing(rundir: RunDirectory) -> None:
    fill(rundir)
    (rundir.objects / MARKER).unlink()
    (rundir.objects / MARKER).mkdir()
    before = everything(rundir.directory)
    assert rundir.remove() == []
    assert everything(rundir.directory) == before


def test_a_rank_does_not_take_over_a_directory_that_is_there_already(tmp_path: Path) -> None:
    own = RunDirectory(tmp_path, RUN, rank=0)
    own.objects.mkdir(parents=True)
    (own.objects / "0000000000000001.kv").write_bytes(b"mine")
    with pytest.raises(KvbenchError, match="File exists"):
        own.create()
    own.remove()
    assert (own.objects / "0000000000000001.kv").read_bytes() == b"mine"


def test_a_file_in_the_place_of_the_runs_directory_is_left_alone(tmp_path: Path) -> None:
    own = RunDirectory(tmp_path, RUN, rank=0)
    own.top.write_bytes(b"mine")
    with pytest.raises(KvbenchError, match=f"cannot make .*{RUN}"):
        own.create()
    assert own.remove() == []
    assert own.top.read_bytes() == b"mine"


def test_a_missing_directory_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"missing does not exist; make it, or mount"):
        check_directory(tmp_path / "missing")
    with pytest.raises(KvbenchError, match="does not exist"):
        RunDirectory(tmp_path / "missing", RUN, 0).create()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KvbenchError, match=r"file is not a directory; give the directory under test with --dir"):
        check_directory(tmp_path / "file")


def test_a_dangling_link_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(KvbenchError, match="does not exist"):
        check_directory(tmp_path / "link")


def test_a_directory_that_cannot_be_written_is_named() -> None:
    """`/proc` is a directory that nobody can make files in, not even root."""
    with pytest.raises(KvbenchError, match=r"/proc cannot be written|/proc is on a read-only|cannot make /proc"):
        RunDirectory(Path("/proc"), RUN, 0).create()
