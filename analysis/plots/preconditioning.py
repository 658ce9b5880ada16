"""The bandwidth of the rounds that were written before the load, with the window that is judged."""

import numpy as np
from kvbench_analysis.figures.preconditioning import Preconditioning
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Line, Mark, Panel

_WINDOW = 5
_EXCURSION = 0.2
_SLOPE = 0.1


def precondition_rounds(found: Preconditioning) -> Figure:
    """A point for each round; over the last window (the first that was steady, where one was) its line and limits."""
    rounds = found.rounds
    x, y = rounds["round"].to_numpy(float), rounds["gib_per_s"].to_numpy(float)
    notes = [f"round {number:.0f}: {value:.3g} GiB/s" for number, value in zip(x, y, strict=True)]
    marks: list[Mark] = [Line("bandwidth of a round", x, y, *palette.style(0), markers=True, note=notes)]
    end = found.steady_round or len(x)
    if end >= _WINDOW:
        inside = slice(end - _WINDOW, end)
        average, places = float(y[inside].mean()), x[inside]
        slope, level = np.polyfit(places, y[inside], 1)
        # The whole excursion may be a fifth: as a band around the middle of what there was.
        middle = (y[inside].max() + y[inside].min()) / 2
        reach = np.full(_WINDOW, average * _EXCURSION / 2)
        band = Line(
            "excursion that is allowed (20 % of the average)",
            places,
            np.full(_WINDOW, middle),
            palette.RUN_QUEUE.colour,
            "dot",
            low=middle - reach,
            high=middle + reach,
        )
        fit = Line(
            f"least squares ({slope * (_WINDOW - 1) / average:+.1%} over the window, {_SLOPE:.0%} allowed)",
            places,
            slope * places + level,
            palette.LIMIT,
            "dash",
        )
        marks = [band, *marks, fit]
    return Figure(
        "precondition",
        "Writes before the load",
        f"{found.text[:1].upper()}{found.text[1:]}. A window is five rounds: steady is where the largest less the "
        "smallest is at most 20 % of their average, and the fitted line rises or falls by at most 10 % of it.",
        (
            Panel(
                "",
                Axis("round", low=0.5, high=float(len(x)) + 0.5),
                Axis("GiB/s, all ranks together", low=0, high=1.15 * float(max(y.max(), 1e-9))),
                tuple(marks),
            ),
        ),
    )
