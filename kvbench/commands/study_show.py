"""The command `study show`, and what other commands print of a study."""

from pathlib import Path

import click
import kvbench_analysis
import numpy as np
from kvbench_analysis.copy_path import copy_path
from kvbench_analysis.copy_path import print as copy_path_print
from kvbench_analysis.engines import study as engine_study
from kvbench_analysis.scaling import study as scaling_study
from kvbench_analysis.search import print as search_print
from kvbench_analysis.search.curve import curve_of
from kvbench_analysis.search.study import SearchFigures, search_figures
from kvbench_analysis.whatif import print as whatif_print
from kvbench_analysis.whatif import study as whatif_study
from rich.console import Console

from kvbench.commands.options import PATH, PICTURE_FILE
from kvbench.config.models import shipped_model
from kvbench.console import make_console
from kvbench.records.outputs import Written
from kvbench.records.reader import open_run
from kvbench.records.search import KIND as SEARCH
from kvbench.studies import engines, whatif
from kvbench.studies.study_file import KIND


@click.command()
@click.argument("study_file", type=PATH)
@click.option("--model", help="Whose tokens are counted.  [default: the study's]")
@click.option("--all", "every", is_flag=True, help="Print the table of every combination.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--plot", type=PICTURE_FILE, help="Of a search: its capacity curve (PNG, SVG or PDF by its name).")
def show(study_file: Path, model: str | None, every: bool, as_json: bool, plot: Path | None) -> None:
    """Print what STUDY_FILE says.

    Of a copy-path study (.h5) that is the cost of the second copy and each read path beside it, of a scaling study
    (.csv) the fitted law, of a study of engines (.csv) how far each twin is from what the storage gives, of a what-if
    study (.csv) what would change if parts were faster, of a search (.h5) the highest load within its objectives.
    """
    if study_file.suffix == ".csv":
        if plot is not None:
            raise click.UsageError("--plot draws the curve of a search, and this is a table")
        head = _head(study_file)
        show_it = print_scaling
        for table, printed in ((engines.TABLE, print_engine_study), (whatif.TABLE, print_whatif_study)):
            show_it = printed if table.begins(head) else show_it
        show_it(study_file, make_console(), as_json=as_json)
        return
    if plot is not None:
        figures = search_figures(kvbench_analysis.load(study_file))
        print_search_study(figures, make_console(), as_json=as_json, plot=plot)
        return
    print_study(Written(study_file), make_console(), model=model, every=every, as_json=as_json)


def is_study(run_file: Path) -> bool:
    """Whether `run_file` is a study's. Raises KvbenchError where it is no run file."""
    return open_run(run_file).attributes.get("kind") in (KIND, SEARCH)


def print_study(
    study: Written, console: Console, *, model: str | None = None, every: bool = False, as_json: bool = False
) -> None:
    """Print the table and the sentences of a study file, or everything as JSON."""
    run = kvbench_analysis.load(study.path, source=study.source)
    if run.attributes.get("kind") == SEARCH:
        print_search_study(search_figures(run), console, as_json=as_json)
        return
    bytes_per_token = None if model is None else shipped_model(model).bytes_per_token
    figures = copy_path.copy_path_figures(run, np.random.default_rng(0), bytes_per_token=bytes_per_token)
    if as_json:
        click.echo(copy_path_print.to_json(figures))
    else:
        copy_path_print.print_copy_path(figures, console, every=every)


def print_search_study(
    figures: SearchFigures, console: Console, *, as_json: bool = False, plot: Path | None = None
) -> None:
    """Print the limit that a search found and its probes, or everything as JSON; draw its curve where `plot` is."""
    curve = None if plot is None else curve_of(figures)
    if plot is not None and curve is not None:
        curve.save(plot)
    if as_json:
        click.echo(search_print.search_to_json(figures))
    else:
        search_print.print_search(figures, console)


def tell_if_replaced(written: Written, console: Console) -> None:
    """Say it where another run has meanwhile put its file in the place of the one whose figures were printed."""
    if written.replaced:
        console.print(
            f"{written.path} has been replaced meanwhile, by another run or by hand: the figures above are those of "
            "this one, and no file holds them",
            style="yellow",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def print_scaling(table_file: Path, console: Console, *, as_json: bool) -> None:
    """Print the fitted law of a scaling study's table, or everything as JSON."""
    figures = scaling_study.scaling_figures(scaling_study.load_table(table_file), np.random.default_rng(0))
    if as_json:
        click.echo(scaling_study.to_json(figures))
    else:
        scaling_study.print_scaling(figures, console)


def print_engine_study(table_file: Path, console: Console, *, as_json: bool) -> None:
    """Print how the twins of a study of engines compare, or everything as JSON."""
    figures = engine_study.engine_figures(engine_study.load_table(table_file), np.random.default_rng(0))
    if as_json:
        click.echo(engine_study.to_json(figures))
    else:
        engine_study.print_engines(figures, console)


def print_whatif_study(table_file: Path, console: Console, *, as_json: bool) -> None:
    """Print what a what-if study predicts, or everything as JSON."""
    figures = whatif_study.whatif_figures(whatif_study.load_table(table_file), np.random.default_rng(0))
    if as_json:
        click.echo(whatif_study.to_json(figures))
    else:
        whatif_print.print_whatif(figures, console)


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read, which whoever reads it says."""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
