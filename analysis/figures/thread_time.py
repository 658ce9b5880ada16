"""Where the time of threads went: shares of device, host and run queue, of operations and of batches that overlap.

What operations took that come one after the other is the time of their threads, and their rows have its split. Where
the operations of a batch overlap, their wall times add up to more, and the thread's time is that of the batch. Times of
threads add up, whichever they are of; wall times of operations and of batches do not. Reads no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from kvbench_analysis.tables.batch_sums import BATCH_TIMES

SplitOf = Literal["operations", "batches", "unknown"]
"""What the shares are of: of every operation; of batches, and what else does not overlap; or not known, where
operations overlap and the file does not say what their batches add up to."""

SPLIT: Final = ("device", "host", "runq")
"""What the time of a thread is the sum of."""


@dataclass(frozen=True)
class ThreadTime:
    """The time of the threads that carried some operations out."""

    split_of: SplitOf
    wall_ns: float
    """NaN where it is not known; so are the parts."""
    parts_ns: Mapping[str, float]
    """Of SPLIT, which add up to the whole, and `copy` where it was asked for."""
    helper_ns: float
    batch_wall_ns: float
    """Of batches alone, which helpers are seen against; 0 where nothing overlaps."""

    def share(self, part: str) -> float:
        """Of the whole; NaN where it is not known, or nothing."""
        return self.parts_ns[part] / self.wall_ns if self.wall_ns else float("nan")

    @property
    def helper_share(self) -> float:
        """Processor time of other threads by the wall time of the batches, which it may exceed; NaN without batches."""
        return self.helper_ns / self.batch_wall_ns if self.batch_wall_ns else float("nan")

    def columns(self) -> dict[str, float | str]:
        """As tables have them: `device_share`, `host_share`, `runq_share`, `helper_share` and `split_of`."""
        shares: dict[str, float | str] = {f"{part}_share": self.share(part) for part in SPLIT}
        return shares | {"helper_share": self.helper_share, "split_of": self.split_of}


COLUMNS: Final = (*(f"{part}_share" for part in SPLIT), "helper_share", "split_of")
"""Of `ThreadTime.columns`."""


def with_batches(cells: pd.DataFrame, sums: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """`cells`, which say where operations `overlap`, with what the batches of theirs add up to: `sums` (`batch_sums`
    per `by`). Batches do not tell paths apart: the sums stand at one of the cells that are alike in `by`."""
    of_batches = [f"batch_{part}_ns" for part in BATCH_TIMES]
    cells = cells.reset_index(drop=True)
    keys = pd.MultiIndex.from_frame(cells[by])
    found = sums[of_batches].set_axis(pd.MultiIndex.from_frame(sums[by])).reindex(keys)
    overlapping = cells["overlap"].to_numpy(bool)
    first = overlapping.copy()
    first[overlapping] = ~cells.loc[overlapping, by].duplicated().to_numpy()
    for name in of_batches:
        cells[name] = np.where(first, found[name].fillna(0).to_numpy(np.float64), 0.0)
    cells["batches_known"] = found[of_batches[0]].notna().to_numpy()
    # Of the paths of one tier and operation, each with the shares of all, none has any of its own.
    paths = cells[overlapping].groupby(by)["path"].nunique() if "path" in cells else pd.Series(dtype=np.int64)
    cells["overlapping_paths"] = paths.reindex(keys).fillna(0).to_numpy(np.int64) if len(paths) else 0
    return cells


def thread_time(cells: pd.DataFrame, parts: tuple[str, ...] = SPLIT, *, of_path: bool = False) -> ThreadTime:
    """Of all operations of `cells`, which `with_batches` has seen; `of_path`: they are those of a single path."""
    sums = {part: float(cells[f"{part}_ns"].sum()) for part in parts}
    overlapping = cells[cells["overlap"].astype(bool)]
    if overlapping.empty:
        return ThreadTime("operations", float(cells["wall_ns"].sum()), sums, 0.0, 0.0)
    if not overlapping["batches_known"].all() or (of_path and (overlapping["overlapping_paths"] > 1).any()):
        nan = float("nan")
        return ThreadTime("unknown", nan, dict.fromkeys(parts, nan), nan, nan)
    batches = {part: float(overlapping[f"batch_{part}_ns"].sum()) for part in BATCH_TIMES}
    # The rows of what overlaps have no parts: these sums are of what does not, whose parts add up to its wall time.
    wall_ns = batches["wall"] + sum(sums[part] for part in SPLIT)
    together = {part: sums[part] + batches[part] for part in parts}
    return ThreadTime("batches", wall_ns, together, batches["helper"], batches["wall"])
