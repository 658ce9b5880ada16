"""A copy-path study for people (sentences and tables that fit into 80 columns) and for programs (JSON)."""

import json
import math
from functools import partial
from typing import Any, Final

import pandas as pd
from kvbench_analysis.copy_path.copy_path import BASELINE, COMBINATION, METRICS, CopyPathFigures
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import units
from kvbench_analysis.text.safe import plain, safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console

_text: Final = partial(safe_text, lines=True)
"""The cells of these tables have several lines."""

JSON_VERSION: Final = 1
"""Raised whenever a key of the JSON changes its meaning or goes; new keys do not raise it."""

_METRIC_NAMES: Final = {
    "old_device_p95_ns": "device P95,\nold split",
    "device_p95_ns": "device P95,\nkernel",
    "old_host_p95_ns": "host P95,\nold split",
    "host_p95_ns": "host P95,\nkernel",
    "runq_p95_ns": "run queue\nP95, kernel",
    "total_p95_ns": "total P95",
    "tokens_per_s": "tokens/s\nper rank",
    "request_p95_ns": "request\nP95",
    "host_ns_per_byte": "host\nns/byte",
    "roofline_fraction": "of the copy\nroofline",
}
_NOTE: Final = (
    "per read, but for the request; old split: device is the span of the load, host the rest; below each figure its "
    "ratio to double-copy with the 95 % interval; ~: fewer than 200 values in a repeat"
)


def to_json(figures: CopyPathFigures) -> str:
    """`figures` as JSON, keys as in docs/studies.md; a figure that there is not is null."""
    content = {
        "format": "kvbench-copy-path",
        "version": JSON_VERSION,
        "source": figures.source,
        "study": figures.study,
        "sentences": sentences(figures),
        "warnings": list(figures.warnings),
    }
    for name in ("table", "second_copy", "roofline", "cells"):
        content[name] = getattr(figures, name).to_dict("records")
    return json.dumps(plain(content), indent=2, allow_nan=False)


def sentences(figures: CopyPathFigures) -> list[str]:
    """One for each directory: what the second copy costs alone and under contention, and why that differs."""
    return [sentence(row) for row in figures.headlines.to_dict("records")]


def sentence(row: dict[Any, Any]) -> str:
    """The sentence of one row of `second_copy`."""
    ranks, threads = row["ranks"], row["threads"]
    who = f"{units.count_of(ranks, 'rank')} of {units.count_of(threads, 'thread')}"
    what = f"{units.size(row['object_bytes'])} a read, {who}"
    text = (
        f"{row['filesystem']} at {row['directory']}, {what}: the second copy costs {_duration(row, 'isolated_ns')} "
        f"a read with one rank at a time, {_share(row, 'isolated_share')} on top of the read with one copy"
    )
    if ranks == 1:
        return f"{text}; what it costs beside other ranks was not measured."
    text += f", and {_duration(row, 'contended_ns')}, {_share(row, 'contended_share')}, with {ranks} ranks at once"
    if not math.isfinite(row["more_ns_low"]):
        return f"{text}; {units.count_of(row['repeats'], 'repeat')} gives no interval."
    if row["more_ns_high"] < 0:
        return f"{text}: contention does not raise it."
    if not row["slowed"]:
        return f"{text}; the {_duration(row, 'more_ns')} between them cannot be told from none."
    return (
        f"{text}; of the {_duration(row, 'more_ns')} between them {_share(row, 'bandwidth_share')} is memory bandwidth "
        f"(the second copy's processor time grew from {_digits(row['isolated_host_ns_per_byte'])} to "
        f"{_digits(row['contended_host_ns_per_byte'])} ns/byte), {_signed(row['more_runq_ns'])} waiting for a "
        f"processor and {_signed(row['more_device_ns'])} being blocked."
    )


def print_copy_path(figures: CopyPathFigures, console: Console, *, every: bool = False) -> None:
    """Print sentences, warnings and tables: of all combinations with `every`, else of those of the sentences, at every
    size. Text of the file is printed as it is, never as markup."""
    study = figures.study
    size = ", ".join(units.count_of(float(study[f"{noun}s"] or 0), noun) for noun in ("rank", "node"))
    console.print(_text(f"{figures.source}: {size}, {study['model']}, {study['status']}"))
    for line in sentences(figures):
        console.print(_text(line, "bold"))
    if study["same_twice"] is not None:
        # At one rank on one node both modes are the same measurement.
        noise = units.share(float(study["same_twice"]))
        console.print(_text(f"Noise: the same measurement, made twice in each repeat, differs by {noise} (total P95)."))
    for message in figures.warnings:
        console.print(_text(f"Warning: {message}", "yellow"))
    _print_costs(figures, console)
    _print_roofline(figures, console)
    kept = figures.table if every else _shown(figures)
    for key, rows in kept.groupby([*COMBINATION, "mode"], sort=False):
        _print_combination(dict(zip([*COMBINATION, "mode"], key, strict=True)), rows, console)
    if len(kept) < len(figures.table):
        console.print(_text("Other combinations: kvbench study show FILE --all, or --json for all figures."))


def _shown(figures: CopyPathFigures) -> pd.DataFrame:
    """The rows of the combinations of the sentences, at every size; all rows where there is no sentence."""
    if figures.headlines.empty:
        return figures.table
    keys = ["directory", "ranks", "threads"]
    return figures.table.merge(figures.headlines[keys], on=keys)


def _print_combination(key: dict[str, Any], rows: pd.DataFrame, console: Console) -> None:
    mode = "one rank at a time" if key["mode"] == "isolated" else f"{units.count_of(key['ranks'], 'rank')} at once"
    title = (
        f"{key['filesystem']} at {key['directory']}: {units.size(key['object_bytes'])} a read, {mode}, "
        f"{units.count_of(key['threads'], 'thread')} a rank"
    )
    paths = list(dict.fromkeys(rows["read_path"]))
    by_place = {(row["metric"], row["read_path"]): row for row in rows.to_dict("records")}
    body = [[_METRIC_NAMES[metric], *(_cell(by_place[metric, path]) for path in paths)] for metric in METRICS]
    _print_table(
        console, title, ["", *(path.replace("-", "-\n") for path in paths)], body, _NOTE if BASELINE in paths else ""
    )


def _cell(row: dict[Any, Any]) -> str:
    metric, value = row["metric"], row["value"]
    if not math.isfinite(value):
        return units.NONE
    if metric.endswith("_ns"):
        text = units.percentile(value, row["fewest"], operations_needed(95))
    elif metric == "roofline_fraction":
        text = units.share(value)
    else:
        text = units.digits(value)
    if row["read_path"] == BASELINE or value == 0 or not math.isfinite(row["ratio"]):
        return text
    text += f"\nx {_ratio(row['ratio'])}"
    return text if math.isnan(row["ratio_low"]) else f"{text}\n{_ratio(row['ratio_low'])}-{_ratio(row['ratio_high'])}"


def _print_costs(figures: CopyPathFigures, console: Console) -> None:
    if figures.second_copy.empty:
        console.print(_text("The second copy was not measured: its cost is double-copy less numpy."))
        return
    for directory, rows in figures.second_copy.groupby("directory", sort=False):
        place = f"{rows['filesystem'].iloc[0]} at {directory}"
        _print_table(
            console,
            f"Second copy, mean per read (double-copy less numpy): {place}",
            [
                "ranks x\nthreads",
                "one rank\nat a time",
                "at once",
                "more",
                "of it:\nmemory",
                "\nrun queue",
                "\nblocked",
            ],
            [
                [
                    f"{units.size(row['object_bytes'])}\n{row['ranks']} x {row['threads']}",
                    *(
                        _duration(row, name, "\n")
                        for name in ("isolated_ns", "contended_ns", "more_ns", "more_host_ns")
                    ),
                    *(_signed(row[f"more_{part}_ns"]) for part in ("runq", "device")),
                ]
                for row in rows.to_dict("records")
            ],
            "memory: processor time for the same bytes; below each figure its 95 % interval",
        )


def _print_roofline(figures: CopyPathFigures, console: Console) -> None:
    if len(figures.roofline):
        _print_table(
            console,
            "Memory copy of a node (roofline), one thread a rank",
            ["ranks at once", "GiB/s copied", "95 % interval"],
            [
                [row["ranks"], units.digits(row["copy_gib_per_s"]), _bounds(row["low"], row["high"])]
                for row in figures.roofline.to_dict("records")
            ],
        )


def _print_table(console: Console, title: str, columns: list[str], rows: list[list[Any]], caption: str = "") -> None:
    console.print()
    print_table(console, title, columns, rows, caption=caption)


def _duration(row: dict[Any, Any], name: str, separator: str = " ") -> str:
    """A time with its interval, in one unit; in a table (another separator) as `low..high` below it."""
    figures = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
    largest = max((abs(figure) for figure in figures if math.isfinite(figure)), default=0)
    unit, factor = next(((u, f) for u, f in (("s", 1e9), ("ms", 1e6), ("us", 1e3)) if largest >= f), ("ns", 1.0))
    places = max(0, 2 - math.floor(math.log10(largest / factor))) if largest else 0
    value, low, high = (f"{figure / factor:.{places}f}" for figure in figures)
    bounds = f"({low} to {high})" if separator == " " else f"{low}..{high}"
    return f"{value} {unit}" + (f"{separator}{bounds}" if math.isfinite(figures[1]) else "")


def _share(row: dict[Any, Any], name: str) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.0%} ({low:.0%} to {high:.0%})".replace("%", " %") if math.isfinite(low) else units.share(value)


def _signed(ns: float) -> str:
    return f"-{units.duration(-ns)}" if ns < 0 else units.duration(ns)


def _ratio(value: float) -> str:
    """At most four characters, so that an interval fits a column."""
    if value >= 999.5:
        return ">999"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}" if math.isfinite(value) else units.NONE


def _digits(value: float) -> str:
    return units.digits(value) if math.isfinite(value) else "inf" if value > 0 else units.NONE


def _bounds(low: float, high: float) -> str:
    return f"{_digits(low)} to {_digits(high)}" if math.isfinite(low) else units.NONE
