"""The top of a run's report: what was measured and what came out, in words that need ten seconds to read."""

import math
from collections.abc import Iterator
from typing import Any, Final
from xml.etree.ElementTree import Element

from kvbench_analysis.contention.concurrency import OVERLAPPING, UNTOLD
from kvbench_analysis.plots import palette
from kvbench_analysis.report.collect import Content, told_factor
from kvbench_analysis.report.first_tokens import explanation, sentences
from kvbench_analysis.report.markup import element
from kvbench_analysis.summary.look_ups_print import prefix_hit_share
from kvbench_analysis.summary.summary import measured as time_measured
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import overlapping, units

_SAID: Final = {
    "device": "waiting for the storage",
    "host": "the client's own work on its processors (system calls and memory copies)",
    "runq": "waiting for a free processor",
}
_MOST_STORAGES: Final = 4
_MOVES: Final = ("read", "write", "demote", "promote")
_GRAVE: Final = {"failed", "interrupted", "recovered", "failed-operations", "timer-python", "no-window"}


def answer(content: Content) -> list[Element | None]:
    """What was measured, the figures, what the time went to, and the warnings."""
    parts: list[Element | None] = [element("p", measured(content), class_="measured"), *sentences(content)]
    parts.append(explanation(content))
    if content.focus is None:
        parts.append(
            element("p", "Nothing was measured: the file has no reads or writes of the measured phase.", class_="lead")
        )
    else:
        row = focus_row(content)
        contended = element("p", _contended(content), class_="second")
        parts += [
            _lead(content, row),
            contended,
            element("div", _cards(content, row), class_="cards"),
            _split(content, row),
        ]
    return [*parts, warnings(content)]


def focus_row(content: Content) -> dict[Any, Any]:
    """The totals of the operations that the top is about."""
    totals, focus = content.summary.totals, content.focus
    assert focus is not None
    place = "storage" if focus.storage else "memory"
    row: dict[Any, Any] = totals[(totals["storage"] == place) & (totals["op"] == focus.op)].iloc[0].to_dict()
    return row


def measured(content: Content) -> str:
    """One sentence: the work, the machines, the storage, and how long."""
    run, facts = content.run, content.summary.run
    ranks, nodes = (units.count_of(float(run.attributes.get(name, 0)), name[:-1]) for name in ("ranks", "nodes"))
    parts = [f"{ranks} on {nodes}"]
    if facts["model"]:
        parts.append(f"KV cache of {facts['model']}")
    if "filesystem" in run.storages:
        storages = list(dict.fromkeys(map(_storage, run.storages.to_dict("records"))))
        more = [f"{len(storages) - _MOST_STORAGES} more"] if len(storages) > _MOST_STORAGES else []
        parts.append("storage: " + " and ".join([*storages[:_MOST_STORAGES], *more]))
    if facts["read_path"]:
        parts.append(f"read path {facts['read_path']}")
    parts.append(time_measured(content.summary))
    if facts["started_at"]:
        parts.append(f"started {str(facts['started_at'])[:16].replace('T', ' ')} UTC")
    return ", ".join(parts) + f". Percentiles are {facts['percentiles_are']}."


def warnings(content: Content) -> Element | None:
    """The list of warnings, or a line that there are none."""
    if not content.warnings:
        return element("p", "No warnings.", class_="calm")
    items = (
        element(
            "li",
            caution.message[:1].upper() + caution.message[1:] + ".",
            class_="grave" if caution.code in _GRAVE else "",
            data_code=caution.code,
        )
        for caution in content.warnings
    )
    return element("aside", element("h3", "Warnings"), element("ul", items), class_="warnings")


def split_bar(row: dict[Any, Any]) -> Element:
    """Device, host and run queue as one bar: shares of the time of the threads; in words, where they are not known."""
    if row["split_of"] == "unknown":
        return element("span", "not known", title=overlapping.NOT_KNOWN)
    known = [(part, row[f"{part.key}_share"]) for part in palette.PARTS]
    told = [(part, value, overlapping.share(value, row["split_of"])) for part, value in known]
    pieces = [
        element(
            "span",
            f"{part.name} {said}" if share >= 0.12 else "",
            class_=f"part-{part.key}",
            style=f"width:{share * 100:.3f}%",
            title=f"{part.name} {said}: {part.meaning}",
        )
        for part, share, said in told
        if share > 0
    ]
    label = ", ".join(f"{part.name} {said}" for part, _, said in told)
    return element("div", pieces, class_="split", role="img", aria_label=label)


def _lead(content: Content, row: dict[Any, Any]) -> Element:
    assert content.focus is not None
    name = content.focus.name
    place = name[:1].upper() + name[1:]
    p95 = _p95(row)
    return element(
        "p",
        f"{place} ran at ",
        element("b", f"{units.digits(row['gib_per_s'])} GiB/s"),
        ", and 95 % of them took at most ",
        element("b", p95),
        f" (one moves {_sizes(row)}). ",
        *_where(row),
        class_="second" if content.summary.first_token else "lead",
    )


def _where(row: dict[Any, Any]) -> Iterator[str]:
    shares = sorted(((row[f"{part.key}_share"], part.key) for part in palette.PARTS), reverse=True)
    share, key = shares[0]
    if math.isnan(share):
        if row["split_of"] == "unknown":
            yield f"Where their time went is {overlapping.NOT_KNOWN}."
        return
    whose = "the time of their batches" if row["split_of"] == "batches" else "their time"
    yield f"{units.share(share)} of {whose} was {_SAID[key]}"
    share, key = shares[1]
    yield f", {units.share(share)} {_SAID[key]}." if share >= 0.005 else "."


def _contended(content: Content) -> str:
    """What the contention factor says, and how sure it is."""
    factor = told_factor(content)
    overlaps = content.summary.operations["split_of"].isin(["batches", "unknown"]).any()
    if factor is None and overlaps:
        return f"Contention cannot be told from this run: {OVERLAPPING}."
    if content.run.sampled_1_in() > 1:
        return f"Contention cannot be told from this file: {UNTOLD}."
    if factor is None:
        return "Contention cannot be told from this run: too few operations ran among different numbers of others."
    said = (
        f"among {units.digits(factor['others_high'])} others, a byte of a {factor['tier']} {factor['op']} "
        f"cost the host {factor['factor']:.2f} times as much as alone"
    )
    if math.isnan(factor["low"]):
        return f"Contention: {said}; too little was measured for an interval."
    if factor["low"] > 1:
        return f"Operations are in each other's way: {said}."
    doubt = ", within the noise" if factor["high"] >= 1 else ""
    return f"No contention can be shown: {said}{doubt}."


def _cards(content: Content, row: dict[Any, Any]) -> Iterator[Element]:
    focus = content.focus
    assert focus is not None
    yield _card(
        f"{focus.name}",
        f"{units.digits(row['gib_per_s'])} GiB/s",
        "all ranks together, over the measured window",
        "rate",
    )
    yield _card("P95", _p95(row), f"per {focus.name[:-1]} of {_sizes(row)}", "p95")
    yield _card("Tokens", f"{units.digits(row['tokens_per_s'])} /s", f"by {focus.name}, all ranks together", "tokens")
    factor = told_factor(content)
    if factor is not None:
        sure = "" if math.isnan(factor["low"]) else f", 95 % interval {factor['low']:.2f} to {factor['high']:.2f}"
        alone = "alone (extrapolated)" if factor["extrapolated"] else "alone"
        yield _card(
            "Contention",
            f"{factor['factor']:.2f} x",
            f"host time per byte of a {factor['tier']} {factor['op']} among {units.digits(factor['others_high'])} "
            f"others, over that {alone}{sure}",
            "contention",
        )
    totals = content.summary.totals
    others = totals[totals["op"].isin(_MOVES) & (totals["storage"] == row["storage"]) & (totals["op"] != row["op"])]
    for other in others.to_dict("records"):
        yield _card(
            f"{other['storage']} {other['op']}s",
            f"{units.digits(other['gib_per_s'])} GiB/s",
            f"P95 {_p95(other)} per operation",
            f"{other['op']}-rate",
        )
    hits = prefix_hit_share(content.summary)
    if hits is not None:
        said = "of prompt tokens, up to the first block that was missing"
        yield _card("Prefix hits", units.share(hits), said, "prefix-hits")


def _card(label: str, value: str, per: str, key: str) -> Element:
    return element(
        "div",
        element("span", label, class_="label"),
        element("strong", value, data_figure=key),
        element("span", per, class_="per"),
        class_="card",
    )


def _split(content: Content, row: dict[Any, Any]) -> Element:
    assert content.focus is not None
    note = overlapping.notes([row["split_of"]], [row["helper_share"]])
    if row["helper_share"] > 0:
        note = f"Helpers: {overlapping.helper(row['helper_share'])}. {note}"
    legend = (
        element(
            "li",
            element("i", class_=f"part-{part.key}"),
            element(
                "b",
                f"{part.name} ",
                element(
                    "span",
                    overlapping.share(row[f"{part.key}_share"], row["split_of"]),
                    data_figure=f"{part.key}-share",
                ),
            ),
            f" {part.meaning}",
        )
        for part in palette.PARTS
    )
    return element(
        "figure",
        element("figcaption", f"What the time of {content.focus.name} went to, all of them together"),
        split_bar(row),
        element("ul", legend, class_="legend") if row["split_of"] != "unknown" else None,
        element("p", note, class_="caption", data_figure="split-note") if note else None,
        class_="answer-split",
    )


def _p95(row: dict[Any, Any]) -> str:
    return units.percentile(row["wall_p95_ns"], row["percentiles_of"], operations_needed(95))


def _sizes(row: dict[Any, Any]) -> str:
    least, most = units.size(row["size_min_bytes"]), units.size(row["size_max_bytes"])
    return least if least == most else f"{least} to {most}, median {units.size(row['size_p50_bytes'])}"


def _storage(node: dict[Any, Any]) -> str:
    device = node.get("device")
    return f"{node['filesystem']} on {device}" if device and device != node["filesystem"] else str(node["filesystem"])
