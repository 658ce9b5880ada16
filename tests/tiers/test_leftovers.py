"""`clean` deletes what killed runs left, and nothing else: not what is in use, not what carries no marker, no link."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvbench.commands.main import commands
from kvbench.errors import KvbenchError
from kvbench.records.unfinished import lock
from kvbench.tiers.file import leftovers as clean
from kvbench.tiers.file import run_directory as rundir
from kvbench.tiers.file.run_directory import RunDirectory
from kvbench.tiers.marker import MARKER

RUN = "20260101-000000-abc123"
OTHER = "20260101-000000-def456"


def left_by_a_killed_run(directory: Path, run_id: str = RUN, ranks: int = 2) -> Path:
    """What is there once the ranks' processes are gone; returns the run's directory."""
    for rank in range(ranks):
        made = RunDirectory(directory, run_id, rank)
        made.create()
        for key in range(3):
            (made.objects / f"{key:016x}.kv").write_bytes(b"data")
        made._release()
    return directory / f"kvbench-{run_id}"


def call(*words: object) -> Result:
    """`kvbench clean WORDS`, outside a terminal."""
    return CliRunner().invoke(commands, ["clean", *map(str, words)], prog_name="kvbench")


def everything(directory: Path) -> list[str]:
    """Names of all that lies in a directory, at any depth."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_it_lists_before_it_deletes_and_without_a_terminal_only_lists(tmp_path: Path) -> None:
    left_by_a_killed_run(tmp_path)
    before = everything(tmp_path)
    listed = call(tmp_path)
    assert listed.exit_code == 0
    assert f"kvbench-{RUN}" in listed.output
    assert "left over" in listed.output
    assert "nothing was deleted; with --yes: 6 files of 1 leftovers, 24 B" in listed.output
    assert everything(tmp_path) == before
    deleted = call(tmp_path, "--yes")
    assert deleted.exit_code == 0
    assert "deleted 6 files, 24 B" in deleted.output
    assert everything(tmp_path) == []
    assert "nothing of kvbench's is there" in call(tmp_path).output


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False)])
def test_in_a_terminal_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool) -> None:
    top = left_by_a_killed_run(tmp_path)
    monkeypatch.setattr("kvbench.commands.clean._in_terminal", lambda: True)
    asked = CliRunner().invoke(commands, ["clean", str(tmp_path)], input=answer, prog_name="kvbench")
    assert "Delete 6 files of 1 leftovers, 24 B?" in asked.output
    assert top.exists() != gone


def test_what_lies_in_folders_or_under_a_temporary_name_is_deleted_and_strangers_there_stay(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path, ranks=1)
    folders = top / "rank-0" / "0f" / "3c"
    folders.mkdir(parents=True)
    (top / "rank-0" / "0e").mkdir()
    (top / "rank-0" / "photos").mkdir()
    (top / "rank-0" / "photos" / f"{5:016x}.kv").write_bytes(b"theirs")
    for name in (f"{3:016x}.kv", f"{4:016x}.kv.tmp", f"{5:016x}.npy.tmp", "notes.txt", MARKER):
        (folders / name).write_bytes(b"data")
    (found,) = clean.find(tmp_path)
    assert (found.files, found.nbytes) == (6, 24)
    assert found.strangers == [f"rank-0/0f/3c/{MARKER}", "rank-0/0f/3c/notes.txt", "rank-0/photos"]
    left = clean.remove(found)
    assert (left.files, left.strangers) == (0, found.strangers)
    assert [name for name in everything(tmp_path) if (tmp_path / name).is_file()] == [
        f"{top.name}/{MARKER}",
        f"{top.name}/rank-0/{MARKER}",
        f"{top.name}/rank-0/0f/3c/{MARKER}",
        f"{top.name}/rank-0/0f/3c/notes.txt",
        f"{top.name}/rank-0/photos/{5:016x}.kv",
    ]
    assert not (top / "rank-0" / "0e").exists()


def test_buckets_are_deleted_and_what_is_called_alike_stays(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path, ranks=1)
    theirs = ["objects-00001.bucket", "objects-000001.bucket.tmp", "objects.bucket"]
    for name in ("objects-000000.bucket", "objects-1000000.bucket", *theirs):
        (top / "rank-0" / name).write_bytes(b"data")
    (found,) = clean.find(tmp_path)
    assert (found.files, found.nbytes) == (5, 20)
    assert found.strangers == sorted(f"rank-0/{name}" for name in theirs)
    clean.remove(found)
    assert sorted(path.name for path in (top / "rank-0").iterdir() if path.name != MARKER) == sorted(theirs)


def test_a_slab_is_an_object_of_its_own(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path, ranks=1)
    (top / "rank-0" / "objects.slab").write_bytes(bytes(8192))
    (top / "rank-0" / "other.slab").write_bytes(b"theirs")
    (found,) = clean.find(tmp_path)
    assert (found.files, found.nbytes, found.strangers) == (4, 8192 + 12, ["rank-0/other.slab"])
    clean.remove(found)
    assert [path.name for path in (top / "rank-0").iterdir() if path.name != MARKER] == ["other.slab"]


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path, ranks=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{3:016x}.kv").write_bytes(b"precious")
    (top / "rank-0" / "0f").symlink_to(elsewhere)
    (found,) = clean.find(tmp_path)
    assert (found.files, found.strangers) == (3, ["rank-0/0f"])
    clean.remove(found)
    assert (elsewhere / f"{3:016x}.kv").read_bytes() == b"precious"


def test_a_run_whose_ranks_are_alive_is_left_alone(tmp_path: Path) -> None:
    alive = RunDirectory(tmp_path, RUN, 0)
    alive.create()
    (alive.objects / f"{1:016x}.kv").write_bytes(b"data")
    top = left_by_a_killed_run(tmp_path, OTHER)
    before = everything(alive.top)
    assert {found.run_id: found.state for found in clean.find(tmp_path)} == {RUN: "in use", OTHER: "left over"}
    assert "deleted 6 files" in call(tmp_path, "--yes").output
    assert everything(alive.top) == before
    assert not top.exists()
    call(tmp_path, "--yes", "--run", RUN)
    assert everything(alive.top) == before, "named or not"
    assert alive.remove() == []
    assert everything(tmp_path) == []


def test_what_came_into_use_since_it_was_listed_stays(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path)
    (found,) = clean.find(tmp_path)
    with (top / "rank-0" / MARKER).open("r+b") as marker:
        assert lock(marker.fileno()) == "mine"
        assert clean.remove(found).state == "in use"
        assert len(everything(tmp_path)) == 12
    assert clean.remove(found).files == 0
    assert not top.exists()


def test_a_rank_does_not_begin_in_a_directory_that_is_being_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "lock", lambda descriptor: "held")
    with pytest.raises(KvbenchError, match="being cleaned"):
        RunDirectory(tmp_path, RUN, 0).create()


def test_without_locks_a_run_must_be_named_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "lock", lambda descriptor: "none")
    top = left_by_a_killed_run(tmp_path)
    output = call(tmp_path, "--yes").output
    assert "unknown" in output
    assert "delete such a run with --run" in output
    assert top.exists()
    assert "deleted 6 files" in call(tmp_path, "--yes", "--run", RUN).output
    assert not top.exists()


def test_the_lock_of_a_process_ends_with_it(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        RunDirectory(tmp_path, RUN, 0).create()
        os._exit(0)
    os.waitpid(child, 0)
    assert [found.state for found in clean.find(tmp_path)] == ["left over"]


def test_what_others_put_there_stays_and_is_named(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path)
    (top / "rank-1" / "notes.txt").write_text("precious")
    (top / "mine").mkdir()
    (tmp_path / f"{7:016x}.kv").write_text("precious")
    (tmp_path / "kvbench-notes").mkdir()
    output = call(tmp_path, "--yes").output.replace("\n", "")
    assert "holds what kvbench did not make, and it stays: mine, rank-1/notes.txt" in output
    assert everything(tmp_path) == [
        f"{7:016x}.kv",
        top.name,
        f"{top.name}/{MARKER}",
        f"{top.name}/mine",
        f"{top.name}/rank-1",
        f"{top.name}/rank-1/{MARKER}",
        f"{top.name}/rank-1/notes.txt",
        "kvbench-notes",
    ]


def test_what_carries_no_marker_or_that_of_another_run_stays(tmp_path: Path) -> None:
    plain = tmp_path / f"kvbench-{OTHER}" / "rank-0"
    plain.mkdir(parents=True)
    (plain / f"{1:016x}.kv").write_text("precious")
    top = left_by_a_killed_run(tmp_path)
    (top / "rank-1" / MARKER).write_text('{"program": "kvbench", "run_id": "another"}')
    before = [name for name in everything(tmp_path) if "rank-0" not in name or OTHER in name]
    output = call(tmp_path, "--yes").output
    assert "not ours" in output
    assert everything(tmp_path) == before


def test_an_empty_directory_that_lost_its_marker_is_deleted_once_no_run_can_be_making_it(tmp_path: Path) -> None:
    left = tmp_path / f"kvbench-{RUN}"
    left.mkdir()
    assert "in use" in call(tmp_path, "--yes").output
    assert left.exists()
    long_ago_s = time.time() - 3600
    os.utime(left, (long_ago_s, long_ago_s))
    assert "left over" in call(tmp_path, "--yes").output
    assert everything(tmp_path) == []


def test_an_empty_directory_of_a_rank_goes_with_its_run(tmp_path: Path) -> None:
    left = left_by_a_killed_run(tmp_path)
    (left / "rank-7").mkdir()
    assert "deleted 6 files" in call(tmp_path, "--yes").output
    assert everything(tmp_path) == []


def test_no_link_is_followed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    real = left_by_a_killed_run(outside)
    (tmp_path / real.name).symlink_to(real)
    top = left_by_a_killed_run(tmp_path, OTHER, ranks=1)
    (top / "rank-1").symlink_to(real / "rank-1")
    (top / "rank-0" / f"{9:016x}.kv").symlink_to(real / "rank-0" / f"{1:016x}.kv")
    before = everything(outside)
    call(tmp_path, "--yes")
    assert everything(outside) == before
    assert (tmp_path / real.name).is_symlink()
    assert (top / "rank-1").is_symlink()
    assert (top / "rank-0" / f"{9:016x}.kv").is_symlink()


def test_a_marker_that_is_a_link_or_a_pipe_does_not_count(tmp_path: Path) -> None:
    top = left_by_a_killed_run(tmp_path)
    (top / MARKER).unlink()
    (top / MARKER).symlink_to(top / "rank-0" / MARKER)
    (top / "rank-1" / MARKER).unlink()
    os.mkfifo(top / "rank-1" / MARKER)
    before = everything(tmp_path)
    call(tmp_path, "--yes")
    assert everything(tmp_path) == before


def make_probe(directory: Path, name: str, age_s: float, content: str = "") -> Path:
    """A probe file that was made so long ago."""
    probe = directory / name
    probe.write_text(content)
    os.utime(probe, (time.time() - age_s,) * 2)
    return probe


def test_old_probes_are_deleted_and_new_or_full_ones_stay(tmp_path: Path) -> None:
    old = make_probe(tmp_path, f"kvbench-{RUN}.probe-1", 3600)
    kept = [
        make_probe(tmp_path, f"kvbench-{OTHER}.probe-0", 0),
        make_probe(tmp_path, f"kvbench-{OTHER}.probe-1", 3600, "precious"),
        make_probe(tmp_path, "kvbench-notes.probe-1", 3600),
    ]
    assert "deleted 1 files" in call(tmp_path, "--yes").output
    assert not old.exists()
    assert all(probe.exists() for probe in kept)


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    done = call(tmp_path / name)
    assert done.exit_code == 1
    assert f"kvbench: cannot look into {tmp_path / name}: " in done.output
    assert "give a directory under test" in done.output
