"""The command `mlperf package`: parse, call, print."""

from pathlib import Path
from typing import get_args

import click

from kvbench.commands.options import PATH
from kvbench.mlperf.package.code_pool import PoolKind
from kvbench.mlperf.package.package import package


@click.command(name="package")
@click.argument("results", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Where the tree of the submitter is made.")
@click.option("--sequence", "stamps", multiple=True, metavar="STAMP", help="Only this one of several.  [default: all]")
@click.option("--records/--no-records", default=True, help="With the run files, that figures are recomputed from.")
@click.option(
    "--pool",
    type=click.Choice(get_args(PoolKind)),
    default="tree",
    show_default=True,
    help="Where the source that ran goes: code-images, as the rules have it now, or SUBMITTER, as v3.0 was published.",
)
def package_command(results: Path, out: Path, stamps: tuple[str, ...], records: bool, pool: PoolKind) -> str:
    """Make the submission tree OUT/SUBMITTER of RESULTS, a results directory of `kvbench mlperf run`.

    Nothing that is there already is touched, and what is not complete is refused.
    """
    packaged = package(results, out, stamps=stamps, records=records, pool=pool)
    for made in packaged:
        for part in made.parts:
            click.echo(part)
        click.echo(f"fill in what is marked in systems/*.yaml, then: kvbench mlperf check {made.root}")
    return f"{', '.join(str(made.root) for made in packaged)} is complete"
