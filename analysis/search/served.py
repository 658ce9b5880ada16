"""Whether a probe of a load that comes by itself was served: what came in it against what was done, as plain arrays.

**Backlog.** The probe is cut into `BLOCKS` pieces of time, and in each the arrivals less the completions are how much
the backlog grew. It is said to have grown where their mean is above 0 by a one-sided t test at 0.1 %, and by 1 % of
what came. In a queue that keeps up, growth in one piece is made good in another, so that such a test is wrong less
often still; near the limit of what can be served it tells a backlog of about 3 x sqrt(arrivals) from chance, which is
as near to the limit as one probe of that length can tell.
"""

from typing import Final

import numpy as np
import scipy
from kvbench_analysis.search.response import BLOCKS, Floats

_CHANCE: Final = 0.001
_MATTERS: Final = 0.01


def backlog(came_s: Floats, done_s: Floats, seconds: float) -> tuple[bool, float]:
    """Whether the backlog grew, and the share that was served of what came, from 0 to `seconds` of the probe.

    `came_s` are the intended starts of all requests, those before the probe (below 0) and those that never began among
    them; `done_s` when they were done, in any order, of those that were.
    """
    edges = np.linspace(0.0, seconds, BLOCKS + 1)
    came, done = np.histogram(came_s, edges)[0], np.histogram(done_s, edges)[0]
    if not came.sum():
        return False, 1.0
    growth = came - done
    share = float(min(1.0, done.sum() / came.sum()))
    mean, spread = float(growth.mean()), float(growth.std(ddof=1))
    if mean * BLOCKS <= _MATTERS * came.sum():
        return False, share
    limit = float(scipy.special.stdtrit(BLOCKS - 1, 1 - _CHANCE))
    return mean > limit * spread / np.sqrt(BLOCKS), share
