"""The figures of operations, made of their rows: per tier, operation and path, per rank and per node.

Only operations of the phase `measure` that ended without an error are figured; others are counted beside. A column is
read, used for every figure that needs it, and let go, so memory holds a few columns at a time.
"""

import errno
from typing import Any

import numpy as np
import pandas as pd
from kvbench_analysis.figures.cells import (
    PARTS,
    OperationFigures,
    errno_names,
    group_table,
    kinds_of,
    latency_table,
    levels_of,
    with_lost,
)
from kvbench_analysis.figures.thread_time import with_batches
from kvbench_analysis.tables.batch_sums import batch_sums, overlap
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import RESIDENT_UNKNOWN, Op, Path, Phase, TimedBy, label


def operation_figures(run: Run, window: Window) -> OperationFigures:
    """All figures of the rows in /records; rates are over `window`."""
    codes = run.columns(["phase", "errno", "op", "tier", "path", "rank"])
    measured = codes["phase"] == Phase.MEASURE
    counted = measured & (codes["errno"] == 0)
    kinds = kinds_of(run)
    kind = (codes["tier"].astype(np.uint16) * len(Op) + codes["op"]) * len(Path) + codes["path"]
    lost = _lost(kind[measured & ~counted], codes["errno"][measured & ~counted], len(kinds))
    used = np.bincount(kind[counted], minlength=len(kinds)) > 0
    # Kinds that occur are numbered without gaps, which keeps the keys of a thousand ranks within 16 bits.
    dense = (np.cumsum(used) - 1).astype(np.uint16)
    key = codes["rank"][counted].astype(np.int64) * max(int(used.sum()), 1) + dense[kind[counted]]
    checked, resident = _page_cache(run, counted & (codes["op"] == Op.READ), codes["tier"])
    moved = counted & (codes["op"] != Op.DELETE)
    del codes, measured, kind

    grouping = Grouping(key)
    cells = _cells(run, grouping, kinds[used].reset_index(drop=True))
    levels = levels_of(cells)
    inside = _inside(run, window, counted, key, grouping)
    everything = bool(counted.all())
    del key
    for column in ("nbytes", "tokens", *(f"{part}_ns" for part in PARTS)):
        values = run.columns([column])[column]
        segments = list(grouping.split(values if everything else values[counted]))
        cells[column] = [int(segment.sum(dtype=np.int64)) for segment in segments]
        for level in levels.values():
            level.use(column, segments)
    for column, share in inside.items():
        cells[f"{column}_inside"] = cells[column] - share
    timed_by = run.columns(["timed_by"])["timed_by"]
    python_timed = int(np.count_nonzero(timed_by[moved] == TimedBy.PYTHON))
    overlapping = overlap(timed_by)[counted]
    cells["overlap"] = [bool(segment.any()) for segment in grouping.split(overlapping)]
    by = ["rank", "tier", "op"]
    cells = with_batches(cells, batch_sums(run, by), by)
    operations = group_table(cells, levels["operations"], window)
    return OperationFigures(
        operations=with_lost(operations, lost, kinds),
        latency=latency_table(cells, levels["operations"]),
        totals=group_table(cells, levels["totals"], window),
        ranks=group_table(cells, levels["ranks"], window),
        nodes=group_table(cells, levels["nodes"], window),
        lost=errno_names(*np.unique(lost["errno"], return_counts=True)),
        storage_reads_checked=checked,
        storage_reads_resident=resident,
        python_timed=python_timed,
    )


def _lost(kind: NDArray[Any], errnos: NDArray[Any], kinds: int) -> dict[str, NDArray[Any]]:
    canceled = errnos == errno.ECANCELED
    return {
        "failed": np.bincount(kind[~canceled], minlength=kinds),
        "canceled": np.bincount(kind[canceled], minlength=kinds),
        "errno": errnos,
    }


def _page_cache(run: Run, reads: NDArray[np.bool_], tier: NDArray[Any]) -> tuple[int, int]:
    storage = run.tiers["storage"].to_numpy(bool)
    if not len(storage):
        return 0, 0
    resident = run.columns(["resident_pct"])["resident_pct"][reads & storage[tier]]
    known = resident[resident != RESIDENT_UNKNOWN]
    return len(known), int(np.count_nonzero(known))


def _cells(run: Run, grouping: Grouping, kinds: pd.DataFrame) -> pd.DataFrame:
    """One row per rank and kind that occurs: the groups that all others are unions of."""
    keys = np.array(grouping.keys, np.int64)
    number = keys % max(len(kinds), 1)
    cells = kinds.iloc[number].reset_index(drop=True)
    cells["rank"] = keys // max(len(kinds), 1)
    cells["operations"] = grouping.counts
    # Ranks and nodes are compared by what their requests wait for: reads and writes.
    cells["shown"] = cells["op"].isin([label(Op.READ), label(Op.WRITE)])
    ranks = run.ranks
    for name, missing in (("node", -1), ("host", "")):
        known = pd.Series(dtype=object)
        if name in ranks and "rank" in ranks:
            known = ranks.drop_duplicates("rank").set_index("rank")[name]
        cells[name] = [known.get(rank, missing) for rank in cells["rank"]]
    return cells


def _inside(
    run: Run, window: Window, counted: NDArray[np.bool_], key: NDArray[Any], grouping: Grouping
) -> dict[str, NDArray[np.float64]]:
    """What is to be taken off each cell for the time that operations spent outside the window, for three columns."""
    result = {name: np.zeros(len(grouping.keys)) for name in ("operations", "nbytes", "tokens")}
    if window.seconds is None:
        return result
    times = run.columns(["t_start_ns", "wall_ns"])
    start, wall = times["t_start_ns"], times["wall_ns"]
    edge = np.flatnonzero(counted & ((start < window.start_ns) | (start + wall > window.end_ns)))
    if not len(edge):
        return result
    outside = 1 - window.share_inside(start[edge], wall[edge])
    del times, start, wall
    # `key` has a value per counted row, `edge` counts all rows.
    place = np.cumsum(counted)[edge] - 1
    cell = np.searchsorted(np.array(grouping.keys, np.int64), key[place])
    for name in result:
        weight = outside if name == "operations" else outside * run.columns([name])[name][edge]
        result[name] = np.bincount(cell, weight, minlength=len(grouping.keys)).astype(np.float64)
    return result
