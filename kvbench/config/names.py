"""Names that a configuration uses for what other packages have, who have it, and what a configuration must know of it.

Whoever has a table of such things adds the names of what was not there when this was written.
"""

from typing import Final, NamedTuple


class TierKind(NamedTuple):
    """What a configuration must know of a kind of tier."""

    storage: bool
    """False: it is the node's memory, which other tiers may lie below, and of which a part may be filled."""
    has_target: bool
    """Its objects lie at the place under test, whose free space may decide its capacity."""
    keeps_bytes: bool
    """Whether what is read can be compared with what was written."""
    shared: bool
    """Whether ranks can read what other ranks wrote."""
    layouts: bool = False
    """Whether `layout` says how its objects lie there."""
    requests: bool = False
    """A server is sent a request for each of its objects, several at once (`io.depth`); `part_bytes` and `retries` are
    of those."""
    modelled: bool = False
    """It is not there: it only decides what the tiers below are asked for, and every output says so."""


TIER_KINDS: Final = {
    "memory": TierKind(storage=False, has_target=False, keeps_bytes=True, shared=False),
    "gpu": TierKind(storage=False, has_target=False, keeps_bytes=False, shared=False, modelled=True),
    "file": TierKind(storage=True, has_target=True, keeps_bytes=True, shared=True, layouts=True),
    "object": TierKind(storage=True, has_target=True, keeps_bytes=True, shared=False, requests=True),
    "null": TierKind(storage=True, has_target=False, keeps_bytes=False, shared=False),
}
"""Of `kvbench.tiers.kinds`. `null` only remembers which objects it has: what is measured is kvbench itself."""

CACHE_POLICIES: Final = ["waterfall-lru"]
"""Of `kvbench.cache.policies`."""

CHAIN_POLICIES: Final = ("lru", "fifo", "lfu", "s3-fifo", "2q")
"""Of `kvbench.cache.chains`, for requests that are served as an engine does."""

CACHE_ADMISSIONS: Final = ("always", "second-use")
"""Likewise."""

TRACE_FORMATS: Final = [
    "mooncake",
    "azure",
    "burstgpt",
    "sharegpt",
    "deltas",
    "agentic",
    "bailian",
    "messages",
    "lmcache",
    "baseten",
    "kvbench",
]
"""Of `kvbench.workload.traces.formats`."""
