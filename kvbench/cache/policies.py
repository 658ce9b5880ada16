"""The table of policies: what `cache.policy` may be, and what makes each from its section of the configuration."""

from collections.abc import Callable
from typing import Final

from kvbench.cache.policy import Policy
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.config.names import POLICY_NAMES
from kvbench.config.run_config import CachePolicy

_TABLE: Final[dict[str, Callable[[CachePolicy], Policy]]] = {}


def offer_policy(name: str, make: Callable[[CachePolicy], Policy]) -> None:
    """Let `cache.policy` be `name`: a line of the table."""
    _TABLE[name] = make
    POLICY_NAMES.offer(name)


def make_policy(cache: CachePolicy) -> Policy:
    """The policy of a configuration, which knows of no object yet."""
    return _TABLE[cache.policy](cache)


offer_policy("waterfall-lru", lambda cache: WaterfallLru(cache.promote_on_hit))
