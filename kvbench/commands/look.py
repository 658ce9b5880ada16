"""The commands that look and measure nothing: datasize, doctor, trace info, configs."""

import json
import sys
from pathlib import Path

import click
from rich.text import Text

from kvbench.commands.options import (
    ANY_PATH,
    PATH,
    PLACE,
    Finite,
    config_argument,
    either,
    json_option,
    set_option,
    skip_option,
)
from kvbench.config.load import load_config
from kvbench.config.source import shipped_configs
from kvbench.console import make_console, make_table
from kvbench.run.checks.datasize import estimate, print_size
from kvbench.run.checks.doctor import examine, failed
from kvbench.run.output.spill_files import SpillOrder
from kvbench.workload.trace_info import trace_info
from kvbench.workload.traces import read_trace


@click.command()
@config_argument
@set_option
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Ranks in all.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes they run on.")
@click.option("--dir", "directory", type=PLACE, help="Directory under test, for capacities left `auto`.")
@click.option(
    "--gib-per-s",
    type=Finite(min=0, min_open=True),
    help="What a rank moves at most; with it the bound is closer.",
)
@click.option("--spill", type=ANY_PATH, help="Directory for spill files, as for a run.")
@click.option("--no-spill", is_flag=True, help="Records stay in memory, as for a run.")
@json_option
def datasize(
    config: str,
    overrides: tuple[str, ...],
    ranks: int,
    nodes: int,
    directory: str | None,
    gib_per_s: float | None,
    spill: Path | None,
    no_spill: bool,
    as_json: bool,
) -> None:
    """Say how many bytes of storage and memory CONFIG needs per rank, per node and in all, without running it."""
    either("--spill", spill, "--no-spill", no_spill)
    order = SpillOrder(not no_spill, spill)
    size = estimate(load_config(config, overrides), ranks, nodes, directory, gib_per_s, order)
    if as_json:
        click.echo(json.dumps(size.as_dict(), indent=2))
    else:
        print_size(size, make_console())


@click.command()
@click.option("--dir", "directory", type=PLACE, help="Directory under test, or s3://BUCKET/PREFIX (az://, gs://).")
def doctor(directory: str | None) -> None:
    """Check this node, and DIRECTORY if given; exit 1 if a run would fail."""
    findings = examine(directory)
    table = make_table(("", "what", "finding"), left=3)
    for finding in findings:
        style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[finding.state]
        table.add_row(Text(finding.state, style), finding.subject, finding.text)
    make_console().print(table)
    if failed(findings):
        sys.exit(1)


@click.command()
@click.argument("path", type=PATH)
@skip_option
def info(path: Path, skip_bad_lines: bool) -> None:
    """Print requests, span, sessions, token and reuse statistics of the trace at PATH.

    PATH is a file, a folder of files or a pattern.
    """
    table = make_table(("", ""), left=2)
    for label, value in trace_info(read_trace(path, skip_bad_lines=skip_bad_lines)).as_rows():
        table.add_row(label, value)
    make_console().print(table)


@click.command()
def configs() -> None:
    """List the configurations that come with kvbench."""
    for name in shipped_configs():
        click.echo(name)
