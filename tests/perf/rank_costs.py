"""One run of the configuration `null` as one rank of many, every collective step counted and timed; JSON on rank 0.

Arguments: the run file, the result file, the ranks that stand for a node, seconds of the load, requests per second and
rank, and the made-up rows per rank that are then gathered straight and by nodes.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from rich.console import Console

import kvbench.commands.run  # noqa: F401 - all that a rank imports, before MPI starts
from kvbench.cluster import broadcast, clock, gather, topology
from kvbench.cluster.agree import Agreement
from kvbench.cluster.comm import get_world
from kvbench.cluster.counted import Ledger, counting
from kvbench.cluster.node import peak_resident_bytes
from kvbench.cluster.progress import ProgressExchange
from kvbench.cluster.watch.watch import Watch
from kvbench.engine.look_ups import LOOK_UPS_DTYPE
from kvbench.records.reader import open_run
from kvbench.records.schema import RECORD_DTYPE
from kvbench.records.tables import BATCH_DTYPE, NODE_DTYPE, RANK_DTYPE, SAMPLE_DTYPE
from kvbench.run import runner
from kvbench.run.order import Order
from kvbench.units import MIB

Function = Callable[..., Any]
_WIDE = ("other", "agreement")
"""A step in one of these counts for itself; any other takes what happens in it as its own."""


def main() -> None:
    """Run, count, gather made-up rows, and write what it came to."""
    out, result, node_ranks, seconds, per_s, rows = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
    imported_s = time.time()
    ledger = Ledger()
    world = get_world()
    comm = counting(world, ledger)
    mpi_s = time.time()

    def step(name: str, function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if ledger.name not in _WIDE or name == ledger.name:
                return function(*args, **kwargs)
            with ledger.step(name):
                return function(*args, **kwargs)

        return call

    find_nodes = topology.discover

    def discover(ranks: Any) -> Any:
        # Ranks stand for nodes, so that there are some on one machine.
        return find_nodes(ranks, ranks.Split(ranks.rank // node_ranks, ranks.rank))

    everywhere(find_nodes, step("discover", discover))
    everywhere(broadcast.share, step("share", broadcast.share))
    everywhere(broadcast.total, step("total", broadcast.total))
    everywhere(gather.choose_gathering, step("choose_gathering", gather.choose_gathering))
    everywhere(clock.read_clock, step("read_clock", clock.read_clock))
    everywhere(runner._common_start, step("common_start", runner._common_start))
    everywhere(gather.gather_rows, step("gather_rows", gather.gather_rows))
    everywhere(gather.gather_table, step("gather_table", gather.gather_table))
    for owner, name, called in (
        (Watch, "connect", "watch"),
        (ProgressExchange, "__init__", "progress"),
        (ProgressExchange, "poll", "progress"),
        (Agreement, "run", "agreement"),
    ):
        setattr(owner, name, step(called, getattr(owner, name)))

    settings = (f"duration_s={seconds}", f"pacing.requests_per_s={per_s}")
    order = Order("null", None, out, settings, overwrite=True)
    with ledger.step("other"):
        runner.run(comm, order, Console(quiet=True))
    run_s = time.time()
    peak_bytes = peak_resident_bytes()

    place = discover(comm)
    for way in ("ranks", "nodes"):
        gathering = gather.choose_gathering(place, "nodes" if way == "nodes" else "ranks")
        with ledger.step(f"made-up rows by {way}"):
            gather.gather_rows(comm, made_up(comm.rank, rows), RECORD_DTYPE, lambda rank, part: None, None, gathering)
    mine = {name: [cost.sent, cost.bytes_out] for name, cost in ledger.costs.items()}
    everyone = cast(Any, world).gather(mine)
    if comm.rank == 0:
        facts = {
            "ranks": comm.size,
            "nodes": place.nodes,
            "rows": rows,
            "batches": open_run(out).tables["batches"].rows,
            "everyone": {
                name: [sum(column) for column in zip(*(cost[name] for cost in everyone if name in cost), strict=True)]
                for name in ledger.costs
            },
            "costs": {name: asdict(cost) for name, cost in ledger.costs.items()},
            "start_s": imported_s,
            "mpi_s": mpi_s,
            "run_s": run_s,
            "peak_bytes": peak_bytes,
            "peak_with_made_up_bytes": peak_resident_bytes(),
            "row_bytes": {
                "record": RECORD_DTYPE.itemsize,
                "rank": RANK_DTYPE.itemsize,
                "node": NODE_DTYPE.itemsize,
                "sample": SAMPLE_DTYPE.itemsize,
                "batch": BATCH_DTYPE.itemsize,
                "look_ups": LOOK_UPS_DTYPE.itemsize,
            },
            "chunk_rows": gather.STRAIGHT.chunk_rows(RECORD_DTYPE),
            "load": os.getloadavg()[0],
        }
        result.write_text(json.dumps(facts), encoding="utf-8")


def everywhere(old: Function, new: Function) -> None:
    """Put `new` in the place of `old` in all modules of kvbench that know it."""
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "kvbench"]:
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


def made_up(rank: int, rows: int) -> Iterator[npt.NDArray[np.void]]:
    """Records, a chunk at a time."""
    chunk = np.zeros(min(rows, MIB // RECORD_DTYPE.itemsize), dtype=RECORD_DTYPE)
    chunk["rank"] = rank
    for start in range(0, rows, max(len(chunk), 1)):
        yield chunk[: rows - start]


if __name__ == "__main__":
    main()
