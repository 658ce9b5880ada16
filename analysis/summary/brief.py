"""What a run says of itself when it has ended, on one screen: the point, the warnings, one table, where the rest is."""

import shlex
from collections.abc import Sequence
from typing import Any, Final

from kvbench_analysis.summary.headlines import answer, compaction
from kvbench_analysis.summary.look_ups_print import prefix_hits
from kvbench_analysis.summary.objectives_print import objectives_headline
from kvbench_analysis.summary.summary import Summary, what_was_measured
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import overlapping, units
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console

_SCREEN_LINES: Final = 22
"""Of a terminal with 24 lines, the prompt and a line of the command taken off."""
_AROUND_TABLE: Final = 5
"""Lines of a table besides its rows: title, headings, rule, and the blank ones."""
_TITLE: Final = "Operations of the measured phase, all ranks; times per operation"
_HEADINGS: Final = ("tier", "operation", "number", "GiB/s", "P95", "device", "host", "run queue")


def print_brief(summary: Summary, console: Console) -> None:
    """Print what was measured and the answer in a line each, the warnings (the gravest, where all would not fit), and a
    row for each kind of operation. Text of the file is printed as it is, never as markup."""
    point = [what_was_measured(summary), answer(summary.totals)]
    beside = compaction(summary.totals)
    if beside:
        point.append(beside)
    hits = prefix_hits(summary)
    if hits:
        point.append(hits)
    if summary.objectives is not None:
        point.append(objectives_headline(summary.objectives))
    if summary.run["records"] != "full":
        point.append(f"percentiles: {summary.run['percentiles_are']}")
    counted = [row for row in summary.operations.to_dict("records") if row["operations"]]
    helped = any(row["helper_share"] > 0 for row in counted)
    rows = [_row(row, helped) for row in counted]
    shares = ([row[name] for row in counted] for name in ("split_of", "helper_share"))
    note = overlapping.notes(*shares, brief=True)
    rest = f"all figures: kvbench summary {shlex.quote(summary.source)}"
    said = [*point, rest, note] if note else [*point, rest]
    taken = _lines(said, console) + (len(rows) + _AROUND_TABLE + helped if rows else 0)
    for number, line in enumerate(point):
        console.print(safe_text(line, "bold" if number == 1 else ""))
    for line in _warnings([caution.message for caution in summary.warnings], _SCREEN_LINES - taken, console):
        console.print(safe_text(line, "yellow"))
    if rows:
        headings = (*_HEADINGS[:-1], "run\nqueue", "helpers") if helped else _HEADINGS
        print_table(console, _TITLE, headings, rows, left=2, caption=note)
    console.print(safe_text(rest))


def _row(row: dict[Any, Any], helped: bool) -> list[str]:
    return [
        row["tier"],
        row["op"],
        units.count(row["operations"]),
        units.digits(row["gib_per_s"]),
        units.percentile(row["wall_p95_ns"], row["percentiles_of"], operations_needed(95)),
        *(overlapping.share(row[f"{part}_share"], row["split_of"]) for part in ("device", "host", "runq")),
        *([overlapping.helper(row["helper_share"])] if helped else []),
    ]


def _warnings(messages: Sequence[str], room: int, console: Console) -> list[str]:
    """The warnings that `room` lines hold, at least the first, and how many there are besides."""
    lines = [f"- {message}" for message in messages]
    shown = len(lines)
    while shown > 1 and _lines(lines[:shown], console) + (shown < len(lines)) > room:
        shown -= 1
    left = len(lines) - shown
    return lines[:shown] + ([f"- and {left} more warning{'' if left == 1 else 's'}"] if left else [])


def _lines(texts: Sequence[str], console: Console) -> int:
    """How many lines of the console they take."""
    return sum(len(safe_text(text).wrap(console, console.width)) for text in texts)
