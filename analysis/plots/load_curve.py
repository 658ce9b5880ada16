"""The capacity curve: what an objective bounds against the load, with the bound, and the limit with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Level, Line, Mark, Panel

_NOTE: Final = (
    "Each point is a probe: a run at that load. Figures are from the intended start of requests, those that were not "
    "done by the end of the probe among them."
)


def load_curve(
    probes: pd.DataFrame,
    objectives: Sequence[tuple[str, float]],
    limit: Mapping[str, float],
    axis: str,
    title: str,
) -> Figure:
    """The figure of a search. `probes`: its rows (`load`, `served_per_s`, `figure_s_N`); `objectives`: what each
    bounds, with the bound (s); `limit`: `estimate`, `low` and `high` of the load."""
    ordered = probes.sort_values(["load", "probe"])
    loads = ordered["load"].to_numpy(float)
    panels = []
    for number, (name, bound_s) in enumerate(objectives):
        figure_ms = ordered[f"figure_s_{number}"].to_numpy(float) * 1e3
        ends = _ends([*figure_ms, bound_s * 1e3])
        marks: list[Mark] = [*_means(name, loads, figure_ms, number)]
        marks += [Level(f"bound, {bound_s * 1e3:.4g} ms", bound_s * 1e3, palette.LIMIT), *_limit(limit, ends)]
        panels.append(Panel(name, Axis(axis, "log"), Axis(f"{name}, ms", "log", *ends), tuple(marks)))
    served = ordered["served_per_s"].to_numpy(float)
    ends = (0.0, 1.1 * float(served.max(initial=1.0)))
    marks = [*_means("served", loads, served, len(panels))]
    if "offered_per_s" in ordered:
        offered = ordered.groupby("load")["offered_per_s"].mean()
        marks.append(
            Line("offered", offered.index.to_numpy(float), offered.to_numpy(float), palette.RUN_QUEUE.colour, "dash")
        )
        ends = (0.0, 1.1 * max(float(offered.max()), ends[1] / 1.1))
    marks += _limit(limit, ends)
    panels.append(
        Panel("requests of all ranks", Axis(axis, "log"), Axis("requests/s", low=0, high=ends[1]), tuple(marks))
    )
    return Figure("load-curve", title, _NOTE, tuple(panels), panel_height=340, own_legends=True)


def _means(name: str, loads: Any, values: Any, number: int) -> tuple[Line, ...]:
    """A point for each probe, and a line through the means of those at one load."""
    at = np.unique(loads)
    means = np.array([values[loads == load].mean() for load in at])
    colour, _ = palette.style(number)
    dots = tuple(
        Line("a probe", np.array([load]), np.array([value]), colour, markers=True, note=[f"{value:.4g} at {load:.4g}"])
        for load, value in zip(loads, values, strict=True)
    )
    return (Line(f"{name}, mean", at, means, colour, markers=False), *dots)


def _limit(limit: Mapping[str, float], ends: tuple[float, float]) -> list[Mark]:
    """Lines across the panel at the limit and both ends of its interval, as far as there are any."""
    marks: list[Mark] = []
    ends_named = "95 % interval"
    for key, name, dash in (("estimate", "limit", "solid"), ("low", ends_named, "dot"), ("high", ends_named, "dot")):
        at = float(limit[key])
        if np.isfinite(at) and at > 0:
            across = np.array(ends)
            marks.append(Line(name, np.array([at, at]), across, palette.HOST.colour, dash))  # type: ignore[arg-type]
    return marks


def _ends(values: Sequence[float]) -> tuple[float, float]:
    there = [value for value in values if np.isfinite(value) and value > 0]
    return min(there) / 1.3, max(there) * 1.3
