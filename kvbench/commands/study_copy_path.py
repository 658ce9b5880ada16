"""The command `study copy-path`: parse, find or start the ranks, call, print."""

import sys
from pathlib import Path

import click

from kvbench.cluster.comm import get_world, launcher_size
from kvbench.cluster.launch.start import host_list, start_ranks, without_options
from kvbench.commands.options import OUTPUT_FILE, RANKS_PATH, repeats_option, seed_option
from kvbench.commands.ranks import RanksCommand, refuse_to_start
from kvbench.console import run_console
from kvbench.studies.copy_path import StudyOrder, run_copy_path
from kvbench.studies.options import read_choices


@click.command(name="copy-path", cls=RanksCommand)
@click.option(
    "--dir", "directories", multiple=True, required=True, type=RANKS_PATH, help="Directory under test; repeatable."
)
@click.option("--ranks", default="1,2", show_default=True, help="Ranks of each node at once.")
@click.option("--threads", default="1,4,16", show_default=True, help="Threads of each rank.")
@click.option("--paths", default="all", show_default=True, help="Read paths.")
@click.option("--size", "sizes", default="1MiB,64MiB", show_default=True, help="Bytes of an object.")
@click.option("--seconds", default="2s", show_default=True, help="Of each turn: a rank alone, or all at once.")
@click.option(
    "--out",
    type=OUTPUT_FILE,
    default=Path("kvbench-out/copy-path.h5"),
    show_default=True,
    help="The study file.",
)
@repeats_option
@seed_option
@click.option("--model", default="llama3.1-8b", show_default=True, help="Whose tokens are counted.")
@click.option("--overwrite", is_flag=True, help="Replace the study file if it exists.")
@click.option("--hosts", help="Hosts to start ranks on, separated by commas (outside a launcher).")
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
) -> str:
    """Measure what a second copy of the data costs, one rank alone and all ranks at once, for every read path.

    Values separated by commas are combined with all others. It starts mpirun with the largest number of ranks, or runs
    inside a launcher that started at least as many on each node.
    """
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
    made = f"{out} is complete, and `kvbench study show {out}` prints its figures"
    inside = launcher_size() is not None
    if inside:
        refuse_to_start({"--hosts": hosts})
    largest = max(choices.ranks)
    names = [host.partition(":")[0] for host in host_list(hosts)]
    if not inside and (largest > 1 or names):
        placed = ",".join(f"{name}:{largest}" for name in names)
        arguments = without_options(sys.argv[1:], ("--hosts",))
        if code := start_ranks(largest * max(1, len(names)), arguments, placed):
            sys.exit(code)
        return made
    world = get_world()
    console = run_console(inside, world.rank)
    with run_copy_path(world, StudyOrder(choices, out, overwrite), console) as written:
        if world.rank == 0:
            # pandas, on the rank that prints alone
            from kvbench.commands.study_show import print_study, tell_if_replaced  # noqa: PLC0415

            print_study(written, console)
            tell_if_replaced(written, console)
    return made
