"""The command `kvbench recover`: parse, call, print."""

from pathlib import Path

import click

from kvbench.commands.options import OUTPUT_FILE, PATH, RUN_ID
from kvbench.console import make_console
from kvbench.records.spill import recover as recovery
from kvbench.records.spill.header import spill_path
from kvbench.units import printable


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SPILL...", type=PATH)
@click.option("-o", "--out", required=True, type=OUTPUT_FILE, help="The run file to make.")
@click.option("--run", "run_id", type=RUN_ID, help="The run to recover, where the files are of several.")
@click.option("--overwrite", is_flag=True, help="Replace the run file if it exists.")
def recover(sources: tuple[Path, ...], out: Path, run_id: str | None, overwrite: bool) -> str:
    """Make a run file of what a run that was killed has left: spill files, or directories that hold them.

    The spill files are left where they are.
    """
    made = recovery.recover(sources, out, overwrite, run_id)
    console = make_console()
    console.print(
        f"{made.path} holds {made.records} operations and {made.requests} requests of run {made.run_id}, "
        f"recovered {printable(made.message)}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    folders = dict.fromkeys(path.parent for path in made.spills)
    files = " ".join(str(spill_path(folder, made.run_id, "*")) for folder in folders)
    console.print(
        f"The spill files are still there; when you need them no more: rm {files}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    return f"{made.path} is complete"
