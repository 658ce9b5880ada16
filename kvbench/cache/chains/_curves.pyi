import numpy as np
import numpy.typing as npt

def prefix_distances(
    keys: npt.NDArray[np.uint64], ends: npt.NDArray[np.int64], distances: npt.NDArray[np.int64]
) -> None:
    """Fills `distances`, one for each key: before its request, how many different blocks were asked for since it was,
    or since one of those before it in its chain was, whichever are more; -1 from the first block on that never was. The
    order of asking is that of `lru` in `_core.pyi`.
    """

def optimal_hits(keys: npt.NDArray[np.uint64], capacity: int) -> int:
    """See `optimum.belady_hits`."""
