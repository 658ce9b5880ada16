"""`clean` finds what killed commands left beside their outputs: only what is marked, and not what is being written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvbench.commands.main import commands
from kvbench.errors import KvbenchError
from kvbench.records.file import RunFileWriter
from kvbench.records.unfinished import FOLDER_MARKER, UnfinishedFile, mark_of, unfinished_folder
from kvbench.run.output import unfinished_files

RUN = "20260101-000000-abc123"


def by_a_killed_process(make: Callable[[], object]) -> None:
    """Have a process `make` something and end at once, without leaving in good order."""
    child = os.fork()
    if child == 0:
        try:
            make()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def half_a_run_file(folder: Path) -> Path:
    """What a run that was killed while it wrote its file has left."""

    def begin() -> None:
        writer = RunFileWriter(folder / "run.h5", run_id=RUN)
        writer.set_attributes({"status": "complete"})

    by_a_killed_process(begin)
    (found,) = folder.glob("run-*.h5.partial")
    return found


def clean(*words: object) -> str:
    """What `kvbench clean WORDS` prints, outside a terminal."""
    done = CliRunner().invoke(commands, ["clean", *map(str, words)], prog_name="kvbench")
    assert done.exit_code == 0, done.output
    return done.output


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_file_that_was_not_finished_is_listed_and_deleted_when_told_to(tmp_path: Path) -> None:
    left = half_a_run_file(tmp_path)
    listed = clean(tmp_path)
    assert left.name in listed
    assert "left over" in listed
    assert "nothing was deleted; with --yes: 1 files of 1 leftovers" in listed
    assert left.exists()
    assert "deleted 1 files" in clean(tmp_path, "--yes")
    assert names(tmp_path) == []


def test_one_that_is_being_written_is_in_use_and_stays(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5", run_id=RUN) as writer:
        assert [found.state for found in unfinished_files.find(tmp_path)] == ["in use"]
        assert "in use" in clean(tmp_path, "--yes", "--run", RUN)
        writer.finish()
    assert names(tmp_path) == ["run.h5"]
    assert unfinished_files.find(tmp_path) == []


def test_one_that_came_into_use_since_it_was_listed_stays(tmp_path: Path) -> None:
    left = half_a_run_file(tmp_path)
    (found,) = unfinished_files.find(tmp_path)
    left.unlink()
    with UnfinishedFile(tmp_path / "run.h5", RUN) as file:
        file.temporary.rename(left)
        assert unfinished_files.remove(found).state == "in use"
    assert left.exists()
    assert unfinished_files.remove(found).files == 0
    assert not left.exists()


def test_results_that_are_whole_stay_whatever_they_are_called(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        (tmp_path / "run.h5").write_text("mine")
        with pytest.raises(KvbenchError, match="the results are kept in"):
            writer.finish()
    before = names(tmp_path)
    assert len(before) == 2
    assert "nothing of kvbench's is there" in clean(tmp_path, "--yes")
    assert names(tmp_path) == before


MARK = mark_of(RUN)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
        lambda path: path.write_bytes(MARK[:-1]),
        lambda path: path.write_bytes(MARK.replace(b"abc123", b"abc12x")),
        lambda path: path.write_bytes(b" " + MARK),
        os.mkfifo,
        lambda path: path.symlink_to("marked"),
        Path.mkdir,
    ],
)
def test_what_does_not_carry_the_mark_is_not_seen(tmp_path: Path, make: Callable[[Path], object]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "marked").write_bytes(MARK)
    make(outside / "run-1-0.h5.partial")
    before = names(outside)
    assert unfinished_files.find(outside) == []
    assert "nothing of kvbench's is there" in clean(outside, "--yes")
    assert names(outside) == before


def test_a_file_with_the_mark_and_another_name_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(MARK)
    assert unfinished_files.find(tmp_path) == []


def test_without_locks_it_must_be_named_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_files, "lock", lambda descriptor: "none")
    left = half_a_run_file(tmp_path)
    output = clean(tmp_path, "--yes")
    assert "unknown" in output
    assert left.exists()
    for name in (RUN, left.name):
        shutil.copy(left, tmp_path / "copy")
        assert "deleted 1 files" in clean(tmp_path, "--yes", "--run", name)
        assert not left.exists()
        (tmp_path / "copy").rename(left)


@pytest.fixture
def killed_folder(tmp_path: Path) -> Path:
    """What a doctor that was killed has left."""

    def begin() -> None:
        context = unfinished_folder(tmp_path, "kvbench-doctor-")
        own = context.__enter__()
        (own / "inside").mkdir()
        (own / "inside" / "probe").write_bytes(bytes(1000))
        (own / "link").symlink_to(tmp_path / "precious")
        os._exit(0)

    (tmp_path / "precious").write_text("precious")
    by_a_killed_process(begin)
    (found,) = tmp_path.glob("kvbench-doctor-*")
    return found


def test_a_folder_for_the_time_of_a_command_is_found_too(tmp_path: Path, killed_folder: Path) -> None:
    (found,) = unfinished_files.find(tmp_path)
    assert (found.path, found.state, found.files) == (killed_folder, "left over", 3)
    assert "deleted 3 files" in clean(tmp_path, "--yes")
    assert names(tmp_path) == ["precious"]


def test_a_folder_whose_command_is_alive_or_that_is_not_marked_stays(tmp_path: Path) -> None:
    with unfinished_folder(tmp_path, "kvbench-doctor-") as own:
        assert [found.state for found in unfinished_files.find(tmp_path)] == ["in use"]
        (own / FOLDER_MARKER).write_bytes(b"something else")
        assert unfinished_files.find(tmp_path) == []
    assert names(tmp_path) == []


def test_a_run_that_is_ended_by_its_watch_leaves_no_half_file(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        writer.withdraw()
        assert names(tmp_path) == []
