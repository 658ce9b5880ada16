"""Faults in the middle of a run: one message that names rank and host, exit code 1, no hang, the records kept.

What is done to ranks, nodes and storage from outside is tested in tests/faults.
"""

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import ENDLESS, KVBENCH, QUICK, Command, Ended, attributes, objects, overrides, remains

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment
from kvbench.run.calibration import CALIBRATION_KEY, CalibrationObject

pytestmark = pytest.mark.slow

Call = Callable[..., Ended]
Start = Callable[..., Command]

PROGRAMS = Path(__file__).parent / "programs"
TWO_RANKS = ("--ranks", 2)


def damage(folder: Path, rank: int, how: Callable[[Path], None]) -> Callable[[], None]:
    """What does `how` to every object of a rank that there is."""

    def action() -> None:
        for path in objects(folder, rank):
            with contextlib.suppress(FileNotFoundError):
                how(path)

    return action


def test_an_object_that_became_shorter_is_a_read_error_and_no_crash_of_a_mapping(
    start_run: Start, folder: Path, tmp_path: Path
) -> None:
    command = start_run(*ENDLESS, "io.read_path=mmap-touch")
    ended = command.keep_doing(damage(folder, 0, lambda path: os.truncate(path, 4096)))
    assert ended.code == 1
    assert len(ended.messages) == 1
    assert f"kvbench: read of {folder}/kvbench-" in ended.messages[0]
    assert "Input/output error" in ended.messages[0]
    assert attributes(tmp_path / "run.h5")["status"] == "failed"


def test_a_spoiled_calibration_file_is_told_by_its_name(
    kvbench: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it brings into memory would be written on, and taken for the damage of an object of another tier."""
    write = CalibrationObject.write

    def write_and_spoil(tried: CalibrationObject) -> None:
        write(tried)
        with open(tried.tier.where(CALIBRATION_KEY), "r+b") as file:
            file.seek(100)
            file.write(b"something else")

    monkeypatch.setattr(CalibrationObject, "write", write_and_spoil)
    settings = overrides(*QUICK, "calibration.seconds=0.02", "payload.verify=full")
    ended = kvbench("run", "smoke", "--dir", folder, "--out", tmp_path / "run.h5", *settings)
    assert ended.code == 1
    (message,) = ended.messages
    assert re.search(rf"{folder}/kvbench-\S+/rank-0/{CALIBRATION_KEY:x}\.kv: the data is not what was written", message)
    assert "the bytes behind the stamp at offset 0 differ" in message
    assert "kvbench's own object" in message
    assert "memory tier" not in message
    assert remains(folder) == []


def test_a_full_filesystem_under_the_run_file_ends_all_ranks_and_leaves_the_records(
    start_run: Start, kvbench: Call, mounted: Callable[[str, str], Path], folder: Path, spills: Path, host: str
) -> None:
    out = mounted("tmpfs", "size=8k") / "run.h5"
    ended = start_run(*QUICK, out=out, options=TWO_RANKS).ended()
    assert ended.code == 1
    (message,) = ended.messages
    assert message.startswith(
        f"kvbench: gather failed: rank 0 on {host}: cannot write {out}: No space left on device; "
        "make room on its filesystem or choose another with --out\n"
        f"  the records of each rank are still in {spills}/kvbench-"
    )
    assert remains(folder) == []
    assert remains(out.parent) == []
    assert len(remains(spills)) == 2
    words = shlex.split(message.partition("'kvbench ")[2].partition("'")[0])
    assert words[-2:] == ["-o", str(spills / "run.h5")], "not where there was no room"
    named = sorted(spills.glob(Path(words[1]).name))
    assert kvbench(words[0], *named, *words[2:]).code == 0
    described = attributes(spills / "run.h5")
    assert described["status"] == "recovered"
    assert described["status_message"] == (
        "from the spill files of 2 of 2 ranks; all of them had ended, so that no row of theirs is missing"
    )


def test_an_error_on_one_rank_ends_the_ranks_that_wait_for_it(
    start: Start, mpirun: Mpirun, folder: Path, tmp_path: Path, spills: Path, host: str
) -> None:
    program = (*mpirun_command(mpirun, 3), sys.executable, PROGRAMS / "failing_rank.py")
    arguments = ("run", "smoke", "--dir", folder, "--out", tmp_path / "run.h5", "--spill", spills, *overrides(*QUICK))
    ended = start(*program, *arguments, environment=mpirun_environment(mpirun, {})).ended()
    assert ended.code != 0
    assert len(ended.messages) == 1
    assert ended.messages[0].startswith(f"kvbench: rank 1 on {host}: internal error, please report it:")
    assert "ZeroDivisionError: a mistake on this rank" in ended.err
    assert not (tmp_path / "run.h5").exists()


def test_bad_input_is_said_once_under_mpirun_and_as_of_no_rank(under_mpirun: Start, folder: Path) -> None:
    ended = under_mpirun("io.thread=3", ranks=3).ended()
    assert ended.code == 1
    (message,) = ended.messages
    assert message.startswith("kvbench: smoke --set ")
    assert "did you mean io.threads?" in message
    assert remains(folder) == []


def test_a_wrong_command_line_is_said_once_under_mpirun(start: Start, mpirun: Mpirun) -> None:
    command = (*mpirun_command(mpirun, 3), *KVBENCH, "run")
    ended = start(*command, environment=mpirun_environment(mpirun, {})).ended()
    assert ended.code == 2
    assert ended.err.count("Missing argument 'CONFIG'") == 1


def test_files_of_others_are_left_alone_wherever_they_are(start_run: Start, folder: Path, tmp_path: Path) -> None:
    (folder / "0123456789abcdef.kv").write_text("precious")
    (folder / "kvbench-mine" / "rank-1").mkdir(parents=True)
    (folder / "kvbench-mine" / "rank-1" / "0123456789abcdef.kv").write_text("precious")
    before = remains(folder)
    command = start_run(*ENDLESS)
    own = command.wait_for(lambda: objects(folder))[0].parent
    (own / "notes.txt").write_text("precious")
    command.send(signal.SIGTERM)
    ended = command.ended()
    assert ended.code == 1
    left = f"left {own}, as it holds files that kvbench did not make: notes.txt"
    assert ended.messages == [f"kvbench: {left}"]
    run_directory = own.parent.name
    added = ["", "/.kvbench-run", "/rank-0", "/rank-0/.kvbench-run", "/rank-0/notes.txt"]
    assert remains(folder) == sorted([*before, *(run_directory + name for name in added)])
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
