"""Prints what a what-if study says: a table that fits 80 columns, a sentence for each question, and how far it goes."""

from typing import Any, Final

from kvbench_analysis.text import units
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from kvbench_analysis.whatif.run_figures import METRICS
from kvbench_analysis.whatif.study import CONTROL, WhatIfFigures, change
from rich.console import Console

LIMITS: Final = (
    "Predicted by experiment: all but the part in question was delayed, nothing was made up. What the kernel does in "
    "the background, its page cache, the bandwidth of memory, and other processes and nodes are not delayed."
)


_SHORT: Final = {"device": "storage", "host": "processors", CONTROL: "delays alone"}


def print_whatif(figures: WhatIfFigures, console: Console) -> None:
    """Print all of it."""
    base = figures.baseline
    rows = [["as it is", *_cells(base["p95_ns"], None), *_cells(base["requests_per_s"], None, rate=True)]]
    for table in (figures.questions, figures.controls):
        for (question, factor), found in table.groupby(["question", "factor"], sort=False):
            by = {str(row["figure"]): row for row in found.to_dict("records")}
            name = f"{_SHORT.get(str(question), str(question))} x {float(str(factor)):g}"
            time, rate = by["p95_ns"], by["requests_per_s"]
            rows.append([name, *_cells(time["predicted"], time), *_cells(rate["predicted"], rate, rate=True)])
    name = METRICS[figures.metric]
    modelled = ", modelled compute in it" if figures.metric == "first_token" else ""
    console.print()
    print_table(
        console,
        f"What if: {name}{modelled}; {figures.repeats} repeats",
        ("", "P95", "change", "95 %", "requests/s", "change", "95 %"),
        rows,
        left=1,
    )
    shares = ", ".join(
        f"{word} {units.share(base[key])}"
        for word, key in (("device", "device_share"), ("host", "host_share"), ("run queue", "runq_share"))
    )
    console.print(
        f"Time of threads in operations, as it is: {shares}; copies in user space {units.share(base['copy_share'])}.",
        highlight=False,
        soft_wrap=True,
    )
    for sentence in figures.sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    console.print(LIMITS, soft_wrap=True, highlight=False, markup=False)
    for note in figures.notes:
        console.print(safe_text(note, "yellow"), soft_wrap=True)


def _cells(value: float, row: dict[Any, Any] | None, *, rate: bool = False) -> list[str]:
    shown = units.digits(value) if rate else units.duration(value)
    if row is None:
        return [shown, "", ""]
    return [shown, change(row["ratio"]), f"{_percent(row['low'])} to {_percent(row['high'])}"]


def _percent(ratio: float) -> str:
    return change(ratio).removesuffix(" %")
