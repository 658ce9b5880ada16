"""The commands that read run files: summary, compare, report. Parse, call, print."""

from pathlib import Path
from typing import Final

import click
import kvbench_analysis as ka
from kvbench_analysis.compare import print as compare_print
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.report import Given, write_report
from kvbench_analysis.search.curve import curve_of
from kvbench_analysis.search.print import sentence
from kvbench_analysis.search.study import search_figures
from rich.console import Console

from kvbench.commands.drives import drive_options
from kvbench.commands.options import OUTPUT_FILE, PATH, PATH_AS_TEXT, json_option, prices_option, slo_option
from kvbench.commands.study_show import is_study, print_study, tell_if_replaced
from kvbench.config.prices import read_prices
from kvbench.console import make_console
from kvbench.errors import KvbenchError
from kvbench.records.endurance import RatedDrives
from kvbench.records.outputs import Written
from kvbench.records.prices import Prices, prices_of
from kvbench.records.search import KIND as SEARCH
from kvbench.records.search import Asked, asked_of
from kvbench.units import format_bytes

MOST_SUMMARIZED: Final = 4_000_000
"""Records up to which a run prints figures itself."""
_SUMMARY_BYTES: Final = 64
"""Memory that a summary takes for each record (measured, 62 B)."""
_VERSUS = "--vs"


@click.command()
@click.argument("run_file", type=PATH)
@json_option
@slo_option
@prices_option
@drive_options
def summary(run_file: Path, as_json: bool, slo: tuple[str, ...], prices: str | None, rated: RatedDrives | None) -> None:
    """Print the figures of RUN_FILE: bandwidth, latency and its parts, per tier, rank and node, or a study's table."""
    if is_study(run_file):
        if slo or prices:
            raise click.UsageError("--slo and --prices are of runs, and this file is of a study")
        print_study(Written(run_file), make_console(), as_json=as_json)
        return
    found = ka.summarize(ka.load(run_file), slo=slo, prices=_prices(prices), rated=rated)
    if as_json:
        click.echo(ka.to_json(found))
    else:
        ka.print_summary(found, make_console())


def _prices(source: str | None) -> Prices | None:
    return None if source is None else prices_of(read_prices(source))


def show_result(written: Written, console: Console) -> None:
    """Print the point of a run that has just ended, on one screen; or how to get it, where there are so many records
    that figures take more memory than a rank has been given. It is that of the file which this run has written,
    whatever is called so by now."""
    run = ka.load(written.path, source=written.source)
    records = run.file.tables["records"].rows
    if records <= MOST_SUMMARIZED:
        ka.print_brief(ka.summarize(run), console)
        tell_if_replaced(written, console)
        return
    memory = format_bytes(records * _SUMMARY_BYTES)
    console.print(
        f"{written.path}: {records} records; `kvbench summary {written.path}` prints the figures; it takes about "
        f"{memory}",
        soft_wrap=True,
        highlight=False,
    )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("run_files", nargs=-1, required=True, metavar="A.h5 ... --vs B.h5 ...", type=click.UNPROCESSED)
@click.option("--force", is_flag=True, help="Compare runs that did different work, and say what differs.")
@json_option
def compare(run_files: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Compare the same workload on two or more targets: A.h5 ... --vs B.h5 ... [--vs C.h5 ...].

    The files before the first --vs are repeated runs on the baseline, those after each --vs on another target.
    """
    groups: list[list[str]] = [[]]
    for word in run_files:
        if word == _VERSUS:
            groups.append([])
        elif word.startswith("-"):
            raise click.UsageError(f"No such option: {word}")
        else:
            groups[-1].append(PATH_AS_TEXT.convert(word, None, None))
    if len(groups) < 2 or not all(groups):
        raise click.UsageError("give the run files of two targets or more: A.h5 ... --vs B.h5 ...")
    comparison = ka.compare(_labelled(groups), force=force)
    if as_json:
        click.echo(compare_print.comparison_to_json(comparison))
    else:
        compare_print.print_comparison(comparison, make_console())


def _labelled(groups: list[list[str]]) -> dict[str, list[str]]:
    """Each target under the name of its first file; the whole path where two are called the same."""
    stems = [Path(group[0]).stem for group in groups]
    labels = stems if len(set(stems)) == len(stems) else [group[0] for group in groups]
    twice = [label for place, label in enumerate(labels) if label in labels[:place]]
    if twice:
        raise KvbenchError(f"{twice[0]} is given twice: every run counts once, give different ones")
    return dict(zip(labels, groups, strict=True))


def _searched(path: Path) -> tuple[str, Asked | None, Figure | None]:
    """What a search found, in a sentence, what it was asked for, and its curve."""
    study = ka.load(path)
    if study.attributes.get("kind") != SEARCH:
        raise KvbenchError(f"{path} is no study file of `kvbench search`: give --search one, or leave it out")
    found = search_figures(study)
    return sentence(found), asked_of(study.attributes), curve_of(found)


@click.command()
@click.argument("run_files", nargs=-1, required=True, type=PATH)
@click.option("-o", "--out", required=True, type=OUTPUT_FILE, help="The page, such as report.html.")
@click.option("--png", type=PATH, help="Also write the plots as PNG files into this directory.")
@slo_option
@prices_option
@drive_options
@click.option("--search", type=PATH, help="A study file of `kvbench search`: the page says the highest load too.")
def report(
    run_files: tuple[Path, ...],
    out: Path,
    png: Path | None,
    slo: tuple[str, ...],
    prices: str | None,
    rated: RatedDrives | None,
    search: Path | None,
) -> str:
    """Write one self-contained HTML page about RUN_FILES: the answer, distributions, contention, timeline, warnings."""
    found = ("", None, None) if search is None else _searched(search)
    given = Given(slo, _prices(prices), rated, *found)
    written = write_report([ka.load(path) for path in run_files], out, png=png, given=given)
    # A page that goes to a pipe may go to this one.
    click.echo(written, err=not written.is_file())
    return f"{written} is complete"
