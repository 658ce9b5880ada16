"""The command `mlperf run`: parse, find or start the clients, call."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from kvbench.cluster.comm import get_world, launcher_size
from kvbench.cluster.launch.start import host_list, start_ranks, without_options
from kvbench.cluster.signals import say
from kvbench.commands.options import PATH, RANKS_PATH, Finite, either
from kvbench.commands.ranks import RanksCommand, refuse_to_start
from kvbench.console import run_console
from kvbench.mlperf.trials.choices import Choices
from kvbench.mlperf.trials.measuring import run_sequence
from kvbench.mlperf.trials.sequence import running_sequences

_LAUNCH: tuple[str, ...] = ("--hosts", "--npernode", "--ranks", "--hostfile")


@click.command(cls=RanksCommand)
@click.option("--division", type=click.Choice(["closed", "open"]), required=True)
@click.option("--system", required=True, help="Name of the system under test.")
@click.option("--submitter", required=True, help="Name of the organization.")
@click.option("--dir", "cache", type=RANKS_PATH, required=True, help="Directory under test.")
@click.option("--results", type=PATH, required=True, help="Directory of the results, on another filesystem.")
@click.option("--hosts", help="Hosts to start clients on, separated by commas (outside a launcher).")
@click.option("--npernode", type=click.IntRange(min=1), help="Clients on each of --hosts.  [default: 1]")
@click.option("--ranks", type=click.IntRange(min=1), help="Clients in all, instead of --npernode.")
@click.option("--hostfile", type=PATH, help="With --ranks: the hosts, in mpirun's format.")
@click.option("--option", "options", multiple=True, type=click.IntRange(1, 3), help="Only this one (rehearsal, open).")
@click.option("--trial-seconds", type=Finite(min=0, min_open=True), help="A shorter trial (rehearsal, open).")
@click.option("--rehearsal", is_flag=True, help="No submission: shortened; marked as such everywhere.")
@click.option("--delay", "delay_s", type=click.IntRange(min=0), help="Seconds between options.  [default: 90]")
@click.option("--trials", type=click.IntRange(min=1), help="Of an option (open).  [default: 3]")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a value of every option (open).")
@click.option("--invoked-as", hidden=True, help="The command line that started the ranks, as JSON.")
def run(
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
) -> str:
    """Run the options of the rules, three trials each, and write the results of every rank and the run summary.

    Clients are ranks: it starts mpirun with --npernode of them on each of --hosts (or --ranks on this host), or runs
    inside a launcher. The same command again goes on with a sequence that ended early.
    """
    made = f"the results in {results} are complete"
    inside = launcher_size() is not None
    invocation = ["kvbench", *sys.argv[1:]]
    names = host_list(hosts)
    if inside:
        refuse_to_start({"--ranks": ranks, "--npernode": npernode, "--hosts": hosts, "--hostfile": hostfile})
    if ranks and npernode:
        raise click.UsageError("--ranks says how many clients there are in all, --npernode on each host: give one")
    either("--hosts", hosts, "--hostfile", hostfile)
    if hostfile and not ranks:
        raise click.UsageError("--hostfile goes with --ranks")
    if names or npernode or ranks:
        count = ranks or (npernode or 1) * max(1, len(names))
        placed = ",".join(f"{name}:{npernode or 1}" for name in names) if not ranks else hosts
        arguments = [*without_options(sys.argv[1:], _LAUNCH), "--invoked-as", json.dumps(invocation)]
        if code := start_ranks(count, arguments, placed or None, hostfile):
            if lost := running_sequences(results, system):
                say(f"the same command goes on with {lost[-1]}, without what is complete")
            sys.exit(code)
        return made
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
    world = get_world()
    run_sequence(world, choices, run_console(inside, world.rank))
    return made
