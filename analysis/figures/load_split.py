"""What requests waited for while they loaded: device, host and run queue, as far as that is known exactly.

A load has many operations on several threads, whose times overlap and add up to more than the request waited. Exact is
what one thread did: that which carried out the operation of the load that ended last. From the start of the load to
that end it did one thing after the other, and its rows have their split; the rest of the load it did not spend in
timed operations. Where operations overlap in batches there is no such row, and nothing but the shares of all batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from kvbench_analysis.figures.loads import loads_of
from kvbench_analysis.figures.thread_time import SPLIT
from kvbench_analysis.tables.batch_sums import batch_sums, overlap
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.schema import Op, label

_LOADS: Final = (label(Op.READ), label(Op.PROMOTE))
_NAN: Final = float("nan")


@dataclass(frozen=True)
class LoadSplit:
    """Of the loads of all requests that found something."""

    split_of: Literal["loads", "batches", "unknown"]
    """`loads`: of the time that requests loaded; `batches`: of the time of the threads in batches that overlap, which
    is no part of what requests waited; `unknown`: there are no shares."""
    device_share: float
    host_share: float
    runq_share: float
    other_share: float
    """Of `loads`: no timed operation that began in the load ran on the thread: an earlier one was not over, payload was
    checked, or another request's turn was decided. NaN of `batches`."""
    helper_share: float
    """Of `batches`: processor time of other threads, beside them."""
    requests: int
    """Of `loads`: whose loads are in it."""
    unknown: str = ""
    """Why there are no shares."""


def load_split(run: Run, requests: Mapping[str, NDArray[Any]]) -> LoadSplit:
    """Of `requests`, columns of /requests: those that count, of which any found something."""
    if run.mode != "full":
        return _unknown("the file has a sample of the operations")
    loads = loads_of(run, requests)
    if not len(loads.row):
        return _unknown("nothing was loaded")
    if overlap(run.columns(["timed_by"])["timed_by"][loads.row]).any():
        return _of_batches(run)
    last = _last_of_each(loads.of, loads.end_ns)
    of, row = loads.of[last], loads.row[last]
    begins = (requests["start_ns"] + requests["look_up_ns"])[of]
    parts = _done_by_thread(run, row, begins)
    # What a clock of another node makes the load end too late by is left out of it.
    whole = float(np.maximum(requests["load_ns"][of], sum(parts.values())).sum())
    if not whole:
        return _unknown("nothing was waited for")
    shares = {part: float(values.sum()) / whole for part, values in parts.items()}
    other = max(0.0, 1 - sum(shares.values()))
    return LoadSplit("loads", shares["device"], shares["host"], shares["runq"], other, _NAN, len(of))


def _last_of_each(of: NDArray[np.int64], end_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of what ended last of each request."""
    order = np.lexsort((end_ns, of))
    return order[np.flatnonzero(np.append(np.diff(of[order]) != 0, True))]


def _done_by_thread(run: Run, row: NDArray[np.int64], begins: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """For each of `row`, what its thread's operations took, by part, from the first that started at `begins` or later
    up to that one."""
    columns = run.columns(["rank", "thread", "t_start_ns"])
    _, thread = np.unique(columns["rank"].astype(np.int64) << 16 | columns["thread"], return_inverse=True)
    start = columns["t_start_ns"]
    order = np.lexsort((start, thread))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    # Whose times are many digits long: threads and times are made one number by the order of the times.
    times = np.unique(start)
    ordered = (thread[order].astype(np.int64) << 32) + np.searchsorted(times, start[order])
    first = np.searchsorted(ordered, (thread[row].astype(np.int64) << 32) + np.searchsorted(times, begins))
    last = place[row] + 1
    parts = {}
    for part in SPLIT:
        summed = np.concatenate(([0], np.cumsum(run.columns([f"{part}_ns"])[f"{part}_ns"][order])))
        parts[part] = np.where(first < last, summed[last] - summed[np.minimum(first, last)], 0)
    return parts


def _of_batches(run: Run) -> LoadSplit:
    found = batch_sums(run, ["op"])
    found = found[found["op"].isin(_LOADS)] if len(found) else found
    wall = float(found["batch_wall_ns"].sum()) if len(found) else 0.0
    if not wall:
        return _unknown("operations overlap, and the file does not say what their batches add up to")
    shares = [float(found[f"batch_{part}_ns"].sum()) / wall for part in (*SPLIT, "helper")]
    return LoadSplit("batches", shares[0], shares[1], shares[2], _NAN, shares[3], 0)


def _unknown(why: str) -> LoadSplit:
    return LoadSplit("unknown", _NAN, _NAN, _NAN, _NAN, _NAN, 0, why)
