"""How a command that measures gets its ranks: it finds itself among them, or starts mpirun with the same command line.

Also the console of rank 0, which cannot see by itself whether its output ends in a terminal.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from kvbench.cluster.launch.mpirun import launch
from kvbench.cluster.watch.watch import PATIENCE_S

_TERMINAL_COLUMNS: Final = "KVBENCH_TERMINAL_COLUMNS"


def start_ranks(
    ranks: int,
    arguments: Sequence[str],
    hosts: str | None = None,
    hostfile: Path | None = None,
    program: Sequence[str] | None = None,
    patience_s: float = PATIENCE_S,
) -> int:
    """Run `kvbench ARGUMENTS` on `ranks` ranks under mpirun and return its exit code; `hosts` separated by commas."""
    return launch(
        ranks,
        host_list(hosts),
        arguments,
        hostfile=hostfile,
        environment=terminal_facts(),
        program=program,
        patience_s=patience_s,
    )


class _SteadyConsole(Console):
    """A run goes on when nobody reads its output any more (`kvbench run ... | head`), which ends other commands."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_console(inside_launcher: bool) -> Console:
    """Rank 0's console. A launcher may give a rank a terminal of its own whatever its output really goes to, so inside
    one only who started it, and knows, can say that there is a terminal."""
    if not inside_launcher:
        return _SteadyConsole()
    columns = os.environ.get(_TERMINAL_COLUMNS, "")
    terminal = columns.isdecimal()
    return _SteadyConsole(force_terminal=terminal, no_color=not terminal, width=int(columns) if terminal else None)


def terminal_facts() -> dict[str, str]:
    """Variables that tell the ranks of this process's terminal."""
    console = Console()
    return {_TERMINAL_COLUMNS: str(console.width)} if console.is_terminal else {}


def host_list(hosts: str | None) -> list[str]:
    """The names in `hosts`, separated by commas."""
    return [host for host in (hosts or "").split(",") if host]


def without_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """`arguments` without `options` and their values: the command line that each rank gets, without what says how to
    start the ranks."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in options:
            skip = True
        elif not argument.startswith(tuple(f"{option}=" for option in options)):
            kept.append(argument)
    return kept
