"""The command `run`: parse, find or start the ranks, call, print the summary."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from kvbench.cluster.comm import get_world, launcher_size
from kvbench.cluster.gather import Way, read_memory
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.commands.options import (
    OUTPUT_FILE,
    PATH,
    RANKS_PATH,
    RANKS_PLACE,
    Finite,
    config_argument,
    either,
    engine_option,
    set_option,
    skip_option,
)
from kvbench.commands.paths import absolute_place
from kvbench.commands.ranks import RanksCommand, refuse_to_start
from kvbench.console import run_console
from kvbench.run import runner
from kvbench.run.metrics import read_address
from kvbench.run.order import Order
from kvbench.run.output.spill_files import SpillOrder
from kvbench.run.steady_state import MOST_ROUNDS, ROUND_S, PreconditionOrder, read_precondition


class _Listening(click.types.StringParamType):
    """Where to listen: an address, which may be left out, and a port."""

    name = "[ADDRESS]:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return read_address(str(value))
        except ValueError as error:
            return self.fail(str(error), param, ctx)


class _Precondition(click.types.StringParamType):
    """Writes before a run."""

    name = "steady|Nx"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return PreconditionOrder(read_precondition(str(value)))
        except ValueError as error:
            return self.fail(str(error), param, ctx)


@click.command(cls=RanksCommand)
@config_argument
@click.option(
    "--dir",
    "directory",
    type=RANKS_PLACE,
    help="Directory under test, or s3://BUCKET/PREFIX (az://, gs://); needed where there is a file or an object "
    "tier.  With {local_rank}, {rank} or {node} in its name, one for each.",
)
@click.option("--out", type=OUTPUT_FILE, help="The run file.  [default: kvbench-out/NAME.h5]")
@set_option
@engine_option
@skip_option
@click.option("--overwrite", is_flag=True, help="Replace the run file if it exists.")
@click.option(
    "--gather",
    type=click.Choice(["auto", "ranks", "nodes"]),
    default="auto",
    show_default=True,
    help="Rows come to rank 0 from every rank, or by way of one rank a node.",
)
@click.option("--gather-memory", default="32MiB", show_default=True, help="For rows on their way, in each process.")
@click.option(
    "--expect",
    type=click.Choice(["shared", "local"]),
    help="End before anything is measured unless all nodes share the directory, or each has its own.",
)
@click.option(
    "--spill",
    type=RANKS_PATH,
    help="Directory, on another filesystem than DIR, where each rank keeps its records while it runs.  "
    "[default: the first of /var/tmp, TMPDIR, /dev/shm that is]",
)
@click.option(
    "--consent-device",
    "consent_devices",
    multiple=True,
    metavar="DEVICE",
    help="This block device, which --dir names, may be overwritten.",
)
@click.option("--no-spill", is_flag=True, help="Keep records in memory alone: what a killed rank measured is lost.")
@click.option("--ranks", type=click.IntRange(min=1), help="Start mpirun with so many ranks (outside a launcher).")
@click.option("--hosts", help="With --ranks: hosts to run on, separated by commas.")
@click.option("--hostfile", type=PATH, help="With --ranks: the hosts, in mpirun's format.")
@click.option(
    "--patience",
    "patience_s",
    type=Finite(min=2, max=86400),
    default=PATIENCE_S,
    show_default=True,
    help="Seconds without a sign of life of a node or rank after which all ranks end.",
)
@click.option(
    "--metrics",
    type=_Listening(),
    help="Rank 0 tells live figures to Prometheus there; to its own node alone unless an address is given.",
)
@click.option(
    "--precondition",
    type=_Precondition(),
    help="Before the run, write to the storage until its bandwidth is steady (by SNIA's criterion), or so many times "
    "its capacity (2x); what is written is deleted again.",
)
@click.option(
    "--precondition-round",
    "round_s",
    type=Finite(min=0.1, max=86400),
    metavar="SECONDS",
    help=f"With --precondition: of a round.  [default: {ROUND_S:g}]",
)
@click.option(
    "--precondition-rounds",
    "most_rounds",
    type=click.IntRange(min=1, max=100_000),
    metavar="N",
    help=f"With --precondition: go on with the run after so many rounds.  [default: {MOST_ROUNDS}; no limit with Nx]",
)
def run(
    config: str,
    directory: str | None,
    out: Path | None,
    overrides: tuple[str, ...],
    engine: str,
    skip_bad_lines: bool,
    overwrite: bool,
    gather: Way,
    gather_memory: str,
    expect: Literal["shared", "local"] | None,
    spill: Path | None,
    consent_devices: tuple[str, ...],
    no_spill: bool,
    ranks: int | None,
    hosts: str | None,
    hostfile: Path | None,
    patience_s: float,
    metrics: tuple[str, int] | None,
    precondition: PreconditionOrder | None,
    round_s: float | None,
    most_rounds: int | None,
) -> str:
    """Run the benchmark that CONFIG (a YAML file or the name of a shipped one) describes.

    Start it under mpirun, mpiexec or srun, or let --ranks start mpirun. Without either it is one rank.
    """
    gather_memory_bytes = read_memory(gather_memory)
    if expect and directory is None:
        raise click.UsageError("--expect goes with --dir")
    if precondition is None and (round_s or most_rounds):
        raise click.UsageError("--precondition-round and --precondition-rounds go with --precondition")
    if precondition is not None:
        precondition = replace(precondition, round_s=round_s or ROUND_S, most_rounds=most_rounds)
    either("--spill", spill, "--no-spill", no_spill)
    either("--hosts", hosts, "--hostfile", hostfile)
    out = out or Path("kvbench-out") / f"{Path(config).stem}.h5"
    made = f"{out} is complete, and `kvbench summary {out}` prints its figures"
    inside = launcher_size() is not None
    if inside:
        refuse_to_start({"--ranks": ranks, "--hosts": hosts, "--hostfile": hostfile})
    if ranks is not None:
        from kvbench.cluster.launch.start import start_ranks, without_options  # noqa: PLC0415 - no rank starts others

        arguments = without_options(sys.argv[1:], ("--ranks", "--hosts", "--hostfile"))
        if code := start_ranks(ranks, arguments, hosts, hostfile, patience_s=patience_s):
            sys.exit(code)
        return made
    if hosts or hostfile:
        raise click.UsageError("--hosts and --hostfile go with --ranks")
    world = get_world()
    if skip_bad_lines:
        overrides = (*overrides, "workload.skip_bad_lines=true")
    order = Order(
        source=config,
        directory=None if directory is None else absolute_place(directory),
        out=out,
        overrides=overrides,
        engine=engine,
        overwrite=overwrite,
        gather=gather,
        gather_memory_bytes=gather_memory_bytes,
        expect=expect or "",
        patience_s=patience_s,
        spill=SpillOrder(not no_spill, spill and spill.absolute()),
        consent_devices=consent_devices,
        metrics=metrics,
        precondition=precondition,
    )
    console = run_console(inside, world.rank)
    with runner.run(world, order, console) as written:
        if world.rank == 0:
            from kvbench.commands.analysis import show_result  # noqa: PLC0415 - pandas, on the rank that prints alone

            show_result(written, console)
    return made
