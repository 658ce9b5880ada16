"""Made-up sessions beside the trace that they were fitted to: distributions, and what a prefix cache finds."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Level, Line, Mark, Panel

_RECORDED: Final = ("the trace", palette.DEVICE.colour)
_MADE_UP: Final = ("made up", palette.HOST.colour)
_SHARE: Final = "%"


def fitted_sessions(likeness: Mapping[str, Any]) -> Figure:
    """The figure of the `likeness` of `kvbench trace fit --json`; decided, not measured."""
    populations = likeness["populations"]
    return Figure(
        "sessions",
        "Sessions: fitted and real",
        f"The trace ({likeness['requests']} requests), and {populations} populations that were made up with the "
        f"parameters that fit it ({np.mean(likeness['made_up_requests']):.0f} requests each on average): of all "
        "of them together, and in the last panel their mean, with the band from the lowest to the highest. Decided, "
        "not measured: an LRU of contexts without answers, blocks found before the first gap of a context.",
        (*map(_distribution, likeness["compared"]), _curve(likeness["curve"])),
        panel_height=150,
    )


def _distribution(one: Mapping[str, Any]) -> Panel:
    share = one["unit"].startswith(_SHARE)
    percentiles = np.array(one["percentiles"])
    lines: list[Mark] = []
    for (name, colour), key in ((_RECORDED, "recorded"), (_MADE_UP, "made_up")):
        values = np.array(one[key])
        # A logarithmic axis has no 0.
        lines.append(Line(name, values if share else np.maximum(values, 1), percentiles, colour))
    axis = Axis(one["unit"], low=0, high=100) if share else Axis(one["unit"], "log")
    return Panel(one["name"], axis, Axis("% at most", low=0, high=100), tuple(lines))


def _curve(curve: Mapping[str, Any]) -> Panel:
    tokens = np.array(curve["capacity_blocks"]) * curve["block_tokens"]
    made_up = 100 * np.array(curve["made_up"])
    mean, low, high = made_up.mean(axis=0), made_up.min(axis=0), made_up.max(axis=0)
    return Panel(
        "found by prefix, against capacity",
        Axis("capacity, tokens", "log"),
        Axis("% of blocks", low=0, high=100),
        (
            Line(_RECORDED[0], tokens, 100 * np.array(curve["recorded"]), _RECORDED[1], markers=True),
            Line(_MADE_UP[0], tokens, mean, _MADE_UP[1], markers=True, low=low, high=high),
            Level("the trace, never full", 100 * curve["recorded_unlimited"], palette.LIMIT),
        ),
    )
