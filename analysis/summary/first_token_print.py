"""Time to first token, as text: each part says whether it was measured or modelled. Makes no figures."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from kvbench_analysis.figures.break_even import BreakEven
from kvbench_analysis.figures.first_token import FirstToken
from kvbench_analysis.figures.load_split import LoadSplit
from kvbench_analysis.summary.sharing_print import TextTable
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, operations_needed
from kvbench_analysis.text import overlapping, units

_NAMES: Final = {
    "first_token": "time to first token",
    "queue": " waiting to start",
    "look_up": " looking up",
    "load": " loading",
    "modelled_compute": " computing the rest, modelled",
    "modelled_recompute": "computing all, alone, modelled",
    "modelled_uncached": "if nothing were cached, modelled",
    "modelled_layer_wise": "layer by layer, modelled",
    "modelled_tpot": "each further token, modelled",
}
_INSIDE: Final = ("first_token", "queue", "look_up", "load", "modelled_compute")
"""The first, and what it is the sum of."""


def first_token_table(found: FirstToken) -> TextTable:
    """All parts."""
    whole = found.parts["mean_ns"].iloc[0]
    rows = []
    for row in found.parts.to_dict("records"):
        inside = row["part"] in _INSIDE
        times = [
            units.percentile(row[column], row["percentiles_of"], operations_needed(percentile))
            for percentile, column in zip(PERCENTILES, PERCENTILE_COLUMNS, strict=True)
        ]
        share = units.share(row["mean_ns"] / whole) if inside and whole else ""
        rows.append([_NAMES[row["part"]], units.duration(row["mean_ns"]), share, *times])
    of = f"{units.count_of(found.requests, 'request')} done" + (" (a sample)" if found.sampled_1_in > 1 else "")
    title = f"Time to first token ({of}; compute modelled as of {found.gpu}, the rest measured)"
    return title, ["part", "mean", "of it", *(f"P{percentile:g}" for percentile in PERCENTILES)], rows


def class_table(found: FirstToken) -> TextTable | None:
    """Per QoS class; None where there is one alone."""
    if found.classes.empty:
        return None
    parts = found.classes.set_index(["qos", "part"])
    rows = []
    for row in found.classes[found.classes["part"] == "first_token"].to_dict("records"):
        qos = row["qos"]
        tpot = parts["mean_ns"].get((qos, "modelled_tpot"), float("nan"))
        rows.append(
            [
                qos,
                units.count(row["requests"]),
                units.duration(row["mean_ns"]),
                *(
                    units.percentile(row[f"p{percentile}_ns"], row["percentiles_of"], operations_needed(percentile))
                    for percentile in (50, 95, 99)
                ),
                units.duration(parts.loc[(qos, "load"), "mean_ns"]),
                units.duration(tpot),
            ]
        )
    headings = ["class", "requests", "mean", "P50", "P95", "P99", "loading,\nmean", "each further\ntoken, modelled"]
    return "Time to first token by class (compute modelled, the rest measured)", headings, rows


def first_token_headline(found: FirstToken) -> str:
    """In a sentence."""
    row = found.parts.iloc[0]
    p50, p95 = (
        units.percentile(row[f"p{percentile}_ns"], row["percentiles_of"], operations_needed(percentile))
        for percentile in (50, 95)
    )
    loading = f"look-ups and loads {units.share(found.load_share)} of it"
    return f"time to first token: P50 {p50}, P95 {p95}, {loading} (compute modelled: {found.gpu})"


def first_token_notes(found: FirstToken, never_begun: float = 0) -> Iterator[str]:
    """What storage is worth, in sentences; `never_begun`: requests that came and are in no row (NaN: it is unknown)."""
    if never_begun > 0 and (found.parts["part"] == "modelled_uncached").any():
        yield (
            f"{units.count_of(never_begun, 'request')} had not begun: none is among these times, and the queue without "
            "a cache lacks them, so that it is too short."
        )
    if found.found:
        yield (
            f"{units.count(found.slower)} of {units.count(found.found)} requests that found something waited longer "
            "for it than computing it takes (modelled, alone on the GPU)."
        )
        saved = units.digits(found.gpu_s_saved_per_hour)
        yield f"What was found saved {saved} GPU-seconds of prefill in an hour of this load (modelled)."
    if found.found:
        yield load_split_words(found.load_split)
    yield _layer_wise(found)
    if found.break_even is not None:
        yield _break_even(found.break_even)
    elif found.found:
        yield "No break-even: too few requests found something, or all found equally much."


def load_split_words(split: LoadSplit) -> str:
    """What loading was."""
    if split.split_of == "unknown":
        return f"What loading was made of is not known: {split.unknown}."
    device, host, runq = (units.share(share) for share in (split.device_share, split.host_share, split.runq_share))
    known = f"device {device}, host {host}, run queue {runq}"
    if split.split_of == "batches":
        return (
            f"The time of the threads in batches of loads{overlapping.MARK}: {known}. They overlap: of what a request "
            "waited there is no such split."
        )
    other = units.share(split.other_share)
    return f"Of loading: {known}, {other} waiting for a thread (by the thread that ended each load)."


def _layer_wise(found: FirstToken) -> str:
    layers = found.layer_wise
    if layers is None:
        return f"No time to first token layer by layer: {found.no_layer_wise}."
    return (
        f"Layer by layer (modelled: {layers.groups} groups of layers, each computed once its measured load has ended) "
        f"the GPU waits for layers of {units.count_of(layers.stalled, 'request')}, {units.share(layers.stall_share)} "
        f"of its time. Without others on the GPU, the mean is {units.duration(layers.alone_ns)} so, and "
        f"{units.duration(layers.whole_alone_ns)} with whole loads."
    )


def _break_even(found: BreakEven) -> str:
    longest = units.count(found.longest)
    span = f"{units.count(found.shortest)} to {longest} tokens were found"
    if found.tokens is None:
        chance = "" if found.low is None else f", though it may be from {units.count(found.low)} tokens on (95 %)"
        return f"Break-even: at no length up to {longest} tokens is loading faster than computing{chance} ({span})."
    low, high = (f"beyond {longest}" if end is None else units.count(end) for end in (found.low, found.high))
    return (
        f"Break-even: prefixes from {units.count(found.tokens)} tokens on ({low} to {high}, 95 %) are loaded faster "
        f"than they are computed (modelled); load by a straight line, {span}."
    )


def first_token_json(found: FirstToken | None) -> dict[str, Any] | None:
    """As docs/summary.md says; None where there is none."""
    if found is None:
        return None
    facts = {
        name: getattr(found, name) for name in ("gpu", "requests", "sampled_1_in", "load_share", "found", "slower")
    }
    facts["gpu_s_saved_per_hour"] = found.gpu_s_saved_per_hour
    facts["parts"] = found.parts.to_dict("records")
    facts["classes"] = found.classes.to_dict("records")
    facts["load_split"] = asdict(found.load_split)
    facts["layer_wise"] = None if found.layer_wise is None else asdict(found.layer_wise)
    facts["no_layer_wise"] = found.no_layer_wise or None
    facts["break_even"] = None if found.break_even is None else asdict(found.break_even)
    return facts
