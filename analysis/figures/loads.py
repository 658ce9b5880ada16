"""Which operations a request's load consists of: the rows of /records that it waited for before it was computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.schema import Op, Phase

_LOADS: Final = (Op.READ, Op.PROMOTE)


@dataclass(frozen=True)
class Loads:
    """Those that worked, one place each."""

    row: NDArray[np.int64]
    """In /records."""
    of: NDArray[np.int64]
    """Place of the request among those that were asked for."""
    end_ns: NDArray[np.int64]
    layer: NDArray[np.int64]
    """Group of layers, from 1 on; 0: all, or not known."""


def loads_of(run: Run, requests: Mapping[str, NDArray[Any]]) -> Loads:
    """Of `requests` (columns `rank`, `request`, `start_ns`, `look_up_ns`, `load_ns` of /requests), whose rows are those
    of the first rank of each group that serves together. The file has all operations."""
    names = ["rank", "request", "phase", "op", "errno", "t_start_ns", "wall_ns"]
    layered = "layer" in run.file.tables["records"].columns
    rows = run.columns([*names, *(["layer"] if layered else [])])
    chosen = np.isin(rows["op"], _LOADS) & (rows["phase"] != Phase.PRECONDITION) & (rows["errno"] == 0)
    group = max(1, _together(run))
    row = np.flatnonzero(chosen)
    rank, number = rows["rank"][row].astype(np.int64) // group * group, rows["request"][row].astype(np.int64)
    keys = requests["rank"].astype(np.int64) << 32 | requests["request"].astype(np.int64)
    order = np.argsort(keys, kind="stable")
    wanted = rank << 32 | number
    place = np.searchsorted(keys[order], wanted)
    of = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(row), np.int64)
    start = rows["t_start_ns"][row]
    over = requests["start_ns"] + requests["look_up_ns"] + requests["load_ns"]
    mine = np.zeros(len(row), bool)
    if len(order):
        # What is brought up for its session's next turn has the number of a request too, which was then over.
        mine = (keys[of] == wanted) & (start <= over[of]) & (requests["load_ns"][of] >= 0)
    kept = row[mine]
    layer = rows["layer"][kept].astype(np.int64) if layered else np.zeros(len(kept), np.int64)
    return Loads(kept, of[mine], (rows["t_start_ns"] + rows["wall_ns"])[kept], layer)


def _together(run: Run) -> int:
    found = run.config.get("tensor_parallel", 1)
    return found if isinstance(found, int) else 1
