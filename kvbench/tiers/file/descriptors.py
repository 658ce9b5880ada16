"""Which bytes of memory go where in files, as lists of pieces for a library that moves them. No I/O."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kvbench.tiers.transfer import Memories


class Pieces(NamedTuple):
    """Of objects one behind the other, each of at most so many bytes: m pieces."""

    starts: npt.NDArray[np.int64]
    """In the memory's buffer."""
    lengths: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    """In the object."""
    objects: npt.NDArray[np.int64]
    """The number of the object."""

    def of_first(self, count: int) -> "Pieces":
        """Those of the first `count` objects."""
        end = int(np.searchsorted(self.objects, count))
        return Pieces(*(column[:end] for column in self))


def pieces_of(memories: Memories, most_bytes: int) -> Pieces:
    """Where the objects' bytes lie, cut into pieces of at most `most_bytes`."""
    starts, lengths = memories.extents[:, 0], memories.extents[:, 1]
    if _is_each_of_one_extent(memories):
        objects, offsets = np.arange(len(lengths)), np.zeros(len(lengths), np.int64)
    else:
        counts = np.diff(memories.ends, prepend=0)
        objects = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(lengths) - lengths
        offsets = before - before[(memories.ends - counts)[objects]]
    cut = -(-lengths // most_bytes)
    if (cut == 1).all():
        return Pieces(starts, lengths, offsets, objects)
    of = np.repeat(np.arange(len(lengths)), cut)
    within = (np.arange(len(of)) - np.repeat(np.cumsum(cut) - cut, cut)) * most_bytes
    left = np.minimum(lengths[of] - within, most_bytes)
    return Pieces(starts[of] + within, left, offsets[of] + within, objects[of])


def _is_each_of_one_extent(memories: Memories) -> bool:
    return len(memories.extents) == len(memories) and bool((memories.ends == np.arange(1, len(memories) + 1)).all())


def bytes_of_objects(memories: Memories) -> npt.NDArray[np.int64]:
    """Of each object."""
    if _is_each_of_one_extent(memories):
        return memories.extents[:, 1]
    total = np.concatenate([[0], np.cumsum(memories.extents[:, 1])])
    return np.asarray(np.diff(total[memories.ends], prepend=0), np.int64)
