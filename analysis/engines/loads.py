"""What requests that are served as an engine does waited for until their blocks were loaded, in one run.

A load begins with the first look-up of the filesystem or the first read of a request, and ends with its last read. Only
runs whose file has every row say so.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from kvbench_analysis.summary.summary import summarize
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Op, Phase, RequestState

_COLUMNS: Final = ("rank", "request", "op", "tier", "phase", "errno", "t_start_ns", "wall_ns", "nbytes")
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
    """In which one load or more were under way."""
    load_p50_ns: float
    load_p95_ns: float
    store_gib: float
    operations_per_s: float
    """Reads, writes and look-ups of storage, over the measured window."""
    look_ups: int
    look_up_share: float
    """Of the time of loads: until the last look-up of each had its answer."""
    device_share: float
    host_share: float
    runq_share: float
    """Of the wall time of reads; NaN where operations overlap, whose time has no such parts."""


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
    begins, ends, looked = _loads(rows, reads, looks)
    spans = ends - begins
    summary = summarize(run)
    window_s = float(summary.run["window_s"] or 0)
    read = summary.totals[(summary.totals["storage"] == "storage") & (summary.totals["op"] == "read")].iloc[0]
    moved = reads | looks | (rows["op"] == Op.WRITE)
    digest, requests = _requests(run)
    return LoadFigures(
        requests=requests,
        requests_digest=digest,
        loads=len(spans),
        load_gib=float(rows["nbytes"][reads].sum()) / 2**30,
        load_seconds=_covered(begins, ends) / 1e9,
        load_p50_ns=float(np.percentile(spans, 50)),
        load_p95_ns=float(np.percentile(spans, 95)),
        store_gib=float(rows["nbytes"][rows["op"] == Op.WRITE].sum()) / 2**30,
        operations_per_s=float(moved.sum()) / window_s if window_s else float("nan"),
        look_ups=int(looks.sum()),
        look_up_share=float((looked - begins).sum() / spans.sum()),
        device_share=float(read["device_share"]),
        host_share=float(read["host_share"]),
        runq_share=float(read["runq_share"]),
    )


def _loads(
    rows: dict[str, NDArray[Any]], reads: NDArray[np.bool_], looks: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each request that read anything: when its load began and ended, and when its last look-up had its answer (or
    the load began)."""
    key = rows["rank"].astype(np.int64) << 32 | rows["request"].astype(np.int64)
    start = rows["t_start_ns"].astype(np.int64)
    end = start + rows["wall_ns"].astype(np.int64)
    known, place = np.unique(key[reads], return_inverse=True)
    first = np.full(len(known), np.iinfo(np.int64).max)
    last = np.zeros(len(known), np.int64)
    np.minimum.at(first, place, start[reads])
    np.maximum.at(last, place, end[reads])
    at = np.minimum(np.searchsorted(known, key[looks]), len(known) - 1)
    of_a_load = known[at] == key[looks]
    np.minimum.at(first, at[of_a_load], start[looks][of_a_load])
    looked = first.copy()
    np.maximum.at(looked, at[of_a_load], end[looks][of_a_load])
    return first, last, np.minimum(looked, last)


def _covered(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> float:
    """How long one or more of these spans last."""
    order = np.argsort(begins)
    begins, ends = begins[order], ends[order]
    reached = np.maximum.accumulate(ends)
    before = np.concatenate([begins[:1], reached[:-1]])
    return float(np.maximum(0, ends - np.maximum(begins, before)).sum())


def _requests(run: Run) -> tuple[str, int]:
    columns = run.columns([*_ASKED, "phase", "state"], "requests")
    done = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE)
    table = np.stack([columns[name][done].astype("<i8") for name in _ASKED], axis=1)
    table = table[np.lexsort(table.T[::-1])]
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()[:16], int(done.sum())
