"""The figures of every cell of a copy-path study, from its records. `copy_path` compares them."""

from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import percentiles
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError

KIND: Final = "study-copy-path"
"""Attribute `kind` of a study file."""

PARTS: Final = ("wall", "device", "host", "runq", "copy")

_GIB: Final = 1024**3
_COLUMNS: Final = (
    "cell", "directory", "filesystem", "object_bytes", "ranks", "threads", "mode", "read_path", "repeat", "order",
)  # fmt: skip


def cell_figures(run: Run) -> pd.DataFrame:
    """One row per cell that was measured to its end.

    Beside the columns that say which cell it is: `reads` and `requests` (whole ones); means over all reads of all its
    ranks, `mean_wall_ns` and so for `device`, `host`, `runq`, `copy`; 95th percentiles of the kernel's split
    (`device_p95_ns`, `host_p95_ns`, `runq_p95_ns`), of the old one (`old_device_p95_ns`: of the load's span,
    `old_host_p95_ns`: of the rest of the wall time), of the wall time (`total_p95_ns`) and of the requests'
    (`request_p95_ns`: the sum of the wall times of its reads); and `gib_per_s`, what one rank reads per second of its
    threads' reading time, as a mean over the ranks. Raises KvbenchError where `run` is not a copy-path study.
    """
    if run.attributes.get("kind") != KIND or "cells" not in run.file.tables:
        raise KvbenchError(f"{run.path} is not a copy-path study; for a run's figures use `kvbench summary`")
    cells = pd.DataFrame(run.columns(_COLUMNS, "cells")).sort_values("cell", ignore_index=True)
    counted, place = _counted(run, cells)
    rank = run.columns(["rank"])["rank"][counted].astype(np.int64)
    ranks = int(rank.max()) + 1 if len(rank) else 1
    by_rank = place * ranks + rank
    request = run.columns(["request"])["request"][counted].astype(np.int64)
    wall_ns = run.columns(["wall_ns"])["wall_ns"][counted]
    nbytes = run.columns(["nbytes"])["nbytes"][counted]

    grouping = Grouping(place)
    found = np.array(grouping.keys, np.intp)
    cells["reads"] = np.bincount(place, minlength=len(cells))
    for part in PARTS:
        values = wall_ns if part == "wall" else run.columns([f"{part}_ns"])[f"{part}_ns"][counted]
        _set(cells, f"mean_{part}_ns", found, [group.mean() for group in grouping.split(values)])
        if part != "copy":
            _set(cells, "total_p95_ns" if part == "wall" else f"{part}_p95_ns", found, _p95(grouping, values))
    span_ns = run.columns(["span_ns"])["span_ns"][counted]
    _set(cells, "old_device_p95_ns", found, _p95(grouping, span_ns))
    _set(cells, "old_host_p95_ns", found, _p95(grouping, wall_ns - span_ns))
    cells["gib_per_s"] = _rate(cells, by_rank, ranks, wall_ns, nbytes)
    _add_requests(cells, run, by_rank, request, wall_ns, ranks)
    return cells


def _counted(run: Run, cells: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which records count, and the place of each one's cell: reads that worked, of cells that came to their end."""
    codes = run.columns(["user", "errno"])
    numbers = cells["cell"].to_numpy(np.int64)
    if not len(numbers):
        return np.zeros(len(codes["user"]), bool), np.empty(0, np.int64)
    place = np.searchsorted(numbers, codes["user"])
    known = numbers[np.minimum(place, len(numbers) - 1)] == codes["user"]
    counted = known & (codes["errno"] == 0)
    return counted, place[counted].astype(np.int64)


def _set(cells: pd.DataFrame, name: str, found: NDArray[np.intp], values: list[Any]) -> None:
    column = np.full(len(cells), np.nan)
    column[found] = values
    cells[name] = column


def _p95(grouping: Grouping, values: NDArray[Any]) -> list[float]:
    return [float(percentiles(group, (95.0,))[0]) for group in grouping.split(values)]


def _rate(
    cells: pd.DataFrame, by_rank: NDArray[np.int64], ranks: int, wall_ns: NDArray[Any], nbytes: NDArray[Any]
) -> NDArray[np.float64]:
    """GiB per second of reading time: a rank's threads read at once, so its rate is that of one times their number."""
    shape = (len(cells), ranks)
    seconds = np.bincount(by_rank, wall_ns, minlength=shape[0] * shape[1]).reshape(shape) / 1e9
    gib = np.bincount(by_rank, nbytes, minlength=shape[0] * shape[1]).reshape(shape) / _GIB
    rates = np.full(shape, np.nan)
    np.divide(gib * cells["threads"].to_numpy()[:, None], seconds, out=rates, where=seconds > 0)
    reading = np.count_nonzero(seconds > 0, axis=1)
    return np.where(reading, np.nansum(rates, axis=1) / np.maximum(reading, 1), np.nan)


def _add_requests(
    cells: pd.DataFrame,
    run: Run,
    by_rank: NDArray[np.int64],
    request: NDArray[np.int64],
    wall_ns: NDArray[Any],
    ranks: int,
) -> None:
    """`requests` and `request_p95_ns`; a request that was cut short is left out."""
    numbers = int(request.max()) + 1 if len(request) else 1
    keys, place, reads = np.unique(by_rank * numbers + request, return_inverse=True, return_counts=True)
    whole = reads == int(run.attributes["reads_per_request"])
    storage_ns = np.bincount(place, wall_ns, minlength=len(keys))[whole]
    cell = (keys // (numbers * ranks))[whole]
    cells["requests"] = np.bincount(cell, minlength=len(cells))
    grouping = Grouping(cell)
    _set(cells, "request_p95_ns", np.array(grouping.keys, np.intp), _p95(grouping, storage_ns))
