"""A summary for people (tables that fit into 80 columns) and for programs (JSON with stable keys)."""

import json
from typing import Any, Final

import pandas as pd
from kvbench_analysis.figures.requests import ALL
from kvbench_analysis.summary.endurance_print import (
    endurance_json,
    endurance_notes,
    endurance_table,
    preconditioning_json,
)
from kvbench_analysis.summary.first_token_print import (
    class_table,
    first_token_json,
    first_token_notes,
    first_token_table,
)
from kvbench_analysis.summary.look_ups_print import load_table, look_up_tables, no_load, no_look_ups
from kvbench_analysis.summary.objectives_print import objectives_json, objectives_notes, objectives_tables
from kvbench_analysis.summary.sharing_print import sharing_json, sharing_tables
from kvbench_analysis.summary.summary import Summary, contains_modelled, what_was_measured
from kvbench_analysis.summary.worth_print import worth_json, worth_notes, worth_table
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, operations_needed
from kvbench_analysis.text import overlapping, units
from kvbench_analysis.text.safe import plain, safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console
from rich.text import Text

JSON_VERSION: Final = 2
"""Raised whenever a key of the JSON changes its meaning or goes; new keys do not raise it."""

_RANKS_SHOWN: Final = 16
_PLACES: Final = ("P95 wall per op", "device", "host", "run queue")
_PART_NAMES: Final = {
    "wall": "wall", "device": " device", "host": " host", "runq": " run queue", "copy": "  copy, in host",
    "queue": "queued before", "helper": "helpers",
}  # fmt: skip
_REQUEST_PARTS: Final = {
    "latency": "intended start to end", "queue": " waiting to start", "look_up": " looking up", "load": " loading",
    "modelled_prefill": " prefill, modelled",
    "modelled_decode": " decode, modelled", "storage": "storage operations, sum",
}  # fmt: skip


def to_json(summary: Summary) -> str:
    """`summary` as JSON, keys as in docs/summary.md; a figure that there is not is null."""
    content = {
        "format": "kvbench-summary",
        "version": JSON_VERSION,
        "source": summary.source,
        "run": summary.run,
        "headlines": list(summary.headlines),
        "warnings": [{"code": caution.code, "message": caution.message} for caution in summary.warnings],
    }
    tables = ("operations", "latency", "totals", "ranks", "nodes", "prefix", "look_ups", "load", "requests")
    for name in (*tables, "request_latency"):
        content[name] = [plain(row) for row in getattr(summary, name).to_dict("records")]
    content["first_token"] = plain(first_token_json(summary.first_token))
    content["halves"] = [plain(row) for row in summary.halves.to_dict("records")]
    content["preconditioning"] = preconditioning_json(summary.preconditioning)
    content["endurance"] = endurance_json(summary.endurance)
    content["no_first_token"] = summary.no_first_token or None
    content["objectives"] = objectives_json(summary.objectives)
    content["worth"] = worth_json(summary.worth)
    content["sharing"] = sharing_json(summary.sharing)
    return json.dumps(plain(content), indent=2, allow_nan=False)


def print_summary(summary: Summary, console: Console) -> None:
    """Print the headlines, the warnings and the tables. Text of the file is printed as it is, never as markup."""
    console.print(safe_text(what_was_measured(summary)))
    console.print(safe_text(f"percentiles: {summary.run['percentiles_are']}"))
    for line in summary.headlines:
        console.print(safe_text(line, "bold"))
    if summary.preconditioning is not None:
        console.print(safe_text(summary.preconditioning.text))
    if summary.warnings:
        console.print()
        console.print(Text("Warnings", "bold yellow"))
        for caution in summary.warnings:
            console.print(safe_text(f"- {caution.message}"))
    if len(summary.operations):
        _operations(summary, console)
        _latency(summary, console)
        _places(summary.ranks, "rank", console)
        _places(summary.nodes, "node", console)
        _sharing(summary, console)
        _endurance(summary, console)
    _look_ups(summary, console)
    _requests(summary, console)


def _sharing(summary: Summary, console: Console) -> None:
    for title, columns, rows in sharing_tables(summary.sharing):
        print_table(console, title, columns, rows)


def _endurance(summary: Summary, console: Console) -> None:
    if summary.endurance is not None:
        print_table(console, *endurance_table(summary.endurance))
        for line in endurance_notes(summary.endurance):
            console.print(safe_text(line))


def _operations(summary: Summary, console: Console) -> None:
    rows = summary.operations.to_dict("records")
    print_table(
        console,
        "Operations of the measured phase, all ranks",
        ["tier", "operation", "path", "operations", "bytes", "GiB/s", "tokens/s"],
        (
            (
                *_kind(row),
                units.count(row["operations"]),
                units.size(row["bytes"]),
                units.digits(row["gib_per_s"]),
                units.digits(row["tokens_per_s"]),
            )
            for row in rows
        ),
        left=3,
    )
    print_table(
        console,
        "Bytes per operation",
        ["tier", "operation", "path", "min", "P50", "P95", "max"],
        (
            (*_kind(row), *(units.size(row[f"size_{name}_bytes"]) for name in ("min", "p50", "p95", "max")))
            for row in rows
            if row["operations"]
        ),
        left=3,
    )
    lost = [row for row in rows if row["failed"] or row["canceled"]]
    if lost:
        print_table(
            console,
            "Operations that are not counted in any figure",
            ["tier", "operation", "path", "failed", "canceled"],
            ((*_kind(row), units.count(row["failed"]), units.count(row["canceled"])) for row in lost),
            left=3,
        )


def _kind(row: dict[Any, Any]) -> tuple[Any, ...]:
    return row["tier"], row["op"], row["path"]


def _distribution(row: dict[Any, Any]) -> list[str]:
    """The percentiles of a row of operations or of requests; empty where the operations of batches have none."""
    if row.get("split_of", "operations") != "operations":
        return [""] * len(PERCENTILES)
    return [
        units.percentile(row[column], row["percentiles_of"], operations_needed(percentile))
        for percentile, column in zip(PERCENTILES, PERCENTILE_COLUMNS, strict=True)
    ]


def _of_wall(row: dict[Any, Any]) -> str:
    return "" if row["part"] in ("wall", "queue") else overlapping.share(row["share_of_wall"], row["split_of"])


def _latency(summary: Summary, console: Console) -> None:
    for kind, rows in summary.latency.groupby(["tier", "op", "path"], sort=False):
        tier, op, path = kind
        number = units.count(rows["operations"].iloc[0])
        print_table(
            console,
            f"Time per operation: {tier} {op}, {path} ({number} operations)",
            ["part", "mean", "of wall", *(f"P{percentile:g}" for percentile in PERCENTILES)],
            (
                (
                    _PART_NAMES[row["part"]],
                    units.duration(row["mean_ns"]) if row["split_of"] == "operations" else "",
                    _of_wall(row),
                    *_distribution(row),
                )
                for row in rows.to_dict("records")
            ),
        )
    helpers = summary.latency.loc[summary.latency["part"] == "helper", "share_of_wall"]
    said = overlapping.notes(summary.latency["split_of"], helpers)
    if said:
        console.print(safe_text(said, "italic"))


def _places(table: pd.DataFrame, place: str, console: Console) -> None:
    """One table per tier and operation; of many ranks those whose P95 is highest."""
    for kind, rows in table.groupby(["tier", "op"], sort=False):
        tier, op = kind
        title = f"Per {place}: {tier} {op}s"
        shown = rows
        if len(rows) > _RANKS_SHOWN:
            shown = rows.sort_values("wall_p95_ns", ascending=False).head(_RANKS_SHOWN)
            title += f" (the {_RANKS_SHOWN} of {len(rows)} {place}s with the highest P95; --json has all)"
        where = ("rank", "node") if place == "rank" else ("node", "host")
        helped = bool((rows["helper_share"] > 0).any())
        headings = ["P95 wall\nper op", "device", "host", "run\nqueue", "helpers"] if helped else _PLACES
        print_table(
            console,
            title,
            [*where, "operations", "GiB/s", *headings],
            (
                (
                    *(row[name] for name in where),
                    units.count(row["operations"]),
                    units.digits(row["gib_per_s"]),
                    units.percentile(row["wall_p95_ns"], row["percentiles_of"], operations_needed(95)),
                    *(overlapping.share(row[f"{part}_share"], row["split_of"]) for part in ("device", "host", "runq")),
                    *([overlapping.helper(row["helper_share"])] if helped else []),
                )
                for row in shown.to_dict("records")
            ),
        )


def _first_token(summary: Summary, console: Console) -> None:
    if summary.first_token is None:
        console.print(safe_text(f"No time to first token: {summary.no_first_token}."))
        return
    print_table(console, *first_token_table(summary.first_token))
    classes = class_table(summary.first_token)
    if classes is not None:
        print_table(console, *classes)
    load = summary.load
    never_begun = float(load.loc[load["unit"] == "requests", "waiting"].sum(skipna=False))
    for line in first_token_notes(summary.first_token, never_begun):
        console.print(safe_text(line))


def _promised(summary: Summary, console: Console) -> None:
    if summary.objectives is not None:
        for table in objectives_tables(summary.objectives):
            print_table(console, *table)
        for line in objectives_notes(summary.objectives):
            console.print(safe_text(line))
    if summary.worth is not None:
        print_table(console, *worth_table(summary.worth))
        for line in worth_notes(summary.worth):
            console.print(safe_text(line))
    elif summary.no_worth:
        console.print(safe_text(f"What storage is worth is not known: {summary.no_worth}."))


def _look_ups(summary: Summary, console: Console) -> None:
    nothing = no_look_ups(summary)
    if nothing:
        console.print(Text(nothing))
    for title, headings, rows in look_up_tables(summary):
        print_table(console, title, headings, rows)


def _requests(summary: Summary, console: Console) -> None:
    counts = summary.requests.to_dict("records")
    if not counts[0]["requests"]:
        console.print(Text("Requests: none in the measured phase."))
        return
    print_table(
        console,
        "Requests of the measured phase",
        ["class", "done", "cut short", "failed", "done per s"],
        (
            (
                row["qos"],
                *(units.count(row[name]) for name in ("done", "cut_short", "failed")),
                units.digits(row["requests_per_s"]),
            )
            for row in counts
        ),
    )
    load = load_table(summary)
    if load is not None:
        print_table(console, *load)
    elif no_load(summary):
        console.print(Text(no_load(summary)))
    latency = summary.request_latency
    every = latency[(latency["qos"] == ALL) & (latency["requests"] > 0)].to_dict("records")
    if not every:
        return
    print_table(
        console,
        f"Time per request ({units.count_of(every[0]['requests'], 'request')} done{contains_modelled(summary)})",
        ["part", "mean", *(f"P{percentile:g}" for percentile in PERCENTILES)],
        ([_REQUEST_PARTS[row["part"]], units.duration(row["mean_ns"]), *_distribution(row)] for row in every),
    )
    _first_token(summary, console)
    _promised(summary, console)
    classes = latency[(latency["qos"] != ALL) & (latency["part"] == "latency") & (latency["requests"] > 0)]
    if len(classes):
        print_table(
            console,
            f"Time per request by class (intended start to end{contains_modelled(summary)})",
            ["class", "mean", *(f"P{percentile:g}" for percentile in PERCENTILES)],
            ([row["qos"], units.duration(row["mean_ns"]), *_distribution(row)] for row in classes.to_dict("records")),
        )
