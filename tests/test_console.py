"""What commands print, in terminals of every width and language, in pipes and in files: all of it is shown."""

import ast
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from rich.box import HEAVY_HEAD
from rich.console import Console

from kvbench.console import TABLE_COLUMNS, make_table, run_console
from kvbench.units import storable

ROOT = Path(__file__).resolve().parent.parent
KVBENCH: Final = (sys.executable, "-m", "kvbench")
LINE: Final = '{"timestamp": 0, "input_length": 900, "output_length": 40, "hash_ids": [1, 2]}\n'
LONG_NAME: Final = "a name that is longer than any line of a terminal is wide, as names of files and folders often are"
PLAIN: Final = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A terminal that knows nothing but ASCII."""

PROGRAM: Final = """
import sys
from kvbench.console import make_console, make_table, show_everything
show_everything()
table = make_table(("", ""), left=2)
table.add_row("trace", sys.argv[1])
table.add_row("requests", "12345678901234567890")
make_console().print(table)
print("read from", sys.argv[1])
"""
"""Prints as every command does, without what commands have to load."""
PRINTING: Final = (sys.executable, "-c", PROGRAM)


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A terminal of so many columns: where to write to it, and what was written once everybody has closed it."""
    reading, writing = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", "24"], stdin=writing, check=True)

    def shown() -> bytes:
        os.close(writing)
        found = b""
        try:
            while piece := os.read(reading, 65536):
                found += piece
        except OSError:
            # How a terminal says that nobody has it open any more.
            pass
        return found.replace(b"\r\n", b"\n")

    try:
        yield writing, shown
    finally:
        os.close(reading)


def printed(
    path: Path,
    command: Sequence[str] = PRINTING,
    *,
    columns: int | None = None,
    environment: Mapping[str, str] = {},
) -> bytes:
    """What a command about `path` writes to its standard output, which is a terminal of `columns`, or a pipe."""
    words = [*command, os.fspath(path)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    settings: dict[str, Any] = {"env": inherited | {"TERM": "xterm", "NO_COLOR": "1"} | dict(environment)}
    if columns is None:
        done = subprocess.run(words, capture_output=True, check=False, timeout=60, **settings)
        assert (done.returncode, done.stderr) == (0, b"")
        return bytes(done.stdout)
    with terminal(columns) as (writing, shown):
        # It is small: it fits into the terminal's own buffer.
        process = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60, **settings)
        assert (process.returncode, process.stderr) == (0, b"")
        return shown()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LONG_NAME / "trace.jsonl"


def test_a_line_is_never_folded_in_a_pipe(path: Path) -> None:
    lines = printed(path).decode().splitlines()
    assert any(line.split(maxsplit=1) == ["trace", str(path)] for line in map(str.strip, lines))
    assert printed(path, environment={"COLUMNS": "40"}).decode().splitlines() == lines


def test_in_a_terminal_lines_are_folded_at_its_width_and_nothing_is_lost(path: Path) -> None:
    for columns in (80, 100):
        text = printed(path, columns=columns).decode()
        assert max(map(len, text.splitlines()[:-1])) <= columns
        assert "…" not in text
        joined = "".join(text.split())
        assert all(word in joined for word in (*LONG_NAME.split(), "trace.jsonl", "12345678901234567890"))


@pytest.mark.parametrize("told", ["0", "abc", "1", "-5", "10", "", "80"])
def test_a_width_that_cannot_be_is_not_believed(path: Path, told: str) -> None:
    expected = printed(path, columns=80)
    assert b"1234567890" in expected
    assert printed(path, columns=80, environment={"COLUMNS": told}) == expected
    assert b"1234567890" in printed(path, environment={"COLUMNS": told})


def test_a_terminal_that_does_not_know_its_width_or_is_narrow_gets_all_of_a_table(path: Path) -> None:
    expected = printed(path, columns=TABLE_COLUMNS)
    for columns in (0, 1, 30, 79):
        assert printed(path, columns=columns) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_output_cannot_write_it_writes_as_escapes(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "für → 日本.jsonl"
    text = printed(path, environment=PLAIN | {"PYTHONIOENCODING": encoding}).decode(encoding)
    # In the C locale the bytes of the name are no text to Python, whatever the output can write.
    assert "".join(f"\\x{byte:02x}" if byte >= 0x80 else chr(byte) for byte in os.fsencode(path)) in text
    named = printed(path, environment={"PYTHONUTF8": "1", "PYTHONIOENCODING": encoding})
    assert str(path).encode(encoding, "backslashreplace") in named


def test_a_command_and_its_errors_name_what_they_cannot_write_as_escapes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xc3\xbcr\xff.jsonl"))
    wanted = os.fsencode(tmp_path) + rb"/f\xc3\xbcr\xff.jsonl"
    words = (*KVBENCH, "trace", "info", path)
    done = subprocess.run(words, env=os.environ | PLAIN, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"kvbench: cannot read trace " + wanted + b": No such file")
    path.write_text(LINE)
    assert wanted in printed(path, words[:-1], environment=PLAIN)


@pytest.mark.parametrize(
    ("text", "stored"),
    [("/mnt/x", "/mnt/x"), (os.fsdecode(b"/mnt/\xff\x80"), r"/mnt/\xff\x80"), ("ü → \ud800", r"ü → \ud800")],
)
def test_bytes_that_are_no_text_are_stored_as_escapes(text: str, stored: str) -> None:
    assert storable(text) == stored
    assert stored.encode()


def test_what_texts_hold_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    run_console(inside_launcher=False).print("[bold]x[/bold] :warning: [/nothing]")
    assert capsys.readouterr().out == "[bold]x[/bold] :warning: [/nothing]\n"


@pytest.mark.parametrize("lines", [None, HEAVY_HEAD])
def test_a_table_folds_what_is_too_wide_and_cuts_nothing_off(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(("what", "number", "words"), lines=lines)
    number, words = "1234567890" * 9, "some words and onewordthatislongerthanthewholewidthofthetable" * 2
    table.add_row("left", number, words)
    Console(width=40).print(table)
    shown = capsys.readouterr().out
    assert "…" not in shown
    letters = [letter for letter in shown if letter.isalnum()]
    assert sorted(letters) == sorted(letter for letter in f"whatnumberwordsleft{number}{words}" if letter.isalnum())


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def test_consoles_and_tables_are_made_in_one_place() -> None:
    made: dict[str, set[str]] = {"Console": set(), "Table": set()}
    for path in [*(ROOT / "kvbench").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        uses_rich = "from rich" in path.read_text(encoding="utf-8")
        for name, call in calls(path):
            silent = any(keyword.arg == "quiet" for keyword in call.keywords)
            if name in made and uses_rich and not silent:
                made[name].add(str(path.relative_to(ROOT)))
    assert made["Console"] == {"kvbench/console.py"}
    assert made["Table"] == {"kvbench/console.py", "analysis/text/table.py"}
