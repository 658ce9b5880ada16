"""The command `search`: parse, find or start the ranks, call, print."""

import sys
from pathlib import Path
from typing import Final, Literal

import click

from kvbench.cluster.comm import get_world, launcher_size
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.commands.options import (
    OUTPUT_FILE,
    PATH,
    PICTURE_FILE,
    RANKS_PATH,
    RANKS_PLACE,
    Finite,
    config_argument,
    either,
    engine_option,
    json_option,
    set_option,
    skip_option,
)
from kvbench.commands.paths import absolute_place
from kvbench.commands.ranks import RanksCommand, refuse_to_start
from kvbench.console import run_console, silent_console
from kvbench.records.outputs import check_output, picture_kind
from kvbench.run.output.spill_files import SpillOrder
from kvbench.studies.options import read_duration
from kvbench.studies.search import SearchOrder, run_search
from kvbench.studies.search_asked import Wanted

NEVER_MET: Final = 3
NEVER_EXCEEDED: Final = 4
"""Exit codes where the limit lies outside the bounds: below, or above."""
_LOAD: Final = Finite(min=0, min_open=True, max=1e9)


@click.command(cls=RanksCommand)
@config_argument
@click.option("--vary", "key", required=True, metavar="KEY", help="The load: arrivals.rate, workload.users, ...")
@click.option(
    "--slo",
    "objectives",
    multiple=True,
    metavar="OBJECTIVE",
    help="'ttft_p95<2s', 'load_p99<500ms', 'interactive.latency_mean<1s'; repeatable.  [default: those of CONFIG]",
)
@click.option(
    "--objective",
    "aim",
    type=click.Choice(["max-throughput"]),
    help="In the place of --slo: the load with the most requests served a second.",
)
@click.option("--dir", "directory", type=RANKS_PLACE, help="Directory under test, or s3://BUCKET/PREFIX.")
@click.option("--from", "low", type=_LOAD, metavar="LOW", help="Lowest load.  [default: a 64th of that of CONFIG]")
@click.option("--to", "high", type=_LOAD, metavar="HIGH", help="Highest load.  [default: 64 times that of CONFIG]")
@click.option("--seconds", help="Of each probe.  [default: duration_s of CONFIG]")
@click.option("--warmup", help="Before each.  [default: warmup_s of CONFIG, or a quarter of a probe]")
@click.option(
    "--precision",
    type=Finite(min=0.5, max=50),
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    help="The search ends once the limit is known so well (half of the 95 % interval).",
)
@click.option("--probes", "most", type=click.IntRange(4, 1000), default=40, show_default=True, help="At most.")
@click.option("--out", type=OUTPUT_FILE, default=Path("kvbench-out/search.h5"), show_default=True, help="Study file.")
@set_option
@engine_option
@skip_option
@click.option("--resume", is_flag=True, help="Go on with the study file, where it holds the same search.")
@click.option("--overwrite", is_flag=True, help="Replace the study file if it exists.")
@click.option("--keep-runs", "keep", is_flag=True, help="Keep the run file of each probe, in a folder beside.")
@click.option("--plot", type=PICTURE_FILE, help="The capacity curve (PNG, SVG or PDF by its name).")
@json_option
@click.option("--spill", type=RANKS_PATH, help="Where each rank keeps its records while a probe runs.")
@click.option("--no-spill", is_flag=True, help="Keep records in memory alone.")
@click.option("--ranks", type=click.IntRange(min=1), help="Start mpirun with so many ranks (outside a launcher).")
@click.option("--hosts", help="With --ranks: hosts to run on, separated by commas.")
@click.option("--hostfile", type=PATH, help="With --ranks: the hosts, in mpirun's format.")
def search(
    config: str,
    key: str,
    objectives: tuple[str, ...],
    aim: Literal["max-throughput"] | None,
    directory: str | None,
    low: float | None,
    high: float | None,
    seconds: str | None,
    warmup: str | None,
    precision: float,
    most: int,
    out: Path,
    overrides: tuple[str, ...],
    engine: str,
    skip_bad_lines: bool,
    resume: bool,
    overwrite: bool,
    keep: bool,
    plot: Path | None,
    as_json: bool,
    spill: Path | None,
    no_spill: bool,
    ranks: int | None,
    hosts: str | None,
    hostfile: Path | None,
) -> str | None:
    """Find the highest load of CONFIG that meets its objectives, with an interval: run after run at other loads.

    Exit code 3: not even the lowest load meets them. 4: the highest load does.
    """
    either("--slo", objectives, "--objective", aim)
    either("--resume", resume, "--overwrite", overwrite)
    either("--spill", spill, "--no-spill", no_spill)
    either("--hosts", hosts, "--hostfile", hostfile)
    inside = launcher_size() is not None
    if inside:
        refuse_to_start({"--ranks": ranks, "--hosts": hosts, "--hostfile": hostfile})
    if plot is not None:
        check_output(plot, picture_kind(plot) if plot.suffix else None)
    made = f"{out} is complete, and `kvbench study show {out}` prints its figures"
    if ranks is not None:
        from kvbench.cluster.launch.start import start_ranks, without_options  # noqa: PLC0415 - no rank starts others

        arguments = without_options(sys.argv[1:], ("--ranks", "--hosts", "--hostfile"))
        if code := start_ranks(ranks, arguments, hosts, hostfile):
            sys.exit(code)
        return made
    if hosts or hostfile:
        raise click.UsageError("--hosts and --hostfile go with --ranks")
    if skip_bad_lines:
        overrides = (*overrides, "workload.skip_bad_lines=true")
    wanted = Wanted(
        source=config,
        key=key,
        objectives=objectives,
        aim=aim or "objectives",
        place=None if directory is None else absolute_place(directory),
        engine=engine,
        overrides=overrides,
        low=low,
        high=high,
        seconds=None if seconds is None else read_duration("--seconds", seconds),
        warmup_s=None if warmup is None else read_duration("--warmup", warmup),
        precision=precision / 100,
        most=most,
    )
    order = SearchOrder(
        wanted, out, overwrite, resume, keep, SpillOrder(not no_spill, spill and spill.absolute()), PATIENCE_S
    )
    world = get_world()
    console = run_console(inside, world.rank)
    figures = run_search(world, order, silent_console() if as_json else console)
    if figures is None:
        return None
    from kvbench.commands.study_show import print_search_study  # noqa: PLC0415 - on the rank that prints alone

    print_search_study(figures, console, as_json=as_json, plot=plot)
    if figures.outcome == "never-met":
        sys.exit(NEVER_MET)
    if figures.outcome == "never-exceeded":
        sys.exit(NEVER_EXCEEDED)
    return made
