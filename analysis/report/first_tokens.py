"""What the report says in the terms of those who serve: time to first token, what limits it, and what storage is worth.

What is modelled has one mark on the page, a hatched tag; it is explained once, at the top. Makes no figures.
"""

import math
from collections.abc import Iterator
from typing import Any, Final
from xml.etree.ElementTree import Element

from kvbench_analysis.figures.first_token import FirstToken
from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.markup import Child, element, table, tag, tagged
from kvbench_analysis.summary.first_token_print import class_table, first_token_notes, first_token_table
from kvbench_analysis.summary.objectives_print import goodput, objectives_notes, objectives_tables, verdict
from kvbench_analysis.summary.sharing_print import TextTable
from kvbench_analysis.summary.worth_print import worth_notes, worth_table
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import units

_PARTS: Final = {
    "queue": "waiting to start",
    "look_up": "looking up what there is",
    "load": "loading what was found",
    "modelled_compute": "computing the rest, and waiting for the GPU",
}
_OF_LOADS: Final = {
    "device": "waiting for the storage",
    "host": "the client's own work",
    "runq": "waiting for a free processor",
    "other": "waiting for a thread that loads",
}
_SEARCH: Final = "kvbench search CONFIG --slo 'ttft_p95<2s'"


def explanation(content: Content) -> Element | None:
    """What the mark means; None where nothing is modelled."""
    found = content.summary.first_token
    if found is None:
        return None
    return element(
        "p",
        tag(),
        f" (hatched or dashed in plots): worked out from the peaks of a GPU ({found.gpu}) and the size of a model, and "
        "measured by nobody. All other figures are measured.",
        class_="mark",
    )


def sentences(content: Content) -> list[Element]:
    """The point, in three sentences: within the objective or not and what limits it, the break-even, the highest load;
    or why there is no time to first token."""
    found = content.summary.first_token
    if found is None:
        no_words = f"No time to first token: {content.summary.no_first_token}."
        lines = [content.highest_load] if content.highest_load else []
        return [element("p", no_words, class_="second"), *(element("p", line, class_="lead point") for line in lines)]
    lines = [_kept(content, found), _pays(found), _searched(content)]
    return [element("p", tagged(line), class_="lead point") for line in lines]


def tables(content: Content) -> Iterator[Element]:
    """All parts, by class, objectives, goodput and worth."""
    summary = content.summary
    if summary.first_token is None:
        yield element("p", f"Not shown: {summary.no_first_token}.", class_="absent")
    else:
        yield _table(first_token_table(summary.first_token))
        yield from (element("p", tagged(note)) for note in first_token_notes(summary.first_token))
        classes = class_table(summary.first_token)
        if classes is not None:
            yield _table(classes)
    if summary.objectives is not None:
        yield from map(_table, objectives_tables(summary.objectives))
        yield from (element("p", note) for note in objectives_notes(summary.objectives))
    if summary.worth is not None:
        yield _table(worth_table(summary.worth))
        yield from (element("p", note, class_="caption") for note in worth_notes(summary.worth))
    elif summary.no_worth:
        yield element("p", f"What storage is worth is not known: {summary.no_worth}.", class_="absent")


def _table(found: TextTable) -> Element:
    title, headings, rows = found
    cells: list[list[Child]] = [[tagged(cell) for cell in row] for row in rows]
    return table([tagged(heading) for heading in headings], cells, caption=tagged(f"{title}."))


def _kept(content: Content, found: FirstToken) -> str:
    whole = found.parts.iloc[0]
    p95 = units.percentile(whole["p95_ns"], whole["percentiles_of"], operations_needed(95))
    promised = content.summary.objectives
    rows: list[dict[Any, Any]] = [] if promised is None else promised.objectives.to_dict("records")
    mine = [row for row in rows if row["figure"] == "ttft"]
    if mine:
        within = "" if all(row["met"] for row in mine) else "not "
        kept = "; ".join(map(_against, mine))
        said = f"Time to first token (modelled in part) is {within}within its objective ({kept})"
    elif rows:
        kept = "; ".join(f"{row['objective']} {verdict(row)}" for row in rows)
        said = f"Time to first token (modelled in part) is {p95} at P95, and has no objective ({kept})"
    else:
        said = f"Time to first token (modelled in part) is {p95} at P95, and no objective was given (--slo)"
    good = "" if promised is None else goodput(promised)
    return f"{said}{f', {good}' if good else ''}; what limits it is {_limit(found)}."


def _against(row: dict[Any, Any]) -> str:
    name = str(row["objective"]).partition("<")[0]
    value, bound = (units.duration(row[key] * 1e9) for key in ("value_s", "bound_s"))
    few = "" if row["enough"] else f", though {units.count_of(row['requests'], 'request')} are few for it"
    return f"{name} is {value} where less than {bound} was promised{few}"


def _limit(found: FirstToken) -> str:
    means = {row["part"]: row["mean_ns"] for row in found.parts.to_dict("records") if row["part"] in _PARTS}
    most = max(means, key=lambda part: means[part])
    whole = sum(means.values())
    share = units.share(means[most] / whole) if whole else units.NONE
    said = f"{_PARTS[most]} ({share} of it{', modelled' if most == 'modelled_compute' else ''})"
    split = found.load_split
    if most != "load" or split.split_of == "unknown":
        return said
    shares = {part: getattr(split, f"{part}_share") for part in _OF_LOADS}
    known = {part: value for part, value in shares.items() if math.isfinite(value)}
    largest = max(known, key=lambda part: known[part])
    of = "of loading" if split.split_of == "loads" else "of the threads' time in batches of loads"
    return f"{said}, and {units.share(known[largest])} {of} is {_OF_LOADS[largest]}"


def _pays(found: FirstToken) -> str:
    even = found.break_even
    if even is None:
        return "There is no break-even: too few requests found something, or all found equally much."
    longest = units.count(even.longest)
    if even.tokens is None:
        return f"At no length of a prefix up to {longest} tokens is loading it faster than computing it (modelled)."
    low, high = (f"beyond {longest}" if end is None else units.count(end) for end in (even.low, even.high))
    tokens = units.count(even.tokens)
    return f"Prefixes from {tokens} tokens on ({low} to {high}, 95 %) load faster than they are computed (modelled)."


def _searched(content: Content) -> str:
    if content.highest_load:
        return content.highest_load
    return f"The highest load within objectives was not searched: {_SEARCH} does, and the report's --search shows it."
