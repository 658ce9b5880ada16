"""The reduced tables that plots are drawn from: a few hundred rows each, whatever the size of the run.

Made of the operations that figures are made of: those of the phase `measure` that ended without an error. All of them
count that the file has; where it has a sample of them, counts are those of the sample, and rates are scaled up.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.batch_sums import batch_sums, overlap
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.kinds import kind_labels, kind_numbers
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import Phase

QUANTILES: Final = np.unique(
    np.round(np.concatenate((np.arange(101), np.arange(99, 100, 0.1), [0.5, 99.95, 99.99, 99.999])), 3)
)
"""The percentiles that a distribution is reduced to; the first is the least and the last is the greatest value."""

BANDS: Final = ((0, 50), (50, 90), (90, 95), (95, 99), (99, 100))
"""The fastest half, the next 40 %, and so on to the slowest 1 %."""

STACK: Final = ("device", "host", "copy", "runq")
"""What the mean wall time is stacked of: `host` is here without `copy`."""

_GIB: Final = 1024**3
_BINS: Final = 120
_ROWS: Final = 128


@dataclass(frozen=True)
class Kind:
    """A kind of operation: what is shown apart from others."""

    tier: str
    op: str
    path: str
    storage: bool


class Counted:
    """The operations that count: their kinds and ranks, and any other column of them."""

    def __init__(self, run: Run) -> None:
        """Reads what tells kinds apart."""
        codes = run.columns(["phase", "errno", "op", "tier", "path", "rank"])
        mask = (codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0)
        self.run = run
        self.sampled_1_in = run.sampled_1_in()
        self._mask = None if mask.all() else mask
        numbers, self.kind = np.unique(self._chosen(kind_numbers(codes)), return_inverse=True)
        self.rank: NDArray[np.uint32] = self._chosen(codes["rank"])
        self.kinds = [self._named(int(number)) for number in numbers]
        self.overlap: NDArray[np.bool_] = overlap(self.column("timed_by"))
        """Which of them overlap with others of their batch, and have no device, host or run-queue time."""

    def column(self, name: str) -> NDArray[Any]:
        """The column `name` of the operations that count."""
        return self._chosen(self.run.columns([name])[name])

    def of(self, *, storage: bool, op: str | None = None) -> NDArray[np.bool_]:
        """Which of them are on storage (or in memory), and are an `op`."""
        wanted = [kind.storage == storage and op in (None, kind.op) for kind in self.kinds]
        return np.array(wanted, bool)[self.kind] if self.kinds else np.zeros(0, bool)

    def _chosen(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._mask is None else values[self._mask]

    def _named(self, number: int) -> Kind:
        labels = kind_labels(self.run, number)
        tiers = self.run.tiers
        return Kind(**labels, storage=bool(tiers.loc[tiers["name"] == labels["tier"], "storage"].iloc[0]))


def latency_quantiles(counted: Counted) -> pd.DataFrame:
    """Per `tier`, `op`, `path` and `percentile` (0 to 100): `wall_ns` at it, exactly, and `operations` of the kind.

    Storage tiers come first.
    """
    grouping = Grouping(counted.kind)
    split = dict(zip(grouping.keys, grouping.split(counted.column("wall_ns")), strict=True))
    tables = []
    for number, kind in sorted(enumerate(counted.kinds), key=lambda item: (not item[1].storage, item[0])):
        tables.append(quantiles(split[number]).assign(tier=kind.tier, op=kind.op, path=kind.path))
    columns = ["tier", "op", "path", "operations", "percentile", "wall_ns"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def quantiles(wall_ns: NDArray[np.int64]) -> pd.DataFrame:
    """`wall_ns` at each `percentile` of one population, and its `operations`; no rows where there are none."""
    count = len(wall_ns)
    # A percentile beyond the last but one value would only lie between it and the greatest.
    wanted = QUANTILES[(100 * (1 - 1 / max(count, 1)) >= QUANTILES) | (QUANTILES == 100)] if count else QUANTILES[:0]
    values = np.percentile(np.sort(wall_ns), wanted) if count else np.empty(0)
    return pd.DataFrame({"operations": count, "percentile": wanted, "wall_ns": values})


def time_parts(counted: Counted) -> pd.DataFrame:
    """Per `tier`, `op` (reads and writes) and `rank`: `operations`, and the means of `wall_ns` and its parts.

    Storage tiers come first. `device_ns` + `host_ns` + `copy_ns` + `runq_ns` = `wall_ns`: here `host_ns` is without the
    explicit copies. Where operations of a tier overlap (`split_of`: `batches`), all five are no means but the time of
    the rank's threads, of all batches and of what does not overlap; NaN (`unknown`) where the file does not have it.
    """
    shown_kinds = [kind for kind in counted.kinds if kind.op in ("read", "write")]
    shown_kinds.sort(key=lambda kind: not kind.storage)
    pairs = list(dict.fromkeys((kind.tier, kind.op) for kind in shown_kinds))
    pair_of = np.array([pairs.index((k.tier, k.op)) if (k.tier, k.op) in pairs else -1 for k in counted.kinds], int)
    pair = pair_of[counted.kind] if len(pair_of) else np.zeros(0, int)
    shown = pair >= 0
    ranks, rank = np.unique(counted.rank[shown], return_inverse=True)
    key = pair[shown] * max(len(ranks), 1) + rank
    size = len(pairs) * len(ranks)
    operations = np.bincount(key, minlength=size)
    kept = np.flatnonzero(operations)
    number, place = np.divmod(kept, max(len(ranks), 1))
    overlapping = np.bincount(key, counted.overlap[shown], minlength=size)[kept] > 0
    sums = {
        f"{part}_ns": np.bincount(key, counted.column(f"{part}_ns")[shown], minlength=size)[kept]
        for part in ("wall", *STACK)
    }
    tiers, ops = ([pairs[index][side] for index in number] for side in (0, 1))
    table = pd.DataFrame({"tier": tiers, "op": ops, "rank": ranks[place], "operations": operations[kept]} | sums)
    table = _of_threads(counted, table.assign(overlap=overlapping))
    table["host_ns"] -= table["copy_ns"]
    return table


def _of_threads(counted: Counted, table: pd.DataFrame) -> pd.DataFrame:
    """Sums per `tier`, `op` and `rank` as means per operation or, of a tier and operation that overlap on any rank, as
    the time of the threads."""
    by = ["tier", "op", "rank"]
    together = table.groupby(["tier", "op"], sort=False)["overlap"].transform("any").to_numpy(bool)
    found = batch_sums(counted.run, by).set_index(by).reindex(pd.MultiIndex.from_frame(table[by]))
    # What has no batches of its own that overlap adds none, if it is known that there are none.
    found.loc[~table["overlap"].to_numpy(bool)] = 0
    parts = {name: table[f"{name}_ns"].to_numpy(np.float64) for name in ("wall", *STACK)}
    parts["wall"] = np.where(together, parts["device"] + parts["host"] + parts["runq"], parts["wall"])
    for name, values in parts.items():
        of_batches = found[f"batch_{name}_ns"].to_numpy(np.float64)
        threads = values * counted.sampled_1_in + of_batches
        table[f"{name}_ns"] = np.where(together, threads, values / table["operations"].to_numpy())
    known = table.groupby(["tier", "op"], sort=False)["wall_ns"].transform(lambda column: column.notna().all())
    table["split_of"] = np.where(together, np.where(known, "batches", "unknown"), "operations")
    return table.drop(columns="overlap")


def latency_bands(counted: Counted, chosen: NDArray[np.bool_]) -> pd.DataFrame:
    """Per band of BANDS of the `chosen` operations, ordered by wall time: means of it and its parts, as `time_parts`.

    `low_percentile`, `high_percentile`, `operations`, `wall_ns`, `device_ns`, `host_ns`, `copy_ns`, `runq_ns`. The
    parts are NaN where any of the operations overlap.
    """
    order = np.argsort(counted.column("wall_ns")[chosen], kind="stable")
    edges = [round(len(order) * low / 100) for low, _ in BANDS] + [len(order)]
    members = [order[first:last] for first, last in pairwise(edges)]
    table = pd.DataFrame(BANDS, columns=["low_percentile", "high_percentile"])
    table["operations"] = [len(rows) for rows in members]
    parts = ("wall",) if counted.overlap[chosen].any() else ("wall", *STACK)
    for part in ("wall", *STACK):
        values = counted.column(f"{part}_ns")[chosen] if part in parts else None
        means = [values[rows].mean() if values is not None and len(rows) else np.nan for rows in members]
        table[f"{part}_ns"] = np.array(means, np.float64)
    table["host_ns"] -= table["copy_ns"]
    return table[table["operations"] > 0].reset_index(drop=True)


def rank_cells(counted: Counted, chosen: NDArray[np.bool_], window: Window) -> pd.DataFrame:
    """Per `rank` and time bin: the `chosen` operations that ended in it, their mean `wall_ns`, and `gib_per_s`.

    Bins are of one length, `start_s` to `end_s` from the start of the measured window; a bin in which a rank ended
    nothing has no row. Of more than 128 ranks, neighbours are one: `rank` to `last_rank`, with `gib_per_s` per rank.
    """
    columns = ["rank", "last_rank", "start_s", "end_s", "operations", "wall_ns", "gib_per_s"]
    if window.seconds is None or not chosen.any():
        return pd.DataFrame(columns=columns)
    wall = counted.column("wall_ns")[chosen]
    end_ns = counted.column("t_start_ns")[chosen] + wall
    # A cell of one operation says little: bins grow until a rank ends about eight in one, but there are at least ten.
    useful = min(window.seconds / 10, 8 * window.seconds * len(np.unique(counted.rank)) / len(wall))
    width = bin_width(max(window.seconds / _BINS, useful))
    bins = int(np.ceil(window.seconds / width - 1e-9))
    inside = (end_ns >= window.start_ns) & (end_ns <= window.end_ns)
    place = np.minimum((end_ns[inside] - window.start_ns) / 1e9 // width, bins - 1).astype(np.int64)
    # Every rank of the run counts, also those that did nothing.
    ranks = np.unique(counted.rank)
    together = -(-len(ranks) // _ROWS)
    row = np.searchsorted(ranks, counted.rank[chosen][inside]) // together
    key = row * bins + place
    operations = np.bincount(key)
    kept = np.flatnonzero(operations)
    first, start = ranks[kept // bins * together], kept % bins * width
    length = np.minimum(width, window.seconds - start)
    members = np.bincount(np.arange(len(ranks)) // together)[kept // bins]
    nbytes = np.bincount(key, counted.column("nbytes")[chosen][inside])[kept]
    table = pd.DataFrame(
        {"rank": first, "last_rank": ranks[np.minimum(kept // bins * together + members - 1, len(ranks) - 1)]}
    )
    table["start_s"], table["end_s"] = start, start + length
    table["operations"] = operations[kept]
    table["wall_ns"] = np.bincount(key, wall[inside])[kept] / operations[kept]
    table["gib_per_s"] = nbytes * counted.sampled_1_in / _GIB / length / members
    return table[columns]


def copy_limits(run: Run) -> pd.DataFrame:
    """Per `mode` (`alone`, `together`): `gib_per_s` of a memory copy, the mean over the ranks, and its `ns_per_byte`.

    From /calibration; no rows where it was not measured.
    """
    calibration = run.calibration
    if not {"kind", "mode", "gib_per_s"} <= set(calibration):
        return pd.DataFrame(columns=["mode", "gib_per_s", "ns_per_byte"])
    copies = calibration[(calibration["kind"] == "memcpy") & (calibration["gib_per_s"] > 0)]
    copies = copies[copies["mode"].isin(["alone", "together"])]
    limits = copies.groupby("mode", sort=False)["gib_per_s"].mean().reset_index()
    return limits.assign(ns_per_byte=1e9 / (limits["gib_per_s"] * _GIB))


def bin_width(least_s: float) -> float:
    """The shortest round length (1, 2 or 5 times a power of ten, in seconds) that is not below `least_s`."""
    power = 10.0 ** np.floor(np.log10(least_s))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least_s * (1 - 1e-9)))
