"""Requests by the length of the prefix that they found: means of the parts of their time to first token, and how long
they waited for it. A few rows, for plots."""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_BINS: Final = 6
_FEWEST: Final = 5
"""Requests in a bin of those that found something, but where there are fewer in all."""
_PARTS: Final = ("queue", "look_up", "load", "modelled_compute", "first_token", "modelled_recompute")


def parts_by_length(times: pd.DataFrame) -> pd.DataFrame:
    """Per bin of tokens found (0 is one by itself; the others hold about equally many requests): `low_tokens` and
    `high_tokens` that occur in it, `requests`, and means in ns of the parts, as in the table of `request_times`."""
    found = times["found_tokens"].to_numpy()
    rows = []
    for place in _bins(found):
        mine = times.iloc[place]
        row: dict[str, Any] = {"low_tokens": int(found[place].min()), "high_tokens": int(found[place].max())}
        row["requests"] = len(place)
        rows.append(row | {f"{part}_ns": float(mine[f"{part}_ns"].mean()) for part in _PARTS})
    return pd.DataFrame(rows)


def waits_by_length(times: pd.DataFrame) -> pd.DataFrame:
    """The same bins of requests that found something: `tokens` (mean), `requests`, and the median, 5th and 95th
    percentile of look-up and load together in ns: `median_ns`, `low_ns`, `high_ns`."""
    times = times[times["found_tokens"] > 0]
    found = times["found_tokens"].to_numpy()
    waited = (times["look_up_ns"] + times["load_ns"]).to_numpy()
    rows = []
    for place in _bins(found):
        low, median, high = np.percentile(waited[place], [5, 50, 95])
        rows.append(
            {
                "tokens": float(found[place].mean()),
                "requests": len(place),
                "median_ns": float(median),
                "low_ns": float(low),
                "high_ns": float(high),
            }
        )
    return pd.DataFrame(rows, columns=["tokens", "requests", "median_ns", "low_ns", "high_ns"])


def _bins(found: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Places of the requests of each bin; requests with equal lengths are in one."""
    bins = [np.flatnonzero(found == 0)]
    some = np.flatnonzero(found > 0)
    many = max(1, min(_BINS, len(some) // _FEWEST))
    if len(some):
        edges = np.unique(np.quantile(found[some], np.linspace(0, 1, many + 1)[1:-1], method="nearest"))
        number = np.searchsorted(edges, found[some], side="left")
        bins += [some[number == each] for each in range(len(edges) + 1)]
    return [places for places in bins if len(places)]
