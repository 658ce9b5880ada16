"""The figures of operations: per tier, operation and path, per rank and per node. Requests are not looked at.

Only operations of the phase `measure` that ended without an error are figured; others are counted beside. A column is
read, used for every figure that needs it, and let go, so memory holds a few columns at a time.
"""

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.grouping import Grouping
from kvbench_analysis.load import Run
from kvbench_analysis.percentiles import PERCENTILE_COLUMNS, PERCENTILES, backed_percentile, percentiles
from kvbench_analysis.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import RESIDENT_UNKNOWN, Op, Path, Phase, TimedBy, label

PARTS: Final = ("wall", "device", "host", "runq", "copy", "queue")
"""Times of an operation: device + host + runq = wall; copy is part of host; queue precedes wall."""

_GIB: Final = 1024**3
_SIZES: Final = (0.0, 50.0, 95.0, 100.0)
_SIZE_COLUMNS: Final = ("size_min_bytes", "size_p50_bytes", "size_p95_bytes", "size_max_bytes")
_KIND: Final = ["tier", "op", "path"]
_SHARED: Final = ("device", "host", "runq")


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
    """Operations timed around Python calls."""


@dataclass
class _Level:
    """Figures of groups that are unions of cells; `wanted` gives the percentiles per column."""

    by: list[str]
    members: list[NDArray[np.intp]]
    wanted: dict[str, tuple[float, ...]]
    found: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def use(self, column: str, segments: list[NDArray[Any]]) -> None:
        if column in self.wanted:
            self.found[column] = np.array(
                [
                    percentiles(np.concatenate([segments[cell] for cell in cells]), self.wanted[column], overwrite=True)
                    for cells in self.members
                ]
            ).reshape(len(self.members), len(self.wanted[column]))


def operation_figures(run: Run, window: Window) -> OperationFigures:
    """All figures of the operations of `run`; rates are over `window`."""
    codes = run.columns(["phase", "errno", "op", "tier", "path", "rank"])
    measured = codes["phase"] == Phase.MEASURE
    counted = measured & (codes["errno"] == 0)
    kinds = _kinds(run)
    kind = (codes["tier"].astype(np.uint16) * len(Op) + codes["op"]) * len(Path) + codes["path"]
    lost = _lost(kind[measured & ~counted], codes["errno"][measured & ~counted], len(kinds))
    used = np.bincount(kind[counted], minlength=len(kinds)) > 0
    # Kinds that occur are numbered without gaps, which keeps the keys of a thousand ranks within 16 bits.
    dense = (np.cumsum(used) - 1).astype(np.uint16)
    key = codes["rank"][counted].astype(np.int64) * max(int(used.sum()), 1) + dense[kind[counted]]
    checked, resident = _page_cache(run, counted & (codes["op"] == Op.READ), codes["tier"])
    del codes, measured, kind

    grouping = Grouping(key)
    cells = _cells(run, grouping, kinds[used].reset_index(drop=True))
    levels = _levels(cells)
    inside = _inside(run, window, counted, key, grouping)
    everything = bool(counted.all())
    del key
    for column in ("nbytes", "tokens", *(f"{part}_ns" for part in PARTS)):
        values = run.columns([column])[column]
        segments = list(grouping.split(values if everything else values[counted]))
        cells[column] = [int(segment.sum(dtype=np.int64)) for segment in segments]
        for level in levels.values():
            level.use(column, segments)
    for column, share in inside.items():
        cells[f"{column}_inside"] = cells[column] - share
    python_timed = int(np.count_nonzero(run.columns(["timed_by"])["timed_by"][counted] == TimedBy.PYTHON))
    operations = _table(cells, levels["operations"], window)
    return OperationFigures(
        operations=_beside(operations, lost, kinds),
        latency=_latency(cells, levels["operations"]),
        totals=_table(cells, levels["totals"], window),
        ranks=_table(cells, levels["ranks"], window),
        nodes=_table(cells, levels["nodes"], window),
        lost=_names(lost["errno"]),
        storage_reads_checked=checked,
        storage_reads_resident=resident,
        python_timed=python_timed,
    )


def _kinds(run: Run) -> pd.DataFrame:
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


def _lost(kind: NDArray[Any], errnos: NDArray[Any], kinds: int) -> dict[str, NDArray[Any]]:
    canceled = errnos == errno.ECANCELED
    return {
        "failed": np.bincount(kind[~canceled], minlength=kinds),
        "canceled": np.bincount(kind[canceled], minlength=kinds),
        "errno": errnos,
    }


def _names(errnos: NDArray[Any]) -> dict[str, int]:
    numbers, counts = np.unique(errnos, return_counts=True)
    return {
        errno.errorcode.get(int(number), f"errno {number}"): int(count)
        for number, count in zip(numbers, counts, strict=True)
    }


def _page_cache(run: Run, reads: NDArray[np.bool_], tier: NDArray[Any]) -> tuple[int, int]:
    storage = run.tiers["storage"].to_numpy(bool)
    if not len(storage):
        return 0, 0
    resident = run.columns(["resident_pct"])["resident_pct"][reads & storage[tier]]
    known = resident[resident != RESIDENT_UNKNOWN]
    return len(known), int(np.count_nonzero(known))


def _cells(run: Run, grouping: Grouping, kinds: pd.DataFrame) -> pd.DataFrame:
    """One row per rank and kind that occurs: the groups that all others are unions of."""
    keys = np.array(grouping.keys, np.int64)
    number = keys % max(len(kinds), 1)
    cells = kinds.iloc[number].reset_index(drop=True)
    cells["rank"] = keys // max(len(kinds), 1)
    cells["operations"] = grouping.counts
    # Ranks and nodes are compared by what their requests wait for: reads and writes.
    cells["shown"] = cells["op"].isin([label(Op.READ), label(Op.WRITE)])
    ranks = run.ranks
    for name, missing in (("node", -1), ("host", "")):
        known = pd.Series(dtype=object)
        if name in ranks and "rank" in ranks:
            known = ranks.drop_duplicates("rank").set_index("rank")[name]
        cells[name] = [known.get(rank, missing) for rank in cells["rank"]]
    return cells


def _levels(cells: pd.DataFrame) -> dict[str, _Level]:
    p95: dict[str, tuple[float, ...]] = {"wall_ns": (95.0,)}
    sizes: dict[str, tuple[float, ...]] = {"nbytes": _SIZES}
    times: dict[str, tuple[float, ...]] = {f"{part}_ns": PERCENTILES for part in PARTS}
    every = np.ones(len(cells), bool)
    shown = cells["shown"].to_numpy(bool)
    return {
        "operations": _level(cells, _KIND, sizes | times, every),
        "totals": _level(cells, ["storage", "op"], sizes | p95, every),
        "ranks": _level(cells, ["rank", "tier", "op"], p95, shown),
        "nodes": _level(cells, ["node", "tier", "op"], p95, shown & (cells["node"] != -1).to_numpy(bool)),
    }


def _level(cells: pd.DataFrame, by: list[str], wanted: dict[str, tuple[float, ...]], use: NDArray[np.bool_]) -> _Level:
    numbers = cells[use].groupby(by, sort=False).indices.values() if use.any() else []
    rows = np.flatnonzero(use)
    members = [rows[np.asarray(index)] for index in numbers]
    # In the order of ranks or nodes, then of the tiers from the fastest down, then of operations and paths.
    first = cells[by[0]] if by[0] in ("rank", "node") else pd.Series(0, cells.index)
    kind = cells["kind"]
    return _Level(by, sorted(members, key=lambda rows: (first.iloc[rows[0]], kind.iloc[rows].min())), wanted)


def _inside(
    run: Run, window: Window, counted: NDArray[np.bool_], key: NDArray[Any], grouping: Grouping
) -> dict[str, NDArray[np.float64]]:
    """What is to be taken off each cell for the time that operations spent outside the window, for three columns."""
    result = {name: np.zeros(len(grouping.keys)) for name in ("operations", "nbytes", "tokens")}
    if window.seconds is None:
        return result
    times = run.columns(["t_start_ns", "wall_ns"])
    start, wall = times["t_start_ns"], times["wall_ns"]
    edge = np.flatnonzero(counted & ((start < window.start_ns) | (start + wall > window.end_ns)))
    if not len(edge):
        return result
    outside = 1 - window.share_inside(start[edge], wall[edge])
    del times, start, wall
    # `key` has a value per counted row, `edge` counts all rows.
    place = np.cumsum(counted)[edge] - 1
    cell = np.searchsorted(np.array(grouping.keys, np.int64), key[place])
    for name in result:
        weight = outside if name == "operations" else outside * run.columns([name])[name][edge]
        result[name] = np.bincount(cell, weight, minlength=len(grouping.keys)).astype(np.float64)
    return result


def _table(cells: pd.DataFrame, level: _Level, window: Window) -> pd.DataFrame:
    """One row per group of `level`: counts, rates over the window, sizes or P95, and shares of the wall time."""
    rows = []
    for group, index in enumerate(level.members):
        part = cells.loc[index]
        first = part.iloc[0]
        row: dict[str, Any] = {name: first[name] for name in level.by}
        row |= {"tier_kind": first["tier_kind"]} if level.by == _KIND else {}
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
        row["wall_p95_ns"] = level.found["wall_ns"][group][level.wanted["wall_ns"].index(95.0)]
        wall = part["wall_ns"].sum()
        row |= {f"{name}_share": part[f"{name}_ns"].sum() / wall if wall else float("nan") for name in _SHARED}
        rows.append(row)
    return pd.DataFrame(rows, columns=_columns(level))


def _columns(level: _Level) -> list[str]:
    """The columns of `_table`, which an empty table has too."""
    extra = {"tier": ["tier_kind"], "rank": ["node", "host"], "node": ["host"]}.get(level.by[0], [])
    rates = ["operations", "bytes", "tokens", "operations_per_s", "gib_per_s", "tokens_per_s"]
    sizes = list(_SIZE_COLUMNS) if "nbytes" in level.wanted else []
    return [*level.by, *extra, *rates, *sizes, "wall_p95_ns", *(f"{name}_share" for name in _SHARED)]


def _latency(cells: pd.DataFrame, level: _Level) -> pd.DataFrame:
    """One row per tier, operation, path and part of the time, with its distribution over all operations."""
    rows: list[dict[str, Any]] = []
    for group, index in enumerate(level.members):
        part = cells.loc[index]
        operations, wall = int(part["operations"].sum()), int(part["wall_ns"].sum())
        for name in PARTS:
            total = int(part[f"{name}_ns"].sum())
            row = {column: part.iloc[0][column] for column in _KIND}
            row |= {"part": name, "operations": operations, "mean_ns": total / operations}
            row["share_of_wall"] = total / wall if wall else float("nan")
            row |= dict(zip(PERCENTILE_COLUMNS, level.found[f"{name}_ns"][group], strict=True))
            rows.append(row | {"backed_percentile": backed_percentile(operations)})
    columns = [*_KIND, "part", "operations", "mean_ns", "share_of_wall", *PERCENTILE_COLUMNS, "backed_percentile"]
    return pd.DataFrame(rows, columns=columns)


def _beside(operations: pd.DataFrame, lost: dict[str, NDArray[Any]], kinds: pd.DataFrame) -> pd.DataFrame:
    """`operations` with the failed and canceled ones beside; a kind of which none succeeded gets a row of its own."""
    seen: set[tuple[Any, ...]] = set(operations[_KIND].itertuples(index=False, name=None))
    counts = kinds.assign(failed=lost["failed"], canceled=lost["canceled"])
    counts = counts[(counts["failed"] > 0) | (counts["canceled"] > 0)]
    missing: Iterable[tuple[Any, ...]] = counts[[*_KIND, "tier_kind"]].itertuples(index=False, name=None)
    empty = [
        dict(zip([*_KIND, "tier_kind"], kind, strict=True)) | {"operations": 0, "bytes": 0, "tokens": 0}
        for kind in missing
        if kind[:3] not in seen
    ]
    if empty:
        added = pd.DataFrame(empty, columns=operations.columns)
        operations = added if operations.empty else pd.concat([operations, added], ignore_index=True)
    beside = operations.merge(counts[[*_KIND, "failed", "canceled"]], on=_KIND, how="left")
    for name in ("failed", "canceled"):
        beside[name] = beside[name].fillna(0).astype(np.int64)
    return beside
