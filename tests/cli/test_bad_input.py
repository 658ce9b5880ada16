"""Bad input: one message that says what, where and what to do, exit code 1, and nothing touched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import KVBENCH, QUICK, Command, Ended, overrides, remains

from kvbench.commands.main import commands

Call = Callable[..., Ended]
Start = Callable[..., Command]

TRACE_LINE = '{"timestamp": 0, "input_length": 900, "output_length": 40, "hash_ids": [1, 2]}\n'


@pytest.fixture
def run(kvbench: Call, folder: Path, tmp_path: Path) -> Call:
    """`kvbench run smoke` with KEY=VALUE settings, and other options by name."""

    def call(*settings: str, config: str = "smoke", options: tuple[object, ...] = (), **named: object) -> Ended:
        paths = {"dir": folder, "out": tmp_path / "run.h5"} | named
        named_words = [word for name, value in paths.items() for word in (f"--{name}", value)]
        return kvbench("run", config, *named_words, *overrides(*QUICK, *settings), *options)

    return call


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("io.thread=3", ["unknown key io.thread", "did you mean io.threads?"]),
        ("duration_s=5parsecs", ["duration_s", "unknown unit of time 'parsecs'", "known: ms, s, min, h"]),
        ("tiers.0.capacity_bytes=5GX", ["tiers.0.capacity_bytes", "5GX"]),
        ("io.threads=none", ["io.threads", "a whole number"]),
        ("workload.end_probability=2", ["workload.end_probability", "1 or less"]),
        ("model=llama3.1-8", ["unknown model 'llama3.1-8'", "did you mean llama3.1-8b?"]),
        ("io.read_path=bufered", ["io.read_path", "did you mean buffered?"]),
        ("io.threads", ["expected KEY=VALUE"]),
        ("workload.skip_bad_lines=true", ["workload.skip_bad_lines", "belongs to another kind of workload"]),
    ],
)
def test_a_bad_setting_is_named_with_what_would_be_right(
    run: Call, folder: Path, tmp_path: Path, setting: str, words: list[str]
) -> None:
    ended = run(setting)
    assert ended.code == 1
    (message,) = ended.messages
    for word in words:
        assert word in message
    assert "rank 0" not in message, "there is no other"
    assert remains(folder) == []
    assert not (tmp_path / "run.h5").exists()


def test_a_missing_configuration_is_named_with_those_that_ship(run: Call) -> None:
    ended = run(config="smok")
    assert ended.code == 1
    assert "cannot read configuration smok: No such file or directory" in ended.err
    assert "smoke" in ended.err


def test_a_missing_directory_is_not_made(run: Call, tmp_path: Path) -> None:
    ended = run(dir=tmp_path / "nowhere")
    assert ended.code == 1
    assert ended.messages == [
        f"kvbench: the directory {tmp_path}/nowhere does not exist; make it, or mount the storage that it should be on"
    ]
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_no_directory(run: Call, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    ended = run(dir=file)
    assert ended.code == 1
    assert f"{file} is not a directory; give the directory under test with --dir" in ended.err
    assert file.read_text() == "precious"


def test_a_directory_without_leave_to_write_is_refused(start_run: Start, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    launcher: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # Root may write everywhere: take that from the command alone.
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv (util-linux) to take root's right to write everywhere from a command")
        launcher = ("setpriv", "--bounding-set=-dac_override")
    ended = start_run(*QUICK, directory=closed, launcher=launcher).ended()
    assert ended.code == 1
    assert f"{closed} cannot be written by this user; change its permissions or give another --dir" in ended.err
    assert remains(closed) == []


def test_a_read_only_filesystem_is_refused(run: Call, mounted: Callable[[str, str], Path]) -> None:
    ended = run(dir=(place := mounted("tmpfs", "ro,size=64m")))
    assert ended.code == 1
    assert f"{place} is on a read-only filesystem; mount it for writing" in ended.err


@pytest.mark.parametrize("capacity", ["96MiB", "auto"])
def test_a_full_filesystem_is_refused(run: Call, mounted: Callable[[str, str], Path], capacity: str) -> None:
    place = mounted("tmpfs", "size=16m")
    (place / "mine").write_bytes(bytes(16 * 1024**2))
    ended = run(f"tiers.1.capacity_bytes={capacity}", dir=place)
    assert ended.code == 1
    assert f"{place} (tmpfs) has 0 B free" in ended.messages[0]
    assert "free some space" in ended.messages[0]
    assert remains(place) == ["mine"]


@pytest.mark.parametrize("which", ["read", "write"])
def test_a_path_that_the_filesystem_refuses_is_an_error_and_never_replaced(
    run: Call, mounted: Callable[[str, str], Path], which: str
) -> None:
    place = mounted("ramfs", "mode=700")
    ended = run(f"io.{which}_path=direct", dir=place)
    assert ended.code == 1
    assert f"{which} path direct does not work on ramfs at {place}: Invalid argument" in ended.messages[0]
    assert f"use --set io.{which}_path=buffered" in ended.messages[0]
    assert remains(place) == []


def test_a_filesystem_that_tells_no_free_space_can_be_tested(
    run: Call, mounted: Callable[[str, str], Path], tmp_path: Path
) -> None:
    assert run(dir=mounted("ramfs", "mode=700")).code == 0
    assert (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("setting", ["tiers.0.capacity_bytes=900TiB", "io.arena_bytes=900TiB"])
def test_more_memory_than_the_node_has_is_refused(run: Call, host: str, folder: Path, setting: str) -> None:
    ended = run(setting)
    assert ended.code == 1
    assert len(ended.messages) == 1
    assert f"kvbench: 1 rank on {host} must have 900" in ended.messages[0]
    assert "set smaller tiers, io.arena_bytes or io.threads" in ended.messages[0]
    assert remains(folder) == []


def test_numpy_paths_are_refused_where_whole_entries_do_not_fit_into_memory(run: Call) -> None:
    ended = run("io.read_path=numpy", "cache.layout=entry", "model={layers: 900000, kv_heads: 8, head_dim: 128}")
    assert ended.code == 1
    assert "whole entries for the numpy read path" in ended.messages[0]


def test_a_run_file_that_exists_is_kept(run: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_text("precious")
    ended = run()
    assert ended.code == 1
    assert f"{tmp_path}/run.h5 exists: give another name, or --overwrite to replace it" in ended.err
    assert (tmp_path / "run.h5").read_text() == "precious"
    assert remains(folder) == []


def test_the_run_file_cannot_be_a_directory_or_lie_below_a_file(run: Call, tmp_path: Path) -> None:
    ended = run(out=tmp_path)
    assert (ended.code, len(ended.messages)) == (1, 1)
    assert f"cannot write {tmp_path}: it is a directory" in ended.err
    (tmp_path / "file").touch()
    ended = run(out=tmp_path / "file" / "run.h5")
    assert ended.code == 1
    assert f"cannot make {tmp_path}/file for the run file: File exists; choose another directory" in ended.err


def test_the_run_file_needs_a_folder_that_can_be_written(
    run: Call, mounted: Callable[[str, str], Path], folder: Path
) -> None:
    place = mounted("tmpfs", "ro,size=1m")
    ended = run(out=place / "run.h5")
    assert ended.code == 1
    assert f"cannot write {place}/run.h5: Read-only file system" in ended.err
    assert remains(folder) == []


@pytest.fixture
def bad_trace(tmp_path: Path) -> Path:
    """A trace whose third line is malformed."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(TRACE_LINE * 2 + '{"timestamp": "soon"}\n' + TRACE_LINE)
    return trace


def test_a_malformed_trace_line_is_named_by_file_and_line(run: Call, kvbench: Call, bad_trace: Path) -> None:
    replay = (f"workload={{kind: trace, path: {bad_trace}}}", "pacing.mode=asap", "duration_s=null")
    for ended in (run(*replay), kvbench("trace", "info", bad_trace)):
        assert ended.code == 1
        assert len(ended.messages) == 1
        assert f"kvbench: {bad_trace}, line 3: " in ended.messages[0]


def test_malformed_trace_lines_can_be_left_out_and_are_counted(
    run: Call, kvbench: Call, bad_trace: Path, tmp_path: Path
) -> None:
    replay = (f"workload={{kind: trace, path: {bad_trace}}}", "pacing.mode=asap", "duration_s=null")
    assert run(*replay, "cache.block_tokens=512", options=("--skip-bad-lines",)).code == 0
    shown = kvbench("summary", tmp_path / "run.h5", "--json")
    assert shown.code == 0
    described = kvbench("trace", "info", bad_trace, "--skip-bad-lines")
    assert described.code == 0
    assert "1" in next(line for line in described.out.splitlines() if "bad lines" in line)


def test_a_missing_trace_is_named(run: Call, tmp_path: Path) -> None:
    ended = run("workload={kind: trace, path: /nowhere.jsonl}", "pacing.mode=asap")
    assert ended.code == 1
    assert "cannot read trace /nowhere.jsonl: No such file or directory" in ended.err


def test_files_need_a_directory(kvbench: Call, tmp_path: Path) -> None:
    ended = kvbench("run", "smoke", "--out", tmp_path / "run.h5")
    assert ended.code == 1
    assert "smoke has a file tier: give the directory under test with --dir" in ended.messages[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "smoke", "--dri", "/tmp"], "Did you mean '--dir'?"),
        (["run", "smoke", "--dir", "/tmp", "--hosts", "a"], "--hosts and --hostfile go with --ranks"),
        (["run", "smoke", "--dir", "/tmp", "--ranks", "0"], "0 is not in the range"),
        (["summery", "run.h5"], "No such command 'summery'. Did you mean 'summary'?"),
        (["study", "shaw"], "No such command 'shaw'. Did you mean 'show'?"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(kvbench: Call, words: list[str], said: str) -> None:
    ended = kvbench(*words)
    assert ended.code == 2
    assert said in ended.err


def test_every_command_has_a_sentence_of_help(kvbench: Call) -> None:
    for name in commands.commands:
        ended = kvbench(name, "--help")
        assert ended.code == 0
        assert f"Usage: kvbench {name}" in ended.out


def test_the_command_itself_says_its_version(start: Start) -> None:
    ended = start(*KVBENCH, "--version").ended()
    assert ended.code == 0
    assert ended.out.startswith("kvbench, version ")
