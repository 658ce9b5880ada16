"""The command `clean`: list what killed runs left in a directory under test or beside their outputs, and delete it when
told to."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from kvbench.commands.options import PLACE, RUN_ID, RUN_PREFIX
from kvbench.commands.paths import is_address
from kvbench.console import make_console, make_table
from kvbench.run.output import unfinished_files
from kvbench.run.output.unfinished_files import Unfinished
from kvbench.tiers.kinds import target_at
from kvbench.tiers.target import Leftover
from kvbench.units import format_bytes

_MOST_STRANGERS = 5


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=PLACE)
@click.option("--run", "run_id", type=RUN_ID, help="Only this run; also where it cannot be told whether it is in use.")
@click.option("--yes", is_flag=True, help="Delete without asking; outside a terminal nothing is deleted otherwise.")
def clean(directories: tuple[str, ...], run_id: str | None, yes: bool) -> str | None:
    """List the cache files and unfinished outputs that killed runs left in DIR, then delete them.

    DIR is a directory under test, s3://BUCKET/PREFIX (az://, gs://), or a directory that outputs were written to.
    Deleted is only what carries kvbench's marker, and never what a live run uses. Spill files are not touched.
    """
    console = make_console()
    found: list[Leftover] = []
    for directory in directories:
        found += target_at(directory).leftovers()
        if not is_address(directory):
            found += unfinished_files.find(Path(directory))
    if run_id is not None:
        found = [leftover for leftover in found if run_id in (leftover.run_id, _name_after_prefix(leftover))]
    if not found:
        console.print(
            "nothing of kvbench's is there" if run_id is None else f"nothing of run {run_id} is there", highlight=False
        )
        return None
    for place, group in itertools.groupby(found, key=lambda leftover: leftover.place):
        console.print(f"in {place}:", soft_wrap=True, highlight=False, markup=False)
        console.print(_table(list(group)))
    for leftover in found:
        _tell_strangers(console, leftover)
    named = run_id is not None
    if any(leftover.state == "unknown" for leftover in found) and not named:
        console.print("unknown: there are no locks there; delete such a run with --run once you know it is over")
    going = [leftover for leftover in found if leftover.may_go(named)]
    if not going:
        return None
    nbytes = format_bytes(sum(leftover.nbytes for leftover in going))
    what = f"{sum(leftover.files for leftover in going)} files of {len(going)} leftovers, {nbytes}"
    if not yes:
        if not _in_terminal():
            console.print(f"nothing was deleted; with --yes: {what}", highlight=False)
            return None
        click.confirm(f"Delete {what}?", abort=True)
    return _delete(console, going, named)


def _name_after_prefix(leftover: Leftover) -> str:
    return leftover.path.name.removeprefix(RUN_PREFIX)


def _in_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _delete(console: Console, going: Sequence[Leftover], named: bool) -> str:
    files = nbytes = 0
    for leftover in going:
        if isinstance(leftover, Unfinished):
            left: Leftover = unfinished_files.remove(leftover, named)
        else:
            left = target_at(leftover.place).remove_leftover(leftover, named)
        files += leftover.files - left.files
        nbytes += leftover.nbytes - left.nbytes
        if not left.may_go(named):
            console.print(f"left {left.text}: it is {left.state} now", soft_wrap=True, highlight=False, markup=False)
    done = f"deleted {files} files, {format_bytes(nbytes)}"
    console.print(done, highlight=False)
    return done


def _tell_strangers(console: Console, leftover: Leftover) -> None:
    if leftover.strangers:
        names = ", ".join(leftover.strangers[:_MOST_STRANGERS])
        more = len(leftover.strangers) - _MOST_STRANGERS
        text = f"{leftover.text} holds what kvbench did not make, and it stays: {names}"
        console.print(text + (f" and {more} more" if more > 0 else ""), soft_wrap=True, highlight=False, markup=False)


def _table(found: Sequence[Leftover]) -> Table:
    table = make_table(("what", "files", "size", "last written", "state"))
    for leftover in found:
        ours = leftover.state != "not ours"
        table.add_row(
            leftover.path.name,
            str(leftover.files) if ours else "",
            format_bytes(leftover.nbytes) if ours else "",
            f"{_age(leftover.age_s)} ago" if ours else "",
            leftover.state,
        )
    return table


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
