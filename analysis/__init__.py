"""The results of kvbench runs as pandas tables: `load` reads a run file, the other functions make its figures.

Needs neither MPI nor the machine that ran the benchmark; of kvbench it imports only the schema and reader of the file.
"""

from kvbench_analysis.compare.comparison import Comparison, compare
from kvbench_analysis.contention.attribution import Attribution, attribution
from kvbench_analysis.contention.concurrency import operations_contention
from kvbench_analysis.contention.contention import Contention, contention
from kvbench_analysis.figures.request_times import RequestTimes, request_times
from kvbench_analysis.scaling.usl import UslFit, fit_usl
from kvbench_analysis.summary.brief import print_brief
from kvbench_analysis.summary.render import print_summary, to_json
from kvbench_analysis.summary.summary import Summary, summarize
from kvbench_analysis.tables.load import Run, load
from kvbench_analysis.tables.timeline import Timeline, timeline

__all__ = [
    "Attribution",
    "Comparison",
    "Contention",
    "RequestTimes",
    "Run",
    "Summary",
    "Timeline",
    "UslFit",
    "attribution",
    "compare",
    "contention",
    "fit_usl",
    "load",
    "operations_contention",
    "print_brief",
    "print_summary",
    "request_times",
    "summarize",
    "timeline",
    "to_json",
]
