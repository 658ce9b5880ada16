"""The console that every command prints on: how wide its lines may be, and what becomes of what it cannot show.

In a terminal, lines are folded at its width; every table fits into `TABLE_COLUMNS`. Elsewhere, in a pipe or a file, no
line is ever folded. Chooses no words.

The library that prints is loaded with the first console or table: the ranks of a run but the first make neither.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from kvbench.units import storable

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

TABLE_COLUMNS: Final = 80
"""A terminal that is narrower folds the lines itself: fewer columns would cost figures."""

_UNFOLDED_COLUMNS: Final = 10_000
_RANK_COLUMNS: Final = "KVBENCH_TERMINAL_COLUMNS"
_ESCAPING: Final = "kvbench-escaping"


def make_console() -> "Console":
    """The console of a command that ranks are not started for."""
    return _console(**_manner(_terminal_columns()))


class NoConsole:
    """That of a rank that prints nothing."""

    is_interactive: Final = False

    def print(self, *texts: object, **manner: object) -> None:
        """Nothing."""


def silent_console() -> "Console":
    """A console that prints nothing, for whoever gives figures to programs, or is part of a greater thing."""
    return cast("Console", NoConsole())


def run_console(inside_launcher: bool, rank: int = 0) -> "Console":
    """Rank 0's console; on other ranks a `NoConsole`. A launcher may give a rank a terminal of its own whatever its
    output really goes to, so inside one only who started it, and knows, can say that there is a terminal."""
    if rank:
        return cast("Console", NoConsole())
    if not inside_launcher:
        return _console(**_manner(_terminal_columns()))
    told = os.environ.get(_RANK_COLUMNS, "")
    columns = int(told) if told.isdecimal() else None
    return _console(force_terminal=columns is not None, no_color=columns is None, **_manner(columns))


def _console(**manner: Any) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - see above

    return Console(**manner)


def facts_for_ranks() -> dict[str, str]:
    """Variables that tell the ranks of this process's terminal, and how characters are written there; and that let
    ranks on nodes of other languages understand the bytes of a file's name alike."""
    facts = {"PYTHONUTF8": "1"}
    columns, encoding = _terminal_columns(), getattr(sys.stdout, "encoding", None)
    if columns is not None:
        facts[_RANK_COLUMNS] = str(columns)
    if encoding is not None:
        facts["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"
    return facts


def make_table(headings: Iterable[str], *, left: int = 1, lines: "Box | None" = None) -> "Table":
    """An empty table whose first `left` columns are text and the others figures; `lines`: its lines, None for none.

    Give it no title, which it would fold at its own width. What is too wide for it is folded, never cut off.
    """
    from rich.table import Table  # noqa: PLC0415 - see above

    table = Table(box=lines, show_header=any(headings := list(headings)))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < left else "right", overflow="fold")
    return table


def show_everything() -> None:
    """Let the output write every text: characters that its encoding lacks, and bytes in names of files that are no
    text, appear as escapes (`\\u2192`, `\\xff`) instead of ending the command."""
    codecs.register_error(_ESCAPING, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPING)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = storable(error.object[error.start : error.end])
    return wrong.encode("ascii", "backslashreplace").decode("ascii"), error.end


def _manner(columns: int | None) -> dict[str, Any]:
    """How to print in a terminal of so many columns, or (None) in none. Nothing is redrawn where the terminal folds
    lines, and what is in texts (`[x]`, `:x:`) is what they say."""
    if columns is None:
        shape = {"width": _UNFOLDED_COLUMNS, "force_interactive": False}
    else:
        shape = {"width": max(columns, TABLE_COLUMNS), "force_interactive": columns >= TABLE_COLUMNS}
    return {**shape, "markup": False, "emoji": False}


def _terminal_columns() -> int | None:
    """Of the terminal that the output goes to; None where it goes elsewhere."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    # A terminal that nobody has told its size says 0.
    return os.get_terminal_size(sys.stdout.fileno()).columns or TABLE_COLUMNS
