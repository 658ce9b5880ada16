"""How long operations took: distributions by kind, and what the fast and the slow ones waited for."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Bars, Line, Mark, Panel
from kvbench_analysis.plots.palette import Part
from kvbench_analysis.plots.tables import QUANTILES
from kvbench_analysis.text import overlapping, units

_STACK: Final = (palette.DEVICE, palette.HOST, palette.COPY, palette.RUN_QUEUE)
_MS: Final = 1e-6
_SECONDS: Final = 1e-9
_ADDED_UP: Final = (
    f" {overlapping.MARK} The operations of a batch overlap, so that none has a split of its own: here it is the time "
    "of the rank's threads, of batches and of what does not overlap, added up over the measured phase."
)


def kind_names(table: pd.DataFrame) -> pd.Series:
    """`storage read`, with the path behind it where the same operation of the same tier took several."""
    plain = table["tier"] + " " + table["op"]
    one_path = table.groupby(["tier", "op"])["path"].transform("nunique") == 1
    return plain.where(one_path, plain + ", " + table["path"])


def latency_cdf(quantiles: pd.DataFrame, by: str | None = None) -> Figure:
    """The distribution of wall times: `quantiles` is `latency_quantiles`; one line per kind, or per value of `by`."""
    table = quantiles.assign(line=kind_names(quantiles) if by is None else quantiles[by])
    lines = tuple(_distributions(table, tail=False))
    tails = tuple(_distributions(table, tail=True))
    least = min((float(line.y.min()) for line in tails if isinstance(line, Line) and len(line.y)), default=0.1)
    # From where the fastest kind begins in earnest; a handful that are faster would only squeeze the rest.
    first = table.loc[table["percentile"] == 1, "wall_ns"].min() * _MS
    low, high = max(0.5 * first, 1e-6), 1.3 * max(float(table["wall_ns"].max()) * _MS, 1e-6)
    x = Axis("wall time of an operation, ms", "log", *((low, high) if low < high else (None, None)))
    return Figure(
        "latency",
        "Latency distributions",
        "Per operation, which moves one object. Made of the operations of the measured phase, of all ranks: "
        f"the lines are drawn through up to {len(QUANTILES)} exact percentiles. Below, the same with the tail "
        "spread out: how many took longer.",
        (
            Panel("done within", x, Axis("% of operations", low=0, high=100), lines),
            Panel("took longer", x, Axis("% of operations", "log", low=least / 1.3, high=100), tails),
        ),
        panel_height=260,
        one_x=True,
    )


def latency_bands(bands: pd.DataFrame, what: str) -> Figure:
    """What slow operations waited for: `bands` is the table `latency_bands` of the operations called `what`.

    Of operations that overlap, which wait together, how long they took.
    """
    ticks = {float(place): _band(row) for place, row in enumerate(bands.to_dict("records"))}
    ticks = {place: name.replace(" ", "\n", 1) for place, name in ticks.items()}
    if bands["device_ns"].isna().any():
        marks: tuple[Mark, ...] = (_bars(palette.WALL, bands, np.arange(len(bands)), _band),)
        return Figure(
            "slow-operations",
            f"How long fast and slow {what} took",
            f"Mean per operation: the {what} of all ranks, ordered by their wall time and cut into bands. They "
            "overlap, so that none has a device, host or run-queue time of its own.",
            (Panel("", Axis("", ticks=ticks), Axis("ms per operation"), marks),),
            panel_height=320,
        )
    return Figure(
        "slow-operations",
        f"What fast and slow {what} waited for",
        f"Mean per operation: the {what} of all ranks, ordered by their wall time and cut into bands. "
        "Device, host, copy and run queue add up to the wall time.",
        (Panel("", Axis("", ticks=ticks), Axis("ms per operation"), stack(bands, _band)),),
        panel_height=320,
    )


def parts_by_rank(parts: pd.DataFrame) -> Figure:
    """The mean wall time of each rank's operations and what it is made of: `parts` is `time_parts`.

    Of operations that overlap, the time of the rank's threads; those of which it is not known are not shown.
    """
    panels = []
    of_batches, only = (parts["split_of"] == "batches").any(), (parts["split_of"] != "operations").all()
    for (tier, op), group in parts[parts["split_of"] != "unknown"].groupby(["tier", "op"], sort=False):
        table = group.sort_values("rank")
        ranks = table["rank"].to_numpy()
        ticks = {float(rank): str(rank) for rank in ranks} if len(ranks) <= 32 else {}
        axis = Axis("rank", low=ranks.min() - 0.6, high=ranks.max() + 0.6, ticks=ticks)
        if table["split_of"].iloc[0] == "batches":
            marks = stack(table, _rank, "rank", _SECONDS)
            panels.append(Panel(f"{tier} {op}{overlapping.MARK}", axis, Axis("seconds of threads"), marks))
        else:
            panels.append(Panel(f"{tier} {op}", axis, Axis("ms per operation"), stack(table, _rank, "rank")))
    per = "The time of each rank's threads" if only else "Mean per operation, for each rank"
    return Figure(
        "ranks",
        "What the time of each rank went to",
        f"{per}. Device: the thread was blocked, waiting for the storage. Host: it was on a "
        "processor (copies apart, where there are explicit ones). Run queue: it could have run, but had no processor."
        + (_ADDED_UP if of_batches else ""),
        tuple(panels),
        panel_height=230,
        one_x=True,
    )


def parts_by_name(table: pd.DataFrame, what: str) -> Figure:
    """The mean wall time of operations called `what` side by side: one bar for each row of `table` (column `name`)."""
    ticks = {float(place): str(name) for place, name in enumerate(table["name"])}
    return Figure(
        "parts",
        f"What the time of {what} went to",
        "Mean per operation, over all ranks of each run.",
        (Panel("", Axis("", ticks=ticks), Axis("ms per operation"), stack(table, lambda row: str(row["name"]))),),
    )


def shares_by_name(table: pd.DataFrame, what: str) -> Figure:
    """What the time of operations called `what` went to, side by side: a bar for each row of `table` (columns `name`,
    `operations`, `split_of`, `device_share`, `host_share`, `runq_share`), of runs of which some have operations that
    overlap."""
    rows = table.to_dict("records")
    marked = {"batches": overlapping.MARK, "unknown": ": not known"}
    ticks = {float(place): f"{row['name']}{marked.get(row['split_of'], '')}" for place, row in enumerate(rows)}
    bars = tuple(
        Bars(
            part.name,
            np.arange(len(table)),
            table[f"{part.key}_share"].fillna(0).to_numpy(float) * 100,
            part.colour,
            [f"{row['name']}: {units.share(row[f'{part.key}_share'])} {part.name}" for row in rows],
        )
        for part in palette.PARTS
    )
    note = overlapping.notes(table["split_of"])
    return Figure(
        "parts",
        f"What the time of {what} went to",
        f"Of the time of the threads, over all ranks of each run. {note}",
        (Panel("", Axis("", ticks=ticks), Axis("% of the threads' time", low=0, high=100), bars),),
    )


def stack(table: pd.DataFrame, name: Any, place: str | None = None, factor: float = _MS) -> tuple[Mark, ...]:
    """A bar for each row of `table` with its `device_ns`, `host_ns`, `copy_ns` and `runq_ns` on each other, each times
    `factor`."""
    x = table[place].to_numpy() if place else np.arange(len(table))
    return tuple(
        _bars(part, table, x, name, factor)
        for part in _STACK
        if part is not palette.COPY or (table["copy_ns"] > 0).any()
    )


def _bars(part: Part, table: pd.DataFrame, x: Any, name: Any, factor: float = _MS) -> Bars:
    notes = [_told(row, part, name) for row in table.to_dict("records")]
    return Bars(part.name, x, table[f"{part.key}_ns"].to_numpy(float) * factor, part.colour, notes)


def _told(row: dict[Any, Any], part: Part, name: Any) -> str:
    value, wall = row[f"{part.key}_ns"], row["wall_ns"]
    share = units.share(value / wall) if wall else units.NONE
    of = f"{share} of {units.duration(wall)} ({units.count(row['operations'])} operations)"
    return f"{name(row)}: {units.duration(value)}, {of}"


def _rank(row: dict[Any, Any]) -> str:
    return f"rank {row['rank']}"


def _band(row: dict[Any, Any]) -> str:
    low, high = row["low_percentile"], row["high_percentile"]
    if low == 0:
        return f"fastest {high} %"
    return f"slowest {100 - low} %" if high == 100 else f"P{low} to P{high}"


def _distributions(table: pd.DataFrame, *, tail: bool) -> Iterator[Mark]:
    for number, (name, group) in enumerate(table.groupby("line", sort=False)):
        # A logarithmic axis has no place for an operation of no length.
        x = np.maximum(group["wall_ns"].to_numpy(float), 1.0) * _MS
        share = group["percentile"].to_numpy(float)
        last = len(share) - 1 if tail else len(share)
        count = group["operations"].iloc[0]
        notes = [
            f"{share[place]:g} % within {units.duration(x[place] / _MS)} ({units.count(count)} operations)"
            for place in range(last)
        ]
        y = np.round(100 - share[:last], 4) if tail else share
        colour, dash = palette.style(number)
        yield Line(str(name), x[:last], y, colour, dash, note=notes)
