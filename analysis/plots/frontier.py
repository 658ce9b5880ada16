"""What hits cost in writes: blocks found against terabytes a day, for every way to admit, write and evict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Line, Mark, Panel


def hit_frontier(frontier: Mapping[str, Any]) -> Figure:
    """The figure of the `frontier` of `kvbench plan --frontier --json`; decided, not measured."""
    points = frontier["points"]
    daily = frontier["requests_per_s"] is not None
    key, unit = ("written_bytes_per_day", 1e12) if daily else ("written_bytes_per_request", 2**20)
    label = "written to the last tier, TB a day" if daily else "written to the last tier, MiB a request"
    several = {name: len({point[name] for point in points}) > 1 for name in ("write", "policy")}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        name = ", ".join([point["admission"], *(point[part] for part, shown in several.items() if shown)])
        groups.setdefault(name, []).append(point)
    front = sorted(
        (point for point in points if point["on_frontier"]), key=lambda point: (point[key], point["hit_blocks"])
    )
    marks: list[Mark] = [
        Line("the frontier", _xs(front, key, unit), _ys(front), palette.LIMIT, note=[_note(p) for p in front])
    ]
    for number, (name, group) in enumerate(groups.items()):
        colour, dash = palette.style(number)
        notes = [_note(point) for point in group]
        marks.append(Line(name, _xs(group, key, unit), _ys(group), colour, dash, markers=True, note=notes))
    top = max(float(_xs(points, key, unit).max()), 1e-9)
    pace = f"; at {frontier['requests_per_s']:.4g} requests/s" if daily else ""
    return Figure(
        "frontier",
        "Hits against writes",
        f"Decided, not measured{pace}: blocks found before the first gap of a context, of all blocks that were looked "
        "up, all ranks together. A line joins the capacities of one way to keep blocks; on the frontier no other finds "
        "as much and writes less.",
        (
            Panel(
                "",
                Axis(label, low=0.0, high=1.06 * top),
                Axis("% of blocks found", low=0.0, high=min(100.0, 1.1 * max(float(_ys(points).max()), 1.0))),
                tuple(marks),
            ),
        ),
        panel_height=440,
    )


def _xs(points: Any, key: str, unit: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([point[key] / unit for point in points], np.float64)


def _ys(points: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([100 * point["block_hit_share"] for point in points], np.float64)


def _note(point: Mapping[str, Any]) -> str:
    capacity = point["capacity_bytes_per_rank"]
    room = "never full" if capacity is None else f"{capacity / 2**30:.4g} GiB"
    return f"{point['admission']}, {point['write']}, {point['policy']}, {room}"
