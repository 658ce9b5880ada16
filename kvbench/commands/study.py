"""The commands of studies: parse, call, print. No logic.

The studies are imported by the commands themselves: the ranks of a run need none of them.
"""

import sys
from pathlib import Path

import click
from rich.console import Console

from kvbench.cluster.comm import get_world, launcher_size
from kvbench.cluster.launch.start import host_list, start_ranks, without_options
from kvbench.console import make_console, run_console
from kvbench.studies.options import MINIMUM_REPEATS, MOST_RANKS, read_choices, read_counts, read_duration

_path = click.Path(path_type=Path)
_dir_help = "Directory under test; repeatable."
_hosts_option = click.option("--hosts", help="Hosts to start ranks on, separated by commas (outside a launcher).")
_repeats_option = click.option(
    "--repeats",
    type=click.IntRange(min=MINIMUM_REPEATS),
    default=MINIMUM_REPEATS,
    show_default=True,
    help="Of everything; a confidence interval is over repeats.",
)
_seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True)


@click.group()
def study() -> None:
    """Experiments: what a host copy costs, how a workload scales."""


@study.command(name="copy-path")
@click.option("--dir", "directories", multiple=True, required=True, type=_path, help=_dir_help)
@click.option("--ranks", default="1,2", show_default=True, help="Ranks of each node at once.")
@click.option("--threads", default="1,4,16", show_default=True, help="Threads of each rank.")
@click.option("--paths", default="all", show_default=True, help="Read paths.")
@click.option("--size", "sizes", default="1MiB,64MiB", show_default=True, help="Bytes of an object.")
@click.option("--seconds", default="2s", show_default=True, help="Of each turn: a rank alone, or all at once.")
@click.option("--out", type=_path, default=Path("kvbench-out/copy-path.h5"), show_default=True, help="The study file.")
@_repeats_option
@_seed_option
@click.option("--model", default="llama3.1-8b", show_default=True, help="Whose tokens are counted.")
@click.option("--overwrite", is_flag=True, help="Replace the study file if it exists.")
@_hosts_option
def copy_path(
    directories: tuple[Path, ...],
    ranks: str,
    threads: str,
    paths: str,
    sizes: str,
    seconds: str,
    out: Path,
    repeats: int,
    seed: int,
    model: str,
    overwrite: bool,
    hosts: str | None,
) -> None:
    """Measure what a second copy of the data costs, one rank alone and all ranks at once, for every read path.

    Values separated by commas are combined with all others. It starts mpirun with the largest number of ranks, or runs
    inside a launcher that started at least as many on each node.
    """
    from kvbench.studies.copy_path import StudyOrder, run_copy_path  # noqa: PLC0415 - see above

    choices = read_choices(
        directories=directories,
        ranks=ranks,
        threads=threads,
        paths=paths,
        sizes=sizes,
        seconds=seconds,
        repeats=repeats,
        seed=seed,
        model=model,
    )
    inside = launcher_size() is not None
    if hosts and inside:
        raise click.UsageError("--hosts is for starting ranks, and they are started already")
    largest = max(choices.ranks)
    names = [host.partition(":")[0] for host in host_list(hosts)]
    if not inside and (largest > 1 or names):
        placed = ",".join(f"{name}:{largest}" for name in names)
        sys.exit(start_ranks(largest * max(1, len(names)), without_options(sys.argv[1:], ("--hosts",)), placed))
    world = get_world()
    console = run_console(inside)
    path = run_copy_path(world, StudyOrder(choices, out, overwrite), console)
    if world.rank == 0:
        print_study(path, console)


@study.command()
@click.argument("config")
@click.option("--dir", "directory", required=True, type=_path, help="Directory under test.")
@click.option("--ranks", default="1,2,4", show_default=True, help="Ranks of each node.")
@click.option(
    "--weak/--strong", "weak", default=None, help="Keep the users of a rank, or of all ranks.  [default: both]"
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration.")
@click.option("--seconds", help="Of each run.  [default: duration_s of the configuration]")
@click.option(
    "--out", type=_path, default=Path("kvbench-out/scaling.csv"), show_default=True, help="The table; runs beside it."
)
@_repeats_option
@_seed_option
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
) -> None:
    """Run the workload of CONFIG on more and more ranks and nodes, and fit the Universal Scalability Law.

    Each run is an MPI job of its own; run files are kept in a directory beside the table.
    """
    from kvbench.studies.scaling import BOTH, ScalingChoices, node_counts, run_scaling  # noqa: PLC0415 - see above

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
    from kvbench.studies.scaling_table import ScalingTable  # noqa: PLC0415 - pandas, which no rank needs

    console = make_console()
    run_scaling(choices, ScalingTable(out).add, console)
    _print_scaling(out, console, as_json=False)


@study.command()
@click.argument("study_file", type=_path)
@click.option("--model", help="Whose tokens are counted.  [default: the study's]")
@click.option("--all", "every", is_flag=True, help="Print the table of every combination.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def show(study_file: Path, model: str | None, every: bool, as_json: bool) -> None:
    """Print what STUDY_FILE says.

    Of a copy-path study (.h5) that is the cost of the second copy and each read path beside it, of a scaling study
    (.csv) the fitted law.
    """
    if study_file.suffix == ".csv":
        _print_scaling(study_file, make_console(), as_json=as_json)
        return
    print_study(study_file, make_console(), model=model, every=every, as_json=as_json)


def is_study(run_file: Path) -> bool:
    """Whether `run_file` is a study's. Raises KvbenchError where it is no run file."""
    from kvbench.records.reader import open_run  # noqa: PLC0415 - see above
    from kvbench.studies.study_file import KIND  # noqa: PLC0415 - see above

    return open_run(run_file).attributes.get("kind") == KIND


def print_study(
    study_file: Path, console: Console, *, model: str | None = None, every: bool = False, as_json: bool = False
) -> None:
    """Print the table and the sentences of a study file, or everything as JSON."""
    # pandas and scipy, which no rank but the one that prints needs.
    import kvbench_analysis  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from kvbench_analysis.copy_path import copy_path  # noqa: PLC0415
    from kvbench_analysis.copy_path import print as copy_path_print  # noqa: PLC0415

    from kvbench.config.models import shipped_model  # noqa: PLC0415

    run = kvbench_analysis.load(study_file)
    bytes_per_token = None if model is None else shipped_model(model).bytes_per_token
    figures = copy_path.copy_path_figures(run, np.random.default_rng(0), bytes_per_token=bytes_per_token)
    if as_json:
        click.echo(copy_path_print.to_json(figures))
    else:
        copy_path_print.print_copy_path(figures, console, every=every)


def _print_scaling(table_file: Path, console: Console, *, as_json: bool) -> None:
    import numpy as np  # noqa: PLC0415 - as above
    from kvbench_analysis.scaling import study as scaling_study  # noqa: PLC0415

    figures = scaling_study.scaling_figures(scaling_study.load_table(table_file), np.random.default_rng(0))
    if as_json:
        click.echo(scaling_study.to_json(figures))
    else:
        scaling_study.print_scaling(figures, console)
