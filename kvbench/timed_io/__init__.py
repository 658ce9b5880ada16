"""The stopwatch: whole I/O operations that time themselves and fill one row of the records each.

`_stopwatch.pyi` documents the functions. They come from the C extension, or from the Python stand-in where the
extension was not built or the environment variable KVBENCH_TIMER is `python`; TIMER says which, and belongs into every
file of results. Never: what an operation means, or the rest of its row; that is the caller's.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.records import schema

_wanted = os.environ.get("KVBENCH_TIMER", "")
if _wanted not in ("", "python", "extension"):
    raise KvbenchError(f"KVBENCH_TIMER is {_wanted!r}: set it to `python` or `extension`, or not at all")

try:
    if _wanted == "python":
        raise ImportError
    from kvbench.timed_io._stopwatch import (
        ASK_FIRST,
        DIRECT,
        DROP,
        FIRST,
        FOLDERS,
        IN_PLACE,
        LAST,
        LOOK,
        NO_SYNC,
        RENAME,
        RESIDENT_OFFSET,
        ROW_BYTES,
        SCHEDSTAT,
        STOPWATCH_BYTES,
        begin,
        close_ring,
        copy,
        end,
        look_up,
        mmap_read,
        now_ns,
        open_ring,
        page_cache,
        read_file,
        ring_workers_ns,
        run_copies,
        run_files,
        run_ring,
        spend_cpu,
        sum_rows,
        sync_files,
        sync_filesystem,
        thread_cpu_ns,
        unlink,
        write_file,
    )

    _timer = "extension"
except ImportError as error:
    if _wanted == "extension":
        raise KvbenchError(
            f"KVBENCH_TIMER is `extension`, but the extension cannot be loaded ({error}): "
            "install a C compiler, then kvbench again"
        ) from error
    from kvbench.timed_io._python import (
        ASK_FIRST,
        DIRECT,
        FIRST,
        FOLDERS,
        IN_PLACE,
        LAST,
        NO_SYNC,
        RENAME,
        ROW_BYTES,
        SCHEDSTAT,
        STOPWATCH_BYTES,
        begin,
        copy,
        end,
        look_up,
        mmap_read,
        now_ns,
        page_cache,
        read_file,
        spend_cpu,
        sync_filesystem,
        thread_cpu_ns,
        unlink,
        write_file,
    )
    from kvbench.timed_io._python_batch import (
        DROP,
        LOOK,
        RESIDENT_OFFSET,
        run_copies,
        run_files,
        sum_rows,
        sync_files,
    )
    from kvbench.timed_io._python_ring import close_ring, open_ring, ring_workers_ns, run_ring

    _timer = "python"

TIMER: Final = _timer
"""`extension` or `python`: where the timestamps are taken."""

TIMED_BY: Final = schema.TimedBy.EXTENSION if _timer == "extension" else schema.TimedBy.PYTHON
"""Who times the calls that move bytes. What `begin` and `end` enclose is timed around Python code, with either."""

_FIELDS: Final[Mapping[str, Any]] = schema.RECORD_DTYPE.fields or {}
_LAYOUT: Final = (schema.RECORD_DTYPE.itemsize, schema.STOPWATCH_BYTES, _FIELDS["resident_pct"][1])
if _LAYOUT != (ROW_BYTES, STOPWATCH_BYTES, RESIDENT_OFFSET):
    raise KvbenchError(
        f"the stopwatch was built for rows of {ROW_BYTES} bytes ({STOPWATCH_BYTES} of them its own), the schema has "
        f"{schema.RECORD_DTYPE.itemsize} ({schema.STOPWATCH_BYTES}): install kvbench again to rebuild it"
    )

__all__ = [
    "ASK_FIRST",
    "DIRECT",
    "DROP",
    "FIRST",
    "FOLDERS",
    "IN_PLACE",
    "LAST",
    "LOOK",
    "NO_SYNC",
    "RENAME",
    "SCHEDSTAT",
    "TIMED_BY",
    "TIMER",
    "begin",
    "close_ring",
    "copy",
    "end",
    "look_up",
    "mmap_read",
    "now_ns",
    "open_ring",
    "page_cache",
    "read_file",
    "ring_workers_ns",
    "run_copies",
    "run_files",
    "run_ring",
    "spend_cpu",
    "sum_rows",
    "sync_files",
    "sync_filesystem",
    "thread_cpu_ns",
    "unlink",
    "write_file",
]
