"""The table of policies: what makes each from its section of the configuration. A new one is one file here, one line in
the table, and its name in `config.names`."""

from collections.abc import Callable
from typing import Final

from kvbench.cache.policy import Policy
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.config.names import CACHE_POLICIES
from kvbench.config.run_config import CachePolicy

POLICIES: Final[dict[str, Callable[[CachePolicy], Policy]]] = {
    "waterfall-lru": lambda cache: WaterfallLru(cache.promote_on_hit),
}
"""By the name that `cache.policy` has."""


def register(name: str, make: Callable[[CachePolicy], Policy]) -> None:
    """Add a policy to those that a configuration may name."""
    POLICIES[name] = make
    CACHE_POLICIES.append(name)


def make_policy(cache: CachePolicy) -> Policy:
    """The policy of a configuration, which knows of no object yet."""
    return POLICIES[cache.policy](cache)
