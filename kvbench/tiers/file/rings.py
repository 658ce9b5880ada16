"""Batches on rings of the kernel (io_uring): one ring for each thread and tier, with the arena registered.

What is in flight together is timed as one: see docs/measurement-method.md.
"""

import errno
import os
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.errors import KvbenchError
from kvbench.records.batches import BatchSplit
from kvbench.records.schema import RECORD_DTYPE, TimedBy
from kvbench.tiers.file.overlapping import Names
from kvbench.tiers.transfer import Batch, beside


class Rings:
    """Of one tier, whose threads have at most `depth` requests in flight each."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._own = threading.local()
        self._all: list[object] = []
        self._unregistered = 0
        self._lock = threading.Lock()

    @property
    def unregistered_errno(self) -> int:
        """Why the memory of some thread is not registered with its ring; 0: that of all is."""
        return self._unregistered

    def open(self, memory: npt.NDArray[np.uint8] | None) -> None:
        """Open the calling thread's ring, if it has none, with `memory` registered. Raises OSError."""
        if getattr(self._own, "ring", None) is not None:
            return
        ring, error = timed_io.open_ring(self.depth, memory)
        self._own.ring = ring
        with self._lock:
            self._all.append(ring)
            self._unregistered = self._unregistered or error

    def run(
        self,
        batch: Batch,
        descriptor: int,
        names: Names,
        io_bytes: int,
        flags: int,
        where: Callable[[int], str],
        places: npt.NDArray[np.int64] | None = None,
        descriptors: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Carry out a batch of reads or writes: of files in the directory `descriptor`; or, with `places`, of what lies
        there in the open file `descriptor`, or in those that `descriptors` has for each object. `where` names an
        object, for messages. Raises OSError where there is no ring."""
        self.open(None)
        memories = beside(batch.memories)
        begun, failed, unprepared, broken, split = timed_io.run_ring(
            self._own.ring,
            batch.rows,
            batch.first_row,
            batch.does,
            descriptor,
            *names,
            batch.key_array,
            memories.buffer,
            memories.extents,
            memories.ends,
            io_bytes,
            flags,
            batch.stop,
            batch.until_ns,
            places,
            descriptors,
            self.depth,
        )
        if broken and not begun:
            raise OSError(broken, f"the ring: {os.strerror(broken)}")
        batch.begun = begun
        batch.overlapped(TimedBy.URING, BatchSplit(*split))
        if failed:
            self._tell(batch, where)
        if unprepared:
            batch.errors[begun] = OSError(unprepared, os.strerror(unprepared), where(batch.keys[begun]))

    @staticmethod
    def _tell(batch: Batch, where: Callable[[int], str]) -> None:
        """What went wrong with which, from the rows."""
        rows = batch.rows.view(RECORD_DTYPE)[batch.first_row : batch.first_row + batch.begun]
        for at in np.flatnonzero(rows["errno"]).tolist():
            error = int(rows["errno"][at])
            batch.errors[at] = OSError(error, os.strerror(error), where(batch.keys[at]))

    def close_own(self) -> None:
        """Close the calling thread's ring, if it has one. A file that it has registered is held until then."""
        ring = getattr(self._own, "ring", None)
        if ring is not None:
            self._own.ring = None
            with self._lock:
                self._all.remove(ring)
            timed_io.close_ring(ring)

    def close(self) -> None:
        """Close the rings of all threads, none of which uses its own any more."""
        while self._all:
            timed_io.close_ring(self._all.pop())


def check_rings(depth: int) -> None:
    """Raise KvbenchError where there are no rings here, with what to do."""
    trouble = ring_trouble(depth)
    if trouble is not None:
        raise KvbenchError(f"io.engine=uring: {trouble}; or use --set io.engine=sync")


def ring_trouble(depth: int) -> str | None:
    """Why a ring of `depth` cannot be used here, and what can be done; None where it can."""
    try:
        ring, _ = timed_io.open_ring(depth, None)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            compiled = timed_io.TIMER == "extension"
            return (
                "this kernel has no io_uring that can be used (Linux 5.11 or newer), or kvbench was compiled without "
                "the kernel's headers"
                if compiled
                else str(error.strerror)
            )
        if error.errno in (errno.EPERM, errno.EACCES):
            return (
                f"the kernel refuses io_uring ({error.strerror}): allow it in the container's seccomp profile, and set "
                "the sysctl kernel.io_uring_disabled to 0"
            )
        if error.errno == errno.ENOMEM:
            return (
                f"no memory for a ring of depth {depth}: raise the limit of locked memory (ulimit -l), or set less "
                "io.depth"
            )
        return f"the kernel gives no ring: {error.strerror}"
    timed_io.close_ring(ring)
    return None
