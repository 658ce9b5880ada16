"""What a run wrote to storage, and what that comes to in a day: by rank, by node, in all; beside it what the disks say.

Written are the bytes of writes, of moves down to storage, and of what its layout moves by itself, in the measured
window. A disk counts all that reaches it, of whatever process: what a filesystem writes besides (its journal, its
metadata), and what is written back later. Its bytes by those written meanwhile are the amplification. What a drive
writes to its flash for what it is written (by its own counters, from before the load to after it) is its own.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.time_bins import spread
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.endurance import DAY_S, RatedDrives
from kvbench.records.schema import Op, Phase, label

WRITES: Final = (Op.WRITE, Op.DEMOTE, Op.COMPACT)
_FEWEST_SAMPLES: Final = 5
"""Of a node, in the window: below it a disk's counter says little."""
_LEAST_WRITTEN_BYTES: Final = 2**30
"""To a drive: some count the bytes of hosts in steps of tens of MB."""
_IN_MEMORY: Final = {"tmpfs", "ramfs"}
"""Filesystems that writing wears nothing of."""
COLUMNS: Final = (
    "scope", "rank", "node", "written_bytes", "written_bytes_per_day", "disk_bytes_per_day", "amplification",
    "drive_amplification",
)  # fmt: skip


@dataclass(frozen=True)
class Endurance:
    """Rates are those of the measured window, as if it went on for a day."""

    places: pd.DataFrame
    """A row for all ranks together (`scope` is `all`), for each node and each rank, with COLUMNS; `rank` and `node` are
    -1 where it is of several. NaN where it is not known. Of runs whose rows are a sample, only `all`."""
    rated: RatedDrives | None
    """What the drives are rated for, where that was given."""

    @property
    def total(self) -> dict[Any, Any]:
        """The row of all ranks."""
        row: dict[Any, Any] = self.places.iloc[0].to_dict()
        return row

    @property
    def wearing_bytes_per_day(self) -> float:
        """What wears the drives: what their disks counted, else what was written."""
        total = self.total
        disk = total["disk_bytes_per_day"]
        return float(disk if np.isfinite(disk) else total["written_bytes_per_day"])


def endurance(run: Run, window: Window, totals: pd.DataFrame, rated: RatedDrives | None) -> Endurance | None:
    """`totals` is that of the summary. None where nothing was written to storage, what was lies in memory, or the
    file gives no window."""
    filesystems = set(run.storages["filesystem"]) if "filesystem" in run.storages else set()
    worn = not filesystems or not filesystems <= _IN_MEMORY
    if window.seconds is None or not worn or str(run.attributes.get("kind", "")).startswith("study"):
        return None
    written = totals[(totals["storage"] == "storage") & totals["op"].isin([label(op) for op in WRITES])]
    nbytes = float(written["bytes"].sum())
    if not nbytes:
        return None
    per_day = float(written["gib_per_s"].sum()) * 2**30 * DAY_S
    rows: list[tuple[Any, ...]] = []
    disk = amplification = float("nan")
    if run.mode == "full":
        rows = _of_places(run, window)
        nodes = [row for row in rows if row[0] == "node"]
        # Told by all or not at all: a sum that leaves a node out is of nothing.
        disk = float(np.sum([row[5] for row in nodes])) if nodes else float("nan")
        meanwhile = [row[5] / row[6] for row in nodes if row[6] > 0]
        known = nodes and len(meanwhile) == len(nodes)
        amplification = disk / sum(meanwhile) if known else float("nan")
    numbers = {int(number) for number in run.nodes["node"]} if "node" in run.nodes else set()
    total = ("all", -1, -1, nbytes, per_day, disk, amplification, _drive_amplification(run, numbers))
    return Endurance(pd.DataFrame([total, *rows], columns=list(COLUMNS)), rated)


def _of_places(run: Run, window: Window) -> list[tuple[Any, ...]]:
    codes = run.columns(["phase", "errno", "op", "tier", "rank"])
    storage = run.tiers["storage"].to_numpy(bool)
    counted = (codes["errno"] == 0) & np.isin(codes["op"], WRITES) & storage[codes["tier"]]
    chosen = np.flatnonzero(counted)
    columns = run.columns(["t_start_ns", "wall_ns", "nbytes"])
    start, wall, nbytes = (columns[name][chosen].astype(np.int64) for name in ("t_start_ns", "wall_ns", "nbytes"))
    rank, measured = codes["rank"][chosen].astype(np.int64), codes["phase"][chosen] == Phase.MEASURE
    inside = window.share_inside(start, wall) * nbytes * measured
    of_rank = (
        run.ranks.drop_duplicates("rank").set_index("rank")["node"] if "node" in run.ranks else pd.Series(dtype=int)
    )
    ranks = [int(number) for number in run.ranks["rank"].unique()] if "rank" in run.ranks else []
    node = of_rank.reindex(rank).to_numpy() if len(of_rank) else np.full(len(rank), -1)
    scale = DAY_S / (window.seconds or 1.0)
    unknown = float("nan")
    rows: list[tuple[Any, ...]] = []
    for number in sorted(set(of_rank)):
        mine = node == number
        written, per_day = float(nbytes[mine & measured].sum()), float(inside[mine].sum()) * scale
        disk, meanwhile = _disk(run, window, number, (start[mine], wall[mine], nbytes[mine]))
        amplification = disk / meanwhile if meanwhile > 0 else unknown
        inner = _drive_amplification(run, {number})
        rows.append(("node", -1, number, written, per_day, disk, amplification, inner))
    for number in ranks:
        mine = rank == number
        written, per_day = float(nbytes[mine & measured].sum()), float(inside[mine].sum()) * scale
        rows.append(("rank", number, int(of_rank.get(number, -1)), written, per_day, unknown, unknown, unknown))
    return rows


def _drive_amplification(run: Run, nodes: set[int]) -> float:
    """Bytes that the drives of these nodes wrote to their flash, by those that hosts wrote to them; NaN where a node or
    one of its drives does not tell, or too little was written for the unit that drives count in."""
    drives = run.drives
    if not {"node", "host_written_bytes", "media_written_bytes"} <= set(drives):
        return float("nan")
    mine = drives[drives["node"].isin(nodes)]
    if not nodes or set(mine["node"]) != nodes or (mine["media_written_bytes"] < 0).any():
        return float("nan")
    if (mine["host_written_bytes"] < _LEAST_WRITTEN_BYTES).any():
        return float("nan")
    hosts, media = (float(mine[name].sum()) for name in ("host_written_bytes", "media_written_bytes"))
    return media / hosts


def _disk(
    run: Run, window: Window, node: int, writes: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
) -> tuple[float, float]:
    """Bytes a day that the node's disks counted from the first to the last sample of the window, and that the node's
    ranks wrote meanwhile, in whatever phase; NaN where they tell nothing."""
    samples, unknown = run.samples, (float("nan"), float("nan"))
    if not {"node", "t_ns", "disk_write_bytes"} <= set(samples):
        return unknown
    mine = samples[
        (samples["node"] == node) & (samples["t_ns"] >= window.start_ns) & (samples["t_ns"] <= window.end_ns)
    ]
    if len(mine) < _FEWEST_SAMPLES or (mine["disk_write_bytes"] < 0).any():
        return unknown
    mine = mine.sort_values("t_ns")
    first, last = (mine[["t_ns", "disk_write_bytes"]].iloc[place].to_numpy(np.int64) for place in (0, -1))
    seconds = (last[0] - first[0]) / 1e9
    start, wall, nbytes = writes
    edges = np.array([first[0], last[0]], np.int64)
    (moved,) = spread(start, wall, [nbytes], edges, np.zeros(len(start), np.int64), 1)
    return float(last[1] - first[1]) / seconds * DAY_S, float(moved.sum()) / seconds * DAY_S
