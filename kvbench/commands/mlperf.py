"""The commands for MLPerf Storage submissions: parse, call, print. No logic.

What reads trees and run files is imported where it is used: no rank but the first needs it.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from kvbench.cluster.comm import get_world, launcher_size
from kvbench.cluster.launch.start import host_list, run_console, start_ranks, without_options
from kvbench.errors import KvbenchError

_path = click.Path(path_type=Path)
_LAUNCH: tuple[str, ...] = ("--hosts", "--npernode", "--ranks", "--hostfile")


@click.group()
def mlperf() -> None:
    """MLPerf Storage, KV cache: the trials of a submission."""


@mlperf.command(name="run")
@click.option("--division", type=click.Choice(["closed", "open"]), required=True)
@click.option("--system", required=True, help="Name of the system under test.")
@click.option("--submitter", required=True, help="Name of the organization.")
@click.option("--dir", "cache", type=_path, required=True, help="Directory under test.")
@click.option("--results", type=_path, required=True, help="Directory of the results, on another filesystem.")
@click.option("--hosts", help="Hosts to start clients on, separated by commas (outside a launcher).")
@click.option("--npernode", type=click.IntRange(min=1), help="Clients on each of --hosts.  [default: 1]")
@click.option("--ranks", type=click.IntRange(min=1), help="Clients in all, instead of --npernode.")
@click.option("--hostfile", type=_path, help="With --ranks: the hosts, in mpirun's format.")
@click.option("--option", "options", multiple=True, type=click.IntRange(1, 3), help="Only this one (rehearsal, open).")
@click.option("--trial-seconds", type=click.FloatRange(min=0, min_open=True), help="A shorter trial (rehearsal, open).")
@click.option("--rehearsal", is_flag=True, help="No submission: shortened; marked as such everywhere.")
@click.option("--delay", "delay_s", type=click.IntRange(min=0), help="Seconds between options.  [default: 20]")
@click.option("--trials", type=click.IntRange(min=1), help="Of an option (open).  [default: 3]")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a value of every option (open).")
@click.option("--invoked-as", hidden=True, help="The command line that started the ranks, as JSON.")
def run_command(
    division: Literal["closed", "open"],
    system: str,
    submitter: str,
    cache: Path,
    results: Path,
    hosts: str | None,
    npernode: int | None,
    ranks: int | None,
    hostfile: Path | None,
    options: tuple[int, ...],
    trial_seconds: float | None,
    rehearsal: bool,
    delay_s: int | None,
    trials: int | None,
    changes: tuple[str, ...],
    invoked_as: str | None,
) -> None:
    """Run the options of the rules, three trials each, and write the results of every rank and the run summary.

    Clients are ranks: it starts mpirun with --npernode of them on each of --hosts (or --ranks on this host), or runs
    inside a launcher. The same command again goes on with a sequence that ended early.
    """
    inside = launcher_size() is not None
    invocation = ["kvbench", *sys.argv[1:]]
    names = host_list(hosts)
    if not inside and (names or npernode or ranks):
        if ranks and npernode:
            raise click.UsageError("--ranks says how many clients there are in all, --npernode on each host: give one")
        count = ranks or (npernode or 1) * max(1, len(names))
        placed = ",".join(f"{name}:{npernode or 1}" for name in names) if not ranks else hosts
        arguments = [*without_options(sys.argv[1:], _LAUNCH), "--invoked-as", json.dumps(invocation)]
        sys.exit(start_ranks(count, arguments, placed or None, hostfile))
    from kvbench.mlperf.trials.choices import Choices  # noqa: PLC0415 - see above
    from kvbench.mlperf.trials.measuring import run_sequence  # noqa: PLC0415 - see above

    asked = Choices(
        division=division,
        system=system,
        submitter=submitter,
        cache=cache,
        results=results,
        trial_seconds=trial_seconds,
        rehearsal=rehearsal,
        changes=changes,
        invocation=tuple(json.loads(invoked_as) if invoked_as else invocation),
    )
    choices = replace(
        asked,
        options=tuple(sorted(set(options))) or asked.options,
        trials=asked.trials if trials is None else trials,
        delay_s=asked.delay_s if delay_s is None else delay_s,
    )
    run_sequence(get_world(), choices, run_console(inside))


@mlperf.command()
@click.argument("tree", type=_path)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(tree: Path, as_json: bool) -> None:
    """Check TREE, a submission of one submitter or a merged tree of many, by every rule of sections 2.1 and 6.

    All violations are reported; exit 1 if there is any, or no run to check.
    """
    from kvbench.mlperf.check.checker import check_tree  # noqa: PLC0415 - see above
    from kvbench.mlperf.check.print import print_verdict  # noqa: PLC0415 - see above

    verdict = check_tree(tree)
    if as_json:
        click.echo(json.dumps(verdict.as_dict(), indent=2))
    else:
        print_verdict(verdict, Console())
    if not verdict.passed:
        sys.exit(1)


@mlperf.command(name="package")
@click.argument("results", type=_path)
@click.option("-o", "--out", type=_path, required=True, help="Where the tree of the submitter is made.")
@click.option("--sequence", "stamps", multiple=True, metavar="STAMP", help="Only this one of several.  [default: all]")
@click.option("--records/--no-records", default=True, help="With the run files, that figures are recomputed from.")
def package_command(results: Path, out: Path, stamps: tuple[str, ...], records: bool) -> None:
    """Make the submission tree OUT/SUBMITTER of RESULTS, a results directory of `kvbench mlperf run`.

    Nothing that is there already is touched, and what is not complete is refused.
    """
    from kvbench.mlperf.package.package import package  # noqa: PLC0415 - see above

    for made in package(results, out, stamps=stamps, records=records):
        for part in made.parts:
            click.echo(part)
        click.echo(f"fill in what is marked in systems/*.yaml, then: kvbench mlperf check {made.root}")


@mlperf.command()
@click.argument("trees", nargs=-1, required=True, type=_path, metavar="TREE...")
@click.option("--format", "form", type=click.Choice(["md", "csv", "html"]), default="md", show_default=True)
def table(trees: tuple[Path, ...], form: str) -> None:
    """Print the results of the systems in TREEs: headline figures and clients of each option, and what breaks rules."""
    from kvbench.mlperf.check.checker import WHERE_RUNS_ARE, check_tree  # noqa: PLC0415 - see above
    from kvbench.mlperf.check.results_table import FORMATS, table_rows  # noqa: PLC0415 - see above

    verdicts = [check_tree(tree) for tree in trees]
    click.echo(FORMATS[form](table_rows(verdicts)), nl=False)
    if empty := [str(tree) for tree, verdict in zip(trees, verdicts, strict=True) if not verdict.runs]:
        raise KvbenchError(f"no run of the KV cache in {', '.join(empty)}: {WHERE_RUNS_ARE}")
