"""The command `study whatif`: parse, call, print. Its runs are jobs of their own, that import nothing of this."""

from pathlib import Path

import click
from rich.console import Console

from kvbench.commands.options import (
    PLACE,
    config_argument,
    engine_option,
    json_option,
    repeats_option,
    replace_table_option,
    seed_option,
    set_option,
    table_option,
)
from kvbench.commands.paths import absolute_place
from kvbench.commands.study_show import print_whatif_study
from kvbench.console import make_console
from kvbench.studies.whatif import WhatIfChoices, read_questions, run_whatif
from kvbench.studies.whatif_table import WhatIfTable


@click.command()
@config_argument
@click.option("--dir", "place", type=PLACE, help="Directory under test, or s3://BUCKET/PREFIX.")
@click.option(
    "--faster",
    "faster",
    multiple=True,
    metavar="PART[=FACTOR]",
    help="What is to be so many times as fast: device, host, copies or cores; below 1: slower. Repeatable.  "
    "[default: device=2, copies=2 (or host=2), cores=2]",
)
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Of each run.")
@set_option
@engine_option
@click.option("--no-control", is_flag=True, help="Leave out the runs in which all is delayed and nothing is faster.")
@table_option("whatif")
@repeats_option
@seed_option
@replace_table_option
@json_option
def whatif(
    config: str,
    place: str | None,
    faster: tuple[str, ...],
    ranks: int,
    overrides: tuple[str, ...],
    engine: str,
    no_control: bool,
    out: Path,
    repeats: int,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> str:
    """Predict what faster storage, processors or copies, or more cores would change for the requests of CONFIG.

    Nothing can be made faster: each question is a run in which all else is delayed. Each run is an MPI job of its own;
    run files are kept in a directory beside the table.
    """
    console = Console(quiet=True) if as_json else make_console()
    choices = WhatIfChoices(
        source=config,
        overrides=overrides,
        place=None if place is None else absolute_place(place),
        questions=read_questions(faster),
        control=not no_control,
        ranks=ranks,
        engine=engine,
        repeats=repeats,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    run_whatif(choices, WhatIfTable(out).add, console)
    print_whatif_study(out, make_console(), as_json=as_json)
    return f"{out} is complete, and `kvbench study show {out}` prints its figures"
