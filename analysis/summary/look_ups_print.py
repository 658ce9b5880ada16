"""What was looked up and found, and the load that was offered and served, as text for tables. Makes no figures."""

import math
from collections.abc import Iterator
from typing import Any, Final

from kvbench_analysis.figures.look_ups import NOT_FOUND
from kvbench_analysis.summary.sharing_print import TextTable
from kvbench_analysis.summary.summary import Summary
from kvbench_analysis.text import units

from kvbench.records.tables import PREFIX_WORDS

_WORDS: Final = PREFIX_WORDS | {NOT_FOUND: "not found"}
_KINDS: Final = {
    "history": "re-reads of history",
    "context": "first look-ups of contexts",
    "decode": "decode re-reads",
    "system-prompt": "system prompts",
}


def look_up_tables(summary: Summary) -> Iterator[TextTable]:
    """Of prefixes, or of each kind of look-up; none where the file does not tell them apart."""
    if len(summary.prefix):
        yield (
            "Prefixes of contexts: found up to the first block that was missing, and why the rest was not",
            ["blocks", "requests", "number", "of all", "tokens", "of prompt tokens"],
            [_prefix_row(row) for row in summary.prefix.to_dict("records")],
        )
    if len(summary.look_ups):
        yield (
            "Look-ups by what they are for (none of these is a prefix hit); shares are over each kind alone",
            ["look-ups", "found", "missing", "share found", "tokens found", "of tokens"],
            [
                [
                    _KINDS[row["what"]],
                    units.count(row["found"]),
                    units.count(row["missing"]),
                    units.share(row["found_share"]),
                    _count(row["found_tokens"]),
                    units.share(row["token_share"]),
                ]
                for row in summary.look_ups.to_dict("records")
            ],
        )


def no_look_ups(summary: Summary) -> str:
    """Why there is no table of look-ups; "" where there is one."""
    if len(summary.prefix) or len(summary.look_ups):
        return ""
    if summary.run["look_ups_told"]:
        return "Cache: no request of the measured phase looked anything up."
    return "Cache: this file does not tell apart what was looked up (history, contexts, decoding)."


def load_table(summary: Summary) -> TextTable | None:
    """Offered and served load beside each other; None where there is no open loop."""
    if not len(summary.load):
        return None
    rows = [
        [
            row["unit"] if row["unit"] == "requests" else "prompt tokens",
            _count(row["offered"]),
            units.digits(row["offered_per_s"]),
            _count(row["served"]),
            units.digits(row["served_per_s"]),
            _count(row["unfinished"]),
            _count(row["waiting"]),
        ]
        for row in summary.load.to_dict("records")
    ]
    headings = ["", "offered", "per s", "served", "per s", "cut short", "never begun"]
    return "Load that came (offered) and that was done (served) in the measured window", headings, rows


def no_load(summary: Summary) -> str:
    """Why there is no offered load to stand beside the served one."""
    if summary.run["pacing"] == "open":
        return ""
    if summary.run["pacing"] == "asap":
        return "Load: requests begin as soon as there is a place, so that none is offered."
    return "Load: a closed loop, in which users wait for answers, so that none is offered."


def prefix_hits(summary: Summary) -> str:
    """The share of prompt tokens that were found, in a line; "" where requests are not served as an engine does it."""
    share = prefix_hit_share(summary)
    return "" if share is None else f"prefix hits: {units.share(share)} of prompt tokens"


def prefix_hit_share(summary: Summary) -> float | None:
    """Of all tokens of prompts; None where requests are not served as an engine does it, or asked for nothing."""
    shares = [
        float(row["token_share"])
        for row in summary.prefix.to_dict("records")
        if row["what"] == "hit" and row["tier"] == ""
    ]
    return shares[0] if shares and not math.isnan(shares[0]) else None


def _prefix_row(row: dict[Any, Any]) -> list[str]:
    name = _WORDS[row["what"]]
    return [
        f" on {row['tier']}" if row["tier"] else name,
        _count(row["requests"]),
        units.count(row["blocks"]),
        units.share(row["block_share"]),
        units.count(row["tokens"]),
        units.share(row["token_share"]),
    ]


def _count(number: float) -> str:
    return "" if math.isnan(number) else units.count(int(number))
