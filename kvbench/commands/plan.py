"""The command `plan`: what a run would do, decided and not carried out."""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from kvbench_analysis.plots.capacity import capacity_curve
from kvbench_analysis.plots.frontier import hit_frontier

from kvbench.cluster.agree import Agreement, together
from kvbench.cluster.comm import detect_launcher, get_world
from kvbench.cluster.signals import Interrupt
from kvbench.commands.drives import drive_options
from kvbench.commands.options import (
    ANY_PATH,
    OUTPUT_FILE,
    PICTURE_FILE,
    Finite,
    config_argument,
    engine_option,
    json_option,
    set_option,
    skip_option,
)
from kvbench.commands.ranks import RanksCommand, refuse_to_start
from kvbench.config.names import CHAIN_POLICIES
from kvbench.config.run_config import RunConfig
from kvbench.console import run_console
from kvbench.records.endurance import RatedDrives
from kvbench.records.outputs import FIO_JOB, FIO_LOG, PARQUET, check_output, write_output
from kvbench.run.planning.curve import Capacities
from kvbench.run.planning.frontier import FrontierOrder
from kvbench.run.planning.operations import Operations, as_fio, as_parquet
from kvbench.run.planning.planned import Capacity, plan
from kvbench.run.planning.predict import DRAWS, OnStorage
from kvbench.run.planning.print import print_plan
from kvbench.units import parse_bytes
from kvbench.workload.traces.parquet import pyarrow, table_bytes


def _read_capacity(ctx: click.Context, param: click.Parameter, text: str | None) -> Capacity | None:
    if text is None or text.strip() == "unlimited":
        return None if text is None else Capacity(None)
    blocks = re.fullmatch(r"\s*(\d{1,12}) ?blocks?\s*", text)
    if blocks:
        return Capacity(None, int(blocks[1]))
    try:
        return Capacity(parse_bytes(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}, a number of blocks such as 2000blocks, or unlimited") from error


def _read_capacities(ctx: click.Context, param: click.Parameter, text: str | None) -> Capacities | None:
    if text is None:
        return None
    low, *others = text.split(":")
    try:
        if len(others) not in {1, 2}:
            raise ValueError("expected LOW:HIGH or LOW:HIGH:POINTS, as 1GiB:4TiB:13")
        if others[1:] and not others[1].isdecimal():
            raise ValueError(f"expected a number of points in place of {others[1]!r}")
        return Capacities.between(parse_bytes(low), parse_bytes(others[0]), *map(int, others[1:]))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _check_export(path: Path) -> None:
    """Raise UsageError or KvbenchError where it cannot be made."""
    launcher = detect_launcher()
    if launcher is not None and launcher.size != 1:
        raise click.UsageError("--export is made by one process: leave mpirun out, and give --ranks")
    if path.suffix == ".parquet":
        pyarrow("writing a Parquet file")
        check_output(path, PARQUET)
    elif path.suffix == ".fio":
        check_output(path, FIO_JOB)
    else:
        raise click.UsageError(f"--export {path}: expected a name that ends in .parquet or .fio")


def _export(paths: Sequence[Path], config: RunConfig, ranks: Sequence[Operations]) -> None:
    for path in paths:
        if path.suffix == ".parquet":
            write_output(check_output(path, PARQUET), as_parquet(config, ranks), PARQUET)
        else:
            _export_fio(path, config, ranks)


def _export_fio(path: Path, config: RunConfig, ranks: Sequence[Operations]) -> None:
    job, logs = as_fio(config, ranks, path.stem)
    outputs = {name: check_output(path.with_name(name), FIO_LOG) for name in logs}
    for name, text in logs.items():
        write_output(outputs[name], text.encode(), FIO_LOG)
    write_output(check_output(path, FIO_JOB), job.encode(), FIO_JOB)


def _on_storage(
    path: Path | None, draws: int | None, extrapolate: bool, storage_ranks: int | None, requests: Path | None
) -> OnStorage | None:
    """Raise UsageError or KvbenchError where options contradict each other."""
    if path is None:
        if draws is not None or extrapolate or storage_ranks is not None or requests is not None:
            raise click.UsageError("--draws, --extrapolate, --ranks-per-storage and --requests are for --storage")
        return None
    if requests is not None:
        if requests.suffix != ".parquet":
            raise click.UsageError(f"--requests {requests}: expected a name that ends in .parquet")
        pyarrow("writing a Parquet file")
        check_output(requests, PARQUET, inputs=[path])
    return OnStorage(
        path,
        DRAWS if draws is None else draws,
        extrapolate,
        storage_ranks,
        None if requests is None else partial(_write_requests, requests),
    )


def _write_requests(path: Path, rows: "np.ndarray[Any, Any]") -> None:
    columns = {
        "rank": rows["rank"], "request": rows["request"], "context_tokens": rows["context_tokens"],
        "hit_tokens": rows["hit_tokens"], "phase": rows["phase"], "state": rows["state"],
        "predicted_queue_ns": rows["start_ns"] - rows["intended_ns"], "predicted_look_up_ns": rows["look_up_ns"],
        "predicted_load_ns": rows["load_ns"], "predicted_first_token_ns": rows["first_token_ns"],
    }  # fmt: skip
    write_output(check_output(path, PARQUET), table_bytes(columns), PARQUET)


@click.command(cls=RanksCommand)
@config_argument
@set_option
@engine_option
@skip_option
@click.option("--ranks", type=click.IntRange(min=1), help="Ranks of the run that is planned, in this process.")
@click.option(
    "--capacity",
    callback=_read_capacity,
    metavar="SIZE",
    help="Of each rank's last tier: a size, a number of blocks (2000blocks), or unlimited.  "
    "[default: what CONFIG says, and unlimited where that is auto]",
)
@click.option(
    "--capacities",
    callback=_read_capacities,
    metavar="LOW:HIGH[:POINTS]",
    help="Hits against these capacities of each rank's last tier, for every policy and the optimum.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice(CHAIN_POLICIES),
    help="For --capacities or --frontier: only this policy; repeatable.",
)
@click.option(
    "--sample",
    type=Finite(min=0, max=0.5, min_open=True),
    metavar="SHARE",
    help="For --capacities: only LRU, estimated from samples of that share of the blocks, with its error.",
)
@click.option(
    "--plot", type=PICTURE_FILE, help="For --capacities or --frontier: a picture of it (PNG, SVG or PDF by its name)."
)
@click.option(
    "--export",
    "exports",
    multiple=True,
    type=OUTPUT_FILE,
    help="Every operation: FILE.parquet, or FILE.fio, a job that fio replays, with a log for each rank beside it; "
    "repeatable.",
)
@click.option(
    "--rate",
    type=Finite(min=0, min_open=True, max=1e9),
    metavar="R",
    help="Also the bandwidth that is needed to keep up with R requests a second, of all ranks together.",
)
@click.option(
    "--frontier",
    "asks_frontier",
    is_flag=True,
    help="Hits against bytes written a day, for every admission and way of writing; with --capacities and --policy for "
    "each of them too.",
)
@click.option(
    "--min-prefix",
    "min_prefix_tokens",
    multiple=True,
    type=click.IntRange(1, 10**9),
    metavar="TOKENS",
    help="For --frontier: also what admits contexts from so many tokens on; repeatable.",
)
@click.option(
    "--storage",
    type=ANY_PATH,
    metavar="FILE",
    help="Predict times on the storage of FILE, a model that `kvbench model fit` has made, by simulation.",
)
@click.option("--draws", type=click.IntRange(1, 1000), help=f"For --storage: simulations.  [default: {DRAWS}]")
@click.option("--extrapolate", is_flag=True, help="For --storage: also where nothing like it was measured; it is said.")
@click.option(
    "--ranks-per-storage",
    type=click.IntRange(min=1),
    help="For --storage: so many ranks share one.  [default: all of them]",
)
@click.option(
    "--requests", type=OUTPUT_FILE, help="For --storage: every request as it is predicted in one draw: FILE.parquet."
)
@json_option
@drive_options
def plan_command(
    config: str,
    overrides: tuple[str, ...],
    engine: str,
    skip_bad_lines: bool,
    ranks: int | None,
    capacity: Capacity | None,
    capacities: Capacities | None,
    policies: tuple[str, ...],
    sample: float | None,
    plot: Path | None,
    exports: tuple[Path, ...],
    rate: float | None,
    asks_frontier: bool,
    min_prefix_tokens: tuple[int, ...],
    storage: Path | None,
    draws: int | None,
    extrapolate: bool,
    ranks_per_storage: int | None,
    requests: Path | None,
    as_json: bool,
    rated: RatedDrives | None,
) -> None:
    """Decide all that the requests of CONFIG ask of the cache, and count it: hits, and bytes of every tier. Nothing is
    read or written. With --storage, predict how long it would take on a storage that is not here."""
    refuse_to_start({"--ranks": ranks})
    for path in exports:
        _check_export(path)
    if capacities is None and not asks_frontier and (plot is not None or policies or sample is not None):
        raise click.UsageError("--plot, --policy and --sample are for --capacities: give a range, as 1GiB:4TiB")
    if asks_frontier and sample is not None:
        raise click.UsageError("--sample estimates hits alone, and --frontier is of writes too: give one of them")
    if min_prefix_tokens and not asks_frontier:
        raise click.UsageError("--min-prefix is for --frontier")
    frontier = FrontierOrder(capacities, policies or None, min_prefix_tokens) if asks_frontier else None
    on_storage = _on_storage(storage, draws, extrapolate, ranks_per_storage, requests)
    if skip_bad_lines:
        overrides = (*overrides, "workload.skip_bad_lines=true")
    comm = get_world()
    interrupt = Interrupt(launched=comm.size > 1, speaks=comm.rank == 0)
    with interrupt, together(comm):
        planned = plan(
            comm,
            Agreement(comm, interrupt),
            config,
            overrides,
            capacity,
            ranks,
            capacities=None if asks_frontier else capacities,
            policies=policies or (CHAIN_POLICIES if sample is None else ("lru",)),
            export=partial(_export, exports) if exports else None,
            rate=rate,
            sample=sample,
            engine=engine,
            frontier=frontier,
            rated=rated,
            storage=on_storage,
        )
    if comm.rank != 0:
        return
    if planned.curve is not None and plot is not None:
        capacity_curve(planned.curve.as_dict()).save(plot)
    if planned.frontier is not None and plot is not None:
        hit_frontier(planned.frontier.as_dict(planned.asked_rate, planned.rated)).save(plot)
    if as_json:
        click.echo(json.dumps(planned.as_dict(), indent=2))
    else:
        print_plan(planned, run_console(detect_launcher() is not None))
