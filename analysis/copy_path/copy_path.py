"""What a second copy of the data costs, alone and among others: the tables and sentences of a copy-path study.

The unit of every interval is the repeat. Cells that are compared stand next to each other in a repeat, so they are
compared repeat by repeat: a ratio is the mean over the repeats by the mean over the same repeats of the baseline.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.copy_path.cells import PARTS, cell_figures
from kvbench_analysis.summary.summary import summarize
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.statistics import Floats, Interval, RatioOfSums, draw_units, interval_of

from kvbench.records.schema import RESIDENT_UNKNOWN

BASELINE: Final = "double-copy"
SINGLE: Final = "numpy"
"""The read path that differs from the baseline by the second copy alone."""

COMBINATION: Final = ["directory", "filesystem", "object_bytes", "ranks", "threads"]

METRICS: Final = (
    "old_device_p95_ns", "device_p95_ns", "old_host_p95_ns", "host_p95_ns", "runq_p95_ns", "total_p95_ns",
    "tokens_per_s", "request_p95_ns", "host_ns_per_byte", "roofline_fraction",
)  # fmt: skip
"""Per rank and read, but for the request; `old_` is the split by the span of the load, the others the kernel's."""

_GIB: Final = 1024**3
_IN_MEMORY: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class CopyPathFigures:
    """Everything that a copy-path study says. Times are in ns; `low` and `high` bound 95 % intervals over repeats."""

    source: str
    study: dict[str, str | int | float | None]
    """Facts: attributes of the file, and `same_twice`: by how much the two modes differ at one rank on one node, where
    they are the same measurement (mean of |ratio - 1| of the total P95; None where there is no such pair)."""
    warnings: tuple[str, ...]
    cells: pd.DataFrame
    """One row per cell: see `cell_figures`, and `tokens_per_s`, `host_ns_per_byte`, `roofline_fraction`."""
    table: pd.DataFrame
    """One row per combination, mode, read path and metric: `value`, `low`, `high`, and `ratio` to double-copy with
    `ratio_low`, `ratio_high`; `repeats`, and `fewest`: the values behind it in the repeat that has fewest."""
    second_copy: pd.DataFrame
    """One row per combination: see `second_copy_costs`."""
    roofline: pd.DataFrame
    """One row per number of ranks that copied at once: GiB/s of a node (mean over nodes), with its interval."""
    headlines: pd.DataFrame
    """The rows of `second_copy` that the sentences are about, one for each directory."""


class _Resampler:
    """Intervals over repeats. The same draws serve all figures of as many repeats."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._draws: dict[int, Floats] = {}

    def ratio(self, numerator: Any, denominator: Any) -> Interval:
        """Sum by sum over the repeats where both are known."""
        above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
        known = np.isfinite(above) & np.isfinite(below)
        figure = RatioOfSums(above[known], below[known])
        units = figure.units
        if not units or not figure.denominator.sum():
            return Interval(*[float("nan")] * 3)
        if units not in self._draws:
            self._draws[units] = draw_units(units, self._rng)
        estimate = float(figure.numerator.sum() / figure.denominator.sum())
        return interval_of(estimate, figure.evaluate(self._draws[units])[:, 0], units)

    def mean(self, values: Any) -> Interval:
        return self.ratio(values, np.ones(len(values)))


def copy_path_figures(run: Run, rng: np.random.Generator, *, bytes_per_token: int | None = None) -> CopyPathFigures:
    """All figures of the study file `run`; `bytes_per_token` replaces that of the study's model.

    Raises KvbenchError where `run` is not a copy-path study.
    """
    cells = cell_figures(run)
    resampler = _Resampler(rng)
    token_bytes = int(bytes_per_token or run.attributes["bytes_per_token"])
    copies = pd.DataFrame(run.columns(["node", "ranks", "repeat", "copy_gib_per_s"], "roofline"))
    copies = copies.groupby(["ranks", "repeat"], as_index=False).agg({"copy_gib_per_s": "mean"})
    cells["tokens_per_s"] = cells["gib_per_s"] * _GIB / token_bytes
    cells["host_ns_per_byte"] = cells["mean_host_ns"] / cells["object_bytes"]
    cells["roofline_fraction"] = _fractions(cells, copies)
    costs = second_copy_costs(cells, resampler)
    names = ("run_id", "status", "started_at", "kvbench_version", "timer", "model", "ranks", "nodes", "fingerprint")
    facts: dict[str, Any] = {name: run.attributes.get(name) for name in names}
    facts |= {"bytes_per_token": token_bytes, "same_twice": _same_twice(cells, int(run.attributes["nodes"]))}
    cpus = int(run.nodes["cpus"].min()) if len(run.nodes) else 1
    return CopyPathFigures(
        source=str(run.path),
        study=facts,
        warnings=tuple(_warnings(run, cells)),
        cells=cells,
        table=_table(cells, resampler),
        second_copy=costs,
        roofline=_roofline(copies, resampler),
        headlines=_headlines(costs, cpus),
    )


def _fractions(cells: pd.DataFrame, copies: pd.DataFrame) -> list[float]:
    """What a node's ranks read, by what as many ranks as there are reading threads copy in the same repeat (the
    largest number of ranks where there are more threads)."""
    rates = copies.set_index(["ranks", "repeat"])["copy_gib_per_s"].to_dict()
    levels = np.sort(copies["ranks"].unique())
    result = []
    for row in cells.to_dict("records"):
        reading = row["ranks"] if row["mode"] == "contended" else 1
        reached = levels[levels <= reading * row["threads"]]
        rate = rates.get((reached[-1], row["repeat"]), np.nan) if len(reached) else np.nan
        result.append(row["gib_per_s"] * reading / rate)
    return result


def _table(cells: pd.DataFrame, resampler: _Resampler) -> pd.DataFrame:
    rows = []
    for key, paths in cells.groupby([*COMBINATION, "mode"], sort=False):
        baseline = paths[paths["read_path"] == BASELINE].set_index("repeat")
        for path, values in paths.groupby("read_path", sort=False):
            mine = values.set_index("repeat").sort_index()
            for metric in METRICS:
                value = resampler.mean(mine[metric])
                row = dict(zip([*COMBINATION, "mode"], key, strict=True))
                row |= {"read_path": path, "metric": metric, "repeats": int(mine[metric].notna().sum())}
                row["fewest"] = int(mine["requests" if metric == "request_p95_ns" else "reads"].min())
                row |= {"value": value.estimate, "low": value.low, "high": value.high}
                ratio = resampler.ratio(mine[metric], baseline[metric].reindex(mine.index))
                row |= {"ratio": ratio.estimate, "ratio_low": ratio.low, "ratio_high": ratio.high}
                rows.append(row)
    columns = [*COMBINATION, "mode", "read_path", "metric", "repeats", "fewest", "value", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "ratio", "ratio_low", "ratio_high"])


def second_copy_costs(cells: pd.DataFrame, resampler: _Resampler) -> pd.DataFrame:
    """The cost of the second copy, double-copy less numpy, of the mean read of every combination.

    `isolated_ns` and `contended_ns`: wall time; `isolated_share`, `contended_share`: of the read with one copy.
    `more_ns`: by how much contention raises it, which is exactly `more_host_ns` + `more_runq_ns` + `more_device_ns`;
    the first is processor time for the same bytes: memory bandwidth (`bandwidth_share` of the whole). Also
    `isolated_host_ns_per_byte` and `contended_host_ns_per_byte` of the second copy, and `growth`, their ratio; and
    `isolated_copy_ns_per_byte`, `contended_copy_ns_per_byte`, `copy_growth` of the processor time in the copying call
    alone, which needs no difference of two read paths. Each has its bounds beside it (`_low`, `_high`). `slowed`:
    contention costs more, and that is no chance.
    """
    rows = []
    for key, found in cells.groupby(COMBINATION, sort=False):
        cost = _second_copies(found)
        if cost is None:
            continue
        row: dict[str, Any] = dict(zip(COMBINATION, key, strict=True)) | {"repeats": len(cost)}
        more = cost["contended_wall"] - cost["isolated_wall"]
        figures = {"more_ns": resampler.mean(more)}
        for mode in ("isolated", "contended"):
            figures[f"{mode}_ns"] = resampler.mean(cost[f"{mode}_wall"])
            figures[f"{mode}_share"] = resampler.ratio(cost[f"{mode}_wall"], cost[f"{mode}_single"])
            for part in ("host", "copy"):
                figures[f"{mode}_{part}_ns_per_byte"] = resampler.mean(cost[f"{mode}_{part}"] / row["object_bytes"])
        for part in ("host", "runq", "device"):
            figures[f"more_{part}_ns"] = resampler.mean(cost[f"contended_{part}"] - cost[f"isolated_{part}"])
        figures["bandwidth_share"] = resampler.ratio(cost["contended_host"] - cost["isolated_host"], more)
        figures["growth"] = resampler.ratio(cost["contended_host"], cost["isolated_host"])
        figures["copy_growth"] = resampler.ratio(cost["contended_copy"], cost["isolated_copy"])
        for name, interval in figures.items():
            row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row | {"slowed": bool(figures["more_ns"].low > 0)})
    return pd.DataFrame(rows)


def _second_copies(cells: pd.DataFrame) -> pd.DataFrame | None:
    """Per repeat, mean times of double-copy less those of numpy, in both modes; None where one was not measured."""
    values = [f"mean_{part}_ns" for part in PARTS]
    means = cells.pivot_table(index="repeat", columns=["mode", "read_path"], values=values)
    wanted = [(mode, path) for mode in ("isolated", "contended") for path in (BASELINE, SINGLE)]
    if not all(("mean_wall_ns", *one) in means for one in wanted):
        return None
    columns = {}
    for mode in ("isolated", "contended"):
        for part in PARTS:
            single = means[f"mean_{part}_ns", mode, SINGLE]
            columns[f"{mode}_{part}"] = means[f"mean_{part}_ns", mode, BASELINE] - single
        columns[f"{mode}_single"] = means["mean_wall_ns", mode, SINGLE]
    complete = pd.DataFrame(columns).dropna()
    return complete if len(complete) else None


def _headlines(costs: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Of each directory: most ranks, largest objects, and the most threads that the processors can run at once, as
    beyond that threads wait for processors and not for memory."""
    chosen = []
    for _, rows in costs.groupby("directory", sort=False) if len(costs) else ():
        most = rows[rows["ranks"] == rows["ranks"].max()]
        largest = most[most["object_bytes"] == most["object_bytes"].max()].sort_values("threads")
        fitting = largest[largest["ranks"] * largest["threads"] <= cpus]
        chosen.append(fitting.index[-1] if len(fitting) else largest.index[0])
    return costs.loc[chosen]


def _roofline(copies: pd.DataFrame, resampler: _Resampler) -> pd.DataFrame:
    rows = []
    for ranks, found in copies.groupby("ranks"):
        rate = resampler.mean(found["copy_gib_per_s"])
        rows.append((ranks, len(found), rate.estimate, rate.low, rate.high))
    return pd.DataFrame(rows, columns=["ranks", "repeats", "copy_gib_per_s", "low", "high"])


def _same_twice(cells: pd.DataFrame, nodes: int) -> float | None:
    alone = cells[cells["ranks"] == 1]
    if nodes != 1 or alone.empty:
        return None
    totals = alone.pivot_table(index=[*COMBINATION, "read_path"], columns="mode", values="total_p95_ns").dropna()
    if totals.empty or len(totals.columns) < 2:
        return None
    return float((totals["contended"] / totals["isolated"] - 1).abs().mean())


def _warnings(run: Run, cells: pd.DataFrame) -> Iterator[str]:
    for caution in summarize(run).warnings:
        # Percentiles of all cells together nobody asks for here, and the page cache is another's on each directory.
        if caution.code not in ("few-operations", "page-cache"):
            yield caution.message
    codes = run.columns(["tier", "resident_pct"])
    kinds = cells.drop_duplicates("directory").set_index("directory")["filesystem"]
    for code, directory in enumerate(run.tiers["name"]):
        resident = codes["resident_pct"][codes["tier"] == code]
        known = resident[resident != RESIDENT_UNKNOWN]
        found = float(np.mean(known > 0)) if len(known) else 0.0
        if found and kinds.get(directory) in _IN_MEMORY:
            yield f"{kinds[directory]} at {directory} keeps its files in memory: no device takes part in its reads"
        elif found:
            yield (
                f"{found:.1%} of the reads from {directory} found pages of their object in the page cache although it "
                "was dropped: such reads measure memory, not storage"
            )
