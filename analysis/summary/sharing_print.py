"""The figures of a shared key space as text for tables, and as plain values for JSON. Makes no figures."""

from collections.abc import Iterator
from typing import Any

from kvbench_analysis.figures.sharing import VIOLATIONS, SharingFigures
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, operations_needed
from kvbench_analysis.text import units
from kvbench_analysis.text.safe import plain

_WRITERS = {"own": "the rank itself", "same-node": "same node", "other-node": "another node"}
_PARTS = {"heard": "announced", "readable": "readable"}

TextTable = tuple[str, list[str], list[list[str]]]
"""Title, headings, rows."""


def sharing_tables(sharing: SharingFigures) -> Iterator[TextTable]:
    """The tables of a summary; none where ranks shared nothing."""
    if not sharing.counts:
        return
    yield _reads(sharing)
    if len(sharing.visibility):
        yield _visibility(sharing)
    yield _counts(sharing)


def sharing_json(sharing: SharingFigures) -> dict[str, Any] | None:
    """The figures with the names of `SharingFigures`; None where ranks shared nothing."""
    if not sharing.counts:
        return None
    return {
        "reads": [plain(row) for row in sharing.reads.to_dict("records")],
        "visibility": [plain(row) for row in sharing.visibility.to_dict("records")],
        "counts": sharing.counts,
        "violations": list(sharing.violations),
    }


def _reads(sharing: SharingFigures) -> TextTable:
    rows = [
        [
            _WRITERS[row["writer"]],
            units.count(row["operations"]),
            units.digits(row["gib_per_s"]),
            units.percentile(row["p50_ns"], row["operations"], operations_needed(50)),
            units.percentile(row["p95_ns"], row["operations"], operations_needed(95)),
            *(units.share(row[f"{part}_share"]) for part in ("device", "host", "runq")),
        ]
        for row in sharing.reads.to_dict("records")
        if row["operations"]
    ]
    heads = ["written by", "reads", "GiB/s", "P50 wall", "P95 wall", "device", "host", "run queue"]
    untold = "unknown" in set(sharing.reads["split_of"])
    mixed = "; where they overlap, batches do not tell whose time went where" if untold else ""
    return f"Storage reads, by who wrote the object{mixed}", heads, rows


def _visibility(sharing: SharingFigures) -> TextTable:
    rows = [
        [
            f"{_WRITERS[row['writer']]}: {_PARTS[row['part']]}",
            units.count(row["objects"]),
            *(
                units.percentile(row[column], row["objects"], operations_needed(percentile))
                for column, percentile in zip(PERCENTILE_COLUMNS[:3], PERCENTILES, strict=False)
            ),
            units.duration(row["max_ns"]),
        ]
        for row in sharing.visibility.to_dict("records")
    ]
    heads = ["written by", "objects", *(f"P{percentile:g}" for percentile in PERCENTILES[:3]), "max"]
    return "From the end of a write to another rank", heads, rows


def _counts(sharing: SharingFigures) -> TextTable:
    counts = sharing.counts
    broken = sum(counts[f"{kind}_violations"] for kind in VIOLATIONS)
    rows = [
        ["objects written to the shared storage", units.count(counts["written_objects"])],
        ["deleted again, once no rank read them", units.count(counts["retired_objects"])],
        ["reads given up, as the object was deleted first", units.count(counts["evicted_reads"])],
        ["not what was written (violations)", units.count(broken)],
        *([f"  {kind}", units.count(counts[f"{kind}_violations"])] for kind in VIOLATIONS if broken),
    ]
    if counts["handed_over_requests"]:
        rows.insert(0, ["requests handed from prefill to decode", units.count(counts["handed_over_requests"])])
    return "Shared key space, all ranks and phases", ["what", "number"], rows
