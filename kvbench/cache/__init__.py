"""Where each object lives: lookup, placement and eviction.

Here live the directory of a cache, its policies with their table, and what is known of other ranks' objects. Pure
bookkeeping. Never: bytes, threads or a clock.
"""

from kvbench.cache.decisions import Cache
from kvbench.cache.policies import make_policy
from kvbench.cache.policy import Policy, Step

__all__ = ["Cache", "Policy", "Step", "make_policy"]
