"""The figures of operations where the file does not hold every row: of exact sums, and of histograms or a sample.

Counts, bytes, rates, means and shares are of all operations. Percentiles are of all operations too where the file has
histograms (within 1 %), and otherwise of the sampled rows; `percentiles_of` says how many stand behind them.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures import operations
from kvbench_analysis.figures.cells import (
    KIND,
    Level,
    OperationFigures,
    errno_names,
    group_table,
    kinds_of,
    latency_table,
    level_of,
    levels_of,
    with_lost,
)
from kvbench_analysis.figures.thread_time import SPLIT, with_batches
from kvbench_analysis.tables.batch_sums import batch_sums
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.condensed.histogram import Histogram
from kvbench.records.condensed.population import classes_or_kinds, kind_numbers, read_histograms
from kvbench.records.condensed.population_schema import FILE_TABLES, OPERATION_SUMS, QUANTITY_COLUMNS
from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Op, Path, Quantity, label

_QUANTITY_OF: Final = {column: quantity for quantity, column in QUANTITY_COLUMNS.items()}
_INSIDE: Final = ("operations", "nbytes", "tokens")
_P95: Final[dict[str, tuple[float, ...]]] = {"wall_ns": (95.0,)}
_SAMPLED_SIZES: Final = ["size_p50_bytes", "size_p95_bytes"]
_DISTRIBUTION: Final = (*PERCENTILE_COLUMNS, "percentiles_of", "backed_percentile")

Histograms = Mapping[tuple[Quantity, int], Histogram]


def operation_figures(run: Run, window: Window) -> OperationFigures:
    """All figures of the operations of `run`, which is not of mode `full`; rates are over `window`."""
    population = table_rows(run, "population")
    kinds = kinds_of(run)
    numbers = _kind_of(population)
    counted = population["operations"] > 0
    cells = with_batches(_cells(population[counted], kinds), batch_sums(run, ["tier", "op"]), ["tier", "op"])
    levels = levels_of(cells)
    exact = {
        name: _exact(level, population[counted]) if name in ("operations", "totals") else level
        for name, level in levels.items()
    }
    if run.mode == "histogram":
        found = histograms(run, "histograms")
        for name in ("operations", "totals"):
            _use_histograms(exact[name], found, kind_numbers(population[counted], len(run.tiers)))
    lost = {
        name: np.bincount(numbers, population[name], minlength=len(kinds)).astype(np.int64)
        for name in ("failed", "canceled")
    }
    errors = table_rows(run, "errors")
    places = _places(run, kinds)
    ranks, nodes = (
        _place_table(run, part, place, window)
        for part, place in ((places[places["rank"] >= 0], "rank"), (places[places["rank"] < 0], "node"))
    )
    table = with_lost(group_table(cells, exact["operations"], window), lost, kinds)
    figures = OperationFigures(
        operations=table,
        latency=latency_table(cells, exact["operations"]),
        totals=group_table(cells, exact["totals"], window),
        ranks=ranks,
        nodes=nodes,
        lost=_lost_by_errno(errors),
        **_page_cache(run, population),
        python_timed=int(population["timed_by_python"][population["op"] != Op.DELETE].sum()),
    )
    return figures if run.mode == "histogram" else _with_sample(figures, operations.operation_figures(run, window))


def table_rows(run: Run, table: str) -> NDArray[np.void]:
    """The rows of one of the tables of `population_schema`; columns that an older file does not have are 0."""
    columns = run.columns(run.file.tables[table].columns, table)
    rows = np.zeros(run.file.tables[table].rows, FILE_TABLES[table])
    for name, values in columns.items():
        rows[name] = values
    return rows


def histograms(run: Run, table: str) -> Histograms:
    """The histograms of `table` (`histograms`, `request_histograms`), by quantity, and number of their kind or class.

    Raises KvbenchError where they contradict themselves.
    """
    rows, buckets = table_rows(run, table), table_rows(run, "buckets")
    found: dict[tuple[Quantity, int], Histogram] = {}
    try:
        numbers = classes_or_kinds(rows, len(run.tiers), 256)
        for key, histogram in read_histograms(rows, numbers, buckets):
            if key in found:
                raise ValueError(f"two histograms of {label(key[0])} are of the same")
            found[key] = histogram
    except ValueError as error:
        raise KvbenchError(f"{run.path} is damaged: /{table}: {error}") from error
    return found


def _kind_of(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """The place of each row's kind in `kinds_of`, where localities are not told apart."""
    return np.asarray((rows["tier"].astype(np.int64) * len(Op) + rows["op"]) * len(Path) + rows["path"])


def _cells(population: NDArray[np.void], kinds: pd.DataFrame) -> pd.DataFrame:
    cells = kinds.iloc[_kind_of(population)].reset_index(drop=True)
    for name in OPERATION_SUMS:
        cells[name] = population[name]
    # A measured operation begins and ends within the window, whose end is that of the last of them.
    for name in _INSIDE:
        cells[f"{name}_inside"] = population[name].astype(np.float64)
    return cells.assign(rank=-1, node=-1, host="", shown=False, overlap=overlaps(cells))


def overlaps(sums: Any) -> Any:
    """Which of the sums over operations have some that overlap in them: these have a wall time, and no parts of it,
    which in all others add up to it."""
    return sums["wall_ns"] > sum(sums[f"{part}_ns"] for part in SPLIT)


def _exact(level: Level, population: NDArray[np.void]) -> Level:
    """`level` with what is exact of its percentiles: the least and the largest size. The others are NaN."""
    for column, wanted in level.wanted.items():
        level.found[column] = np.full((len(level.members), len(wanted)), np.nan)
    for group, members in enumerate(level.members):
        sizes = level.found["nbytes"][group]
        sizes[0], sizes[-1] = population["least_nbytes"][members].min(), population["most_nbytes"][members].max()
    return level


def _use_histograms(level: Level, found: Histograms, numbers: NDArray[np.int64]) -> None:
    for column, wanted in level.wanted.items():
        for group, members in enumerate(level.members):
            merged = Histogram()
            for number in numbers[members]:
                if (_QUANTITY_OF[column], int(number)) in found:
                    merged.merge(found[_QUANTITY_OF[column], int(number)])
            level.found[column][group] = merged.percentiles(wanted)


def _places(run: Run, kinds: pd.DataFrame) -> pd.DataFrame:
    """Cells of the ranks, and of the nodes (with rank -1)."""
    rows = table_rows(run, "places")
    cells = kinds.iloc[(rows["tier"].astype(np.int64) * len(Op) + rows["op"]) * len(Path)].reset_index(drop=True)
    for name in rows.dtype.names or ():
        if name not in ("tier", "op"):
            cells[name] = rows[name]
    for name in _INSIDE:
        cells[f"{name}_inside"] = rows[name].astype(np.float64)
    hosts: dict[Any, Any] = {}
    for table in (run.ranks, run.nodes):
        if {"node", "host"} <= set(table):
            hosts |= dict(zip(table["node"], table["host"], strict=True))
    cells["host"] = [hosts.get(node, "") for node in cells["node"]]
    return pd.DataFrame(cells).assign(overlap=overlaps(rows))


def _place_table(run: Run, cells: pd.DataFrame, place: str, window: Window) -> pd.DataFrame:
    by = [place, "tier", "op"]
    cells = with_batches(cells, batch_sums(run, by), by)
    return group_table(cells, _places_level(cells, place), window)


def _places_level(cells: pd.DataFrame, place: str) -> Level:
    level = level_of(cells, [place, "tier", "op"], _P95, np.ones(len(cells), bool))
    level.found["wall_ns"] = np.array(
        [[cells.loc[members[0], "wall_p95_ns"]] for members in level.members], np.float64
    ).reshape(len(level.members), 1)
    return level


def _lost_by_errno(errors: NDArray[np.void]) -> dict[str, int]:
    numbers, place = np.unique(errors["errno"], return_inverse=True)
    return errno_names(numbers, np.bincount(place, errors["operations"], minlength=len(numbers)))


def _page_cache(run: Run, population: NDArray[np.void]) -> dict[str, int]:
    storage = run.tiers["storage"].to_numpy(bool)
    reads = population[(population["op"] == Op.READ)]
    reads = reads[storage[reads["tier"]]] if len(reads) else reads
    return {
        "storage_reads_checked": int(reads["residency_known"].sum()),
        "storage_reads_resident": int(reads["resident"].sum()),
    }


def _with_sample(exact: OperationFigures, sample: OperationFigures) -> OperationFigures:
    """The figures of all operations, with the percentiles of the sampled ones."""
    p95 = ["percentiles_of", "wall_p95_ns"]
    return OperationFigures(
        operations=_taken(exact.operations, sample.operations, KIND, [*_SAMPLED_SIZES, *p95]),
        latency=_of_operations(_taken(exact.latency, sample.latency, [*KIND, "part"], list(_DISTRIBUTION))),
        totals=_taken(exact.totals, sample.totals, ["storage", "op"], [*_SAMPLED_SIZES, *p95]),
        ranks=_taken(exact.ranks, sample.ranks, ["rank", "tier", "op"], p95),
        nodes=_taken(exact.nodes, sample.nodes, ["node", "tier", "op"], p95),
        lost=exact.lost,
        storage_reads_checked=exact.storage_reads_checked,
        storage_reads_resident=exact.storage_reads_resident,
        python_timed=exact.python_timed,
    )


def _of_operations(latency: pd.DataFrame) -> pd.DataFrame:
    """`latency` without percentiles of a sample that has only those operations of a kind that do not overlap."""
    others = latency["split_of"] != "operations"
    latency.loc[others, [*PERCENTILE_COLUMNS, "backed_percentile"]] = np.nan
    latency.loc[others, "percentiles_of"] = 0
    return latency


def _taken(exact: pd.DataFrame, sample: pd.DataFrame, by: list[str], columns: list[str]) -> pd.DataFrame:
    """`exact` with `columns` of the row of `sample` that is of the same; missing where the sample has none."""
    taken: Any = exact.drop(columns=columns).merge(sample[[*by, *columns]], on=by, how="left")[list(exact.columns)]
    taken["percentiles_of"] = taken["percentiles_of"].fillna(0).astype(np.int64)
    return pd.DataFrame(taken)
