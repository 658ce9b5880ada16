"""Batches of files, or of parts of open files, one operation after the other in one call of the stopwatch."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.schema import Op, Path
from kvbench.tiers.file.overlapping import Names
from kvbench.tiers.transfer import Batch, beside

ONE_CALL_PATHS: Final = (Path.BUFFERED, Path.DIRECT)
"""Whose reads of a batch are one call."""


def run_in_turn(
    batch: Batch,
    descriptor: int,
    names: Names,
    io_bytes: int,
    flags: int,
    where: Callable[[int], str],
    places: npt.NDArray[np.int64] | None = None,
    descriptors: npt.NDArray[np.int64] | None = None,
) -> None:
    """Carry out a batch: of files in the directory `descriptor`; or, with `places`, of what lies there in the open file
    `descriptor`, or in those that `descriptors` has for each object. `where` names an object, for messages."""
    memories = None if batch.does == Op.DELETE else beside(batch.memories)
    end = timed_io.run_files(
        batch.rows,
        batch.first_row,
        batch.does,
        descriptor,
        *names,
        batch.key_array,
        None if memories is None else memories.buffer,
        None if memories is None else memories.extents,
        None if memories is None else memories.ends,
        io_bytes,
        flags,
        batch.stop,
        batch.until_ns,
        places,
        descriptors,
    )
    batch.ended(end, where)
