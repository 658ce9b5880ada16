"""Where each object lives: lookup, placement and eviction. Pure bookkeeping: it moves no bytes and reads no clock."""

from kvbench.cache.decisions import Cache
from kvbench.cache.policy import Policy, Step, WaterfallLru

__all__ = ["Cache", "Policy", "Step", "WaterfallLru"]
