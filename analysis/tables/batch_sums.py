"""What batches add up to whose operations overlap: the only split that there is of these. Makes no share of it.

A row of an operation that overlaps has 0 for its device, host, run queue and copy time, and there 0 means not known.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.schema import OVERLAPPING, Op, Phase, label

BATCH_TIMES: Final = ("wall", "device", "host", "runq", "copy", "helper")
"""Of a batch: device + host + runq = wall, copy is part of host; helpers are other threads, beside all of them."""

_KEYS: Final = ("rank", "tier", "op", "phase", "timed_by")


def overlap(timed_by: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are of operations that overlapped with others of their batch, from the column `timed_by`."""
    return np.isin(timed_by, OVERLAPPING)


def batch_sums(run: Run, by: Sequence[str]) -> pd.DataFrame:
    """Sums over the measured batches of /splits, one row per `by` (of `rank`, `node`, and names of `tier` and `op`).

    Columns: `by`, `batches`, and a `batch_..._ns` for each of BATCH_TIMES. No rows where the file has no such table.
    """
    columns = ["batches", *(f"batch_{part}_ns" for part in BATCH_TIMES)]
    found = run.splits
    if not {*_KEYS, "batches", *(f"{part}_ns" for part in BATCH_TIMES)} <= set(found):
        return pd.DataFrame(columns=[*by, *columns])
    found = found.assign(**{f"batch_{part}_ns": found[f"{part}_ns"] for part in BATCH_TIMES})
    names, ops = list(run.tiers["name"]), [label(op) for op in Op]
    known = found["tier"].between(0, len(names) - 1) & found["op"].between(0, len(ops) - 1)
    found = found[known & (found["phase"] == Phase.MEASURE) & found["timed_by"].isin(OVERLAPPING)]
    found = found.assign(tier=[names[int(code)] for code in found["tier"]], op=[ops[int(code)] for code in found["op"]])
    if "node" in by:
        nodes: dict[Any, Any] = {}
        if {"rank", "node"} <= set(run.ranks):
            nodes = dict(zip(run.ranks["rank"], run.ranks["node"], strict=True))
        found = found.assign(node=[nodes.get(rank, -1) for rank in found["rank"]])
    return found.groupby(list(by), sort=False, as_index=False)[columns].sum()
