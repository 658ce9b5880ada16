"""Options and arguments that several commands have, each declared once."""

import os
from pathlib import Path
from typing import Any, Final

import click

from kvbench.commands.paths import GivenPath
from kvbench.commands.ranks import RanksPath
from kvbench.errors import KvbenchError
from kvbench.records.outputs import name_file
from kvbench.studies.options import MINIMUM_REPEATS

PATH: Final = GivenPath(path_type=Path)
PATH_AS_TEXT: Final = GivenPath()
ANY_PATH: Final = GivenPath(path_type=Path, readable=False)
"""Not looked at here: what a rank finds on its node, all ranks must hear of."""

RANKS_PATH: Final = RanksPath(path_type=Path, readable=False)
"""A directory on every node."""


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


class _RunId(click.types.StringParamType):
    """The id of a run, or what is called by it: its directory, `kvbench-RUN_ID`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        run_id = str(value).removeprefix(RUN_PREFIX)
        return run_id or self.fail("the id of a run is needed, and this is empty", param, ctx)


RUN_PREFIX: Final = "kvbench-"
"""Of the names of all that belongs to a run."""
RUN_ID: Final = _RunId()

config_argument = click.argument("config", type=PATH_AS_TEXT)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration; repeatable."
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
seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True)
