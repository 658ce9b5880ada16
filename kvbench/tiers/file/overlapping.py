"""What carries out batches of reads and writes of files whose operations are in flight together."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kvbench.tiers.transfer import Batch


class Names(NamedTuple):
    """What the files of a batch are called: `prefix`, folders, sixteen digits, `suffix`."""

    prefix: str = ""
    suffix: str = ""
    levels: int = 0
    width: int = 1


class Overlapping(Protocol):
    """Of one tier."""

    @property
    def unregistered_errno(self) -> int:
        """Why the memory of some thread is not registered with the kernel; 0: that of all is, or was not asked for."""

    def open(self, memory: npt.NDArray[np.uint8] | None) -> None:
        """Prepare the calling thread, if it is not, to move what lies in `memory`. Raises OSError."""

    def run(
        self,
        batch: Batch,
        descriptor: int,
        names: Names,
        io_bytes: int,
        flags: int,
        where: Callable[[int], str],
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Carry out a batch of reads or writes: of files in the directory `descriptor`, or, with `places`, of what lies
        there in the open file `descriptor`. `flags` are those of `timed_io.run_files`. `where` names an object, for
        messages. Raises OSError where the thread cannot be prepared."""

    def close_own(self) -> None:
        """Give back what the calling thread has, if anything."""

    def close(self) -> None:
        """Give back what all threads have, none of which runs batches any more."""
