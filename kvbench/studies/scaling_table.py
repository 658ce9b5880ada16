"""The table of a scaling study: one row per run, kept as CSV after every run. `kvbench_analysis` fits it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import kvbench_analysis
import pandas as pd

from kvbench.records.outputs import check_output, write_output
from kvbench.studies.scaling import TABLE, ScalingRun
from kvbench.units import storable

COLUMNS: Final = (
    "scaling", "nodes", "ranks_per_node", "ranks", "users_per_rank", "repeat", "order", "storage_gib_per_s",
    "requests_per_s", "storage_read_p95_ns", "fingerprint", "run_file",
)  # fmt: skip
"""Rates are of all ranks together, over the measured window; storage counts reads and writes."""


_DISTORTING: Final = {"long-window", "short-window", "late-start", "early-end", "idle-ranks"}
"""Warnings of a run that bend the curve it is a point of."""


class ScalingTable:
    """Rows of finished runs, in the order in which they were run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def add(self, runs: Sequence[tuple[ScalingRun, Path]]) -> str:
        """Add the last of `runs` and write the table; returns its figures for people."""
        run, path = runs[-1]
        summary = kvbench_analysis.summarize(kvbench_analysis.load(path))
        row = _row(run, path, summary, len(self._rows))
        self._rows.append(row)
        content = pd.DataFrame(self._rows, columns=COLUMNS).to_csv(index=False)
        write_output(check_output(self._path, TABLE), content.encode(), TABLE)
        warnings = "".join(f"; {caution.message}" for caution in summary.warnings if caution.code in _DISTORTING)
        return f"{row['storage_gib_per_s']:.3g} GiB/s, {row['requests_per_s']:.3g} requests/s{warnings}"


def _row(run: ScalingRun, path: Path, summary: kvbench_analysis.Summary, order: int) -> dict[str, Any]:
    totals = summary.totals
    storage = totals[(totals["storage"] == "storage") & totals["op"].isin(["read", "write"])]
    reads = storage[storage["op"] == "read"]
    requests = summary.requests
    return {
        "scaling": run.scaling,
        "nodes": run.nodes,
        "ranks_per_node": run.ranks_per_node,
        "ranks": run.ranks,
        "users_per_rank": run.users_per_rank,
        "repeat": run.repeat,
        "order": order,
        "storage_gib_per_s": float(storage["gib_per_s"].sum()),
        "requests_per_s": float(requests[requests["qos"] == "all"]["requests_per_s"].sum()),
        "storage_read_p95_ns": float(reads["wall_p95_ns"].iloc[0]) if len(reads) else float("nan"),
        "fingerprint": summary.run["fingerprint"],
        "run_file": storable(str(path)),
    }
