"""Prints a history on a console, and as JSON. Computes no figure."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from kvbench_analysis.figures.storage_moves import DIRECTIONS, Moves
from kvbench_analysis.history.changes import Changes
from kvbench_analysis.history.files import Skipped
from kvbench_analysis.history.history import History, PastRun
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import units
from kvbench_analysis.text.safe import plain, safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console
from rich.text import Text

_HEADINGS: Final = ("when\nended", "run file\nwhat", "where", "storage\nreads", "storage\nwrites")
_CHANGE_HEADINGS: Final = ("when", "storage", "before", "this", "ratio", "95 % interval", "")
_WORDS: Final = frozenset((0, 1, 6))
_METRICS: Final = {"gib_per_s": "GiB/s", "wall_p95_ns": "P95"}
_STYLES: Final = {"better": "green", "worse": "red", "same": ""}
_MOST_HOSTS: Final = 2
_DIGITS: Final = 8
"""Of a fingerprint, which tell apart all that anybody has."""


def print_history(found: History, console: Console, changes: Changes | None = None) -> None:
    """The table of the runs, that of their changes, and what was skipped."""
    if found.runs:
        title = f"{len(found.runs)} runs" + (f", {found.left_out} others left out" if found.left_out else "")
        print_table(console, title, _HEADINGS, map(_cells, found.runs), left=3)
    else:
        console.print(f"none of {found.left_out} runs is asked for" if found.left_out else "no run file is there")
    if changes is not None:
        _print_changes(changes, console)
    _print_skipped((*found.skipped, *(changes.skipped if changes else ())), console)


def to_json(found: History, changes: Changes | None = None) -> str:
    """The runs, what was skipped, and the changes where they were asked for; figures that there are not are null."""
    skipped = (*found.skipped, *(changes.skipped if changes else ()))
    told: dict[str, Any] = {
        "runs": [past.row() for past in found.runs],
        "left_out": found.left_out,
        "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped],
    }
    if changes is not None:
        told["changes"] = changes.metrics.to_dict("records")
        told["warnings"] = changes.warnings.to_dict("records")
    return json.dumps(plain(told), indent=2)


def _cells(past: PastRun) -> tuple[str, ...]:
    hosts = ", ".join(past.hosts[:_MOST_HOSTS])
    more = len(past.hosts) - _MOST_HOSTS
    where = hosts + (f" and {more} more" if more > 0 else "")
    return (
        f"{_when(past.started_at)}\n{past.status}",
        f"{past.path}\n{past.configuration} {past.fingerprint[:_DIGITS]}",
        f"{where}\n{', '.join(past.filesystems)}",
        *(_moved(past.moves.get(way)) for way in DIRECTIONS),
    )


def _when(started_at: str) -> str:
    """To the minute."""
    return started_at.replace("T", " ")[:16] or units.NONE


def _moved(moves: Moves | None) -> str:
    if moves is None:
        return units.NONE
    p95 = units.percentile(moves.wall_p95_ns, moves.backed_by, operations_needed(95))
    return f"{units.digits(moves.gib_per_s)} GiB/s\nP95 {p95}"


def _print_changes(changes: Changes, console: Console) -> None:
    several = changes.metrics["tier"].nunique() > 1
    for fingerprint, table in changes.metrics.groupby("fingerprint", sort=False):
        rows: list[tuple[Text | str, ...]] = []
        last = None
        for row in table.to_dict("records"):
            rows.append(_change(row, first=row["path"] != last, several=several))
            last = row["path"]
        print_table(
            console,
            f"{str(fingerprint)[:_DIGITS]}: each run against the one before of the same work",
            _CHANGE_HEADINGS,
            rows,
            left=_WORDS,
        )
    if changes.metrics.empty:
        console.print("no two of these runs did the same work")
        return
    console.print(
        "ratio: this run by the one before; its interval is a bootstrap over blocks of time of both, and does not hold "
        "what differs between runs of one storage: repeat a run before you believe a small change. ~: too few "
        "operations for the percentile."
    )
    for warning in changes.warnings.to_dict("records"):
        console.print(safe_text(f"Warning: {warning['source']}: {warning['message']}", "yellow"))


def _change(row: dict[Any, Any], *, first: bool, several: bool) -> tuple[Text | str, ...]:
    in_ns = row["unit"] == "ns"
    before, this = (
        units.duration(value) if in_ns else units.digits(value) for value in (row["before_value"], row["value"])
    )
    known = not math.isnan(row["low"])
    tier = f"{row['tier']} " if several else ""
    return (
        _when(str(row["started_at"])) if first else "",
        f"{tier}{row['op']} {_METRICS[row['metric']]}",
        before,
        this,
        ("" if row["backed"] else "~") + units.digits(row["ratio"]),
        f"{units.digits(row['low'])}..{units.digits(row['high'])}" if known else "",
        Text(str(row["verdict"]), _STYLES.get(str(row["verdict"]), "")),
    )


def _print_skipped(skipped: Sequence[Skipped], console: Console) -> None:
    for line in _lines(skipped):
        console.print(safe_text(line, "yellow"))


def _lines(skipped: Iterable[Skipped]) -> Iterable[str]:
    for path, reason in skipped:
        # What a reader says begins with the file, or names it.
        yield f"skipped: {reason}" if str(path) in reason else f"skipped: {path}: {reason}"
