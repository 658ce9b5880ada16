"""The small tables of a run file, every one of them: their columns, and how rows become arrays and columns."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kvbench.records.clock import CommonClock
from kvbench.units import storable

RANK_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("node", "<i8"),
        ("host", "S64"),
        ("pid", "<i8"),
        ("first_row", "<i8"),
        ("rows", "<i8"),
        ("first_request", "<i8"),
        ("requests", "<i8"),
        ("arena_bytes", "<i8"),
        ("clock_offset_ns", "<i8"),
        ("clock_drift_ns", "<i8"),
        ("peak_rss_bytes", "<i8"),
        ("predicted_peak_bytes", "<i8"),
        ("storage_capacity_bytes", "<i8"),
        ("canceled_ops", "<i8"),
        ("failed_ops", "<i8"),
        ("verified_sectors", "<i8"),
        ("too_large_objects", "<i8"),
        ("waiting_requests", "<i8"),
        ("waiting_tokens", "<i8"),
        ("begin_ns", "<i8"),
        ("end_ns", "<i8"),
        ("spilled_rows", "<i8"),
        ("spill_bytes", "<i8"),
        ("spill_errno", "<i8"),
        ("retried_requests", "<i8"),
    ]
)
"""`clock_offset_ns` is the CLOCK_MONOTONIC of the rank's node minus rank 0's before the run, `clock_drift_ns` by how
much that changed until after it. Peaks are of resident memory. `waiting_requests` had come when an open loop ended and
had not begun, with contexts of `waiting_tokens` (-1: not known). `begin_ns` is the start of its first measured
operation that worked and `end_ns` the end of its last, on rank 0's clock (0: none). `spilled_rows` of its records were
in its spill file when the run ended, and `spill_errno` says why no more were (0: nothing went wrong, or there was no
spill file). `retried_requests` were sent to an object store again, as they had failed for a reason that may pass."""


NODE_DTYPE: Final = np.dtype(
    [
        ("node", "<i8"),
        ("host", "S64"),
        ("cpus", "<i8"),
        ("cpu_model", "S96"),
        ("memory_bytes", "<i8"),
        ("llc_bytes", "<i8"),
        ("kernel", "S64"),
        ("clock_source", "S32"),
        ("filesystem", "S32"),
        ("mount_point", "S128"),
        ("mount_options", "S256"),
        ("device", "S128"),
        ("filesystem_group", "<i8"),
        ("directory", "S256"),
        ("clock_offset_ns", "<i8"),
        ("clock_drift_ns_per_s", "<f8"),
        ("clock_uncertainty_ns", "<i8"),
    ]
)
"""`clock_offset_ns` is the node's CLOCK_MONOTONIC minus rank 0's before the run, `clock_drift_ns_per_s` how much it
gains on rank 0's, and `clock_uncertainty_ns` how far a time of the node may be off on rank 0's clock."""


DIRECTORY_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("node", "<i8"),
        ("directory", "S256"),
        ("filesystem", "S32"),
        ("mount_point", "S128"),
        ("mount_options", "S256"),
        ("device", "S128"),
        ("filesystem_group", "<i8"),
        ("sharing_ranks", "<i8"),
        ("free_bytes", "<i8"),
    ]
)
"""The directory under test of a rank, where ranks have some of their own. `filesystem_group` is the lowest rank, on
whichever node, whose directory is on the same filesystem, `sharing_ranks` how many there are, and `free_bytes` what was
free there before any of them wrote."""


CALIBRATION_DTYPE: Final = np.dtype(
    [("rank", "<i8"), ("node", "<i8"), ("kind", "S16"), ("mode", "S16"), ("gib_per_s", "<f8")]
)
"""`kind` is `memcpy` or `storage-read`; `mode` is `alone` (the rank alone on its node) or `together`."""


def clock_columns(clock: CommonClock) -> dict[str, int | float]:
    """The columns of a node's clock in NODE_DTYPE."""
    return {
        "clock_offset_ns": clock.offset_ns,
        "clock_drift_ns_per_s": clock.drift_ns_per_s,
        "clock_uncertainty_ns": clock.uncertainty_ns,
    }


def number_rows(ranks: npt.NDArray[np.void]) -> None:
    """Fill in where each rank's rows begin: the ranks stand in the file in their order."""
    for first, count in (("first_row", "rows"), ("first_request", "requests")):
        ranks[first] = np.cumsum(ranks[count]) - ranks[count]


SAMPLE_DTYPE: Final = np.dtype(
    [
        ("node", "<i4"),
        ("t_ns", "<i8"),
        ("cpu_user_pct", "<f4"),
        ("cpu_system_pct", "<f4"),
        ("cpu_iowait_pct", "<f4"),
        ("cpu_steal_pct", "<f4"),
        ("memory_available_bytes", "<i8"),
        ("psi_cpu_some_us", "<i8"),
        ("psi_memory_some_us", "<i8"),
        ("psi_io_some_us", "<i8"),
        ("disk_read_bytes", "<i8"),
        ("disk_write_bytes", "<i8"),
        ("net_recv_bytes", "<i8"),
        ("net_sent_bytes", "<i8"),
    ]
)
"""`t_ns` is CLOCK_MONOTONIC of the node. Percentages are of all processors since the sample before; the others count
from the start of the node, the pressure figures in microseconds in which some task was stalled (kernel PSI)."""


DRIVE_DTYPE: Final = np.dtype(
    [
        ("node", "<i8"),
        ("drive", "S64"),
        ("t_before_ns", "<i8"),
        ("t_after_ns", "<i8"),
        ("host_written_bytes", "<i8"),
        ("media_written_bytes", "<i8"),
        ("used_pct", "<i8"),
    ]
)
"""What an NVMe drive under test counted from before the load (`t_before_ns`, rank 0's clock) to after it: bytes that
hosts wrote to it, and that it wrote to its flash (-1: it does not say). `used_pct` is its own estimate of how
much of its life is used, at the end."""


PREFIX_WORDS: Final = {
    "looked-up": "looked up",
    "hit": "found",
    "never-seen": "never seen before",
    "evicted": "seen, and gone since",
    "behind-gap": "there, but behind a gap",
    "in-no-block": "in no block",
}
"""What the rows of PREFIX_DTYPE are of, and how that is printed: every request; found, from the first block on up to
the first that was missing; why the others were not; tokens at the end of a context that no block is looked up for."""

PREFIX_DTYPE: Final = np.dtype(
    [("rank", "<i8"), ("what", "S16"), ("tier", "<i8"), ("requests", "<i8"), ("blocks", "<i8"), ("tokens", "<i8")]
)
"""`what` is one of PREFIX_WORDS; `tier` is -1 but for what was found on one tier, which `hit` of tier -1 adds up.
`requests` are those with any such block (or token)."""


PRECONDITION_DTYPE: Final = np.dtype(
    [
        ("round", "<i8"),
        ("t_start_ns", "<i8"),
        ("wall_ns", "<i8"),
        ("nbytes", "<i8"),
        ("operations", "<i8"),
        ("excursion", "<f8"),
        ("slope", "<f8"),
        ("steady", "<i8"),
    ]
)
"""Rounds of writes before the load, counted from 1, of all ranks together; `t_start_ns` is on rank 0's clock.
`excursion` and `slope` are shares of the average bandwidth of the five rounds that end with this one (NaN: there are
not five yet), and `steady` says whether both are within their limits."""


VISIBILITY_DTYPE: Final = np.dtype(
    [
        ("key", "<u8"),
        ("nbytes", "<i8"),
        ("writer", "<i8"),
        ("reader", "<i8"),
        ("locality", "<i8"),
        ("written_ns", "<i8"),
        ("heard_ns", "<i8"),
        ("readable_ns", "<i8"),
        ("looks", "<i8"),
    ]
)
"""`written_ns` is on the clock of the writer's node, the other times on that of the reader's, until they are made one.
`readable_ns` is 0 where the object was not there in time."""


VIOLATION_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("writer", "<i8"),
        ("key", "<u8"),
        ("nbytes", "<i8"),
        ("t_ns", "<i8"),
        ("kind", "S8"),
        ("text", "S240"),
    ]
)
"""`rank` looked, `writer` wrote; `t_ns` on the clock of the node that looked."""


BATCH_DTYPE: Final = np.dtype(
    [
        ("batch", "<i8"),
        ("t_start_ns", "<i8"),
        ("wall_ns", "<i8"),
        ("device_ns", "<i8"),
        ("host_ns", "<i8"),
        ("runq_ns", "<i8"),
        ("copy_ns", "<i8"),
        ("helper_ns", "<i8"),
        ("nbytes", "<i8"),
        ("rank", "<i4"),
        ("operations", "<i4"),
        ("depth", "<i4"),
        ("tier", "u1"),
        ("op", "u1"),
        ("phase", "u1"),
        ("timed_by", "u1"),
    ]
)
"""What the operations of a batch add up to, of batches of two and more; where they overlap, the batch itself, however
many they are. `depth` is how many of them were in flight at once at most, `helper_ns` the processor time that other
threads of the process spent for it (the kernel's workers of a ring, a library's threads). Times are on the clock of the
rank's node until they are made one."""


SPLIT_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("tier", "<i8"),
        ("op", "<i8"),
        ("phase", "<i8"),
        ("timed_by", "<i8"),
        ("batches", "<i8"),
        ("operations", "<i8"),
        ("nbytes", "<i8"),
        ("wall_ns", "<i8"),
        ("device_ns", "<i8"),
        ("host_ns", "<i8"),
        ("runq_ns", "<i8"),
        ("copy_ns", "<i8"),
        ("helper_ns", "<i8"),
    ]
)
"""Sums over all batches of a kind whose operations overlap, those of a single one too: where /batches is a sample, this
is exact."""


DELAY_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("thread", "<i8"),
        ("batches", "<i8"),
        ("device_ns", "<i8"),
        ("host_ns", "<i8"),
        ("copy_ns", "<i8"),
        ("between_ns", "<i8"),
        ("asleep_ns", "<i8"),
        ("busy_ns", "<i8"),
    ]
)
"""Of each worker of a run with a part that was to seem faster or slower: what its batches took by the kernel's account
(`host_ns` contains copies and the processor time of helpers), the processor time that it spent outside operations, and
for how long it was delayed after batches: asleep, and keeping a processor busy."""


Rows = npt.NDArray[Any]


def as_rows(dicts: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> Rows:
    """One row of `dtype` for each of `dicts`, whose keys are its fields; text is stored in `S` fields as UTF-8."""
    rows = np.zeros(len(dicts), dtype)
    for row, values in zip(rows, dicts, strict=True):
        for name in dtype.names or ():
            value = values[name]
            row[name] = storable(value).encode() if isinstance(value, str) else value
    return rows


def as_columns(table: Rows) -> dict[str, npt.NDArray[Any] | list[str]]:
    """The fields of `table` as columns, `S` fields as text."""
    columns: dict[str, npt.NDArray[Any] | list[str]] = {}
    for name in table.dtype.names or ():
        column = np.ascontiguousarray(table[name])
        is_text = column.dtype.kind == "S"
        columns[name] = [value.decode(errors="replace") for value in column.tolist()] if is_text else column
    return columns
