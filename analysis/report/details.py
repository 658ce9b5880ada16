"""The tables of a run's report: percentiles, operations, nodes, ranks and requests."""

from collections.abc import Iterator
from typing import Any, Final
from xml.etree.ElementTree import Element

import pandas as pd
from kvbench_analysis.figures.thread_time import SPLIT
from kvbench_analysis.plots.latency import kind_names
from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.markup import Group, element, table, tagged
from kvbench_analysis.summary.look_ups_print import load_table, look_up_tables, no_load, no_look_ups
from kvbench_analysis.summary.sharing_print import sharing_tables
from kvbench_analysis.summary.summary import Summary, contains_modelled
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, operations_needed
from kvbench_analysis.text import overlapping, units

PART_NAMES: Final = {
    "wall": "wall time", "device": "device", "host": "host", "runq": "run queue", "copy": "copy, in host",
    "queue": "queued before", "helper": "helpers",
}  # fmt: skip
_REQUEST_PARTS: Final = {
    "latency": "intended start to end", "queue": "waiting to start", "look_up": "looking up", "load": "loading",
    "modelled_prefill": "prefill, modelled",
    "modelled_decode": "decode, modelled", "storage": "storage operations, sum",
}  # fmt: skip
_RANKS: Final = 512


def percentile_table(content: Content) -> Element | None:
    """Per tier, operation and path, and part of the time: mean and percentiles, and how much stands behind them."""
    latency = content.summary.latency
    if latency.empty:
        return None
    latency = latency.assign(name=_names(content, latency))
    rows: list[Any] = []
    for name, group in storage_first(content, latency).groupby("name", sort=False):
        path = f", path {group['path'].iloc[0]}" if group["path"].iloc[0] != "none" else ""
        rows.append(Group(f"{name}: {units.count(group['operations'].iloc[0])} operations{path}"))
        rows += [_latency_row(row) for row in group.to_dict("records") if row["part"] != "copy" or _copies(row)]
    helpers = latency.loc[latency["part"] == "helper", "share_of_wall"]
    note = " " + overlapping.notes(latency["split_of"], helpers)
    return table(
        ["", "mean", "of wall", *(f"P{percentile:g}" for percentile in PERCENTILES)],
        rows,
        caption=f"Per operation. Percentiles are {content.run.percentiles_are}; ~ marks those with too few "
        f"operations behind them. Percentiles of parts do not add up to those of the whole.{note.rstrip()}",
    )


def operation_table(content: Content) -> Element | None:
    """Per tier, operation and path: counts, bytes, rates and sizes; failed and canceled ones beside."""
    operations = storage_first(content, content.summary.operations)
    if operations.empty:
        return None
    names = _names(content, operations)
    rows = [
        (
            name,
            row["path"],
            units.count(row["operations"]),
            units.size(row["bytes"]),
            units.digits(row["gib_per_s"]),
            units.digits(row["operations_per_s"]),
            units.digits(row["tokens_per_s"]),
            units.size(row["size_p50_bytes"]),
            units.count(row["failed"]),
            units.count(row["canceled"]),
        )
        for name, row in zip(names, operations.to_dict("records"), strict=True)
    ]
    columns = ["", "path", "operations", "moved", "GiB/s", "per s", "tokens/s", "median size", "failed", "canceled"]
    return table(columns, rows, left=2, caption="All ranks together; rates over the measured window.")


def node_table(content: Content) -> Element | None:
    """Per client node, tier and operation: what it moved, how fast, and what the time went to."""
    return _places(
        storage_first(content, content.summary.nodes), ["node", "host"], "Per client node, all its ranks together."
    )


def sharing_elements(content: Content) -> list[Element]:
    """Where ranks shared one key space: reads by who wrote the object, how soon it could be read, and violations."""
    tables = [
        table(columns, rows, left=1, caption=title) for title, columns, rows in sharing_tables(content.summary.sharing)
    ]
    return [*tables, *(element("p", sentence) for sentence in content.summary.sharing.violations)]


def rank_table(content: Content) -> Element | None:
    """Per rank, tier and operation, as `node_table`; of very many ranks, the slowest."""
    ranks, said = content.summary.ranks, "Per rank."
    if len(ranks) > _RANKS:
        said = f"The {_RANKS} of {units.count(len(ranks))} rows with the highest P95."
        ranks = ranks.nlargest(_RANKS, "wall_p95_ns").sort_index()
    return _places(storage_first(content, ranks), ["rank", "node"], said)


def request_tables(content: Content) -> list[Element]:
    """Requests by class and how they ended, how long they took, and what the cache had of what they asked for."""
    summary = content.summary
    counts = summary.requests
    if not counts["requests"].sum():
        return [element("p", "No request was made in the measured phase.", class_="absent")]
    latency, load = summary.request_latency, load_table(summary)
    timed = latency[latency["requests"] > 0]
    return [
        table(
            ["class", "done", "cut short", "failed", "done per s"],
            (
                (
                    row["qos"],
                    *(units.count(row[key]) for key in ("done", "cut_short", "failed")),
                    units.digits(row["requests_per_s"]),
                )
                for row in counts.to_dict("records")
            ),
            caption="Requests of the measured phase; cut short: the run ended first.",
        ),
        table(
            ["class", "part", "mean", *(f"P{percentile:g}" for percentile in PERCENTILES)],
            (
                (
                    row["qos"],
                    tagged(_REQUEST_PARTS[row["part"]]),
                    units.duration(row["mean_ns"]),
                    *_distribution(row),
                )
                for row in timed.to_dict("records")
            ),
            left=2,
            caption=[
                "Time per request, of those that were done. Storage operations of a request overlap, so their sum "
                "can exceed its latency.",
                *tagged(_modelled(summary)),
            ],
        ),
        *(table(headings, rows, caption=f"{title}.") for title, headings, rows in look_up_tables(summary)),
        *(element("p", said) for said in (no_look_ups(summary), "" if load else no_load(summary)) if said),
        *([table(load[1], load[2], caption=f"{load[0]}.")] if load else []),
    ]


def _names(content: Content, table: pd.DataFrame) -> pd.Series:
    """The names that the figures give to kinds of operations."""
    operations = content.summary.operations
    names = dict(
        zip(operations[["tier", "op", "path"]].itertuples(index=False, name=None), kind_names(operations), strict=True)
    )
    return pd.Series(
        [names[kind] for kind in table[["tier", "op", "path"]].itertuples(index=False, name=None)], table.index, object
    )


def storage_first(content: Content, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of storage tiers, and then the others, each in their order."""
    tiers = content.run.tiers
    storage = table["tier"].isin(tiers.loc[tiers["storage"].astype(bool), "name"])
    return pd.concat([table[storage], table[~storage]])


def _copies(row: dict[Any, Any]) -> bool:
    """Whether there were explicit copies, of operations or in batches."""
    return bool(row["share_of_wall"] > 0)


def _latency_row(row: dict[Any, Any]) -> tuple[str, ...]:
    share = "" if row["part"] in ("wall", "queue") else overlapping.share(row["share_of_wall"], row["split_of"])
    if row["split_of"] != "operations":
        return (PART_NAMES[row["part"]], "", share, *[""] * len(PERCENTILES))
    return (PART_NAMES[row["part"]], units.duration(row["mean_ns"]), share, *_distribution(row))


def _distribution(row: dict[Any, Any]) -> Iterator[str]:
    for percentile, column in zip(PERCENTILES, PERCENTILE_COLUMNS, strict=True):
        yield units.percentile(row[column], row["percentiles_of"], operations_needed(percentile))


def _places(places: pd.DataFrame, by: list[str], said: str) -> Element | None:
    if places.empty:
        return None
    rows: list[Any] = []
    helped = (places["helper_share"] > 0).any()
    for (tier, op), group in places.groupby(["tier", "op"], sort=False):
        rows.append(Group(f"{tier} {op}"))
        rows += [
            (
                *(str(row[name]) for name in by),
                units.count(row["operations"]),
                units.digits(row["gib_per_s"]),
                units.percentile(row["wall_p95_ns"], row["percentiles_of"], operations_needed(95)),
                *(overlapping.share(row[f"{part}_share"], row["split_of"]) for part in SPLIT),
                *([overlapping.helper(row["helper_share"])] if helped else []),
            )
            for row in group.to_dict("records")
        ]
    columns = [
        *by,
        "operations",
        "GiB/s",
        "P95 per op",
        "device",
        "host",
        "run queue",
        *(["helpers"] if helped else []),
    ]
    note = overlapping.notes(places["split_of"], places["helper_share"]) or "Shares are of the wall time."
    return table(columns, rows, left=len(by), caption=f"{said} {note}")


def _modelled(summary: Summary) -> str:
    contained = contains_modelled(summary).removeprefix("; contains ")
    return f" Latencies contain {contained}, which nobody measured." if contained else ""
