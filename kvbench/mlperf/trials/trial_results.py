"""From the run file of a trial to the results of its ranks, in the reference's terms and in ours. Rank 0's business.

Ranks are read one after the other, of each only the columns that are needed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.mlperf.trials.rank_figures import RankRows, percentiles, rank_result
from kvbench.records.reader import RunFile, open_run, read_columns
from kvbench.records.schema import OVERLAPPING, Op, Phase, RequestState
from kvbench.tiers.kinds import target_at
from kvbench.units import GIB

_RECORDS: Final = (
    "t_start_ns", "wall_ns", "span_ns", "device_ns", "host_ns", "runq_ns",
    "nbytes", "tokens", "request", "op", "tier", "phase", "errno", "timed_by",
)  # fmt: skip
_REQUESTS: Final = ("intended_ns", "end_ns", "output_tokens", "qos", "request", "phase", "state")
KERNEL_TIMES: Final = ("device", "host", "runq")
"""What the kernel accounts of an operation's wall time (docs/measurement-method.md)."""


@dataclass(frozen=True, slots=True)
class RankTrial:
    """A rank in a trial: its rows, and where it ran."""

    rank: int
    node: int
    host: str
    cache_directory: str
    """Its own, below the directory under test."""
    rows: RankRows
    canceled: int
    """Operations that were under way when the trial ended, and count in nothing."""

    def storage(self, op: Op) -> NDArray[np.bool_]:
        """Which rows are `op` on storage."""
        chosen: NDArray[np.bool_] = (self.rows.records["op"] == op) & self.rows.records["storage"].astype(bool)
        return chosen

    def overlaps(self, op: Op) -> bool:
        """Whether any `op` on storage was in flight with others of its thread, and has none of KERNEL_TIMES."""
        return bool(np.isin(self.rows.records["timed_by"][self.storage(op)], OVERLAPPING).any())


def ranks_of(path: Path) -> Iterator[RankTrial]:
    """The ranks of the run file at `path`, in order. Raises KvbenchError."""
    run = open_run(path)
    config = json.loads(str(run.attributes["config_json"]))
    ranks, nodes = read_columns(run, "ranks"), read_columns(run, "nodes")
    look_ups = read_columns(run, "look_ups")
    storage = np.array(run.tiers_are_storage)
    start_ns = int(run.attributes["measure_start_ns"])
    directories = dict(zip(nodes["node"].tolist(), nodes["directory"].tolist(), strict=True))
    for place in range(len(ranks["rank"])):
        row = {name: column[place] for name, column in ranks.items()}
        rank, node = int(row["rank"]), int(row["node"])
        first, count = int(row["first_row"]), int(row["rows"])
        records = read_columns(run, "records", _RECORDS, first, first + count)
        measured = (records["phase"] == Phase.MEASURE) & (records["errno"] == 0)
        records = {name: column[measured] for name, column in records.items()}
        elapsed_s = max(float(config["duration_s"]), (int(row["end_ns"]) - start_ns) / 1e9)
        own = target_at(directories[node]).area(str(run.attributes["run_id"]), rank)
        yield RankTrial(
            rank=rank,
            node=node,
            host=str(row["host"]),
            cache_directory=own.where,
            rows=RankRows(
                seed=int(config["seed"]) + rank,
                records=records | {"storage": storage[records["tier"]]},
                requests=_requests(run, int(row["first_request"]), int(row["requests"])),
                look_ups=_row_of(look_ups, rank),
                elapsed_s=elapsed_s,
                bytes_per_token=int(run.attributes["bytes_per_token"]),
            ),
            canceled=int(row["canceled_ops"]),
        )


def result_of(trial: RankTrial, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a rank's result; `facts` go beside our own figures, below `kvbench`."""
    rows = trial.rows
    demoted = rows.records["op"] == Op.DEMOTE
    own: dict[str, Any] = {
        **facts,
        "rank": trial.rank,
        "host": trial.host,
        "cache_directory": trial.cache_directory,
        "demoted_gb": int(rows.records["nbytes"][demoted].sum()) / GIB,
        "demotions": int(demoted.sum()),
        "canceled_operations": trial.canceled,
    }
    for name, op in (("read", Op.READ), ("write", Op.WRITE)):
        if trial.overlaps(op):
            own[f"storage_{name}_overlaps"] = True
            continue
        for time in KERNEL_TIMES:
            times_ms = rows.records[f"{time}_ns"][trial.storage(op)] / 1e6
            own |= percentiles(times_ms, f"storage_{name}_kernel_{time}_", "_ms")
    return rank_result(rows) | {"kvbench": own}


def _requests(run: RunFile, first: int, count: int) -> dict[str, NDArray[Any]]:
    """Those that were carried out to their end, by its time."""
    requests = read_columns(run, "requests", _REQUESTS, first, first + count)
    done = (requests["phase"] == Phase.MEASURE) & (requests["state"] == RequestState.DONE)
    requests = {name: column[done] for name, column in requests.items()}
    order = np.argsort(requests["end_ns"], kind="stable")
    return {name: column[order] for name, column in requests.items()}


def _row_of(table: Mapping[str, NDArray[Any]], rank: int) -> dict[str, int]:
    place = int(np.flatnonzero(table["rank"] == rank)[0])
    return {name: int(column[place]) for name, column in table.items()}
