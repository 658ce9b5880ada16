"""The command `study scaling`: parse, call, print. Its runs are jobs of their own, that import nothing of this."""

from pathlib import Path

import click

from kvbench.cluster.launch.start import host_list
from kvbench.commands.options import (
    PATH,
    config_argument,
    repeats_option,
    replace_table_option,
    seed_option,
    table_option,
)
from kvbench.commands.study_show import print_scaling
from kvbench.console import make_console
from kvbench.studies.options import MOST_RANKS, read_counts, read_duration
from kvbench.studies.scaling import BOTH, ScalingChoices, node_counts, run_scaling
from kvbench.studies.scaling_table import ScalingTable


@click.command()
@config_argument
@click.option("--dir", "directory", required=True, type=PATH, help="Directory under test.")
@click.option("--ranks", default="1,2,4", show_default=True, help="Ranks of each node.")
@click.option("--weak", is_flag=True, help="Keep the users of a rank.  [default: weak and strong]")
@click.option("--strong", is_flag=True, help="Keep the users of all ranks.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration.")
@click.option("--seconds", help="Of each run.  [default: duration_s of the configuration]")
@table_option("scaling")
@repeats_option
@seed_option
@replace_table_option
@click.option("--hosts", help="Hosts, separated by commas: the study goes from one of them to all.")
def scaling(
    config: str,
    directory: Path,
    ranks: str,
    weak: bool,
    strong: bool,
    overrides: tuple[str, ...],
    seconds: str | None,
    out: Path,
    repeats: int,
    seed: int,
    overwrite: bool,
    hosts: str | None,
) -> str:
    """Run the workload of CONFIG on more and more ranks and nodes, and fit the Universal Scalability Law.

    Each run is an MPI job of its own; run files are kept in a directory beside the table.
    """
    if seconds is not None and any(override.startswith("duration_s=") for override in overrides):
        raise click.UsageError("--seconds and --set duration_s contradict each other: give one of them")
    names = tuple(host.partition(":")[0] for host in host_list(hosts))
    choices = ScalingChoices(
        source=config,
        overrides=overrides,
        directory=directory,
        ranks=read_counts("--ranks", ranks, MOST_RANKS),
        hosts=names,
        nodes=node_counts(len(names)),
        scalings=BOTH if weak == strong else ("weak",) if weak else ("strong",),
        repeats=repeats,
        seconds=None if seconds is None else read_duration("--seconds", seconds),
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    console = make_console()
    run_scaling(choices, ScalingTable(out).add, console)
    print_scaling(out, console, as_json=False)
    return f"{out} is complete, and `kvbench study show {out}` prints its figures"
