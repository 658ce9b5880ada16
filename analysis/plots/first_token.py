"""Time to first token by the length of the prefix that was found, and where loading it overtakes computing it.

What is modelled is hatched, or dashed where it is a line, and has `modelled` in its name.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.break_even import BreakEven
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Bars, Line, Mark, Panel
from kvbench_analysis.text import units

from kvbench.records.compute_model import ComputeModel

_MS: Final = 1e-6
_POINTS: Final = 120
_RECOMPUTE: Final = "computing all of it, modelled"
_STACK: Final = (
    ("queue", palette.QUEUE._replace(name="waiting to start"), False),
    ("look_up", palette.LOOK_UP, False),
    ("load", palette.LOAD, False),
    ("modelled_compute", palette.COMPUTE, True),
)


def first_token_stack(parts: pd.DataFrame, gpu: str) -> Figure:
    """`parts` is `figures.prefix_lengths.parts_by_length`, `gpu` what compute is modelled as."""
    rows = parts.to_dict("records")
    place = np.arange(len(rows))
    # Short, for narrow screens; a pointer is told the whole.
    ticks = {float(at): f"{_most(row)}\n({units.count(row['requests'])})" for at, row in enumerate(rows)}
    x_axis = Axis("tokens found, up to (requests)", ticks=ticks)
    marks: list[Mark] = [
        Bars(
            part.name,
            place,
            parts[f"{name}_ns"].to_numpy(float) * _MS,
            part.colour,
            [f"{_bin(row)}: {units.duration(row[f'{name}_ns'])}, {part.name}" for row in rows],
            modelled=modelled,
        )
        for name, part, modelled in _STACK
    ]
    recomputed = parts["modelled_recompute_ns"].to_numpy(float) * _MS
    notes = [f"{_bin(row)}: {units.duration(row['modelled_recompute_ns'])} to compute the whole prompt" for row in rows]
    marks.append(Line(_RECOMPUTE, place, recomputed, palette.LIMIT, "dash", markers=True, note=notes))
    return Figure(
        "first-token",
        "Time to first token by the prefix that was found",
        "Mean per request that was done, by how many tokens of its prompt were found. Hatched, "
        f"and dashed, is modelled ({gpu}): the rest of the prompt and its wait for the GPU, and the whole prompt alone "
        "on it instead. All else is measured.",
        (Panel("", x_axis, Axis("ms per request", low=0.0, high=_top(rows)), tuple(marks)),),
        panel_height=320,
    )


def break_even_plot(waits: pd.DataFrame, found: BreakEven, model: ComputeModel) -> Figure:
    """`waits` is `figures.prefix_lengths.waits_by_length` of the requests that `found` is of."""
    tokens = np.unique(np.linspace(1, found.longest, _POINTS).astype(np.int64))
    computed = model.prefill_s(tokens, 0) * 1e3
    fitted = (found.load_s + found.load_s_per_token * tokens) * 1e3
    rows = waits.to_dict("records")
    notes = [
        f"{units.duration(row['median_ns'])} (P5 {units.duration(row['low_ns'])}, P95 "
        f"{units.duration(row['high_ns'])}) of {units.count_of(row['requests'], 'request')}, "
        f"{units.count(row['tokens'])} tokens on average"
        for row in rows
    ]
    low, median, high = (waits[f"{name}_ns"].to_numpy(float) * _MS for name in ("low", "median", "high"))
    x = waits["tokens"].to_numpy(float)
    marks: list[Mark] = [
        Line("loading", x, median, palette.LOAD.colour, markers=True, low=low, high=high, note=notes),
        Line("loading, straight line", tokens, np.maximum(fitted, 0), palette.LOAD.colour, "dot"),
        Line("computing, modelled", tokens, computed, palette.COMPUTE.colour, "dash"),
    ]
    said = f"At no length up to {units.count(found.longest)} tokens does the line meet the modelled compute."
    if found.tokens is not None:
        ends = np.array([found.longest if end is None else end for end in (found.low, found.high)], float)
        y = np.full(2, float(model.prefill_s(found.tokens, 0)) * 1e3)
        beyond = " and beyond" if found.high is None else ""
        between = f"{units.count(ends[0])} to {units.count(ends[1])} tokens{beyond}, 95 %"
        marks.append(Line("break-even, 95 %", ends, y, palette.LIMIT, markers=True, note=[between] * 2))
        said = f"They meet at {units.count(found.tokens)} tokens ({between})."
    x_axis = Axis("tokens found", low=0.0, high=1.03 * found.longest)
    top = 1.15 * max(float(np.nanmax(computed)), float(np.nanmax(median, initial=0.0)))
    return Figure(
        "break-even",
        "Loading a prefix against computing it",
        "Look-up and load of the requests that found something: medians, and a band from P5 to P95, of requests with "
        f"prefixes of about one length. Dashed is modelled: computing so many tokens alone on the GPU. {said}",
        (Panel("", x_axis, Axis("ms", low=0.0, high=top), tuple(marks)),),
        panel_height=340,
    )


def _bin(row: dict[Any, Any]) -> str:
    low, high = row["low_tokens"], row["high_tokens"]
    if high == 0:
        return "nothing"
    return units.count(low) if low == high else f"{units.count(low)} to {units.count(high)}"


def _most(row: dict[Any, Any]) -> str:
    most = row["high_tokens"]
    return f"{units.digits(most / 1000)}k" if most >= 1000 else str(most)


def _top(rows: list[dict[Any, Any]]) -> float:
    return 1.08 * _MS * max(float(max(row["first_token_ns"], row["modelled_recompute_ns"])) for row in rows)
