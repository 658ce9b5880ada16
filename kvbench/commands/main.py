"""The commands: parse, call, print. No logic.

What only some commands need is imported by them: each rank of a run imports this module, hundreds of them at once on a
node that has few processors.
"""

import json
import sys
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
from rich.console import Console
from rich.table import Table

from kvbench.cluster.comm import FailedElsewhere, detect_launcher, get_world, launcher_size
from kvbench.cluster.gather import Way, read_memory
from kvbench.cluster.launch.start import run_console, start_ranks, without_options
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.commands import analysis as analysis_cli
from kvbench.commands import clean as clean_cli
from kvbench.commands import mlperf as mlperf_cli
from kvbench.commands import recover as recovery_cli
from kvbench.commands import study as study_cli
from kvbench.commands.analysis import show_result
from kvbench.config.run_config import load_config, shipped_configs
from kvbench.errors import KvbenchError
from kvbench.run import runner
from kvbench.run.output.spill_files import SpillOrder
from kvbench.units import printable

_FAILED = 1
_PATH = click.Path(path_type=Path, readable=False)
"""Not looked at here: what a rank finds on its node, all ranks must hear of."""


class _Commands(click.Group):
    """Turns a KvbenchError of any command into one message on stderr and exit code 1.

    Of the ranks of a launcher only one says what went wrong, and gives the job its exit code. The others end with 0:
    at the first that does not, mpirun ends all ranks, perhaps before the message, and adds notices of its own.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KvbenchError as error:
            click.echo(f"kvbench: {printable(str(error))}", err=True)
            sys.exit(_FAILED)
        except FailedElsewhere:
            sys.exit(0)
        except click.UsageError:
            launcher = detect_launcher()
            if launcher is not None and launcher.rank != 0:
                sys.exit(0)
            raise


def main() -> NoReturn:
    """Entry point of the command `kvbench`."""
    commands(prog_name="kvbench")
    raise AssertionError("click ends the process")


@click.group(cls=_Commands)
@click.version_option(package_name="kvbench")
def commands() -> None:
    """Benchmark of the storage behind the KV cache of an LLM service."""


for _command in (
    analysis_cli.summary,
    analysis_cli.compare,
    analysis_cli.report,
    study_cli.study,
    recovery_cli.recover,
    clean_cli.clean,
    mlperf_cli.mlperf,
):
    commands.add_command(_command)

_config_argument = click.argument("config")
_set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the configuration; repeatable."
)

_skip_option = click.option(
    "--skip-bad-lines", is_flag=True, help="Count malformed lines of a trace instead of stopping at the first."
)


@commands.command()
@_config_argument
@click.option("--dir", "directory", type=_PATH, help="Directory under test; needed where there is a file tier.")
@click.option("--out", type=_PATH, help="The run file.  [default: kvbench-out/NAME.h5]")
@_set_option
@_skip_option
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
    type=_PATH,
    help="Directory, on another filesystem than DIR, where each rank keeps its records while it runs.  "
    "[default: the first of /var/tmp, TMPDIR, /dev/shm that is]",
)
@click.option("--no-spill", is_flag=True, help="Keep records in memory alone: what a killed rank measured is lost.")
@click.option("--ranks", type=click.IntRange(min=1), help="Start mpirun with so many ranks (outside a launcher).")
@click.option("--hosts", help="With --ranks: hosts to run on, separated by commas.")
@click.option("--hostfile", type=click.Path(path_type=Path), help="With --ranks: the hosts, in mpirun's format.")
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=2),
    default=PATIENCE_S,
    show_default=True,
    help="Seconds without a sign of life of a node or rank after which all ranks end.",
)
def run(
    config: str,
    directory: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    skip_bad_lines: bool,
    overwrite: bool,
    gather: Way,
    gather_memory: str,
    expect: Literal["shared", "local"] | None,
    spill: Path | None,
    no_spill: bool,
    ranks: int | None,
    hosts: str | None,
    hostfile: Path | None,
    patience_s: float,
) -> None:
    """Run the benchmark that CONFIG (a YAML file or the name of a shipped one) describes.

    Start it under mpirun, mpiexec or srun, or let --ranks start mpirun. Without either it is one rank.
    """
    gather_memory_bytes = read_memory(gather_memory)
    if expect and directory is None:
        raise click.UsageError("--expect goes with --dir")
    inside = launcher_size() is not None
    if ranks is not None and not inside:
        arguments = without_options(sys.argv[1:], ("--ranks", "--hosts", "--hostfile"))
        sys.exit(start_ranks(ranks, arguments, hosts, hostfile, patience_s=patience_s))
    if (hosts or hostfile) and not inside:
        raise click.UsageError("--hosts and --hostfile go with --ranks")
    world = get_world()
    if skip_bad_lines:
        overrides = (*overrides, "workload.skip_bad_lines=true")
    order = runner.Order(
        config,
        overrides,
        directory,
        out or Path("kvbench-out") / f"{Path(config).stem}.h5",
        overwrite,
        gather,
        gather_memory_bytes,
        expect=expect or "",
        patience_s=patience_s,
        spill=SpillOrder(not no_spill, spill),
    )
    console = run_console(inside)
    path = runner.run(world, order, console)
    if world.rank == 0:
        show_result(path, console)


@commands.command(name="datasize")
@_config_argument
@_set_option
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Ranks in all.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes they run on.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Directory under test, for capacities left `auto`."
)
@click.option(
    "--gib-per-s",
    type=click.FloatRange(min=0, min_open=True),
    help="What a rank moves at most; with it the bound is closer.",
)
@click.option("--spill", type=_PATH, help="Directory for spill files, as for a run.")
@click.option("--no-spill", is_flag=True, help="Records stay in memory, as for a run.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def datasize_command(
    config: str,
    overrides: tuple[str, ...],
    ranks: int,
    nodes: int,
    directory: Path | None,
    gib_per_s: float | None,
    spill: Path | None,
    no_spill: bool,
    as_json: bool,
) -> None:
    """Say how many bytes of storage and memory CONFIG needs per rank, per node and in all, without running it."""
    from kvbench.run.checks import datasize  # noqa: PLC0415 - see above

    order = SpillOrder(not no_spill, spill)
    size = datasize.estimate(load_config(config, overrides), ranks, nodes, directory, gib_per_s, order)
    if as_json:
        click.echo(json.dumps(size.as_dict(), indent=2))
    else:
        datasize.print_size(size, Console())


@commands.command(name="doctor")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Directory under test.")
def doctor_command(directory: Path | None) -> None:
    """Check this node, and DIRECTORY if given; exit 1 if a run would fail."""
    from kvbench.run.checks import doctor  # noqa: PLC0415 - see above

    findings = doctor.examine(directory)
    table = Table("", "what", "finding", box=None)
    for finding in findings:
        style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[finding.state]
        table.add_row(f"[{style}]{finding.state}[/]", finding.subject, finding.text)
    Console().print(table)
    if doctor.failed(findings):
        sys.exit(_FAILED)


@commands.group()
def trace() -> None:
    """Look at traces."""


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
@_skip_option
def info(file: Path, skip_bad_lines: bool) -> None:
    """Print requests, span, token and reuse statistics of a trace FILE."""
    from kvbench.workload.trace_info import trace_info  # noqa: PLC0415 - see above
    from kvbench.workload.traces import read_trace  # noqa: PLC0415 - see above

    table = Table(show_header=False, box=None)
    for label, value in trace_info(read_trace(file, skip_bad_lines=skip_bad_lines)).as_rows():
        table.add_row(label, value)
    Console().print(table)


@commands.command()
def configs() -> None:
    """List the configurations that come with kvbench."""
    for name in shipped_configs():
        click.echo(name)
