"""What ranks that share one key space tell each other about their objects on the shared storage.

An announcement is one row of fixed width. How they travel is `kvbench.cluster.exchange`'s business; what becomes of
them on a rank is `kvbench.engine.sharing`'s.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt


class Kind(IntEnum):
    """What an announcement says. The last three carry a request's number in place of a key."""

    WRITTEN = 0
    """The object is on the storage, for good, and may be read by every rank."""
    RETIRED = 1
    """Its writer wants to delete it: nobody may begin to read it any more."""
    HANDED_OVER = 2
    """A prefill rank has written what `target`, a decode rank, is to read."""
    DECODED = 3
    """A decode rank has finished a request of `target`, a prefill rank."""
    LOADED = 4
    """Of ranks that serve together: one has loaded its part of the request."""


ANNOUNCEMENT_DTYPE: Final = np.dtype(
    [
        ("key", "<u8"),
        ("t_ns", "<i8"),
        ("sectors", "<u4"),
        ("rank", "<u4"),
        ("target", "<u4"),
        ("kind", "<u4"),
    ]
)
"""32 bytes. `t_ns`: when it came about (an object: the end of its write), on the clock of `rank`'s node."""

Announcements = npt.NDArray[np.void]


def announcements(rows: Sequence[tuple[int, int, int, int, int, int]]) -> Announcements:
    """Rows of ANNOUNCEMENT_DTYPE from tuples in the order of its fields."""
    return np.array(list(rows), dtype=ANNOUNCEMENT_DTYPE)
