"""The commands `model fit` and `model show`: parse, call, print."""

from pathlib import Path

import click
import kvbench_analysis as ka
from kvbench_analysis.storage_model.fit import fit
from kvbench_analysis.storage_model.print import model_table

import kvbench
from kvbench.commands.options import OUTPUT_FILE, PATH
from kvbench.console import make_console
from kvbench.records.outputs import check_output, write_output
from kvbench.records.storage_model import STORAGE_MODEL, read_storage_model


@click.command()
@click.argument("run_files", nargs=-1, required=True, metavar="RUN_FILE...", type=PATH)
@click.option("-o", "--out", required=True, type=OUTPUT_FILE, help="The file to make, such as mynas.storage.")
@click.option(
    "--tier", type=click.IntRange(min=0), help="The tier that is fitted, from 0, fastest first.  [default: the last]"
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of the resamples.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def fit_command(run_files: tuple[Path, ...], out: Path, tier: int | None, seed: int, overwrite: bool) -> str:
    """Estimate from RUN_FILES how long operations of their storage take, by what is done, size and how much is in
    flight, for `kvbench plan --storage`.

    Runs with different numbers of threads, and with different sizes of blocks, make the range that can be predicted;
    all must have moved their bytes in one way, on one storage.
    """
    output = check_output(out, STORAGE_MODEL, replace=overwrite, inputs=run_files)
    model = fit([ka.load(path) for path in run_files], kvbench.__version__, tier, seed)
    write_output(output, model.to_bytes(), STORAGE_MODEL)
    model_table(model, make_console())
    return f"{out} is complete"


@click.command()
@click.argument("file", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def show_command(file: Path, as_json: bool) -> None:
    """Print what FILE, a storage model, says: times by operation, size and load, what was measured, and where."""
    model = read_storage_model(file)
    if as_json:
        click.echo(model.model_dump_json(indent=2))
    else:
        model_table(model, make_console())
