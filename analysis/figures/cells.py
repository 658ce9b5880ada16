"""The tables of operations, made of cells: how groups of cells become rows. Reads nothing.

A cell is one row of a DataFrame with the sums over the operations of one kind, on one rank or on all, and over their
batches where they overlap (`thread_time`); what it was summed from is not asked here. Percentiles come as arrays, one
row per group (`Level.found`).
"""

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.thread_time import COLUMNS as _SHARES
from kvbench_analysis.figures.thread_time import SPLIT, thread_time
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, backed_percentile, percentiles
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import Op, Path, label

PARTS: Final = ("wall", "device", "host", "runq", "copy", "queue")
"""Times of an operation: device + host + runq = wall; copy is part of host; queue precedes wall."""
OF_THREAD: Final = (*SPLIT, "copy")
"""Those of them that no operation has of its own where several overlap."""

_GIB: Final = 1024**3
_SIZES: Final = (0.0, 50.0, 95.0, 100.0)
_SIZE_COLUMNS: Final = ("size_min_bytes", "size_p50_bytes", "size_p95_bytes", "size_max_bytes")
KIND: Final = ["tier", "op", "path"]


@dataclass(frozen=True)
class OperationFigures:
    """Tables of a summary that are made of /records, and what its warnings need to know."""

    operations: pd.DataFrame
    latency: pd.DataFrame
    totals: pd.DataFrame
    ranks: pd.DataFrame
    nodes: pd.DataFrame
    lost: dict[str, int]
    """Operations that were not counted, by the name of their errno (ECANCELED: canceled)."""
    storage_reads_checked: int
    """Storage reads whose page-cache state before the read is known."""
    storage_reads_resident: int
    """Those of them that found at least one page of their object in the page cache."""
    python_timed: int
    """Operations timed around Python calls, of those that move bytes: a memory tier's deletions always are."""


@dataclass
class Level:
    """Figures of groups that are unions of cells; `wanted` gives the percentiles per column."""

    by: list[str]
    members: list[NDArray[np.intp]]
    wanted: dict[str, tuple[float, ...]]
    found: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def use(self, column: str, segments: list[NDArray[Any]]) -> None:
        """Find the percentiles of `column`, whose values of each cell are `segments`."""
        if column in self.wanted:
            self.found[column] = np.array(
                [
                    percentiles(np.concatenate([segments[cell] for cell in cells]), self.wanted[column], overwrite=True)
                    for cells in self.members
                ]
            ).reshape(len(self.members), len(self.wanted[column]))


def kinds_of(run: Run) -> pd.DataFrame:
    """Tier, operation and path of every kind, in the order of the kinds' numbers."""
    rows = [
        (tier["name"], tier["kind"], "storage" if tier["storage"] else "memory", label(op), label(path))
        for tier in run.tiers.to_dict("records")
        for op in Op
        for path in Path
    ]
    kinds = pd.DataFrame(rows, columns=["tier", "tier_kind", "storage", "op", "path"], dtype=object)
    kinds["kind"] = np.arange(len(kinds))
    return kinds


def errno_names(numbers: NDArray[Any], counts: NDArray[Any]) -> dict[str, int]:
    """How many operations ended with each errno, by its name."""
    return {
        errno.errorcode.get(int(number), f"errno {number}"): int(count)
        for number, count in zip(numbers, counts, strict=True)
    }


def levels_of(cells: pd.DataFrame) -> dict[str, Level]:
    """The tables that are made of `cells`, by the names of OperationFigures."""
    p95: dict[str, tuple[float, ...]] = {"wall_ns": (95.0,)}
    sizes: dict[str, tuple[float, ...]] = {"nbytes": _SIZES}
    times: dict[str, tuple[float, ...]] = {f"{part}_ns": PERCENTILES for part in PARTS}
    every = np.ones(len(cells), bool)
    shown = cells["shown"].to_numpy(bool)
    return {
        "operations": level_of(cells, KIND, sizes | times, every),
        "totals": level_of(cells, ["storage", "op"], sizes | p95, every),
        "ranks": level_of(cells, ["rank", "tier", "op"], p95, shown),
        "nodes": level_of(cells, ["node", "tier", "op"], p95, shown & (cells["node"] != -1).to_numpy(bool)),
    }


def level_of(cells: pd.DataFrame, by: list[str], wanted: dict[str, tuple[float, ...]], use: NDArray[np.bool_]) -> Level:
    """The groups of the cells in `use` that are alike in `by`."""
    numbers = cells[use].groupby(by, sort=False).indices.values() if use.any() else []
    rows = np.flatnonzero(use)
    members = [rows[np.asarray(index)] for index in numbers]
    # In the order of ranks or nodes, then of the tiers from the fastest down, then of operations and paths.
    first = cells[by[0]] if by[0] in ("rank", "node") else pd.Series(0, cells.index)
    kind = cells["kind"]
    return Level(by, sorted(members, key=lambda rows: (first.iloc[rows[0]], kind.iloc[rows].min())), wanted)


def group_table(cells: pd.DataFrame, level: Level, window: Window) -> pd.DataFrame:
    """One row per group of `level`: counts, rates over the window, sizes or P95, and shares of the threads' time."""
    rows = []
    for group, index in enumerate(level.members):
        part = cells.loc[index]
        first = part.iloc[0]
        row: dict[str, Any] = {name: first[name] for name in level.by}
        row |= {"tier_kind": first["tier_kind"]} if level.by == KIND else {}
        row |= {"host": first["host"]} if level.by[0] in ("rank", "node") else {}
        row |= {"node": first["node"]} if level.by[0] == "rank" else {}
        row |= {"operations": int(part["operations"].sum()), "bytes": int(part["nbytes"].sum())}
        row["tokens"] = int(part["tokens"].sum())
        inside = {name: part[f"{name}_inside"].sum() for name in ("operations", "nbytes", "tokens")}
        row["operations_per_s"] = window.rate(inside["operations"])
        row["gib_per_s"] = window.rate(inside["nbytes"] / _GIB)
        row["tokens_per_s"] = window.rate(inside["tokens"])
        if "nbytes" in level.found:
            row |= dict(zip(_SIZE_COLUMNS, level.found["nbytes"][group], strict=True))
        row["percentiles_of"] = row["operations"]
        row["wall_p95_ns"] = level.found["wall_ns"][group][level.wanted["wall_ns"].index(95.0)]
        rows.append(row | thread_time(part, of_path=level.by == KIND).columns())
    return pd.DataFrame(rows, columns=_columns(level))


def _columns(level: Level) -> list[str]:
    """The columns of `group_table`, which an empty table has too."""
    extra = {"tier": ["tier_kind"], "rank": ["node", "host"], "node": ["host"]}.get(level.by[0], [])
    rates = ["operations", "bytes", "tokens", "operations_per_s", "gib_per_s", "tokens_per_s"]
    sizes = list(_SIZE_COLUMNS) if "nbytes" in level.wanted else []
    return [*level.by, *extra, *rates, *sizes, "percentiles_of", "wall_p95_ns", *_SHARES]


def latency_table(cells: pd.DataFrame, level: Level) -> pd.DataFrame:
    """One row per tier, operation, path and part of the time, with its distribution over all operations.

    Where operations overlap, parts of the thread's time have a share alone, and there is a part `helper` if it has one.
    """
    rows: list[dict[str, Any]] = []
    for group, index in enumerate(level.members):
        part = cells.loc[index]
        kind = {column: part.iloc[0][column] for column in KIND}
        operations, wall = int(part["operations"].sum()), int(part["wall_ns"].sum())
        time = thread_time(part, OF_THREAD, of_path=True)
        overlap = time.split_of != "operations"
        for name in PARTS:
            if name in OF_THREAD and overlap:
                rows.append(kind | _no_distribution(name, operations, time.share(name), time.split_of))
                continue
            total = int(part[f"{name}_ns"].sum())
            row = kind | {"part": name, "operations": operations, "mean_ns": total / operations}
            row["share_of_wall"] = total / wall if wall else float("nan")
            row |= dict(zip(PERCENTILE_COLUMNS, level.found[f"{name}_ns"][group], strict=True))
            row |= {"percentiles_of": operations, "backed_percentile": backed_percentile(operations)}
            rows.append(row | {"split_of": "operations"})
        if overlap and time.helper_ns > 0:
            rows.append(kind | _no_distribution("helper", operations, time.helper_share, time.split_of))
    columns = [*KIND, "part", "operations", "mean_ns", "share_of_wall", *PERCENTILE_COLUMNS, "percentiles_of"]
    return pd.DataFrame(rows, columns=[*columns, "backed_percentile", "split_of"])


def _no_distribution(part: str, operations: int, share: float, split_of: str) -> dict[str, Any]:
    """What is known of a part of the time of batches."""
    nothing = dict.fromkeys(("mean_ns", *PERCENTILE_COLUMNS, "backed_percentile"), float("nan"))
    return {"part": part, "operations": operations, "share_of_wall": share, **nothing} | {
        "percentiles_of": 0,
        "split_of": split_of,
    }


def with_lost(operations: pd.DataFrame, lost: dict[str, NDArray[Any]], kinds: pd.DataFrame) -> pd.DataFrame:
    """`operations` with the failed and canceled ones beside; a kind of which none succeeded gets a row of its own."""
    seen: set[tuple[Any, ...]] = set(operations[KIND].itertuples(index=False, name=None))
    counts = kinds.assign(failed=lost["failed"], canceled=lost["canceled"])
    counts = counts[(counts["failed"] > 0) | (counts["canceled"] > 0)]
    missing: Iterable[tuple[Any, ...]] = counts[[*KIND, "tier_kind"]].itertuples(index=False, name=None)
    empty = [
        dict(zip([*KIND, "tier_kind"], kind, strict=True))
        | {"operations": 0, "bytes": 0, "tokens": 0, "percentiles_of": 0}
        for kind in missing
        if kind[:3] not in seen
    ]
    if empty:
        added = pd.DataFrame(empty, columns=operations.columns)
        operations = added if operations.empty else pd.concat([operations, added], ignore_index=True)
    beside = operations.merge(counts[[*KIND, "failed", "canceled"]], on=KIND, how="left")
    for name in ("failed", "canceled"):
        beside[name] = beside[name].fillna(0).astype(np.int64)
    return beside
