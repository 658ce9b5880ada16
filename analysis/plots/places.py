"""Where and when: cells of ranks x time."""

from typing import Final

import numpy as np
import pandas as pd
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Cells, Panel

_ROW_PIXELS: Final = 14


def rank_heatmap(cells: pd.DataFrame, what: str) -> Figure:
    """Latency and bandwidth of each rank over time: `cells` is `rank_cells` of the operations called `what`."""
    ranks = np.unique(cells["rank"])
    starts = np.unique(cells["start_s"])
    # Without gaps: bins in which no rank ended an operation have their place too.
    width = float((cells["end_s"] - cells["start_s"]).max())
    bins = round(float(starts[-1]) / width) + 1
    edges = np.append(np.arange(bins) * width, cells["end_s"].max())
    row, column = np.searchsorted(ranks, cells["rank"]), np.round(cells["start_s"] / width).astype(int)

    def grid(name: str, values: pd.Series) -> Cells:
        filled = np.full((len(ranks), bins), np.nan, np.float32)
        filled[row, column] = values
        # One cell far out would leave all others the same colour.
        low, high = np.percentile(values, (1, 99))
        ends = (float(low), float(high)) if low < high else (None, None)
        return Cells(name, edges, np.arange(len(ranks)), filled, *ends)

    last = cells.groupby("rank")["last_rank"].first()
    step = max(1, -(-len(ranks) // 16))
    ticks = {
        float(place): str(rank) if last[rank] == rank else f"{rank}-{last[rank]}"
        for place, rank in enumerate(ranks)
        if place % step == 0
    }
    x, y = Axis("seconds of the measured window"), Axis("rank", ticks=ticks)
    shared = (cells["last_rank"] > cells["rank"]).any()
    together = " Neighbouring ranks share a row; GiB/s are per rank." if shared else ""
    return Figure(
        "heatmap",
        "Ranks over time",
        f"The {what} that ended in each {width:g} s: their mean wall time per operation, and what they moved. "
        "A row that stands out is a slow rank, a column that stands out a moment when all were slow. "
        "The colours end at the 1st and the 99th percentile of the cells." + together,
        (
            Panel("mean wall time", x, y, (grid("ms per operation", cells["wall_ns"] / 1e6),)),
            Panel("moved", x, y, (grid("GiB/s", cells["gib_per_s"]),)),
        ),
        panel_height=max(120, min(480, _ROW_PIXELS * len(ranks))),
        one_x=True,
    )
