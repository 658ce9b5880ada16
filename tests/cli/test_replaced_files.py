"""Two runs write one file: each prints its own figures, and the one whose file was replaced says so."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import pytest
from every_command import RUN_FILE, makers_of_files, placed, rehearsal
from kvbench_analysis.summary.brief import print_brief
from kvbench_command import Command, Ended, remains
from rich.console import Console

from kvbench.cluster.comm import SerialComm
from kvbench.errors import KvbenchError
from kvbench.records.outputs import Written, alone_in
from kvbench.run import runner
from kvbench.studies import copy_path

Call = Callable[..., Ended]
Start = Callable[..., Command]
REPLACED = "has been replaced meanwhile, by another run or by hand: the figures above are those of this one"


def then_replaced(real: Callable[..., Written], kept: Path) -> Callable[..., Written]:
    """Does what `real` does, then copies what it has written to `kept`, and puts another run's file in its place."""

    def run(*arguments: Any) -> Written:
        written = real(*arguments)
        kept.write_bytes(written.path.read_bytes())
        written.path.unlink()
        written.path.write_bytes(RUN_FILE.read_bytes())
        return written

    return run


def figures_at_the_end(run_file: Path) -> str:
    """What a run prints at its end of a run file."""
    console = Console(file=io.StringIO(), width=10_000)
    print_brief(ka.summarize(ka.load(run_file)), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("command", ["run", "study copy-path"])
def test_each_prints_its_own_figures(
    kvbench: Call, folder: Path, spills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("kvbench.commands.study_copy_path.get_world", SerialComm)
    # Names of one length, so that lines are wrapped alike.
    kept, out = tmp_path / "own.h5", tmp_path / "run.h5"
    monkeypatch.setattr("kvbench.commands.run.runner.run", then_replaced(runner.run, kept))
    monkeypatch.setattr("kvbench.commands.study_copy_path.run_copy_path", then_replaced(copy_path.run_copy_path, kept))
    ended = kvbench(*placed(makers_of_files(folder, spills)[command], out))
    assert ended.code == 0
    shown = figures_at_the_end(kept) if command == "run" else kvbench("summary", kept).out
    assert shown
    assert shown.replace(str(kept), str(out)) in ended.out
    assert f"{out} {REPLACED}" in ended.out


def test_a_run_that_is_alone_says_nothing_of_it(kvbench: Call, folder: Path, spills: Path, tmp_path: Path) -> None:
    ended = kvbench(*placed(makers_of_files(folder, spills)["run"], tmp_path / "run.h5"))
    assert figures_at_the_end(tmp_path / "run.h5") in ended.out
    assert "replaced" not in ended.out


@pytest.mark.slow
def test_the_file_is_closed_when_its_figures_are_printed(
    kvbench: Call, folder: Path, spills: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert kvbench(*placed(makers_of_files(folder, spills)["run"], tmp_path / "run.h5")).code == 0
    opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert not [name for name in opened if str(tmp_path) in name]


def test_two_studies_do_not_share_a_folder_of_runs(kvbench: Call, folder: Path, spills: Path, tmp_path: Path) -> None:
    (tmp_path / "table-runs").mkdir()
    mine = tmp_path / "table-runs" / "strong-1x1-0.h5"
    mine.write_bytes(RUN_FILE.read_bytes())
    with alone_in(mine.parent, "wait"):
        ended = kvbench(*placed(makers_of_files(folder, spills)["study scaling"], tmp_path / "table.csv"))
    assert ended.code == 1
    assert f"another kvbench is at work in {mine.parent}: wait until it has ended, or choose another --out" in ended.err
    assert mine.read_bytes() == RUN_FILE.read_bytes()


def test_two_sequences_do_not_go_on_with_the_same_results(
    kvbench: Call, folder: Path, spills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvbench.commands.mlperf_run.get_world", SerialComm)

    def begin_and_be_killed(*_: object) -> None:
        raise KvbenchError("as if killed")

    with monkeypatch.context() as patch:
        patch.setattr("kvbench.mlperf.trials.measuring._Trials.carry_out", begin_and_be_killed)
        assert "as if killed" in kvbench(*rehearsal(folder, spills)).err
    (sequence,) = (spills / "kv_cache").glob("*/run/*")
    before = remains(spills)
    with alone_in(sequence, "wait"):
        ended = kvbench(*rehearsal(folder, spills))
    assert ended.code == 1
    assert f"another kvbench is at work in {sequence}: wait until it has ended, or give another --results" in ended.err
    assert remains(spills) == before
