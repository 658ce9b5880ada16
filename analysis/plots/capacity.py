"""What more room is worth: prefix hits against capacity, for every policy, and the most that there can be."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Level, Line, Mark, Panel

_GIB: Final = 2**30


def capacity_curve(curve: Mapping[str, Any]) -> Figure:
    """The figure of the `curve` of `kvbench plan --capacities --json`; decided, not measured."""
    x = np.array(curve["capacity_bytes_per_rank"]) / _GIB
    blocks = max(1, curve["blocks"])
    marks: list[Mark] = []
    for number, (name, policy) in enumerate(curve["policies"].items()):
        y = 100 * np.array(policy["block_hit_share"])
        colour, dash = palette.style(number)
        knee = policy["knee_bytes_per_rank"] / _GIB
        notes = [f"{name} at {at:.4g} GiB{': the knee' if at == knee else ''}" for at in x]
        marks.append(Line(name, x, y, colour, dash, markers=True, note=notes))
    if curve["optimum_hit_blocks"] is not None:
        best = 100 * np.array(curve["optimum_hit_blocks"]) / blocks
        marks.append(Line("at most (Belady, knows the future)", x, best, palette.RUN_QUEUE.colour, "dash"))
    unlimited = 100 * curve["unlimited_hit_blocks"] / blocks
    marks.append(Level("never full", unlimited, palette.LIMIT))
    return Figure(
        "capacity",
        "Prefix hits against capacity",
        "Decided, not measured: blocks found before the first gap of a context, of all blocks that were looked up, all "
        "ranks together. The optimum is over single blocks, and so above what any policy can find.",
        (
            Panel(
                "",
                Axis("capacity of the last tier per rank, GiB", "log"),
                Axis("% of blocks", low=0, high=min(100.0, 1.1 * max(unlimited, 1.0))),
                tuple(marks),
            ),
        ),
        panel_height=420,
    )
