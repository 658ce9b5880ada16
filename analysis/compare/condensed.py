"""What `compare` takes of the whole population where a file has only a sample of the rows.

Rates and hit rates come from exact sums, percentiles from histograms where every repeat has them. How much they vary
is told by the sample: its resampled figures, each scaled to the figure of the whole.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from kvbench_analysis.compare.figures import PERCENTILES, TargetFigures
from kvbench_analysis.condensed import operations as condensed
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.statistics import Floats, Scaled
from kvbench_analysis.tables.window import Window

from kvbench.records.condensed.histogram import RELATIVE_ERROR, Histogram
from kvbench.records.condensed.population_schema import KINDS_PER_TIER
from kvbench.records.schema import Op, Quantity, label

_QUANTITIES = {"wall": Quantity.WALL, "device": Quantity.DEVICE, "host": Quantity.HOST}
_GIB = 1024**3


def with_exact(figures: list[TargetFigures], runs: Sequence[Run]) -> list[TargetFigures]:
    """`figures` of `runs`, with what the files know of all rows in the place of what their samples say."""
    if all(run.mode == "full" for run in runs):
        return figures
    return [_exact(one, runs) for one in figures]


def _exact(one: TargetFigures, runs: Sequence[Run]) -> TargetFigures:
    name = one.metrics[0].metric
    if name == "gib_per_s":
        sums = [_moved(run, one) for run in runs]
    elif name in ("prefix_blocks", "prefix_hits"):
        sums = [_looked_up(run, "objects" if name == "prefix_blocks" else "tokens") for run in runs]
    elif all(run.mode == "histogram" for run in runs):
        return _of_histograms(one, runs)
    else:
        return one
    of_runs = one.of_runs.copy()
    for number, pair in enumerate(sums):
        if pair is not None:
            of_runs[number, 0] = pair[0] / pair[1] if pair[1] else np.nan
    known = [pair for pair in sums if pair is not None]
    if len(known) < len(runs):
        # Repeats with all rows beside ones without: their own figures count, each as much as the others.
        return _scaled(one, np.array([np.nanmean(of_runs[:, 0])]), of_runs)
    above, below = (sum(pair[side] for pair in known) for side in (0, 1))
    return _scaled(one, np.array([above / below if below else np.nan]), of_runs)


def _moved(run: Run, one: TargetFigures) -> tuple[float, float] | None:
    """GiB that were moved, and the seconds of the window."""
    if run.mode == "full":
        return None
    rows = condensed.table_rows(run, "population")
    metric = one.metrics[0]
    mine = rows[(rows["tier"] == list(run.tiers["name"]).index(metric.tier)) & (rows["op"] == _op(metric.op))]
    return float(mine["nbytes"].sum()) / _GIB, Window.of(run.attributes).seconds or 0.0


def _looked_up(run: Run, unit: str) -> tuple[float, float] | None:
    """What was found, and what was looked up."""
    if run.mode == "full":
        return None
    rows = condensed.table_rows(run, "request_population")
    hits, misses = (float(rows[f"{kind}_{unit}"].sum()) for kind in ("hit", "miss"))
    return hits, hits + misses


def _of_histograms(one: TargetFigures, runs: Sequence[Run]) -> TargetFigures:
    metric = one.metrics[0]
    part = metric.metric.partition("_p")[0]
    merged, of_runs = Histogram(), np.full((len(runs), len(PERCENTILES)), np.nan)
    for number, run in enumerate(runs):
        mine = Histogram()
        table = "request_histograms" if part == "request" else "histograms"
        for (quantity, index), histogram in condensed.histograms(run, table).items():
            if part == "request":
                wanted = quantity == Quantity.REQUEST_LATENCY
            else:
                tier, rest = divmod(index, KINDS_PER_TIER)
                op = rest // (KINDS_PER_TIER // len(Op))
                name = str(run.tiers["name"].iloc[tier])
                wanted = quantity == _QUANTITIES[part] and (name, op) == (metric.tier, _op(metric.op))
            if wanted:
                mine.merge(histogram)
        of_runs[number] = mine.percentiles(PERCENTILES)
        merged.merge(mine)
    exact = _scaled(one, merged.percentiles(PERCENTILES), of_runs)
    return replace(exact, count=merged.count, relative_error=RELATIVE_ERROR)


def _scaled(one: TargetFigures, values: Floats, of_runs: Floats) -> TargetFigures:
    with np.errstate(invalid="ignore", divide="ignore"):
        factors = np.where(one.values != 0, values / one.values, 1.0)
    return replace(one, figure=Scaled(one.figure, factors), values=values, of_runs=of_runs)


def _op(name: str) -> Op:
    return next(op for op in Op if label(op) == name)
