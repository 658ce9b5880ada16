"""The figures of one run of a what-if study. All times are by how much the run was stretched, so that they are of the
system that was asked about; what was measured was longer.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.thread_time import SPLIT, thread_time, with_batches
from kvbench_analysis.tables.batch_sums import batch_sums, overlap
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.virtual import virtual_speed
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Phase, RequestState

METRICS: Final = {
    "first_token": "time to first token",
    "load": "load of a request",
    "latency": "latency of a request",
}
"""Which one is looked at: the first where compute is modelled, which is in it; the second where requests are served as
an engine does it (look-ups and loads of those that found anything); else the last, waits before the start included."""

_COLUMNS: Final = (
    "phase", "state", "intended_ns", "end_ns", "look_up_ns", "load_ns", "first_token_ns", "hit_tokens",
)  # fmt: skip
_PARTS: Final = (*SPLIT, "copy")


@dataclass(frozen=True)
class WhatIfRun:
    """Of one run."""

    metric: str
    """One of METRICS."""
    requests: int
    """That were done in the measured phase, and have the figure."""
    mean_ns: float
    p50_ns: float
    p95_ns: float
    requests_per_s: float
    device_share: float
    """Of the time that threads spent in operations of the measured phase, as the kernel accounted it: of batches whose
    operations overlap, and of the others. NaN where the file does not say it."""
    host_share: float
    runq_share: float
    copy_share: float
    """In `host_share`."""
    asleep_s: float
    """For so long were workers delayed, all of them together."""
    busy_s: float


def whatif_run(run: Run) -> WhatIfRun:
    """The figures of `run`. Raises KvbenchError where it has not every row, or no request was done."""
    if run.mode != "full":
        raise KvbenchError(f"{run.path}: only a file with every row (records=full) tells the parts of its time")
    virtual = virtual_speed(run)
    stretch = 1.0 if virtual is None else virtual.stretch
    metric = _metric(run)
    columns = run.columns(list(_COLUMNS), "requests")
    done = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE)
    values = _values(metric, {name: column[done] for name, column in columns.items()}) / stretch
    if not len(values):
        raise KvbenchError(
            f"{run.path}: no request of the measured phase has a {METRICS[metric]}: measure longer (duration_s), or "
            "let requests find something"
        )
    seconds = Window.of(run.attributes).seconds
    p50, p95 = np.percentile(values, [50, 95])
    delays = None if virtual is None else run.delays
    return WhatIfRun(
        metric=metric,
        requests=len(values),
        mean_ns=float(values.mean()),
        p50_ns=float(p50),
        p95_ns=float(p95),
        requests_per_s=float(done.sum()) / seconds * stretch if seconds else float("nan"),
        asleep_s=0.0 if delays is None else float(delays["asleep_ns"].sum()) / 1e9,
        busy_s=0.0 if delays is None else float(delays["busy_ns"].sum()) / 1e9,
        **_shares(run),
    )


def _metric(run: Run) -> str:
    if isinstance(run.config.get("compute"), dict):
        return "first_token"
    return "load" if run.serves_as_engine else "latency"


def _values(metric: str, columns: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    if metric == "first_token":
        found: NDArray[Any] = columns["first_token_ns"]
        return np.asarray(found[found > 0], np.float64)
    if metric == "load":
        loaded = (columns["load_ns"] >= 0) & (columns["look_up_ns"] >= 0) & (columns["hit_tokens"] > 0)
        return np.asarray((columns["look_up_ns"] + columns["load_ns"])[loaded], np.float64)
    return np.asarray(columns["end_ns"] - columns["intended_ns"], np.float64)


def _shares(run: Run) -> dict[str, float]:
    names = ["wall_ns", *(f"{part}_ns" for part in _PARTS)]
    columns = run.columns(["phase", "errno", "rank", "timed_by", *names])
    counted = (columns["phase"] == Phase.MEASURE) & (columns["errno"] == 0)
    rows = pd.DataFrame({name: columns[name][counted] for name in ("rank", *names)})
    rows["overlap"] = overlap(columns["timed_by"][counted])
    cells = rows.groupby("rank", as_index=False).agg(dict.fromkeys(names, "sum") | {"overlap": "any"})
    time = thread_time(with_batches(cells, batch_sums(run, ["rank"]), ["rank"]), _PARTS)
    return {f"{part}_share": time.share(part) for part in _PARTS}
