"""The most that any cache of equal blocks could find in a trace: what policies are measured against.

It knows the future, and decides nothing that can be carried out.
"""

import numpy as np
import numpy.typing as npt

try:
    from kvbench.cache.chains._curves import optimal_hits
except ImportError:
    from kvbench.cache.chains._curves_python import optimal_hits


def belady_hits(keys: npt.ArrayLike, capacity: int) -> int:
    """The most references, of the sequence `keys`, that any policy with room for `capacity` equal blocks could find.

    `keys` is one-dimensional, and becomes uint64. Belady, IBM Systems Journal 5 (1966), with bypass: a block whose next
    use lies further than those of all that are held is not kept, and one that is not used again never is.

    It is over single blocks, each found by itself. With chains one after the other, each from its first block on, it
    bounds from above what prefixes are found by every policy: there a block counts only where all before it in its
    chain are found too. Raises ValueError for a negative capacity, or `keys` of another dimension.
    """
    if capacity < 0:
        raise ValueError("a cache has room for 0 blocks or more")
    array = np.asarray(keys)
    if array.ndim != 1:
        raise ValueError("keys must have one dimension")
    return optimal_hits(np.ascontiguousarray(array, np.uint64), capacity)


def references(keys: npt.NDArray[np.uint64], looked_up: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """The sequence for `belady_hits` where some of `keys` are only stored, and not `looked_up`: no policy finds these.

    A block has another name from each time on that it is stored, so that none is worth holding until then. Takes some
    40 bytes a key.
    """
    if looked_up.all():
        return keys
    order = np.argsort(keys, kind="stable")
    anew = ~looked_up[order]
    anew[1:] |= keys[order[1:]] != keys[order[:-1]]
    names = np.empty(len(keys), np.uint64)
    names[order] = np.cumsum(anew)
    return names
