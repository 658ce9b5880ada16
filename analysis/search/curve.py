"""The picture of a search: its capacity curve."""

from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.load_curve import load_curve
from kvbench_analysis.search.print import UNITS
from kvbench_analysis.search.study import SearchFigures


def curve_of(figures: SearchFigures) -> Figure | None:
    """None: there is no probe yet."""
    if not len(figures.probes):
        return None
    key, limit = figures.asked.key, figures.limit
    return load_curve(
        figures.probes,
        [(objective.name, objective.bound_s) for objective in figures.objectives],
        {"estimate": limit.estimate, "low": limit.low, "high": limit.high},
        f"{key}, {UNITS.get(key, '')}",
        "Capacity curve",
    )
