"""Plots of kvbench's results: each function takes tidy tables and returns a `Figure`, drawn by plotly or matplotlib.

    from kvbench_analysis import load, plots

    counted = plots.tables.Counted(load("run.h5"))
    figure = plots.latency_cdf(plots.tables.latency_quantiles(counted))
    figure.to_plotly().show()
    figure.save("latency.png")

`tables` makes the tables of them that the analysis has not made already. docs/report.md lists what takes which.
Never: a figure that is not in the tables it is given, or the page around it (`report`).
"""

from kvbench_analysis.plots import tables
from kvbench_analysis.plots.contention import contention_curve
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.first_token import break_even_plot, first_token_stack
from kvbench_analysis.plots.latency import latency_bands, latency_cdf, parts_by_name, parts_by_rank, shares_by_name
from kvbench_analysis.plots.over_time import timeline_plot
from kvbench_analysis.plots.places import rank_heatmap

__all__ = [
    "Figure",
    "break_even_plot",
    "contention_curve",
    "first_token_stack",
    "latency_bands",
    "latency_cdf",
    "parts_by_name",
    "parts_by_rank",
    "rank_heatmap",
    "shares_by_name",
    "tables",
    "timeline_plot",
]
