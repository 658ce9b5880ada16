"""What storage is worth in money: GPU time that it saved, against what it costs. Modelled all of it, from prices.

    earned per hour     = GPU-seconds saved per hour / 3600 x price of a GPU for an hour
    cost per hour       = GB of storage x price of a GB for an hour
    per million tokens  = per hour x 10^6 / prompt tokens served per hour

A GB (10^9 bytes) for an hour is a month's price / (8766 / 12), or a drive's price / its GB / (years x 8766).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from kvbench_analysis.figures.first_token import FirstToken
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.window import Window

from kvbench.records.prices import Prices
from kvbench.records.schema import Phase, RequestState

_MILLION = 1e6


@dataclass(frozen=True)
class Worth:
    """Of one run, in the currency of its prices."""

    currency: str
    gpu_source: str
    storage_gb: float
    """10^9 bytes: the capacities of the storage tiers of all ranks."""
    tokens_per_hour: float
    """Prompt tokens of the requests that were done, for each hour of the window."""
    earned_per_hour: float
    earned_per_million_tokens: float
    ways: pd.DataFrame
    """A row for each way in which storage is paid for: `way`, `source`, `cost_per_hour`, `cost_per_million_tokens`, and
    `net_per_million_tokens`, which is what it earned less what it costs."""


def worth(run: Run, window: Window, found: FirstToken | None, prices: Prices | None) -> Worth | None:
    """None without prices, or where no first token is modelled, so that nothing is known to have been saved; or where
    nothing was served in a window."""
    if prices is None or found is None or window.seconds is None:
        return None
    columns = run.columns(["phase", "state", "context_tokens"], "requests")
    done = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE)
    tokens = int(columns["context_tokens"][done].sum(dtype=np.int64)) * run.sampled_1_in("requests")
    per_hour = tokens * 3600 / window.seconds
    if not per_hour:
        return None
    gb = _storage_bytes(run) / 1e9
    earned = found.gpu_s_saved_per_hour / 3600 * prices.gpu_hour
    rows = []
    for storage in prices.storage:
        cost = gb * storage.gb_hour
        rows.append(
            {
                "way": storage.way,
                "source": storage.source,
                "cost_per_hour": cost,
                "cost_per_million_tokens": cost * _MILLION / per_hour,
                "net_per_million_tokens": (earned - cost) * _MILLION / per_hour,
            }
        )
    return Worth(
        currency=prices.currency,
        gpu_source=prices.gpu_source,
        storage_gb=gb,
        tokens_per_hour=per_hour,
        earned_per_hour=earned,
        earned_per_million_tokens=earned * _MILLION / per_hour,
        ways=pd.DataFrame(rows),
    )


def _storage_bytes(run: Run) -> float:
    """NaN where the file does not say it."""
    ranks = run.ranks
    if "storage_capacity_bytes" not in ranks:
        return float("nan")
    return float(ranks["storage_capacity_bytes"].sum())
