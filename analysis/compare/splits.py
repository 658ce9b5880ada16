"""Where the threads' time went, of runs of which some have operations that overlap: as shares, as operations that do
have no device or host time of their own that could be compared."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.compare.figures import OPS, Metric, TargetFigures
from kvbench_analysis.condensed.operations import overlaps, table_rows
from kvbench_analysis.figures.thread_time import SPLIT, ThreadTime, thread_time, with_batches
from kvbench_analysis.tables.batch_sums import batch_sums, overlap
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.statistics import RatioOfSums

from kvbench.records.schema import Phase, label

Kind = tuple[str, str]
"""Tier and operation."""

_SUMS: Final = ("wall_ns", *(f"{part}_ns" for part in SPLIT))
_BY: Final = ["tier", "op"]


def thread_times(run: Run) -> dict[Kind, ThreadTime]:
    """Of the reads and writes of every tier that has some."""
    rows = _rows(run) if run.mode == "full" else table_rows(run, "population")
    found = []
    for code, tier in enumerate(run.tiers["name"]):
        for op in OPS:
            mine = (rows["tier"] == code) & (rows["op"] == op)
            if mine.any():
                sums = {name: int(rows[name][mine].sum()) for name in _SUMS}
                known = overlap(rows["timed_by"][mine]) if run.mode == "full" else overlaps(rows[mine])
                found.append({"tier": str(tier), "op": label(op), "overlap": bool(known.any())} | sums)
    cells = with_batches(pd.DataFrame(found, columns=[*_BY, "overlap", *_SUMS]), batch_sums(run, _BY), _BY)
    return {
        (row["tier"], row["op"]): thread_time(cells[at : at + 1]) for at, row in enumerate(cells.to_dict("records"))
    }


def overlapping_kinds(times: dict[Kind, ThreadTime]) -> list[Kind]:
    """Those of which operations overlap."""
    return [kind for kind, time in times.items() if time.split_of != "operations"]


def split_figures(runs: Sequence[dict[Kind, ThreadTime]], kinds: Sequence[Kind]) -> Iterator[TargetFigures]:
    """Shares of device, host and run queue of `kinds`, of the repeats of one target; what varies are the repeats."""
    for tier, op in kinds:
        times = [of_run[tier, op] for of_run in runs if (tier, op) in of_run]
        if not times or any(time.split_of == "unknown" for time in times):
            continue
        of = np.array([time.wall_ns for time in times])
        for part in SPLIT:
            figure = RatioOfSums(np.array([time.parts_ns[part] for time in times]), of)
            values = figure.evaluate(np.ones((1, figure.units)))[0]
            metric = Metric(f"{part}_share", tier, op, "", "", 0.0)
            of_runs = [of_run[tier, op].share(part) if (tier, op) in of_run else np.nan for of_run in runs]
            yield TargetFigures((metric,), figure, values, np.array(of_runs)[:, None], len(times))


def told(times: dict[Kind, ThreadTime]) -> str:
    """What is to be said of a run of which operations overlap; "": none do."""
    kinds = overlapping_kinds(times)
    if not kinds:
        return ""
    names = ", ".join(f"{op}s of {tier}" for tier, op in kinds)
    unknown = any(times[kind].split_of == "unknown" for kind in kinds)
    how = "is not known: the file does not say what their batches add up to" if unknown else "is of batches"
    return f"{names} overlap: the split of their time {how}, not of operations, so that only shares of it are compared"


def _rows(run: Run) -> dict[str, Any]:
    """Columns of the operations that count."""
    columns = run.columns(["phase", "errno", "tier", "op", "timed_by", *_SUMS])
    counted = (columns.pop("phase") == Phase.MEASURE) & (columns.pop("errno") == 0)
    return {name: values[counted] for name, values in columns.items()}
