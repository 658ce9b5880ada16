"""What a byte costs against how many operations are active at once, with what a plain memory copy costs beside it."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd
from kvbench_analysis.contention.factor import FEWEST_OPERATIONS
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.latency import kind_names
from kvbench_analysis.plots.marks import Axis, Dash, Level, Line, Mark, Panel
from kvbench_analysis.text import units

from kvbench.records.schema import Path, label

_PANELS: Final = (
    ("host_ns_per_byte", "host: processor time per byte", "ns per byte", palette.HOST),
    ("device_ns_per_byte", "device: time blocked per byte", "ns per byte", palette.DEVICE),
    ("runq_share", "run queue: share of the wall time", "% of wall time", palette.RUN_QUEUE),
)
_COPY: Final = label(Path.COPY)
_DASHES: Final[tuple[Dash, ...]] = ("solid", "dash", "dot")
_MODES: Final = {"alone": "alone", "together": "with all ranks at once"}
_LIMIT_COLOURS: Final = {"alone": palette.LIMIT, "together": "#d98880"}


def contention_curve(curve: pd.DataFrame, limits: pd.DataFrame) -> Figure:
    """The cost of operations against how many others were active on their node during them.

    `curve` is rows of `contention(run).curve` of one scope, against operations; `limits` is `copy_limits`, maybe empty.
    Operations of memory tiers, which are nothing but copies, are drawn beside the roofline only.
    """
    lines = curve.assign(line=kind_names(curve)).sort_values("others")
    lines = lines[lines["operations"] >= FEWEST_OPERATIONS]
    most = float(lines["others"].max()) if len(lines) else 1.0
    x = Axis("other operations active on the node", low=0.0, high=max(1.03 * most, 1.0))
    panels = []
    for metric, title, unit, part in _PANELS:
        table = lines[lines["metric"] == metric]
        marks = list(_lines(table, part, 100.0 if metric == "runq_share" else 1.0))
        if metric == "host_ns_per_byte":
            marks += list(_limits(limits))
        panels.append(Panel(title, x, _upright(marks, unit), tuple(marks)))
    return Figure(
        "contention",
        "Contention: the cost of a byte against concurrency",
        "Medians over the operations of a bin of concurrency (the mean number of others while an operation ran) that "
        f"has at least {FEWEST_OPERATIONS}, with 95 % confidence intervals as bands; all nodes together. "
        "A host line that rises shows operations in each other's way: in the memory bandwidth, the caches or "
        "the kernel. " + _roofline_note(curve, limits),
        tuple(panels),
        panel_height=230,
        one_x=True,
    )


def _lines(table: pd.DataFrame, part: palette.Part, factor: float) -> Iterator[Mark]:
    drawn: Counter[bool] = Counter()
    for name, group in table.groupby("line", sort=False):
        copies = bool((group["path"] == _COPY).all())
        if copies and part is not palette.HOST:
            continue
        shown = palette.COPY if copies else part
        dash = _DASHES[drawn[copies] % len(_DASHES)]
        drawn[copies] += 1
        rows = group.to_dict("records")
        notes = [
            f"{row['median'] * factor:.3g} (mean {row['mean'] * factor:.3g}) among {row['others']:.3g} others "
            f"({units.count(row['operations'])} operations)"
            for row in rows
        ]
        yield Line(
            f"copy, {name}" if copies else f"{part.name}, {name}",
            group["others"].to_numpy(float),
            group["median"].to_numpy(float) * factor,
            shown.colour,
            dash,
            markers=True,
            low=group["low"].to_numpy(float) * factor,
            high=group["high"].to_numpy(float) * factor,
            note=notes,
        )


def _limits(limits: pd.DataFrame) -> Iterator[Mark]:
    for row in limits.to_dict("records"):
        said = "one rank alone" if row["mode"] == "alone" else "all ranks at once"
        yield Level(f"memory copy, {said}", float(row["ns_per_byte"]), _LIMIT_COLOURS[row["mode"]])


def _upright(marks: list[Mark], unit: str) -> Axis:
    """From 0, and high enough for the lines; a band of a bin with few operations may leave the panel."""
    tops = [float(np.nanmax(mark.y)) for mark in marks if isinstance(mark, Line) and np.isfinite(mark.y).any()]
    tops += [mark.y for mark in marks if isinstance(mark, Level)]
    top = max(tops, default=0.0)
    return Axis(unit, low=0.0, high=1.25 * top if top > 0 else 1.0)


def _roofline_note(curve: pd.DataFrame, limits: pd.DataFrame) -> str:
    if limits.empty:
        return "The file has no calibration of memory copies to compare with."
    rates = " and ".join(
        f"{units.digits(row['gib_per_s'])} GiB/s per rank {_MODES[row['mode']]}" for row in limits.to_dict("records")
    )
    note = f"The roofline is what copying a byte took in memory when it was calibrated before the run: {rates}."
    least = curve.loc[(curve["metric"] == "host_ns_per_byte") & (curve["path"] == _COPY), "median"].min()
    if least < limits["ns_per_byte"].min():
        note += (
            " Copies of the run itself took less processor time than that: the calibration, which is wall time, "
            "was disturbed, or its copies missed a cache that those of the run hit."
        )
    return note
