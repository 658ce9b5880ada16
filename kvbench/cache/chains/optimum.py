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
