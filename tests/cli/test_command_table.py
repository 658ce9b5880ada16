"""The table of commands says of each what it is for and where it is, and it is there."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import kvbench
from kvbench.commands.main import commands
from kvbench.commands.table import COMMANDS

PLACES = {words: entry for words, entry in COMMANDS.items() if entry.place}
ONLY_TO_PRINT = {"pandas", "scipy", "matplotlib", "plotly", "kvbench_analysis"}


@pytest.mark.parametrize("words", PLACES)
def test_the_list_of_commands_says_of_each_what_it_says_of_itself(words: str) -> None:
    command = PLACES[words].command()
    assert command.name == words.rpartition(" ")[2]
    text = inspect.cleandoc(command.help or "").partition("\n\n")[0]
    assert PLACES[words].summary == text.replace("\n", " ")


def test_every_group_is_a_group_and_has_commands() -> None:
    groups = {words for words, entry in COMMANDS.items() if not entry.place}
    assert groups == {words.rpartition(" ")[0] for words in COMMANDS} - {""}


def test_every_command_of_the_package_is_in_the_table() -> None:
    found = set()
    for path in (Path(kvbench.__file__).parent / "commands").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        functions = re.findall(r"^@click\.command\(.*?^def (\w+)", text, re.MULTILINE | re.DOTALL)
        found |= {f"kvbench.commands.{path.stem}:{function}" for function in functions}
    assert {entry.place for entry in PLACES.values()} == found


@pytest.mark.parametrize("words", [(), ("study",), ("mlperf",), ("trace",)])
def test_help_lists_commands_without_importing_any(words: tuple[str, ...]) -> None:
    program = (
        "import sys; from kvbench.commands.main import commands; commands(sys.argv[1:], standalone_mode=False); "
        "print(*[name for name in sys.modules if name.startswith('kvbench.commands.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words, "--help"], capture_output=True, text=True, check=True)
    assert "\nCommands:\n" in done.stdout
    assert set(done.stderr.split()) == {"kvbench.commands.main", "kvbench.commands.table"}


@pytest.mark.parametrize("words", ["run", "study copy-path", "mlperf run"])
def test_what_ranks_run_imports_nothing_that_is_there_to_print(words: str) -> None:
    program = f"import sys, {PLACES[words].place.partition(':')[0]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not (ONLY_TO_PRINT | {"rich"}) & set(done.stdout.split())


def test_a_rank_of_a_run_imports_nothing_that_only_the_first_or_an_object_store_needs() -> None:
    program = "import sys, kvbench.commands.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "kvbench.run.runner" in loaded
    first_only = {"rich", "kvbench.run.live", "kvbench.workload.traces.formats", "kvbench.cluster.launch.start"}
    assert not loaded & (first_only | {"asyncio", "ssl", "numpy.ma"})


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kvbench tr", {"trace"}),
        ("kvbench trace s", {"sample", "slice"}),
        ("kvbench run --gat", {"--gather", "--gather-memory"}),
        ("kvbench run --gather n", {"nodes"}),
    ],
)
def test_a_shell_completes_commands_options_and_their_values(typed: str, offered: set[str]) -> None:
    asked = {"_KVBENCH_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = Path(sys.executable).with_name("kvbench")
    done = subprocess.run([command], env=os.environ | asked, capture_output=True, text=True, check=True)
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered


def test_a_word_with_a_blank_is_no_command() -> None:
    context = click.Context(commands)
    assert commands.get_command(context, "study show") is None
    assert commands.get_command(context, "study") is not None
