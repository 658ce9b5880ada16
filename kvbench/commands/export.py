"""The command `kvbench export`: parse, call, print."""

from pathlib import Path

import click
import kvbench_analysis as ka
from kvbench_analysis.export.parquet import export_parquet

from kvbench.commands.options import PATH
from kvbench.console import make_console
from kvbench.records.new_folder import check_new_folder, new_folder
from kvbench.units import format_bytes
from kvbench.workload.traces.parquet import pyarrow


@click.command()
@click.argument("run_file", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="The folder to make.")
@click.option("--format", "kind", type=click.Choice(["parquet"]), default="parquet", show_default=True)
def export(run_file: Path, out: Path, kind: str) -> str:
    """Write every table of RUN_FILE into a new folder of Parquet files, for programs that query more than memory holds.

    Records, requests and batches have a folder for each rank; docs/export.md has queries in DuckDB and Polars.
    """
    pyarrow(f"making {kind} files")
    check_new_folder(out)
    run = ka.load(run_file)
    with new_folder(out) as folder:
        rows = export_parquet(run, folder)
        sizes = [path.stat().st_size for path in folder.rglob("*.parquet")]
    told = ", ".join(f"{count} {name}" for name, count in rows.items() if name in ("records", "requests", "batches"))
    make_console().print(
        f"{out} holds {told} of {run_file}: {len(sizes)} files, {format_bytes(sum(sizes))}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    return f"{out} is complete"
