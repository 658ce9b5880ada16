"""Studies whose every run is an MPI job of its own: where their run files are, and one job after the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kvbench.cluster.comm import detect_launcher
from kvbench.cluster.launch.start import start_ranks
from kvbench.errors import KvbenchError
from kvbench.records.outputs import HDF5, alone_in, check_output, make_folder
from kvbench.records.reader import open_run
from kvbench.run.order import Order
from kvbench.studies.one_run import PROGRAM, arguments_of


def refuse_inside_a_job(command: str, instead: str) -> None:
    """Raise KvbenchError where a launcher has started this process; `instead`: what to give in its place."""
    launcher = detect_launcher()
    if launcher is not None:
        raise KvbenchError(
            f"{command} starts an MPI job for each run, and {launcher.name} has started this one: start it outside, "
            f"with {instead}"
        )


@contextmanager
def run_files(table: Path, names: Sequence[str], *, replace: bool) -> Iterator[list[Path]]:
    """Where each run's file goes, in a folder beside the study's table that is nobody else's meanwhile. Raises
    KvbenchError: the folder cannot be made or is in use, or a file is there that is not to be replaced."""
    folder = table.with_name(f"{table.stem}-runs")
    make_folder(folder, "the run files", "choose another --out")
    with alone_in(folder, "wait until it has ended, or choose another --out"):
        paths = [folder / f"{name}.h5" for name in names]
        for path in paths:
            check_output(path, HDF5, replace=replace)
        yield paths


def run_job(order: Order, ranks: int, hosts: str | None, done: int, table: Path) -> None:
    """Run one, and wait. Raises KvbenchError where it fails or is interrupted, saying that `done` others are in the
    table."""
    order.out.unlink(missing_ok=True)
    code = start_ranks(ranks, arguments_of(order), hosts, program=PROGRAM)
    if not code:
        return
    interrupted = order.out.exists() and open_run(order.out).attributes.get("status") == "interrupted"
    what = "interrupted" if interrupted else f"{order.out.stem} failed with exit code {code}; its message is above"
    raise KvbenchError(f"{what}; the {done} runs before it are in {table}" if done else what)
