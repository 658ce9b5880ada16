"""The one sync at the end of a load whose writes were not synced: timed like an operation, and recorded as what it is.

It belongs to no request. Bytes are only counted where they were written; the row says how long it took until all of
them were durable, and the measured window lasts until then.
"""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RESIDENT_UNKNOWN, Op, Path, Phase
from kvbench.tiers.contract import Tier
from kvbench.tiers.transfer import Cell


def sync_at_end(
    tiers: Sequence[Tier], store: RowStore, rank: int, stop: npt.NDArray[np.int32], phase: Phase = Phase.MEASURE
) -> str:
    """Have the last tier make durable what was written; adds the row to `store`, which no worker uses any more.

    Returns why it failed, "" where it did not; the row is there in either case.
    """
    number, tier = len(tiers) - 1, tiers[-1]
    rows, row = store.reserve(1)
    cell = Cell(rows, row, stop)
    record = cell.record
    record["queue_ns"] = timed_io.now_ns()
    for column, value in (
        ("op", Op.SYNC),
        ("tier", number),
        ("phase", phase),
        ("path", Path.NONE),
        ("timed_by", timed_io.TIMED_BY),
        ("rank", rank),
        ("inflight", 1),
        ("resident_pct", RESIDENT_UNKNOWN),
    ):
        record[column] = value
    failure = ""
    try:
        tier.sync(cell)
    except OSError as error:
        failure = f"sync of the {tier.kind} tier at the end failed: {os.strerror(error.errno or 0)}"
    store.commit(1)
    return failure
