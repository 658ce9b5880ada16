"""The table of a study of engines: how far each twin is from what its storage gives, and what that time is made of."""

import json
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.of_study import read_study_table
from kvbench_analysis.tables.statistics import bootstrap_interval
from kvbench_analysis.text import overlapping, units
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console

from kvbench.records.reader import KvbenchError

JSON_VERSION: Final = 1
"""Raised whenever a key of the JSON changes its meaning or goes; new keys do not raise it."""

_MEANS: Final = (
    "load_gib_per_s", "of_limit", "load_p50_ns", "load_p95_ns", "operations_per_s", "look_up_share", "device_share",
    "host_share", "runq_share", "cached_share",
)  # fmt: skip
_WANTED: Final = (
    "engine", "package", "version", "checked", "repeat", "limit_gib_per_s", "limit_direct", "requests",
    "requests_digest", "load_gib", "load_seconds", "block_bytes", "look_ups", "loads", *_MEANS[2:],
)  # fmt: skip
_MUCH: Final = 0.2
"""Look-ups are spoken of from this share of the time of loads on."""
_FEW: Final = 0.05
"""Reads from the page cache are spoken of from this share on."""


@dataclass(frozen=True)
class EngineFigures:
    """What a study of engines says."""

    engines: pd.DataFrame
    """One row per twin, the fastest first: means over the repeats of `load_gib_per_s`, `of_limit` (by the limit of the
    same repeat) with their 95 % intervals (`_low`, `_high`), and of the others."""
    limit_gib_per_s: float
    """Mean over the repeats."""
    limit_direct: bool
    limit_requests: bool
    """Whether it is that of an object store, which was sent requests."""
    requests: int
    """Of each run: the same in all."""
    sentences: tuple[str, ...]
    """What follows, as far as the figures carry it."""


def load_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the table of a study of engines. Raises KvbenchError naming what is wrong with it."""
    table = read_study_table(path, "a study of engines")
    missing = [name for name in _WANTED if name not in table]
    if missing or not len(table):
        lacks = f"the columns {', '.join(missing)}" if missing else "any row"
        raise KvbenchError(f"{path} is not the table of a study of engines: it lacks {lacks}")
    return table


def engine_figures(table: pd.DataFrame, rng: np.random.Generator) -> EngineFigures:
    """The figures of `table`. Raises KvbenchError where its runs did not do the same work."""
    digests = table.groupby("requests_digest")["engine"].first()
    if len(digests) > 1:
        raise KvbenchError(
            f"these runs did not serve the same requests (such as those of {' and of '.join(digests.iloc[:2])}), so "
            "they cannot be compared: give a load that ends by itself, with duration_s=null, and no time limit"
        )
    table = table.assign(load_gib_per_s=table["load_gib"] / table["load_seconds"])
    table["of_limit"] = table["load_gib_per_s"] / table["limit_gib_per_s"]
    rows = [_row(str(engine), runs, rng) for engine, runs in table.groupby("engine")]
    engines = pd.DataFrame(rows).sort_values("load_gib_per_s", ascending=False, ignore_index=True)
    limits = table.groupby("repeat")["limit_gib_per_s"].first()
    return EngineFigures(
        engines,
        float(limits.mean()),
        bool(table["limit_direct"].iloc[0]),
        # Tables of before there were twins of engines that keep objects do not say so.
        bool(table["limit_requests"].iloc[0]) if "limit_requests" in table else False,
        int(table["requests"].iloc[0]),
        tuple(_sentences(engines)),
    )


def _row(engine: str, runs: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    first = runs.iloc[0]
    row: dict[str, Any] = {
        "engine": engine,
        "package": first["package"],
        "version": first["version"],
        "checked": bool(first["checked"]),
        "block_bytes": int(first["block_bytes"]),
        "repeats": len(runs),
        "load_gib": float(runs["load_gib"].mean()),
        # Tables of before there were batches in them have no such column.
        "split_of": str(first.get("split_of", "operations")),
        "look_ups_per_load": float(runs["look_ups"].sum() / runs["loads"].sum()),
    }
    row |= {name: float(runs[name].mean()) for name in _MEANS}
    for name in _MEANS[:2]:
        interval = bootstrap_interval(runs[name].to_numpy(), np.mean, rng)
        row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def _sentences(engines: pd.DataFrame) -> list[str]:
    """Two twins differ where the intervals of what they load do not touch."""
    found = []
    best, worst = engines.iloc[0], engines.iloc[-1]
    if len(engines) > 1 and best["load_gib_per_s_low"] > worst["load_gib_per_s_high"]:
        found.append(
            f"{best['engine']} loads {best['load_gib_per_s'] / worst['load_gib_per_s']:.3g} times as fast as "
            f"{worst['engine']}: {100 * best['of_limit']:.0f} % and {100 * worst['of_limit']:.0f} % of what the "
            "storage gives."
        )
    cached = [row["engine"] for row in engines.to_dict("records") if row["cached_share"] >= _FEW]
    if cached:
        found.append(
            f"Cached: what {', '.join(cached)} loads lay in the page cache still, in part, for it was never synced; "
            "that part is no figure of the storage."
        )
    found += [
        f"{row['engine']} spends {100 * row['look_up_share']:.0f} % of the time of a load asking the storage what "
        f"is there, {row['look_ups_per_load']:.0f} times a load."
        for row in engines.to_dict("records")
        if row["look_up_share"] >= _MUCH
    ]
    return found


def to_json(figures: EngineFigures) -> str:
    """All figures, NaN as null."""
    rows = [{name: _plain(value) for name, value in row.items()} for row in figures.engines.to_dict("records")]
    content = {
        "version": JSON_VERSION,
        "limit_gib_per_s": figures.limit_gib_per_s,
        "limit_direct": figures.limit_direct,
        "limit_requests": figures.limit_requests,
        "requests": figures.requests,
        "engines": rows,
        "sentences": list(figures.sentences),
    }
    return json.dumps(content, indent=2)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def print_engines(figures: EngineFigures, console: Console) -> None:
    """Two tables that fit 80 columns, and what follows from them."""
    if figures.limit_requests:
        how = "plain gets of objects of 4 MiB, 16 at once"
    else:
        through = "direct" if figures.limit_direct else "through the emptied page cache"
        how = f"a plain read of one file in pieces of 4 MiB by 16 threads, {through}"
    console.print(
        f"Storage: {units.digits(figures.limit_gib_per_s)} GiB/s, {how}. Each run served the same {figures.requests} "
        "requests.",
        soft_wrap=True,
        highlight=False,
    )
    rows = figures.engines.to_dict("records")
    print_table(
        console,
        "Loads of requests",
        ("engine", "block", "GiB/s", "95 %", "of storage", "load P50", "P95"),
        [
            (
                safe_text(row["engine"] + ("" if row["checked"] else " *")),
                units.size(row["block_bytes"]),
                units.digits(row["load_gib_per_s"]),
                f"{units.digits(row['load_gib_per_s_low'])}-{units.digits(row['load_gib_per_s_high'])}",
                units.share(row["of_limit"]),
                units.duration(row["load_p50_ns"]),
                units.duration(row["load_p95_ns"]),
            )
            for row in rows
        ],
        left=1,
    )
    print_table(
        console,
        "Where the time of reads goes; look-ups of a load, and their share of its time",
        ("engine", "op/s", "device", "host", "run\nqueue", "cached", "look-ups", "their\ntime"),
        [
            (
                safe_text(row["engine"]),
                units.count(row["operations_per_s"]),
                *(overlapping.share(row[f"{part}_share"], row["split_of"]) for part in ("device", "host", "runq")),
                _share(row["cached_share"]),
                units.digits(row["look_ups_per_load"]),
                _share(row["look_up_share"]),
            )
            for row in rows
        ],
        left=1,
        caption=overlapping.notes(row["split_of"] for row in rows),
    )
    if not all(row["checked"] for row in rows):
        console.print("* made from its source alone, not checked against the real thing", highlight=False)
    for sentence in figures.sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _share(value: float) -> str:
    return "-" if np.isnan(value) else units.share(value)
