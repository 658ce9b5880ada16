"""Reads of a shared key space by who wrote the object, where the file does not hold every row (see `condensed`)."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.condensed.operations import histograms, overlaps, table_rows
from kvbench_analysis.figures import sharing
from kvbench_analysis.figures.sharing import SharingFigures
from kvbench_analysis.figures.thread_time import SPLIT
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, backed_percentile
from kvbench_analysis.tables.window import Window

from kvbench.records.condensed.histogram import Histogram
from kvbench.records.condensed.population import kind_numbers
from kvbench.records.schema import Locality, Op, Quantity, label

_GIB: Final = 1024**3
_FROM_ROWS: Final = [*PERCENTILE_COLUMNS, "max_ns", "backed_percentile"]


def sharing_figures(run: Run, window: Window) -> SharingFigures:
    """As `sharing.sharing_figures`; counts, bytes, rates, means and shares of reads are of all of them."""
    of_rows = sharing.sharing_figures(run, window)
    if of_rows.reads.empty:
        return of_rows
    exact = _reads(run, window)
    if run.mode != "histogram":
        taken = of_rows.reads[["writer", *_FROM_ROWS]]
        exact = exact.drop(columns=_FROM_ROWS).merge(taken, on="writer")[list(of_rows.reads.columns)]
    return replace(of_rows, reads=exact[list(of_rows.reads.columns)])


def _reads(run: Run, window: Window) -> pd.DataFrame:
    rows = table_rows(run, "population")
    storage = run.tiers["storage"].to_numpy(bool)
    rows = rows[(rows["op"] == Op.READ) & np.isin(rows["tier"], np.flatnonzero(storage)) & (rows["operations"] > 0)]
    found = histograms(run, "histograms") if run.mode == "histogram" else {}
    result = []
    for kind in Locality:
        mine = rows[rows["locality"] == kind]
        operations, wall = int(mine["operations"].sum()), int(mine["wall_ns"].sum())
        row: dict[str, Any] = {"writer": label(kind), "operations": operations, "bytes": int(mine["nbytes"].sum())}
        row["gib_per_s"] = window.rate(row["bytes"] / _GIB)
        told = not overlaps(mine).any()
        row |= sharing.reads_split({part: int(mine[f"{part}_ns"].sum()) for part in SPLIT}, wall, told)
        row["mean_ns"] = wall / operations if operations else float("nan")
        merged = Histogram()
        for number in kind_numbers(mine, len(run.tiers)):
            if (Quantity.WALL, int(number)) in found:
                merged.merge(found[Quantity.WALL, int(number)])
        row |= dict(zip(PERCENTILE_COLUMNS, merged.percentiles(PERCENTILES), strict=True))
        row["max_ns"] = float(merged.most) if merged.count else float("nan")
        result.append(row | {"backed_percentile": backed_percentile(operations)})
    return pd.DataFrame(result)
