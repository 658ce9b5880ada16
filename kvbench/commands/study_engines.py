"""The command `study engines`: parse, call, print. Its runs are jobs of their own, that import nothing of this."""

from pathlib import Path

import click
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from kvbench_analysis.text.units import count_of
from rich.console import Console

from kvbench.commands.options import (
    PATH_AS_TEXT,
    PLACE,
    json_option,
    repeats_option,
    replace_table_option,
    seed_option,
    table_option,
)
from kvbench.commands.paths import absolute_place
from kvbench.commands.study_show import print_engine_study
from kvbench.config.engines import read_engine, shipped_engines
from kvbench.console import make_console
from kvbench.studies.engines import EngineChoices, engines_for, run_engines
from kvbench.studies.engines_table import EnginesTable
from kvbench.tiers.kinds import kind_at


def _list_engines(console: Console) -> None:
    rows = []
    for name in shipped_engines():
        twin, engine = read_engine(name)
        checked = "checked" if twin.checked else "unchecked"
        block = f"{engine.cache['block_tokens']} tokens"
        threads = count_of(engine.io["threads"], "thread")
        if engine.tier == "object":
            layout, moves = "object", f"{engine.io['depth']} requests, {threads}"
        else:
            layout, moves = engine.layout.text, f"{engine.io['read_path']}, {threads}"
        rows.append((safe_text(name), f"{twin.package} {twin.version}", checked, block, layout, moves))
    headings = ("engine", "of", "", "block", "layout", "moves")
    print_table(console, "Twins of engines", headings, rows, left=6, names=True)


def _left_out(names: list[str], place: str) -> str:
    kept, there = ("objects", "a directory") if kind_at(place) == "file" else ("files", "a bucket")
    return f"{place} is {there}: left out are {', '.join(names)}, whose engines keep {kept}."


@click.command()
@click.argument("config", type=PATH_AS_TEXT, default="conversations")
@click.option("--dir", "place", type=PLACE, help="Directory under test, or s3://BUCKET/PREFIX.")
@click.option("--engines", help="Twins, separated by commas.  [default: all that come with kvbench and go there]")
@click.option("--list", "lists", is_flag=True, help="List the twins that come with kvbench, and do nothing.")
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Of each run.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration.")
@table_option("engines")
@repeats_option
@seed_option
@replace_table_option
@json_option
def engines(
    config: str,
    place: str | None,
    engines: str | None,
    lists: bool,
    ranks: int,
    overrides: tuple[str, ...],
    out: Path,
    repeats: int,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> str | None:
    """Serve the requests of CONFIG as several engines would, on one storage, and say how far each is from its limit.

    Each run is an MPI job of its own; run files are kept in a directory beside the table.
    """
    if lists:
        _list_engines(make_console())
        return None
    if place is None:
        raise click.UsageError("Missing option '--dir'.")
    console = Console(quiet=True) if as_json else make_console()
    names, others = engines_for(place)
    if engines is not None:
        names = [name.strip() for name in engines.split(",")]
    elif others:
        console.print(_left_out(others, place), soft_wrap=True, highlight=False, markup=False)
    choices = EngineChoices(
        source=config,
        overrides=overrides,
        place=absolute_place(place),
        engines=tuple(names),
        ranks=ranks,
        repeats=repeats,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    run_engines(choices, EnginesTable(out).add, console)
    print_engine_study(out, make_console(), as_json=as_json)
    return f"{out} is complete, and `kvbench study show {out}` prints its figures"
