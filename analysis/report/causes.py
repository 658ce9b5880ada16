"""The tables that say why: where the time of slow operations went, who is out of line, and what contention costs."""

import math
from typing import Any, Final
from xml.etree.ElementTree import Element

from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.details import PART_NAMES, storage_first
from kvbench_analysis.report.markup import Group, element, table
from kvbench_analysis.text import units

_MOVES: Final = ("read", "write", "demote", "promote")
_PARTS: Final = ("device", "host", "runq", "queue")
_ROWS: Final = 512


def tail_table(content: Content) -> Element | None:
    """Where the time of the slowest 5 % and 1 % of each kind of operation went, from when they were wanted."""
    shares = content.attribution.shares
    moved = shares[shares["op"].isin(_MOVES)]
    if moved.empty:
        return None
    rows: list[Any] = []
    for (tier, op, path), group in storage_first(content, moved).groupby(["tier", "op", "path"], sort=False):
        rows.append(Group(f"{tier} {op}, {path}"))
        for tail, parts in group.groupby("tail", sort=False):
            found = parts.set_index("part").to_dict("index")
            first = next(iter(found.values()))
            said = (units.share(found[part]["share"]) if part in found else units.NONE for part in _PARTS)
            count = units.count(first["operations"])
            rows.append(
                (f"slowest {100 - float(str(tail)[1:]):g} %", count, units.duration(first["threshold_ns"]), *said)
            )
    columns = ["", "operations", "took at least", "device", "host", "run queue", "queued before"]
    overlapping = (moved["part"] == "wall").any()
    unsplit = (
        " Of operations that overlap only the queueing is known, and the rest is wall time." if overlapping else ""
    )
    return table(
        columns,
        rows,
        caption="Here the time of an operation counts from when it was wanted: queueing before it, then its wall time. "
        f"Shares are of that time.{unsplit}" + _of_sample(content),
    )


def straggler_table(content: Content) -> Element | None:
    """Ranks and nodes whose operations are out of line, or a line that there are none."""
    slow, medians = content.attribution.stragglers, content.attribution.medians
    if medians["score"].notna().sum() == 0:
        return element(
            "p", "Too few ranks, or operations of each, to tell whether one is out of line.", class_="absent"
        )
    if slow.empty:
        return element("p", "No rank or node is out of line.", class_="calm")
    rows = [
        (
            f"{row['scope']} {row[row['scope']]}",
            row["host"],
            f"{row['tier']} {row['op']}",
            units.duration(row["median_ns"]),
            units.duration(row["typical_ns"]),
            f"{row['ratio']:.2f}",
            PART_NAMES[row["slow_part"]],
        )
        for row in slow.head(_ROWS).to_dict("records")
    ]
    columns = ["slow", "host", "operation", "median", "typical", "ratio", "has more of"]
    return table(columns, rows, left=3, caption="Out of line: median per operation, with queueing, against the others.")


def contention_table(content: Content, *, of_ranks: bool = False) -> Element | None:
    """The contention factor of every kind of operation, of the whole run and per node, or of each rank."""
    factors = content.contention.factors
    factors = factors[factors["factor"].notna()]
    # The one node of a run has the figures of all.
    nodes = set(factors.loc[factors["scope"] == "node", "node"])
    factors = factors[factors["scope"].isin(["rank"] if of_ranks else ["all", "node"] if len(nodes) > 1 else ["all"])]
    rows: list[Any] = []
    shown = storage_first(content, factors)
    for (tier, op, path), group in shown.head(_ROWS).groupby(["tier", "op", "path"], sort=False):
        rows.append(Group(f"{tier} {op}, {path}"))
        rows += [
            (
                row["scope"] if row["scope"] == "all" else f"{row['scope']} {row[row['scope']]}",
                units.count(row["operations"]),
                f"{row['factor']:.2f}",
                _interval(row["low"], row["high"]),
                _cost(row["alone_ns_per_byte"]) + ("*" if row["extrapolated"] else ""),
                _cost(row["contended_ns_per_byte"]),
                units.digits(row["others_high"]),
            )
            for row in group.to_dict("records")
        ]
    if not rows:
        return None
    columns = ["", "operations", "factor", "95 % interval", "alone, ns/byte", "among others, ns/byte", "others"]
    return table(
        columns,
        rows,
        caption="The contention factor: host time per byte among others, over that alone. * Nothing ran alone: the "
        "cost alone is where the fitted curve meets 0 others.",
    )


def _of_sample(content: Content) -> str:
    one_in = content.run.sampled_1_in()
    return f" Of a sample of 1 in {one_in} operations." if one_in > 1 else ""


def _interval(low: float, high: float) -> str:
    return units.NONE if math.isnan(low) or math.isnan(high) else f"{low:.2f} to {high:.2f}"


def _cost(ns_per_byte: float) -> str:
    return units.NONE if math.isnan(ns_per_byte) else f"{ns_per_byte:.3g}"
