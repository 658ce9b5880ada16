"""Contention: what a byte costs, against how many others were active on the node while it was moved.

docs/contention.md has the definitions, and defines every column.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.contention.concurrency import MeasuredOperations, measured_operations
from kvbench_analysis.contention.factor import BinSums, contention_factor
from kvbench_analysis.tables.batch_sums import overlap
from kvbench_analysis.tables.kinds import KIND, each_kind
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.membership import Members
from kvbench_analysis.tables.statistics import Floats, draw_units, mean_of_blocks
from kvbench_analysis.tables.time_bins import block_count, block_numbers
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

METRICS: Final = {
    "host_ns_per_byte": ("host_ns", "nbytes"),
    "device_ns_per_byte": ("device_ns", "nbytes"),
    "runq_share": ("runq_ns", "wall_ns"),
}
"""What the curve shows, as one column of /records by another."""
CURVE_AGAINST: Final = ("operations", "ranks")
CURVE_COLUMNS: Final = (
    "scope", "node", "host", *KIND, "against", "bin_low", "bin_high", "others", "operations", "bytes", "metric",
    "median", "low", "high", "mean",
)  # fmt: skip
FACTOR_COLUMNS: Final = (
    "scope", "node", "rank", "host", *KIND, "operations", "bytes", "factor", "low", "high",
    "alone_ns_per_byte", "contended_ns_per_byte", "others_low", "others_high", "extrapolated",
)  # fmt: skip

STEADY: Final = 1.05
FEWEST_STEADY: Final = 0.1
_SINGLE_BINS: Final = 16
_RANK_RESAMPLES: Final = 300
_CHUNK: Final = 2**17


@dataclass(frozen=True)
class Contention:
    """What `contention` found, as tidy tables."""

    curve: pd.DataFrame
    """CURVE_COLUMNS: one row per scope (`all`, and each `node`), kind, `against`, bin and metric."""
    factors: pd.DataFrame
    """FACTOR_COLUMNS: one row per scope (`all`, each `node`, each `rank`) and kind."""


def no_contention() -> Contention:
    """The tables without rows: of a run whose contention cannot be told."""
    return Contention(pd.DataFrame(columns=list(CURVE_COLUMNS)), pd.DataFrame(columns=list(FACTOR_COLUMNS)))


def contention(run: Run, rng: np.random.Generator | None = None) -> Contention:
    """Host and device time per byte and run-queue share against concurrency, and the contention factor.

    Of operations that do not overlap: others have no such times. `rng` draws the bootstrap samples; without one, the
    same file gives the same figures. Needs some 150 bytes of memory per operation. Raises KvbenchError: a damaged file,
    or one that holds only a sample of the rows.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    measured = measured_operations(run)
    # What overlaps has no host or device time of its own: it was there beside others, and has no cost.
    measured = measured.only(~overlap(measured.of_rows(run.columns(["timed_by"])["timed_by"])))
    columns = {"nbytes": measured.of_rows(run.columns(["nbytes"])["nbytes"])}
    for name in ("wall_ns", "host_ns", "device_ns", "runq_ns"):
        # Seven digits are enough for a time, and take half the memory.
        columns[name] = measured.of_rows(run.columns([name])[name]).astype(np.float32)
    curve: list[dict[str, Any]] = []
    factors: list[dict[str, Any]] = []
    window = Window.of(run.attributes)
    for labels, rows in each_kind(run, measured.kind):
        kind = _Kind.of(window, measured, columns, rows)
        tasks = [(kind, measured.others[against][rows], measured.members) for against in CURVE_AGAINST]
        with ThreadPoolExecutor(len(tasks)) as pool:
            tables = pool.map(lambda task: _curve(*task), tasks)
        for against, table in zip(CURVE_AGAINST, tables, strict=True):
            curve += [labels | {"against": against} | row for row in table]
        steady = _steady(measured, rows)
        cells = _Cells.of(kind.only(steady), measured.others["sharing"][rows][steady], measured.members)
        factors += [labels | row for row in _factors(kind.blocks, cells, measured.members, rng)]
    return Contention(
        curve=pd.DataFrame(curve, columns=list(CURVE_COLUMNS)),
        factors=pd.DataFrame(factors, columns=list(FACTOR_COLUMNS)),
    )


def bin_edges(most: float) -> NDArray[np.float32]:
    """Edges of the bins of concurrency up to `most`: a bin for each whole number to 16, then each about 19 % higher."""
    edges = [0.0, *(number + 0.5 for number in range(_SINGLE_BINS + 1))]
    while edges[-1] <= most:
        edges.append(np.floor(edges[-1] * 2**0.25) + 0.5)
    return np.array(edges, np.float32)


@dataclass(frozen=True)
class _Kind:
    """The measured operations of one kind, one value each."""

    values: dict[str, NDArray[Any]]
    """Columns of /records: `nbytes` and the times."""
    place: NDArray[np.uint32]
    block: NDArray[np.uint8]
    blocks: int

    @classmethod
    def of(
        cls,
        window: Window,
        measured: MeasuredOperations,
        columns: dict[str, NDArray[Any]],
        rows: NDArray[np.intp] | slice,
    ) -> "_Kind":
        start = measured.start_ns[rows]
        values = {name: column[rows] for name, column in columns.items()}
        edges = (window.start_ns, window.end_ns)
        if window.seconds is None:
            edges = int(start.min()), int((start + measured.wall_ns[rows]).max())
        wanted = block_count(edges[1] - edges[0], float(values["wall_ns"].mean(dtype=np.float64)))
        block = block_numbers(start, *edges, wanted)
        # A block in which nothing was done is no unit.
        occurs = np.bincount(block, minlength=wanted) > 0
        block = (np.cumsum(occurs) - 1).astype(np.uint8)[block]
        return cls(values, measured.place[rows], block, int(occurs.sum()))

    def only(self, rows: NDArray[np.bool_]) -> "_Kind":
        """The operations of `rows`."""
        values = {name: column[rows] for name, column in self.values.items()}
        return _Kind(values, self.place[rows], self.block[rows], self.blocks)


def _steady(measured: MeasuredOperations, rows: NDArray[np.intp] | slice) -> NDArray[np.bool_]:
    """Operations during which concurrency hardly changed, so that their cost is that of one concurrency.

    Told by the mean and the harmonic mean being nearly equal. All operations, where few are steady.
    """
    operations, sharing = (measured.others[name][rows] for name in ("operations", "sharing"))
    steady: NDArray[np.bool_] = 1 + operations <= STEADY * (1 + sharing)
    return steady if steady.mean() >= FEWEST_STEADY else np.ones(len(steady), bool)


@dataclass(frozen=True)
class _Cells:
    """A kind's operations in bins of concurrency, and sums over them per rank, bin and block (that shape)."""

    edges: NDArray[np.float32]
    bin: NDArray[np.uint8]
    sums: dict[str, Floats]
    """Of the columns, of the operations (`operations`) and of concurrency times bytes (`others`)."""

    @classmethod
    def of(cls, kind: _Kind, others: NDArray[np.float32], members: Members) -> "_Cells":
        edges = bin_edges(float(others.max()))
        # Every edge but the first lies in the middle between two whole numbers.
        of_whole = (np.searchsorted(edges, np.arange(np.ceil(edges[-1])), side="right") - 1).astype(np.uint8)
        number = np.empty(len(others), np.uint8)
        shape = (len(members.rank), len(edges) - 1, kind.blocks)
        size = int(np.prod(shape))
        sums = {name: np.zeros(size) for name in (*kind.values, "operations", "others")}
        # In pieces that stay in the processor's cache, unless there are more cells than that.
        step = max(_CHUNK, size)
        for first in range(0, len(others), step):
            rows = slice(first, first + step)
            number[rows] = of_whole[(others[rows] + np.float32(0.5)).astype(np.int32)]
            key = (kind.place[rows].astype(np.int64) * shape[1] + number[rows]) * shape[2] + kind.block[rows]
            sums["operations"] += np.bincount(key, minlength=size)
            sums["others"] += np.bincount(key, others[rows] * kind.values["nbytes"][rows], minlength=size)
            for name, values in kind.values.items():
                sums[name] += np.bincount(key, values[rows], minlength=size)
        return cls(edges, number, {name: values.reshape(shape) for name, values in sums.items()})

    def of_ranks(self, ranks: NDArray[Any] | slice) -> dict[str, Floats]:
        """Sums over some ranks: (bins, blocks)."""
        return {name: values[ranks].sum(axis=0) for name, values in self.sums.items()}


def _curve(kind: _Kind, others: NDArray[np.float32], members: Members) -> list[dict[str, Any]]:
    cells = _Cells.of(kind, others, members)
    every = list(_curve_rows(kind, cells, np.zeros(len(kind.place), np.uint8), [slice(None)]))
    of_nodes = every
    if len(members.nodes) > 1:
        ranks: list[Any] = [members.node_place == place for place in range(len(members.nodes))]
        of_nodes = list(_curve_rows(kind, cells, members.node_place[kind.place], ranks))
    return [
        *(row | {"scope": "all", "node": -1, "host": ""} for _, row in every),
        *(
            row | {"scope": "node", "node": int(members.nodes[place]), "host": members.node_hosts[place]}
            for place, row in of_nodes
        ),
    ]


def _curve_rows(
    kind: _Kind, cells: _Cells, group: NDArray[Any], ranks: list[NDArray[np.bool_] | slice]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The curve of every group of operations; `ranks` are the ranks of each group."""
    bins, blocks = len(cells.edges) - 1, kind.blocks
    size = len(ranks) * bins * blocks
    key: NDArray[Any] = group.astype(np.uint16 if size < 2**16 else np.uint32)
    key = (key * bins + cells.bin) * blocks + kind.block
    order = np.argsort(key, kind="stable")
    bounds: list[int] = np.concatenate(([0], np.cumsum(np.bincount(key, minlength=size)))).tolist()
    del key
    of_bins = [
        (place, number, {name: column[number] for name, column in total.items()})
        for place, total in enumerate(map(cells.of_ranks, ranks))
        for number in np.flatnonzero(total["operations"].sum(axis=1)).tolist()
    ]
    common = [_described(cells, number, total) for _, number, total in of_bins]
    for metric, (upper, lower) in METRICS.items():
        values = np.divide(kind.values[upper], np.maximum(kind.values[lower], 1), dtype=np.float32)[order]
        for (place, number, total), described in zip(of_bins, common, strict=True):
            first = (place * bins + number) * blocks
            edges = bounds[first : first + blocks + 1]
            medians = np.array([_median(values[low:high]) for low, high in pairwise(edges) if high > low])
            median = _median(values[edges[0] : edges[-1]])
            counts = total["operations"]
            interval = mean_of_blocks(median, medians, counts[counts > 0])
            below = float(total[lower].sum())
            figures = {
                "metric": metric,
                "median": median,
                "low": max(interval.low, 0.0),
                "high": interval.high,
                "mean": float(total[upper].sum()) / below if below else float("nan"),
            }
            yield place, described | figures


def _described(cells: _Cells, number: int, total: dict[str, Floats]) -> dict[str, Any]:
    nbytes = total["nbytes"].sum()
    return {
        "bin_low": float(cells.edges[number]),
        "bin_high": float(cells.edges[number + 1]),
        "others": float(total["others"].sum() / nbytes),
        "operations": int(total["operations"].sum()),
        "bytes": int(nbytes),
    }


def _median(values: NDArray[np.float32]) -> float:
    """The median of one or more values, which are reordered; there are many short pieces, so it has to be quick."""
    middle = len(values) // 2
    values.partition(middle)
    upper = float(values[middle])
    return upper if len(values) % 2 else (float(values[:middle].max()) + upper) / 2


def _factors(blocks: int, cells: _Cells, members: Members, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    draws = draw_units(blocks, rng)
    row, _ = _factor(cells.of_ranks(slice(None)), draws)
    yield row | {"scope": "all", "node": -1, "rank": -1, "host": ""}
    present = cells.sums["operations"].sum(axis=(1, 2)) > 0
    common = {}
    for place, node in enumerate(members.nodes):
        ranks = present & (members.node_place == place)
        if ranks.any():
            row, common[place] = _factor(cells.of_ranks(ranks), draws)
            yield row | {"scope": "node", "node": int(node), "rank": -1, "host": members.node_hosts[place]}
    for rank in np.flatnonzero(present):
        of_rank = {name: values[rank] for name, values in cells.sums.items()}
        row, _ = _factor(of_rank, draws[:_RANK_RESAMPLES], common[int(members.node_place[rank])])
        yield row | {
            "scope": "rank",
            "node": int(members.node[rank]),
            "rank": int(members.rank[rank]),
            "host": members.host[rank],
        }


def _factor(total: dict[str, Floats], draws: Floats, prefer_bin: int = -1) -> tuple[dict[str, Any], int]:
    sums = BinSums(*(total[name].T for name in ("operations", "nbytes", "host_ns", "others")))
    found = contention_factor(sums, draws, prefer_bin)
    return {
        "operations": int(total["operations"].sum()),
        "bytes": int(total["nbytes"].sum()),
        "factor": found.factor.estimate,
        "low": found.factor.low,
        "high": found.factor.high,
        "alone_ns_per_byte": found.alone_ns_per_byte,
        "contended_ns_per_byte": found.contended_ns_per_byte,
        "others_low": found.others_low,
        "others_high": found.others_high,
        "extrapolated": found.extrapolated,
    }, found.high_bin
