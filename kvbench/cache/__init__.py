"""Where each object lives: lookup, placement and eviction.

Here live the directory of a cache, its policies, and what is known of other ranks' objects. Pure bookkeeping.
Never: bytes, threads or a clock.
"""

from kvbench.cache.decisions import Cache
from kvbench.cache.policy import Policy, Step
from kvbench.cache.waterfall_lru import WaterfallLru

__all__ = ["Cache", "Policy", "Step", "WaterfallLru"]
