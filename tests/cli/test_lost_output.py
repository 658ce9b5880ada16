"""What is printed goes to a full disk, to nobody, or nowhere: that ends no run, and gives no traceback.

A command that only prints has failed then. One that leaves something has not, and says so where it can.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from every_command import (
    RUN_FILE,
    makers_of_files,
    makers_of_folders,
    only_printing,
    placed,
    study_of_engines,
    what_if_study,
)
from kvbench_command import ENDLESS, KVBENCH, Command, Ended, attributes, column, objects

from kvbench.commands.table import COMMANDS

Start = Callable[..., Command]
FULL = Path("/dev/full")
LOST = "kvbench: cannot write to standard output: No space left on device"
TABLE = [words for words, entry in COMMANDS.items() if entry.place]
MAKERS = {
    *makers_of_files(Path(), Path()),
    "study engines",
    "study whatif",
    *(name for name in makers_of_folders(Path(), Path(), Path()) if name in TABLE),
}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")]


def call(words: tuple[object, ...], way: str, timeout_s: float = 120) -> Ended:
    """Run a command whose output goes the `way`; what it could still say is its `err`, what came through its `out`."""
    shell = {
        "full": 'exec "$@" >/dev/full',
        "errors full": 'exec "$@" 2>/dev/full',
        "both full": 'exec "$@" >/dev/full 2>&1',
        "closed": 'exec "$@" >&-',
        "errors closed": 'exec "$@" 2>&-',
        "all closed": 'exec "$@" <&- >&- 2>&-',
        "nobody reads": 'exec "$@"',
    }[way]
    with ExitStack() as stack:
        out: int | IO[bytes] = subprocess.PIPE
        if way == "nobody reads":
            reading, writing = os.pipe()
            os.close(reading)
            out = stack.enter_context(os.fdopen(writing, "wb"))
        done = subprocess.run(
            ["sh", "-c", shell, "sh", *KVBENCH, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
    ended = Ended(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())
    assert "Traceback" not in ended.out + ended.err
    assert "Exception ignored" not in ended.err
    return ended


WAYS = ("full", "errors full", "both full", "closed", "errors closed", "all closed", "nobody reads")
SILENT = ("errors full", "both full", "errors closed", "all closed", "nobody reads")


@pytest.mark.parametrize("way", WAYS)
def test_a_command_that_only_prints_fails_where_it_cannot(way: str) -> None:
    ended = call(("configs",), way)
    printed = way in ("errors full", "errors closed")
    assert ended.code == (0 if printed else 1)
    assert bool(ended.out) == printed
    reason = "it is closed" if way == "closed" else "No space left on device"
    assert ended.err == ("" if way in SILENT else f"kvbench: cannot write to standard output: {reason}\n")


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",), ("summary", RUN_FILE)])
def test_so_do_help_and_figures(words: tuple[object, ...]) -> None:
    ended = call(words, "full")
    assert (ended.code, ended.err) == (1, f"{LOST}\n")


@pytest.mark.parametrize("way", ["full", "errors full", "closed", "all closed"])
def test_a_command_that_fails_says_why_where_it_can(way: str) -> None:
    ended = call(("summary", "missing.h5"), way)
    assert ended.code == 1
    assert ended.err == ("" if way in SILENT else "kvbench: cannot read missing.h5: No such file or directory\n")


@pytest.mark.parametrize("way", ["full", "closed", "all closed", "nobody reads"])
def test_a_run_measures_and_writes_its_file_wherever_its_output_goes(
    folder: Path, spills: Path, tmp_path: Path, way: str
) -> None:
    out = tmp_path / "run.h5"
    ended = call(tuple(placed(makers_of_files(folder, spills)["run"], out)), way)
    assert ended.code == 0
    assert attributes(out)["status"] == "complete"
    reason = "it is closed" if way == "closed" else "No space left on device"
    told = f"kvbench: cannot write to standard output: {reason}; {out} is complete, and `kvbench summary {out}` prints"
    assert ended.err == ("" if way in SILENT else f"{told} its figures\n")


@pytest.mark.parametrize("way", ["full", "nobody reads"])
def test_so_does_one_of_two_ranks(folder: Path, spills: Path, tmp_path: Path, way: str) -> None:
    out = tmp_path / "run.h5"
    words = placed(makers_of_files(folder, spills)["run"], out)
    ended = call((*words, "--ranks", "2"), way)
    assert (ended.code, len(ended.err.splitlines())) == (0, 0 if way == "nobody reads" else 1)
    assert attributes(out)["status"] == "complete"
    assert len(column(out, "ranks/rank")) == 2


def test_a_run_whose_reader_leaves_in_the_middle_goes_on(start_run: Start, folder: Path, tmp_path: Path) -> None:
    command = start_run(*ENDLESS, options=("--ranks", "2"))
    command.wait_for(lambda: objects(folder))
    command.close_out()
    before = set(objects(folder))
    command.wait_for(lambda: set(objects(folder)) - before)
    command.send(signal.SIGINT)
    command.ended()
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Ended]:
    """What every command of the table did with its standard output on a full disk; one uses what another has made."""
    home, tested = tmp_path_factory.mktemp("home"), Path("/dev/shm")
    if not os.access(tested, os.W_OK) or tested.stat().st_dev == home.stat().st_dev:
        pytest.skip("needs /dev/shm, to have results beside the filesystem under test")
    folder = tmp_path_factory.mktemp("tested")
    made = {
        "run": home / "run.h5",
        "recover": home / "recovered.h5",
        "report": home / "page.html",
        "search": home / "search.h5",
        "study copy-path": home / "study.h5",
        "study scaling": home / "scaling.csv",
        "study engines": home / "engines.csv",
        "study whatif": home / "whatif.csv",
        "mlperf audit": home / "audit.md",
        "export": home / "tables",
        "mlperf run": home / "results",
        "mlperf package": home / "tree",
        "trace": home / "trace.jsonl",
        "trace fit": home / "sessions.yaml",
        "model fit": home / "made.storage",
        "trace generate": home / "made.parquet",
        "trace convert": home / "trace.parquet",
        "trace sample": home / "sample.parquet",
        "trace slice": home / "slice.parquet",
    }
    made["trace"].write_text('{"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}\n')
    cache = Path(subprocess.check_output(["mktemp", "-d", tested / "kvbench-test-XXXXXX"], text=True).strip())
    try:
        lines = {**makers_of_files(cache, home), **makers_of_folders(cache, home, made["mlperf run"])}
        del lines["report --png"]
        lines["study engines"] = study_of_engines(cache)
        lines["study whatif"] = what_if_study(cache)
        done = {name: call(tuple(placed(words, made[name])), "full") for name, words in lines.items()}
        assert all(made[name].exists() for name in lines)
        return done | {name: call(words, "full") for name, words in only_printing(folder, made).items()}
    finally:
        subprocess.run(["rm", "-r", cache], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("words", TABLE)
def test_no_command_of_the_table_breaks_on_a_full_disk(ended: Mapping[str, Ended], words: str) -> None:
    done = ended[words]
    last = done.err.splitlines()[-1]
    assert last.startswith(f"{LOST}; " if words in MAKERS else LOST)
    if words in MAKERS:
        assert done.code == 0
        assert "complete" in last
    else:
        assert done.code == 1
        assert last == LOST
