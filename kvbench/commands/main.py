"""The command `kvbench`: hands on to the command that is asked for, and turns its errors into messages. No logic."""

import os
import signal
import sys
from typing import Any, Final, NoReturn

import click

from kvbench.cluster.comm import FailedElsewhere, detect_launcher
from kvbench.cluster.signals import Interrupt, say
from kvbench.commands.table import CommandGroup
from kvbench.console import show_everything
from kvbench.errors import KvbenchError
from kvbench.streams import SteadyStreams
from kvbench.units import printable

_FAILED: Final = 1
_INTERRUPTED: Final = 128 + signal.SIGINT
"""As shells have it."""


class _Commands(CommandGroup):
    """Turns a KvbenchError of any command into one message on stderr and exit code 1.

    Of the ranks of a launcher only one says what went wrong, and gives the job its exit code. The others end with 0:
    at the first that does not, mpirun ends all ranks, perhaps before the message, and adds notices of its own.

    A command that leaves more than what it prints returns a sentence that says so, which is then `made`.
    """

    made = ""

    def main(self, *arguments: Any, **options: Any) -> Any:
        show_everything()
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            made = super().invoke(ctx)
        except KvbenchError as error:
            click.echo(f"kvbench: {printable(str(error))}", err=True)
            sys.exit(_FAILED)
        except FailedElsewhere:
            sys.exit(0)
        except KeyboardInterrupt:
            _say_interrupted("interrupted")
            sys.exit(_INTERRUPTED)
        except click.UsageError:
            launcher = detect_launcher()
            if launcher is not None and launcher.rank != 0:
                sys.exit(0)
            raise
        self.made = made if isinstance(made, str) else ""
        return made


def main() -> NoReturn:
    """Entry point of the command `kvbench`."""
    streams = SteadyStreams()
    launched = detect_launcher() is not None
    asking = (signal.SIGINT, signal.SIGUSR1) if launched else (signal.SIGINT,)
    # What was ignored when we were started (nohup, a script's background job) stays ignored.
    heard = tuple(number for number in asking if signal.getsignal(number) is not signal.SIG_IGN)
    try:
        with Interrupt(launched, end=_end, asking=heard) as interrupt, interrupt.raising():
            commands(prog_name="kvbench")
    except SystemExit as end:
        sys.exit(streams.exit_code(int(end.code or 0), commands.made))
    raise AssertionError("click ends the process")


def _end(text: str) -> None:
    _say_interrupted(text)
    os._exit(_INTERRUPTED)


def _say_interrupted(text: str) -> None:
    launcher = detect_launcher()
    if launcher is None or launcher.rank == 0:
        say(text)


@click.group(cls=_Commands)
@click.version_option(package_name="kvbench")
def commands() -> None:
    """Benchmark of the storage behind the KV cache of an LLM service."""
