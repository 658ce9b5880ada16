"""What somebody else does to the files of a run that goes on, and an interrupt: on every layout and engine."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from breaking import Outcome, Victim, put_strangers
from judging import check_failed
from kvbench_command import attributes, column, remains
from laid_out import EVERY, FILES, LAYOUTS, SLAB, skip_without_library

pytestmark = pytest.mark.slow

Break = Callable[..., Victim]
Tell = Callable[..., None]

RUNS = {"files": ("files", FILES), **{which: LAYOUTS[which] for which in LAYOUTS if which != "folders"}}
_OPENED_BY_NAME = ("files", "rings", "nixl")
"""For each object."""


def keep_damaging(run: Victim, folder: Path, damage: Callable[[Path], None]) -> None:
    """Do `damage` to the files of rank 1 until the run ends."""

    def once() -> None:
        for path in folder.glob("kvbench-*/rank-1/*.*"):
            if path.suffix in (".kv", ".slab", ".bucket"):
                with contextlib.suppress(FileNotFoundError):
                    damage(path)

    run.command.keep_doing(once)


def interrupted(run: Victim, tmp_path: Path) -> tuple[Outcome, int]:
    """What came of a run that was interrupted, and its rows: it ended in good order."""
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    out = tmp_path / "run.h5"
    assert attributes(out)["status"] == "interrupted"
    assert set(column(out, "records/errno").tolist()) <= {0, errno.ECANCELED}
    rows = int(column(out, "ranks/rows").sum())
    assert rows >= outcome.before > 0
    return outcome, rows


@pytest.mark.parametrize("which", RUNS)
def test_files_that_somebody_shortens(victim: Break, folder: Path, tmp_path: Path, tell: Tell, which: str) -> None:
    """A write further behind makes a slab or a bucket long again, and what lies between is empty."""
    name, layout = RUNS[which]
    skip_without_library(name)
    strangers = put_strangers(folder)
    run = victim(*layout)
    run.break_it(lambda: keep_damaging(run, folder, lambda path: os.truncate(path, 4096)))
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "rank 1 on ")
    said = (
        "failed: Input/output error",
        *(["the data is not what was written"] if which not in _OPENED_BY_NAME else []),
    )
    assert any(words in outcome.message for words in said), outcome.message
    assert remains(folder) == strangers
    tell(f"{name}: the files of rank 1 truncated by somebody else", outcome, rows)


@pytest.mark.parametrize("which", _OPENED_BY_NAME)
def test_files_that_somebody_deletes(victim: Break, folder: Path, tmp_path: Path, tell: Tell, which: str) -> None:
    name, layout = RUNS[which]
    skip_without_library(name)
    strangers = put_strangers(folder)
    run = victim(*layout)
    run.break_it(lambda: keep_damaging(run, folder, Path.unlink))
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "No such file or directory")
    assert remains(folder) == strangers
    tell(f"{name}: the files of rank 1 deleted by somebody else", outcome, rows)


@pytest.mark.parametrize("which", ["slab", "slab-rings", "slab-nixl"])
def test_a_slab_that_somebody_deletes_is_there_for_who_has_it_open(
    victim: Break, folder: Path, tmp_path: Path, tell: Tell, which: str
) -> None:
    """On tmpfs, where nobody asks by its name what of it is in the page cache."""
    name, layout = RUNS[which]
    skip_without_library(name)
    strangers = put_strangers(folder)
    run = victim(*layout)
    run.break_it(lambda: next(folder.glob("kvbench-*/rank-1/*.slab")).unlink())
    run.go_on()
    run.command.send(signal.SIGINT)
    outcome, rows = interrupted(run, tmp_path)
    assert remains(folder) == strangers
    said = "none, the run goes on until it is asked to stop"
    tell(f"{name}: the file of rank 1 deleted by somebody else", outcome, rows, said)


@EVERY
def test_an_interrupt(
    victim: Break, folder: Path, tmp_path: Path, tell: Tell, name: str, layout: tuple[str, ...]
) -> None:
    skip_without_library(name)
    strangers = put_strangers(folder)
    run = victim(*layout)
    run.break_it(lambda: run.command.send(signal.SIGINT))
    outcome, rows = interrupted(run, tmp_path)
    assert remains(folder) == strangers
    tell(f"{name}: Ctrl-C", outcome, rows, "interrupted")


def test_a_look_up_of_a_file_that_somebody_deleted(victim: Break, folder: Path, tmp_path: Path, tell: Tell) -> None:
    strangers = put_strangers(folder)
    layout = ("tiers.1={kind: file, capacity_bytes: 48MiB, layout: {levels: 1}}", "cache.lookup=stat")
    run = victim(*SLAB[:-1], *layout)

    def delete() -> None:
        def once() -> None:
            # Folders go, too, at the end of the run.
            with contextlib.suppress(FileNotFoundError):
                for path in folder.glob("kvbench-*/rank-1/*/*.kv"):
                    path.unlink(missing_ok=True)

        run.command.keep_doing(once)

    run.break_it(delete)
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "No such file or directory")
    assert remains(folder) == strangers
    tell("look-ups by stat: the objects of rank 1 deleted by somebody else", outcome, rows)
