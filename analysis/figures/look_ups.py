"""What requests of the measured phase looked up and found, by what it is: prefixes of contexts where they are served as
an engine does it; re-reads of history, first look-ups of contexts and decode re-reads where they are served as the
reference does. There is no figure over all of these together.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.load import Run

from kvbench.records.schema import Phase

NOT_FOUND: Final = "not-found"
"""In the place of misses by kind, of files that do not tell them apart."""

PREFIX_COLUMNS: Final = [
    "what", "tier", "requests", "blocks", "tokens", "request_share", "block_share", "token_share",
]  # fmt: skip
LOOK_UP_COLUMNS: Final = [
    "what", "found", "missing", "found_share", "found_tokens", "missing_tokens", "token_share",
]  # fmt: skip
_KINDS: Final = {"history": "history", "first": "context", "context": "decode"}
"""What the columns of /look_ups are called by, and what the rows are."""


def prefix_figures(run: Run) -> pd.DataFrame:
    """One row per kind of block that contexts were looked up for (`what`, as docs/hdf5-schema.md says of /prefix) and,
    of those found, one per `tier` ("" for all): requests with any, blocks, tokens, and their shares of `looked-up`.

    Empty where requests were not served as an engine does it. Of a file without /prefix (a recovered one), or whose
    misses are not told apart (an older one), there is one row `not-found`, and NaN for what is not known.
    """
    if not run.serves_as_engine:
        return pd.DataFrame(columns=PREFIX_COLUMNS)
    found = run.table("prefix")
    if len(found) and "what" in found:
        sums = found.groupby(["what", "tier"], sort=False)[["requests", "blocks", "tokens"]].sum().reset_index()
    else:
        sums = _of_tiers(found) if len(found) else _of_requests(run)
    names = dict(enumerate(run.tiers["name"]))
    sums["tier"] = [names.get(tier, "") for tier in sums["tier"]]
    whole = sums[sums["what"] == "looked-up"].iloc[0]
    for unit in ("request", "block", "token"):
        number = whole[f"{unit}s"]
        sums[f"{unit}_share"] = sums[f"{unit}s"] / (number if number else np.nan)
    return sums[PREFIX_COLUMNS]


def _of_tiers(found: pd.DataFrame) -> pd.DataFrame:
    """Of an older file: by tier, and -1 for all that was not found."""
    sums = found.groupby("tier")[["requests", "blocks", "tokens"]].sum()
    hits = sums[sums.index >= 0]
    rows: list[tuple[Any, ...]] = [
        ("looked-up", -1, np.nan, sums["blocks"].sum(), sums["tokens"].sum()),
        ("hit", -1, np.nan, hits["blocks"].sum(), hits["tokens"].sum()),
        *(("hit", tier, *row) for tier, row in zip(hits.index, hits.itertuples(index=False), strict=True)),
        (NOT_FOUND, -1, *sums.loc[-1]),
    ]
    return pd.DataFrame(rows, columns=PREFIX_COLUMNS[:5])


def _of_requests(run: Run) -> pd.DataFrame:
    """Of a file without /prefix: from what each request found."""
    names = ["hit_objects", "miss_objects", "hit_tokens", "miss_tokens"]
    with_any: list[float]
    if run.mode == "full":
        columns = run.columns(["phase", *names], "requests")
        mask = columns["phase"] == Phase.MEASURE
        requests: Any = int(mask.sum())
        with_any = [int(np.count_nonzero(columns[name][mask])) for name in ("hit_objects", "miss_objects")]
        hits, misses, hit_tokens, miss_tokens = (int(columns[name][mask].sum(dtype=np.int64)) for name in names)
    else:
        rows = run.table("request_population")
        requests, with_any = int(rows["requests"].sum()), [np.nan, np.nan]
        hits, misses, hit_tokens, miss_tokens = (int(rows[name].sum()) for name in names)
    kinds = [
        ("looked-up", -1, requests, hits + misses, hit_tokens + miss_tokens),
        ("hit", -1, with_any[0], hits, hit_tokens),
        (NOT_FOUND, -1, with_any[1], misses, miss_tokens),
    ]
    return pd.DataFrame(kinds, columns=PREFIX_COLUMNS[:5])


def look_up_figures(run: Run) -> pd.DataFrame:
    """One row per kind of look-up that was made (`what`): objects `found` and `missing` of them, and their tokens.

    `history` are objects of earlier turns; `context` the first look-ups of contexts, before what is missing is written;
    `decode` the reads of what the request itself has just found or written; `system-prompt` those of the reference
    workload, which are never found. Empty where requests were served as an engine does it, and of files that do not
    tell look-ups apart (recovered ones, and older ones of other workloads).
    """
    rows = run.table("look_ups")
    if run.serves_as_engine or not len(rows):
        return pd.DataFrame(columns=LOOK_UP_COLUMNS)
    sums = rows.sum()
    kinds = [(name, *_of_kind(sums, column)) for column, name in _KINDS.items()]
    kinds.append(("system-prompt", 0, sums["prompt_misses"], 0, sums["prompt_tokens"]))
    table = pd.DataFrame(kinds, columns=["what", "found", "missing", "found_tokens", "missing_tokens"])
    table = table[table["found"] + table["missing"] > 0].reset_index(drop=True)
    table["found_share"] = table["found"] / (table["found"] + table["missing"])
    table["token_share"] = table["found_tokens"] / (table["found_tokens"] + table["missing_tokens"])
    return table[LOOK_UP_COLUMNS]


def _of_kind(sums: Any, kind: str) -> list[Any]:
    """Found, missing, and their tokens; NaN of what an older file does not say."""
    numbers: list[Any] = [sums.get(f"{kind}_{name}", 0) for name in ("hits", "misses")]
    return numbers + [sums.get(f"{kind}_{name}", np.nan) for name in ("hit_tokens", "miss_tokens")]
