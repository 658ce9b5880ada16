"""What requests that are served as an engine does waited for until their blocks were loaded, in one run.

A load is the look-ups of the filesystem and the reads of a request, and its time is that of the thread that had most to
do for it: the time in which one of these or more were under way there. What kvbench itself does between two of them
(checking what was read, looking at the page cache) is no engine's, and left out. Only runs whose file has every row say
so.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from kvbench_analysis.summary.summary import summarize
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import RESIDENT_UNKNOWN, Op, Phase, RequestState

_COLUMNS: Final = (
    "rank",
    "request",
    "thread",
    "op",
    "tier",
    "phase",
    "errno",
    "t_start_ns",
    "wall_ns",
    "nbytes",
    "resident_pct",
)
_ASKED: Final = ("rank", "request", "context_tokens", "output_tokens")


@dataclass(frozen=True)
class LoadFigures:
    """Of one run."""

    requests: int
    """That were done in the measured phase."""
    requests_digest: str
    """Of those: the same where the same was asked for, in whatever order."""
    loads: int
    """Requests that read anything from storage."""
    load_gib: float
    load_seconds: float
    """In which one look-up or read or more were under way."""
    load_p50_ns: float
    load_p95_ns: float
    store_gib: float
    operations_per_s: float
    """Reads, writes and look-ups of storage, over the measured window."""
    look_ups: int
    look_up_share: float
    """Of the time of loads."""
    device_share: float
    host_share: float
    runq_share: float
    """Of the time of the threads that read (`figures.thread_time`); NaN where it is not known."""
    split_of: str
    """What these shares are of: `operations`, `batches`, or `unknown`."""
    cached_share: float
    """Of reads, those that found pages of their object in the page cache, from which what was never synced cannot be
    dropped; NaN where nobody looked."""


def load_figures(run: Run) -> LoadFigures:
    """The figures of `run`. Raises KvbenchError where it has not every row, or nothing was loaded."""
    if run.mode != "full":
        raise KvbenchError(f"{run.path}: only a file with every row (records=full) says how long each load took")
    columns = run.columns(list(_COLUMNS))
    storage = run.tiers["storage"].to_numpy(bool)[columns["tier"]]
    counted = storage & (columns["phase"] == Phase.MEASURE) & (columns["errno"] == 0)
    rows = {name: values[counted] for name, values in columns.items()}
    reads, looks = rows["op"] == Op.READ, rows["op"] == Op.LOOKUP
    if not reads.any():
        raise KvbenchError(f"{run.path}: nothing was loaded from storage, so no engine can be told from another")
    spans, looking = _loads(rows, reads, looks)
    loading = reads | looks
    resident = rows["resident_pct"][reads]
    resident = resident[resident != RESIDENT_UNKNOWN]
    summary = summarize(run)
    window_s = float(summary.run["window_s"] or 0)
    read = summary.totals[(summary.totals["storage"] == "storage") & (summary.totals["op"] == "read")].iloc[0]
    moved = loading | (rows["op"] == Op.WRITE)
    digest, requests = _requests(run)
    return LoadFigures(
        requests=requests,
        requests_digest=digest,
        loads=len(spans),
        load_gib=float(rows["nbytes"][reads].sum()) / 2**30,
        load_seconds=float(_covered(rows, loading, np.zeros(int(loading.sum()), np.int64))[0]) / 1e9,
        load_p50_ns=float(np.percentile(spans, 50)),
        load_p95_ns=float(np.percentile(spans, 95)),
        store_gib=float(rows["nbytes"][rows["op"] == Op.WRITE].sum()) / 2**30,
        operations_per_s=float(moved.sum()) / window_s if window_s else float("nan"),
        look_ups=int(looks.sum()),
        look_up_share=float(looking.sum() / spans.sum()),
        device_share=float(read["device_share"]),
        host_share=float(read["host_share"]),
        runq_share=float(read["runq_share"]),
        split_of=str(read["split_of"]),
        cached_share=float((resident > 0).mean()) if len(resident) else float("nan"),
    )


def _loads(
    rows: dict[str, NDArray[Any]], reads: NDArray[np.bool_], looks: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each request that read anything: the time of its load, and that of the look-ups in it, in ns."""
    request = rows["rank"].astype(np.int64) << 32 | rows["request"].astype(np.int64)
    known = np.unique(request[reads])
    place = np.minimum(np.searchsorted(known, request), len(known) - 1)
    counted = (reads | looks) & (known[place] == request)
    threads = int(rows["thread"].max()) + 1
    times = []
    for what in (counted, counted & looks):
        lane = place[what] * threads + rows["thread"][what]
        busy = np.zeros(len(known) * threads, np.int64)
        if what.any():
            busy[np.unique(lane)] = _covered(rows, what, lane)
        times.append(busy.reshape(len(known), threads).max(axis=1))
    return times[0], times[1]


def _covered(rows: dict[str, NDArray[Any]], what: NDArray[np.bool_], group: NDArray[Any]) -> NDArray[np.int64]:
    """For each of the groups, in their order, how long one or more of its operations were under way, in ns. `group` is
    that of each of the operations `what`."""
    start = rows["t_start_ns"][what].astype(np.int64)
    end = start + rows["wall_ns"][what].astype(np.int64)
    order = np.lexsort((start, group))
    group, start, end = group[order], start[order], end[order]
    # Groups one behind the other in time, so that what is reached in one says nothing of the next.
    first = np.concatenate([[True], group[1:] != group[:-1]])
    number = np.cumsum(first) - 1
    width = int(end.max() - start.min()) + 1
    shift = number * width - int(start.min())
    reached = np.maximum.accumulate(end + shift)
    before = np.concatenate([[0], reached[:-1]])
    spans = np.maximum(0, reached - np.maximum(start + shift, before))
    return np.bincount(number, weights=spans).astype(np.int64)


def _requests(run: Run) -> tuple[str, int]:
    columns = run.columns([*_ASKED, "phase", "state"], "requests")
    done = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE)
    table = np.stack([columns[name][done].astype("<i8") for name in _ASKED], axis=1)
    table = table[np.lexsort(table.T[::-1])]
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()[:16], int(done.sum())
