"""Options and arguments that several commands have, each declared once."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from kvbench.commands.paths import GivenPath, GivenPlace
from kvbench.commands.ranks import RanksPath, RanksPlace
from kvbench.errors import KvbenchError
from kvbench.records.outputs import name_file, picture_kind
from kvbench.studies.options import MINIMUM_REPEATS

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

PATH: Final = GivenPath(path_type=Path)
PATH_AS_TEXT: Final = GivenPath()
ANY_PATH: Final = GivenPath(path_type=Path, readable=False)
"""Not looked at here: what a rank finds on its node, all ranks must hear of."""

RANKS_PATH: Final = RanksPath(path_type=Path, readable=False)
"""A directory on every node."""

PLACE: Final = GivenPlace()
RANKS_PLACE: Final = RanksPlace()
"""A place under test, as text: a directory, or an address."""


class _OutputFile(GivenPath):
    """A file that a command makes. Here is only seen what a path no longer shows: a slash at its end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        try:
            name_file(os.fspath(value))
        except KvbenchError as error:
            self.fail(str(error), param, ctx)
        return converted


OUTPUT_FILE: Final = _OutputFile(path_type=Path, readable=False)


class _PictureFile(_OutputFile):
    """A picture that a command draws when all else is done: that its ending says no kind of picture is seen before."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        try:
            if Path(converted).suffix:
                picture_kind(Path(converted))
        except KvbenchError as error:
            self.fail(str(error), param, ctx)
        return converted


PICTURE_FILE: Final = _PictureFile(path_type=Path, readable=False)


class Finite(click.FloatRange):
    """A number within bounds, which "nan" is of none, and "inf" of none that has an upper one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value!r} is not a finite number.", param, ctx)


class _RunId(click.types.StringParamType):
    """The id of a run, or what is called by it: its directory, `kvbench-RUN_ID`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        run_id = str(value).removeprefix(RUN_PREFIX)
        return run_id or self.fail("the id of a run is needed, and this is empty", param, ctx)


RUN_PREFIX: Final = "kvbench-"
"""Of the names of all that belongs to a run."""
RUN_ID: Final = _RunId()


def either(left: str, left_value: object, right: str, right_value: object) -> None:
    """Raise UsageError where two options that exclude each other are given both."""
    if left_value and right_value:
        raise click.UsageError(f"{left} and {right} contradict each other: give one of them")


config_argument = click.argument("config", type=PATH_AS_TEXT)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration; repeatable."
)
engine_option = click.option(
    "--engine",
    default="",
    metavar="NAME",
    help="Keep blocks and move bytes as this engine does (`kvbench study engines --list`), or as a YAML file says.",
)
skip_option = click.option(
    "--skip-bad-lines", is_flag=True, help="Count malformed lines of a trace instead of stopping at the first."
)
repeats_option = click.option(
    "--repeats",
    type=click.IntRange(min=MINIMUM_REPEATS),
    default=MINIMUM_REPEATS,
    show_default=True,
    help="Of everything; a confidence interval is over repeats.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
replace_table_option = click.option("--overwrite", is_flag=True, help="Replace the table if it exists.")


def table_option(name: str) -> Callable[[_Decorated], _Decorated]:
    """Where a study whose every run has a file keeps its table."""
    return click.option(
        "--out",
        type=OUTPUT_FILE,
        default=Path(f"kvbench-out/{name}.csv"),
        show_default=True,
        help="The table; runs beside it.",
    )


slo_option = click.option(
    "--slo",
    multiple=True,
    metavar="OBJECTIVE",
    help="What was promised, such as ttft_p95<2s, in place of the configuration's objectives; repeatable.",
)
prices_option = click.option(
    "--prices",
    type=PATH_AS_TEXT,
    metavar="FILE",
    help="A YAML file of prices (docs/workloads.md), in place of the configuration's; or: example.",
)
seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True)
