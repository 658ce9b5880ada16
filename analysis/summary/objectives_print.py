"""What was promised and what came of it, as text and as plain values. Makes no figures."""

from collections.abc import Iterator
from typing import Any

from kvbench_analysis.figures.objectives import Objectives
from kvbench_analysis.figures.requests import ALL
from kvbench_analysis.summary.sharing_print import TextTable
from kvbench_analysis.text import units

_VERDICTS = {True: "met", False: "not met", None: "not told"}


def verdict(row: dict[Any, Any]) -> str:
    """`met`, `~not met` with too few requests behind the percentile, `not told`."""
    met = row["met"]
    doubt = "" if met is None or row["enough"] else "~"
    return doubt + _VERDICTS[None if met is None else bool(met)]


def value(row: dict[Any, Any]) -> str:
    """Of the run; a modelled part is said."""
    said = units.duration(row["value_s"] * 1e9)
    return f"{said}, modelled in part" if row["modelled"] and row["met"] is not None else said


def objectives_tables(found: Objectives) -> Iterator[TextTable]:
    """The verdicts, and goodput where all objectives can be told."""
    rows = [
        [row["objective"], units.duration(row["value_s"] * 1e9), _verdict(row), units.count(row["requests"])]
        for row in found.objectives.to_dict("records")
    ]
    of = " (of a sample)" if found.sampled_1_in > 1 else ""
    yield f"Objectives{of}", ["objective", "this run", "verdict", "requests"], rows
    if len(found.goodput):
        yield (
            f"Goodput: requests within all objectives{of}",
            ["class", "done", "failed", "within", "of them", "per s"],
            [
                [
                    row["qos"],
                    *(units.count(row[name]) for name in ("done", "failed", "within")),
                    units.share(row["within_share"]),
                    units.digits(row["within_per_s"]),
                ]
                for row in found.goodput.to_dict("records")
            ],
        )


def objectives_notes(found: Objectives) -> Iterator[str]:
    """Why objectives cannot be told."""
    for row in found.objectives.to_dict("records"):
        if row["absent"]:
            yield f"{row['objective']} cannot be told: {row['absent']}."


def objectives_headline(found: Objectives) -> str:
    """In a sentence."""
    rows = found.objectives.to_dict("records")
    said = ", ".join(f"{row['objective']} {verdict(row)} ({value(row)})" for row in rows)
    good = goodput(found)
    return f"objectives: {said}{f'; goodput {good}' if good else ''}"


def goodput(found: Objectives) -> str:
    """`3.2 requests/s within all objectives (87 % of them)`; empty where it is not known."""
    if not len(found.goodput):
        return ""
    row = found.goodput[found.goodput["qos"] == ALL].iloc[0]
    share = units.share(row["within_share"])
    return f"{units.digits(row['within_per_s'])} requests/s within all of them ({share} of requests)"


def objectives_json(found: Objectives | None) -> dict[str, Any] | None:
    """As docs/summary.md says; None where nothing was promised."""
    if found is None:
        return None
    return {
        "met": found.met,
        "sampled_1_in": found.sampled_1_in,
        "objectives": [row | {"absent": row["absent"] or None} for row in found.objectives.to_dict("records")],
        "goodput": found.goodput.to_dict("records"),
    }


def _verdict(row: dict[Any, Any]) -> str:
    said = verdict(row)
    return f"{said}, modelled in part" if row["modelled"] and row["met"] is not None else said
