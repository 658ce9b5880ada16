"""Storage, spill filesystem and run file that fail in mid-run: one message, and the records kept."""

import contextlib
import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breaking import Victim, clean, put_strangers
from click.testing import CliRunner
from judging import HOST, beside, check_failed, fill
from kvbench_command import attributes, column, objects, remains
from laid_out import BUCKET, PLAIN_AND_EACH, SLAB

from kvbench.commands.main import commands

pytestmark = pytest.mark.slow

Break = Callable[..., Victim]
Tell = Callable[..., None]

SOME_WRITES = 5


def written(folder: Path) -> set[tuple[Path, int]]:
    """The files of objects, each with when it was last written to."""
    found = set()
    for path in folder.glob("kvbench-*/rank-*/**/*"):
        with contextlib.suppress(FileNotFoundError):
            if path.suffix in (".kv", ".slab", ".bucket"):
                found.add((path, path.stat().st_mtime_ns))
    return found


def test_storage_full(victim: Break, mount: Callable[[str], Path], tmp_path: Path, tell: Tell) -> None:
    place = mount("256m")
    strangers = put_strangers(place)
    run = victim(directory=place)
    run.break_it(lambda: fill(place))
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "No space left on device; free space there")
    assert remains(place) == sorted([*strangers, "mine"])
    shown = CliRunner().invoke(commands, ["summary", str(tmp_path / "run.h5")])
    assert shown.exit_code == 0
    assert "failed" in shown.output
    tell("the filesystem under test filled by somebody else", outcome, rows)


@pytest.mark.parametrize(
    ("name", "order", "layout", "settings"),
    [
        ("", "read-EIO", (), ()),
        ("", "write-EIO", (), ()),
        ("", "read-EIO", (), ("io.read_path=mmap-touch",)),
        ("slab: ", "read-EIO", SLAB, ("io.read_path=mmap-touch",)),
        ("buckets, batches synced: ", "read-EIO", BUCKET, ("io.read_path=mmap-touch",)),
    ],
    ids=["reads", "writes", "mmap", "slab-mmap", "bucket-mmap"],
)
def test_errors_of_the_storage(
    victim: Break,
    failing: Any,
    tmp_path: Path,
    tell: Tell,
    name: str,
    order: str,
    layout: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    strangers = put_strangers(failing.directory)
    run = victim(*layout, *settings, directory=failing.directory)
    run.break_it(lambda: failing.fail(order))
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "Input/output error")
    failing.work_again()
    clean(failing.directory)
    assert remains(failing.directory) == strangers
    tell(f"{name}{', '.join((order, *settings))}: every such call fails from now on (FUSE)", outcome, rows)


def test_a_corrupted_block(victim: Break, folder: Path, tmp_path: Path, tell: Tell) -> None:
    strangers = put_strangers(folder)
    run = victim()

    def corrupt() -> None:
        def damage() -> None:
            for path in objects(folder, 1):
                with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
                    file.seek(-4096, os.SEEK_END)
                    file.write(b"\xff" * 16)

        run.command.keep_doing(damage)

    run.break_it(corrupt)
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "the data is not what was written: at offset ")
    assert "rank 1 on " in outcome.message
    assert remains(folder) == strangers
    tell("16 bytes overwritten in the objects of rank 1", outcome, rows)


def test_two_runs_at_once_in_one_directory(victim: Break, folder: Path, tmp_path: Path, tell: Tell) -> None:
    strangers = put_strangers(folder)
    first = victim()
    second: list[Victim] = []

    def start() -> None:
        # Spill files in a directory of their own, to tell the rows apart.
        second.append(victim(out=tmp_path / "second.h5", spill=beside(first.spill)))
        second[0].break_it(lambda: None)

    first.break_it(start)
    assert "in use" in clean(folder), "a live run is not cleaned"
    for run in (first, *second):
        run.command.send(signal.SIGINT)
    outcome, other = first.outcome(), second[0].outcome()
    for ended, run_file in ((outcome, "run.h5"), (other, "second.h5")):
        assert ended.ended.messages[-1] == "kvbench: interrupted"
        assert attributes(tmp_path / run_file)["status"] == "interrupted"
        assert set(column(tmp_path / run_file, "records/errno")) <= {0, errno.ECANCELED}
    assert remains(folder) == strangers
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows >= outcome.before > 0
    tell(
        "a second run started in the same directory, `kvbench clean --yes` called, and then Ctrl-C at both",
        outcome,
        rows,
        "interrupted; both runs end well, neither lost a file to the other or to clean",
    )


@PLAIN_AND_EACH
def test_spill_filesystem_full(
    victim: Break,
    mount: Callable[[str], Path],
    folder: Path,
    tmp_path: Path,
    tell: Tell,
    name: str,
    layout: tuple[str, ...],
) -> None:
    strangers = put_strangers(folder)
    place = mount("32m")
    run = victim(*layout, spill=place)
    run.break_it(lambda: fill(place))
    before = written(folder)
    seen: set[tuple[Path, int]] = set()

    def some_more() -> bool:
        seen.update(written(folder) - before)
        return len(seen) >= SOME_WRITES

    run.command.wait_for(some_more)
    run.command.send(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows > outcome.before, "what came later was kept in memory"
    assert remains(folder) == strangers
    told = " ".join(CliRunner().invoke(commands, ["summary", str(tmp_path / "run.h5")]).output.split())
    found = re.search(r"- ([^-]*No space left on device.*?)(?: - |Operations of|$)", told)
    assert found is not None, told
    tell(
        f"{name}the filesystem of the spill files filled by somebody else; Ctrl-C some objects later",
        outcome,
        rows,
        f"the run goes on; the summary warns: {found[1]}",
    )


@PLAIN_AND_EACH
def test_disk_full_under_the_run_file(
    victim: Break, mount: Callable[[str], Path], folder: Path, tell: Tell, name: str, layout: tuple[str, ...]
) -> None:
    strangers = put_strangers(folder)
    out = mount("8k") / "run.h5"
    run = victim(*layout, out=out)
    run.break_it(lambda: run.command.send(signal.SIGINT))
    outcome = run.outcome()
    assert outcome.ended.code == 1
    assert len(outcome.ended.messages) == 2, "that it is stopping, and that it cannot write"
    assert f"gather failed: rank 0 on {HOST}: cannot write {out}: No space left on device" in outcome.message
    assert "kvbench recover" in outcome.message
    rows, _ = run.recovered()
    assert sum(rows) >= outcome.before > 0
    assert remains(folder) == strangers
    assert remains(out.parent) == []
    tell(f"{name}no space for the run file on rank 0, at its end (Ctrl-C)", outcome, sum(rows))
