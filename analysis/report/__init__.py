"""The report of one run or several: one page that needs no network, and the same plots as picture files.

Here live the page, its words and its order. Never: a figure or a plot of its own.
"""

from kvbench_analysis.report.collect import Given
from kvbench_analysis.report.write import write_report

__all__ = ["Given", "write_report"]
