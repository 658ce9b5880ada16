"""The report of one run or several: one page that needs no network, and the same plots as picture files."""

from kvbench_analysis.report.write import write_report

__all__ = ["write_report"]
