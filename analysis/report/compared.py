"""Several runs beside each other: one table, and their reads in common figures."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element

import pandas as pd
from kvbench_analysis.compare.comparison import compare
from kvbench_analysis.plots.latency import latency_cdf, parts_by_name, shares_by_name
from kvbench_analysis.report.answer import focus_row, split_bar
from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.markup import Group, table
from kvbench_analysis.report.shown import Shown
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import overlapping, units

_PERCENTILES: Final = (50, 95, 99)
_TIMES: Final = {"wall": "wall time", "device": "device", "host": "host", "runq": "run queue"}
_METRICS: Final = {
    "gib_per_s": "bandwidth",
    "prefix_blocks": "prefix hits, of blocks",
    "prefix_hits": "prefix hits, of prompt tokens",
    **{f"{part}_p{p}_ns": f"P{p}, {said}" for p in _PERCENTILES for part, said in _TIMES.items()},
    **{f"{part}_share": f"{said}, of the threads' time" for part, said in _TIMES.items() if part != "wall"},
    **{f"request_p{p}_ns": f"P{p} of a request" for p in _PERCENTILES},
}
"""What `compare` calls its metrics, and what they are called on the page."""


def comparison_table(contents: Sequence[Content]) -> Element:
    """One row per run: what its report says at its top."""
    return table(
        ["run", "what", "GiB/s", "P95 per op", "device, host, run queue", "tokens/s", "ranks", "fingerprint"],
        (_row(content) for content in contents),
        left=2,
        caption=f"{_shares_of(contents)} Runs with the same fingerprint did the same work.",
    )


def _shares_of(contents: Sequence[Content]) -> str:
    rows = [focus_row(content) for content in contents if content.focus is not None]
    return overlapping.notes(row["split_of"] for row in rows) or "Shares are of the wall time."


def comparison_figures(contents: Sequence[Content]) -> Iterator[Shown]:
    """The distributions of all runs in one figure, and what their time went to in another."""
    measured = [content for content in contents if content.focus is not None]
    names = list(dict.fromkeys(content.focus.name for content in measured if content.focus))
    what = names[0] if len(names) == 1 else "operations"
    lines = [content.focus_quantiles.assign(name=content.name) for content in measured]
    yield Shown(
        "latency",
        f"Latency of {what}",
        latency_cdf(pd.concat(lines, ignore_index=True), by="name") if lines else None,
        "no run measured anything",
    )
    rows = [focus_row(content) | {"name": content.name} for content in measured]
    title, nothing = f"What the time of {what} went to", "no run measured anything"
    if any(row["split_of"] != "operations" for row in rows):
        yield Shown("parts", title, shares_by_name(pd.DataFrame(rows), what))
    else:
        means = pd.DataFrame([_means(content) for content in measured])
        yield Shown("parts", title, parts_by_name(means, what) if len(means) else None, nothing)


def ratio_table(contents: Sequence[Content]) -> Element | None:
    """Every other run against the first, metric by metric, with confidence intervals."""
    measured = [content for content in contents if content.focus is not None]
    if len(measured) < 2:
        return None
    found = compare({content.name: [content.run] for content in measured}, force=True).metrics
    found = found[found["ratio"].notna()]
    rows: list[Any] = []
    for target, group in found.groupby("target", sort=False):
        rows.append(Group(f"{target} against {measured[0].name}"))
        rows += [_ratio(row) for row in group.to_dict("records")]
    if not rows:
        return None
    names = [content.name for content in measured] if len(measured) == 2 else ["first", "this"]
    columns = ["", *names, "ratio", "95 % interval", ""]
    return table(
        columns,
        rows,
        caption="Each run against the first of them, per operation or per request. An interval that holds 1 shows "
        "no difference. Those of single runs come from blocks of their time, and do not hold what differs from run to "
        "run: repeat the runs, and compare them with kvbench compare.",
    )


def differences(contents: Sequence[Content]) -> list[str]:
    """What a reader must know before comparing the runs: where they did not do the same."""
    found = []
    facts = [content.summary.run for content in contents]
    if len({fact["fingerprint"] for fact in facts}) > 1:
        found.append("The runs have different fingerprints: they did not do the same work.")
    for name, said in (("read_path", "read paths"), ("ranks", "numbers of ranks"), ("timer", "stopwatches")):
        values = list(dict.fromkeys(str(fact[name]) for fact in facts))
        if len(values) > 1:
            found.append(f"They used different {said}: {', '.join(values)}.")
    bad = [content.name for content in contents if content.summary.run["status"] != "complete"]
    if bad:
        found.append(f"Not complete: {', '.join(bad)}.")
    return found


def _row(content: Content) -> tuple[Any, ...]:
    facts = content.summary.run
    ends = (str(facts["ranks"]), str(facts["fingerprint"])[:12])
    if content.focus is None:
        return (content.name, "nothing measured", *[units.NONE] * 4, *ends)
    row = focus_row(content)
    p95 = units.percentile(row["wall_p95_ns"], row["percentiles_of"], operations_needed(95))
    rate, tokens = units.digits(row["gib_per_s"]), units.digits(row["tokens_per_s"])
    return (content.name, content.focus.name, rate, p95, split_bar(row), tokens, *ends)


def _ratio(row: dict[Any, Any]) -> tuple[str, ...]:
    what = " ".join(part for part in (row["tier"], row["op"], _METRICS.get(row["metric"], row["metric"])) if part)
    values = (_value(row[f"{side}_value"], row["unit"]) for side in ("baseline", "target"))
    if math.isnan(row["low"]):
        return (what, *values, f"{row['ratio']:.3g}", units.NONE, "")
    mark = "" if row["backed"] else "~"
    return (what, *values, f"{mark}{row['ratio']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}", str(row["verdict"]))


def _value(value: float, unit: str) -> str:
    if unit == "ns":
        return units.duration(value)
    return f"{units.digits(value)} {unit}" if unit else units.share(value)


def _means(content: Content) -> dict[str, Any]:
    """The means over all bands: of all operations of the focus."""
    bands = content.bands
    count = bands["operations"].sum()
    parts = {
        f"{part}_ns": (bands[f"{part}_ns"] * bands["operations"]).sum() / count
        for part in ("wall", "device", "host", "copy", "runq")
    }
    return {"name": content.name, "operations": int(count)} | parts
