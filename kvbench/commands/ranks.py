"""Commands that the ranks of a launcher carry out together: before they begin, all must have been told the same."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

import kvbench
from kvbench.cluster.agree import together
from kvbench.cluster.comm import detect_launcher, get_world
from kvbench.cluster.told import COMMAND, check_told
from kvbench.commands.paths import GivenPath, GivenPlace, absolute_place
from kvbench.errors import KvbenchError

_ADVICE: Final = (
    "Give all ranks one command line, directories from the root where working directories differ; `kvbench run` takes "
    "{rank}, {local_rank} and {node} in --dir for a directory of each"
)


class RanksPath(GivenPath):
    """A path that every rank looks at by itself, so that where it is relative, working directories count."""


class RanksPlace(GivenPlace):
    """A place under test that every rank looks at by itself."""


class RanksCommand(click.Command):
    """A command whose ranks, where a launcher started several, are refused before it begins if their command lines
    differ, or only some can be parsed."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if _among_others():
                _compare(error.format_message())
            raise

    def invoke(self, ctx: click.Context) -> Any:
        if _among_others():
            _compare(dict(_told(ctx)))
        return super().invoke(ctx)


def refuse_to_start(given: Mapping[str, object]) -> None:
    """Raise UsageError where one of the options that say which ranks to start is given inside a launcher."""
    launcher = detect_launcher()
    options = [option for option, value in given.items() if value]
    if launcher is not None and options:
        verb = "are" if len(options) > 1 else "is"
        raise click.UsageError(
            f"{' and '.join(options)} {verb} for starting ranks, and they are started already by {launcher.name}"
        )


def _among_others() -> bool:
    """Whether a launcher started more ranks than this one."""
    launcher = detect_launcher()
    return launcher is not None and launcher.size != 1


def _compare(told: Mapping[str, str] | str) -> None:
    """Raise KvbenchError or FailedElsewhere where `told` differs between the ranks of a launcher. Collective."""
    try:
        world = get_world()
    except KvbenchError:
        if isinstance(told, str):
            return  # The command line is what is wrong first.
        raise
    with together(world):
        check_told(world, told, _ADVICE)


def _told(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """What was said, or is so by default: the command, and each argument and option."""
    yield COMMAND, f"{ctx.command_path} of version {kvbench.__version__}"
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        values = value if isinstance(value, tuple) else (value,)
        for number, one in enumerate(values):
            yield f"{parameter.name} {number}", _words(parameter, one)


def _words(parameter: click.Parameter, value: Any) -> str:
    """How `value` is given on a command line."""
    if isinstance(parameter, click.Argument):
        return str(value)
    name = parameter.opts[-1]
    if value is None:
        return f"without {name}"
    if isinstance(value, bool):
        return name if value else f"without {name}"
    if isinstance(parameter.type, RanksPath):
        value = Path(value).absolute()
    if isinstance(parameter.type, RanksPlace):
        value = absolute_place(str(value))
    return f"{name} {value}"
