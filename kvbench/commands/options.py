"""Options and arguments that several commands have, each declared once."""

import os
from pathlib import Path
from typing import Any, Final

import click

from kvbench.commands.ranks import RanksPath
from kvbench.errors import KvbenchError
from kvbench.records.outputs import name_file
from kvbench.studies.options import MINIMUM_REPEATS

PATH: Final = click.Path(path_type=Path)
ANY_PATH: Final = click.Path(path_type=Path, readable=False)
"""Not looked at here: what a rank finds on its node, all ranks must hear of."""

RANKS_PATH: Final = RanksPath(path_type=Path, readable=False)
"""A directory on every node."""


class _OutputFile(click.Path):
    """A file that a command makes. Here is only seen what a path no longer shows: a slash at its end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            name_file(os.fspath(value))
        except KvbenchError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


OUTPUT_FILE: Final = _OutputFile(path_type=Path, readable=False)

config_argument = click.argument("config")
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
