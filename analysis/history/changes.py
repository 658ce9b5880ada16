"""How each run differs from the one before that did the same work: `compare`, of two runs at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from kvbench_analysis.compare.comparison import Comparison, compare
from kvbench_analysis.figures.storage_moves import DIRECTIONS
from kvbench_analysis.history.files import Skipped
from kvbench_analysis.history.history import PastRun
from kvbench_analysis.tables.load import Run, load

from kvbench.records.reader import KvbenchError

METRICS: Final = ("gib_per_s", "wall_p95_ns")
"""What is compared, of storage reads and writes."""
CHANGE_COLUMNS: Final = (
    "fingerprint", "path", "before", "started_at", "metric", "tier", "op", "unit", "before_value", "value", "ratio",
    "low", "high", "significant", "verdict", "backed",
)  # fmt: skip
WARNING_COLUMNS: Final = ("source", "code", "message")

_ONE_RUN: Final = "one-run"


@dataclass(frozen=True)
class Changes:
    """What `changes` found, as tidy tables."""

    metrics: pd.DataFrame
    """CHANGE_COLUMNS: one row per run that has one before it, tier of storage, operation and metric; `ratio` is this
    run's by that of the one before, and `low`, `high` and `verdict` are as `compare` has them."""
    warnings: pd.DataFrame
    """WARNING_COLUMNS: what `compare` warns of, but that there is one run on each side, as there always is."""
    skipped: tuple[Skipped, ...]
    """Runs that could not be compared."""


def changes(runs: Sequence[PastRun]) -> Changes:
    """Each of `runs`, which are in the order of time, beside the last one before it of its fingerprint. Reads rows."""
    metrics: list[dict[str, Any]] = []
    warnings: list[tuple[str, str, str]] = []
    skipped: list[Skipped] = []
    for before, past in _pairs(runs):
        try:
            earlier, later = load(before.path), load(past.path)
            found = compare({"before": [earlier], "run": [later]})
        except KvbenchError as error:
            skipped.append(Skipped(past.path, f"not compared with {before.path}: {error}"))
            continue
        pair = {"path": str(past.path), "before": str(before.path)}
        metrics += [pair | _of_run(past) | row for row in _rows(found, later)]
        for row in found.warnings.to_dict("records"):
            if row["code"] != _ONE_RUN:
                # What is about both is said of the later one.
                warnings.append((str(row["source"] or past.path), str(row["code"]), str(row["message"])))
    return Changes(
        metrics=pd.DataFrame(metrics, columns=list(CHANGE_COLUMNS)),
        warnings=pd.DataFrame(list(dict.fromkeys(warnings)), columns=list(WARNING_COLUMNS), dtype=object),
        skipped=tuple(skipped),
    )


def _pairs(runs: Sequence[PastRun]) -> Iterator[tuple[PastRun, PastRun]]:
    last: dict[str, PastRun] = {}
    for past in runs:
        if past.fingerprint:
            if past.fingerprint in last:
                yield last[past.fingerprint], past
            last[past.fingerprint] = past


def _of_run(past: PastRun) -> dict[str, str]:
    return {"fingerprint": past.fingerprint, "started_at": past.started_at}


def _rows(found: Comparison, run: Run) -> Iterator[dict[str, Any]]:
    storage = set(run.tiers.loc[run.tiers["storage"].astype(bool), "name"])
    table = found.metrics
    wanted = table["metric"].isin(METRICS) & table["tier"].isin(storage) & table["op"].isin(list(DIRECTIONS))
    for row in table[wanted].to_dict("records"):
        shown = {str(name): value for name, value in row.items() if name in CHANGE_COLUMNS}
        yield shown | {"before_value": row["baseline_value"], "value": row["target_value"]}
