"""The command `kvbench`: finds the command that is asked for, and turns its errors into messages. No logic.

A command's module is imported when it is called for: each rank of a run comes through here, hundreds of them at once on
a node that has few processors, and needs none but its own.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from kvbench.cluster.comm import FailedElsewhere, detect_launcher
from kvbench.console import show_everything
from kvbench.errors import KvbenchError
from kvbench.units import printable

COMMANDS: Final[Mapping[str, str]] = {
    "clean": "clean:clean",
    "compare": "analysis:compare",
    "configs": "look:configs",
    "datasize": "look:datasize",
    "doctor": "look:doctor",
    "mlperf": "mlperf:mlperf",
    "recover": "recover:recover",
    "report": "analysis:report",
    "run": "run:run",
    "study": "study:study",
    "summary": "analysis:summary",
    "trace": "look:trace",
}
"""Every command: its module in this package, and the function there."""

_FAILED: Final = 1


class _Commands(click.Group):
    """Turns a KvbenchError of any command into one message on stderr and exit code 1.

    Of the ranks of a launcher only one says what went wrong, and gives the job its exit code. The others end with 0:
    at the first that does not, mpirun ends all ranks, perhaps before the message, and adds notices of its own.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(f"kvbench.commands.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KvbenchError as error:
            click.echo(f"kvbench: {printable(str(error))}", err=True)
            sys.exit(_FAILED)
        except FailedElsewhere:
            sys.exit(0)
        except click.UsageError:
            launcher = detect_launcher()
            if launcher is not None and launcher.rank != 0:
                sys.exit(0)
            raise


def main() -> NoReturn:
    """Entry point of the command `kvbench`."""
    show_everything()
    commands(prog_name="kvbench")
    raise AssertionError("click ends the process")


@click.group(cls=_Commands)
@click.version_option(package_name="kvbench")
def commands() -> None:
    """Benchmark of the storage behind the KV cache of an LLM service."""
