"""How a command that measures gets its ranks: it finds itself among them, or has mpirun start its own command line."""

from collections.abc import Sequence
from pathlib import Path

from kvbench.cluster.launch.mpirun import launch
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.console import facts_for_ranks


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
        environment=facts_for_ranks(),
        program=program,
        patience_s=patience_s,
    )


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
