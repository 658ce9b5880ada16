"""Paths as users give them: empty ones are refused everywhere, and those that are no text are paths like any other."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from kvbench_command import KVBENCH, QUICK, Command, Ended, attributes, column, overrides, remains

from kvbench.commands.main import commands

Call = Callable[..., Ended]
Start = Callable[..., Command]

NO_TEXT = os.fsdecode(b"n\xff\xe9")
SHOWN = r"n\xff\xe9"
EMPTY = "a path is needed, and this is empty"


def path_parameters(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of every command that is a path, with the words that call the command."""
    for name, command in group.commands.items():
        called = (*words, name)
        if isinstance(command, click.Group):
            yield from path_parameters(command, called)
        else:
            for parameter in command.params:
                if isinstance(parameter.type, click.Path):
                    yield " ".join((*called, parameter.name or "")), parameter


PARAMETERS = dict(path_parameters(commands))


@pytest.mark.parametrize("where", PARAMETERS)
def test_an_empty_path_is_refused_everywhere(where: str) -> None:
    with pytest.raises(click.BadParameter, match=EMPTY):
        PARAMETERS[where].type.convert("", PARAMETERS[where], None)


def test_every_command_that_takes_a_path_is_among_them() -> None:
    those = {where.rpartition(" ")[0] for where in PARAMETERS}
    assert those >= {"clean", "doctor", "mlperf check", "recover", "report", "run", "study copy-path", "summary"}
    assert {"run config", "run directory", "run out", "run spill", "run hostfile"} <= set(PARAMETERS)


@pytest.mark.parametrize("words", [("clean", ""), ("clean", "--run", "", "."), ("compare", "a.h5", "--vs", "")])
def test_an_empty_word_in_the_place_of_a_name_is_a_wrong_command_line(kvbench: Call, words: tuple[str, ...]) -> None:
    ended = kvbench(*words)
    assert ended.code == 2
    assert "is needed, and this is empty" in ended.err


@pytest.fixture
def no_text(tmp_path: Path) -> Path:
    """A folder whose name is no text in any encoding that Python takes for the names of files."""
    made = tmp_path / NO_TEXT
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"this filesystem has no such names: {error}")
    (made / "tested").mkdir()
    trace = '{"timestamp": 0, "input_length": 900, "output_length": 40, "hash_ids": [1, 2]}\n'
    (made / "trace.jsonl").write_text(trace * 3)
    (made / "replay.yaml").write_text(
        "workload: {kind: trace, path: trace.jsonl}\npacing: {mode: asap}\nduration_s: null\nmodel: tiny-1b\n"
        "tiers: [{kind: file, capacity_bytes: 64MiB}]\nio: {arena_bytes: 64MiB}\ncalibration: {seconds: 0}\n"
    )
    return made


@pytest.mark.slow
def test_a_run_and_what_reads_it_take_names_that_are_no_text(kvbench: Call, no_text: Path, spills: Path) -> None:
    spill, out = spills / NO_TEXT, no_text / "run.h5"
    spill.mkdir()
    words = ("--dir", no_text / "tested", "--spill", spill, "--out", out)
    ended = kvbench("run", no_text / "replay.yaml", *words)
    assert (ended.code, ended.messages) == (0, []), ended.err
    assert attributes(out)["trace_source"].endswith(rf"{SHOWN}/trace.jsonl")
    assert column(out, "nodes/directory").tolist() == [os.fsencode(no_text.parent) + rb"/n\xff\xe9/tested"]
    assert remains(no_text / "tested") == remains(spill) == []
    for command in (
        ("summary", out),
        ("report", out, "-o", no_text / "page.html", "--png", no_text / "pictures"),
        ("compare", out, "--vs", out, "--force"),
        ("trace", "info", no_text / "trace.jsonl"),
        ("datasize", no_text / "replay.yaml", "--dir", no_text / "tested"),
        ("clean", no_text / "tested"),
        ("doctor", "--dir", no_text / "tested"),
    ):
        ended = kvbench(*command)
        assert "internal error" not in ended.err
        assert ended.code == (1 if command[0] == "compare" else 0), (command, ended.err)
    assert (no_text / "page.html").exists()


@pytest.mark.slow
def test_ranks_take_names_that_are_no_text_and_a_terminal_of_another_language_is_written_to(
    start: Start, no_text: Path, tmp_path: Path
) -> None:
    named = '"für → 日本"'
    words = (*KVBENCH, "run", "smoke", "--ranks", 2, "--no-spill", "--out", no_text / "run.h5")
    command = [*words, "--dir", no_text / "tested", *overrides(*QUICK, f"name={named}")]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    ended = start(*command, environment=plain).ended()
    assert (ended.code, ended.messages) == (0, []), ended.err
    assert rf"2 ranks on 1 node, f\xfcr \u2192 \u65e5\u672c, {tmp_path}/{SHOWN}/tested" in ended.out
    assert remains(no_text / "tested") == []


def test_clean_takes_a_run_by_every_name_that_it_shows(kvbench: Call, folder: Path) -> None:
    names = ["kvbench-20260102-030405-abcdef", "kvbench-20260102-030405-abcdef.probe-7"]
    probe = folder / names[1]
    probe.touch()
    os.utime(probe, (0, 0))
    for name in (*names, "20260102-030405-abcdef"):
        assert names[1] in kvbench("clean", folder, "--run", name).out
    other = kvbench("clean", folder, "--run", "kvbench-20260102-030405-fedcba", "--yes")
    assert other.out == "nothing of run 20260102-030405-fedcba is there\n"
    assert probe.exists()
    assert kvbench("clean", folder, "--run", names[0], "--yes").out.endswith("deleted 1 files, 0 B\n")
    assert not probe.exists()
