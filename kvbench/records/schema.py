"""The columns of a record: one timed operation is one row of fixed width.

The stopwatch fills the first part of a row (`STOPWATCH_BYTES` bytes, the layout that the C extension knows), the
worker that runs the operation fills the rest. Here are the layout and the meaning of the codes, and no I/O.
"""

from enum import IntEnum
from typing import Any, Final

import numpy as np


class Op(IntEnum):
    """What an operation does. A move between tiers is one row, whose tier is the slower of the two. Files may know the
    first of these alone: what is added stands at the end."""

    READ = 0
    WRITE = 1
    DEMOTE = 2
    PROMOTE = 3
    DELETE = 4
    PREFETCH = 5
    LOOKUP = 6
    """The filesystem is asked whether an object is there."""
    SYNC = 7
    """What was written and not synced yet is made durable: what a batch wrote, or all at once."""
    COMPACT = 8
    """The layout makes room for itself: what is live in a bucket is moved to another, or a bucket is removed."""


class Phase(IntEnum):
    """The phase of the run that an operation belongs to; figures are made from MEASURE alone."""

    PRECONDITION = 0
    WARMUP = 1
    MEASURE = 2


class Path(IntEnum):
    """How the bytes moved. The first six are read paths; writes use BUFFERED or DIRECT; COPY is the memory tier."""

    DOUBLE_COPY = 0
    NUMPY = 1
    BUFFERED = 2
    MMAP_TOUCH = 3
    MMAP_COPY = 4
    DIRECT = 5
    COPY = 6
    NONE = 7


class TimedBy(IntEnum):
    """Where the timestamps of a row were taken: in the GIL-free region of the extension, or around Python calls; or, of
    operations that overlap, by whom their completions were seen."""

    EXTENSION = 0
    PYTHON = 1
    URING = 2
    """In the extension, as the kernel's ring of completions was looked at."""
    NIXL = 3
    """A batch is one transfer of NIXL, and so are the times of each of its operations."""
    LIBRARY = 4
    """An asynchronous library, whose completions Python code saw."""


OVERLAPPING: Final = (TimedBy.URING, TimedBy.NIXL, TimedBy.LIBRARY)
"""Who times operations of which several are in flight at once for one thread. Their rows have no split of the wall
time, as there is none of a single one: it is that of their batch."""


class Locality(IntEnum):
    """Who wrote the object of a row, seen from the rank that made the row."""

    OWN = 0
    SAME_NODE = 1
    OTHER_NODE = 2


class RequestState(IntEnum):
    """How a request ended."""

    DONE = 0
    CUT_SHORT = 1
    FAILED = 2


class Quantity(IntEnum):
    """What a histogram is of: a time or the size of an operation, or a time of a request."""

    WALL = 0
    DEVICE = 1
    HOST = 2
    RUNQ = 3
    COPY = 4
    QUEUE = 5
    SPAN = 6
    NBYTES = 7
    REQUEST_LATENCY = 8
    REQUEST_QUEUE = 9
    REQUEST_STORAGE = 10
    REQUEST_PREFILL = 11
    REQUEST_DECODE = 12
    REQUEST_LOOK_UP = 13
    REQUEST_LOAD = 14
    REQUEST_FIRST_TOKEN = 15


VIRTUAL_FORMAT_VERSION: Final = 2
"""`format_version` of a run in which a part was to seem faster or slower than it is (attribute `virtual_speed_json`):
readers that know nothing of it refuse it. All other files have version 1."""

RESIDENT_UNKNOWN: Final = 255
"""`resident_pct` of a row whose page-cache state was not looked at."""

FILE_CHUNK_ROWS: Final = 256 * 1024
"""Rows of a chunk of the run file, and of every write but a table's last: HDF5 never has to read a chunk back."""

STOPWATCH_BYTES: Final = 84
"""Bytes of a row, from its start, that the stopwatch fills (up to and including `major_faults`)."""

RECORD_DTYPE: Final = np.dtype(
    [
        ("t_start_ns", "<i8"),
        ("wall_ns", "<i8"),
        ("host_ns", "<i8"),
        ("runq_ns", "<i8"),
        ("device_ns", "<i8"),
        ("copy_ns", "<i8"),
        ("span_ns", "<i8"),
        ("nbytes", "<i8"),
        ("queue_ns", "<i8"),
        ("errno", "<i4"),
        ("minor_faults", "<u4"),
        ("major_faults", "<u4"),
        ("tokens", "<u4"),
        ("user", "<u4"),
        ("request", "<u4"),
        ("rank", "<u4"),
        ("thread", "<u2"),
        ("inflight", "<u2"),
        ("op", "u1"),
        ("tier", "u1"),
        ("phase", "u1"),
        ("path", "u1"),
        ("timed_by", "u1"),
        ("resident_pct", "u1"),
        ("locality", "u1"),
        ("layer", "u1"),
        ("batch", "<i8"),
    ]
)
"""120 bytes. Times in ns; `t_start_ns` is CLOCK_MONOTONIC of the rank's node in memory, rank 0's clock in the file."""

RECORD_COLUMNS: Final = tuple(RECORD_DTYPE.names or ())
"""The columns that are stored: all of them."""

MOST_LAYERS: Final = 255
"""Groups of layers that `layer` can tell apart: where a model is split into more, it is 0."""

MOVING_OPS: Final = (Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE, Op.PREFETCH)
"""Operations that move bytes."""

REQUEST_DTYPE: Final = np.dtype(
    [
        ("intended_ns", "<i8"),
        ("start_ns", "<i8"),
        ("end_ns", "<i8"),
        ("storage_ns", "<i8"),
        ("request", "<u4"),
        ("user", "<u4"),
        ("rank", "<u4"),
        ("context_tokens", "<u4"),
        ("output_tokens", "<u4"),
        ("hit_objects", "<u4"),
        ("miss_objects", "<u4"),
        ("hit_tokens", "<u4"),
        ("miss_tokens", "<u4"),
        ("operations", "<u4"),
        ("qos", "u1"),
        ("phase", "u1"),
        ("state", "u1"),
        ("reserved", "u1"),
        ("reserved2", "<u4"),
        ("modelled_prefill_ns", "<i8"),
        ("modelled_decode_ns", "<i8"),
        ("look_up_ns", "<i8"),
        ("load_ns", "<i8"),
        ("first_token_ns", "<i8"),
    ]
)
"""120 bytes. `operations` are those that the request waited for: what only makes room for them may end after it.
`storage_ns` is the sum of the wall times of those of them on storage tiers (not memory). Modelled are a prefill, its
wait for the GPU included, and a decode; 0 where compute is not modelled, or was not done. Of a request that is served
as an engine does it, `look_up_ns` is from its start until it knew what there is, and `load_ns` from then until that was
loaded; -1 where it is not, or did not come so far. `first_token_ns`, from its intended start to the first token,
contains modelled compute; 0 where there is none."""

REQUEST_COLUMNS: Final = tuple(name for name in REQUEST_DTYPE.names or () if not name.startswith("reserved"))

LATER_COLUMNS: Final = frozenset(
    ("modelled_prefill_ns", "modelled_decode_ns", "batch", "layer", "look_up_ns", "load_ns", "first_token_ns")
)
"""Of records and requests, and of sums over them: files of version 0.1 do not have them, and their rows read as 0."""


LATER_CODES: Final = {
    "quantity": frozenset(
        (
            Quantity.REQUEST_PREFILL,
            Quantity.REQUEST_DECODE,
            Quantity.REQUEST_LOOK_UP,
            Quantity.REQUEST_LOAD,
            Quantity.REQUEST_FIRST_TOKEN,
        )
    )
}
"""By column: codes that the enumeration of older files does not have."""


def without_later(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A row as it was before the later columns, one of which took a place that had been left free."""
    names = {name: "reserved" if name == "layer" else name for name in dtype.names or ()}
    return np.dtype([(was, dtype[name].str) for name, was in names.items() if was not in LATER_COLUMNS])


CODES: Final[dict[str, type[IntEnum]]] = {
    "op": Op,
    "phase": Phase,
    "path": Path,
    "timed_by": TimedBy,
    "locality": Locality,
    "state": RequestState,
    "quantity": Quantity,
}
"""Columns that hold codes, with the enumeration that names them (stored with the file)."""


def label(code: IntEnum) -> str:
    """The name of a code as it is printed and configured: lower case, words joined by `-`."""
    return code.name.lower().replace("_", "-")


def labels(column: str) -> dict[int, str]:
    """Code to printed name for one of `CODES`."""
    return {int(code): label(code) for code in CODES[column]}


PATHS: Final = {label(path): path for path in Path}
"""By the names that they are printed and configured by."""

READ_PATHS: Final = (Path.DOUBLE_COPY, Path.NUMPY, Path.BUFFERED, Path.MMAP_TOUCH, Path.MMAP_COPY, Path.DIRECT)
"""Those that may be configured; so with WRITE_PATHS."""

WRITE_PATHS: Final = (Path.BUFFERED, Path.DIRECT)

WHOLE_COPIES: Final = {Path.DOUBLE_COPY: 2, Path.NUMPY: 1}
"""The read paths that hold whole objects in memory of their own, and how many copies of one at once."""
