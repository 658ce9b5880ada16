"""The command `study scaling`: parse, call, print. Its runs are jobs of their own, that import nothing of this."""

from pathlib import Path

import click

from kvbench.cluster.launch.start import host_list
from kvbench.commands.options import OUTPUT_FILE, PATH, config_argument, repeats_option, seed_option
from kvbench.commands.study_show import print_scaling
from kvbench.console import make_console
from kvbench.studies.options import MOST_RANKS, read_counts, read_duration
from kvbench.studies.scaling import BOTH, ScalingChoices, node_counts, run_scaling
from kvbench.studies.scaling_table import ScalingTable


@click.command()
@config_argument
@click.option("--dir", "directory", required=True, type=PATH, help="Directory under test.")
@click.option("--ranks", default="1,2,4", show_default=True, help="Ranks of each node.")
@click.option(
    "--weak/--strong", "weak", default=None, help="Keep the users of a rank, or of all ranks.  [default: both]"
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration.")
@click.option("--seconds", help="Of each run.  [default: duration_s of the configuration]")
@click.option(
    "--out",
    type=OUTPUT_FILE,
    default=Path("kvbench-out/scaling.csv"),
    show_default=True,
    help="The table; runs beside it.",
)
@repeats_option
@seed_option
@click.option("--overwrite", is_flag=True, help="Replace the table if it exists.")
@click.option("--hosts", help="Hosts, separated by commas: the study goes from one of them to all.")
def scaling(
    config: str,
    directory: Path,
    ranks: str,
    weak: bool | None,
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
    names = tuple(host.partition(":")[0] for host in host_list(hosts))
    choices = ScalingChoices(
        source=config,
        overrides=overrides,
        directory=directory,
        ranks=read_counts("--ranks", ranks, MOST_RANKS),
        hosts=names,
        nodes=node_counts(len(names)),
        scalings=BOTH if weak is None else ("weak",) if weak else ("strong",),
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
