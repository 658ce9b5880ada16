"""How many cases a fuzz test makes, and how many it made.

`KVBENCH_FUZZ` is a factor on the modest numbers of the ordinary suite, for a long run (docs/robustness.md).
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, settings

FACTOR: Final = int(os.environ.get("KVBENCH_FUZZ", "1"))

made: Counter[str] = Counter()
"""Cases by reader."""
refused: Counter[str] = Counter()
"""Those of them that ended in a KvbenchError; the others were read."""


def fuzz(examples: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Settings for a test with so many cases, or `KVBENCH_FUZZ` times as many; no time limit for a single one."""
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        # The long run is for cases that no run before has tried.
        derandomize=FACTOR == 1,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
