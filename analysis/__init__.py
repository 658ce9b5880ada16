"""The results of kvbench runs as pandas tables: `load` reads a run file, `summarize` makes its figures.

Needs neither MPI nor the machine that ran the benchmark; of kvbench it imports only the schema and reader of the file.
"""

from kvbench_analysis.load import Run, load
from kvbench_analysis.render import print_summary, to_json
from kvbench_analysis.summary import Summary, summarize

__all__ = ["Run", "Summary", "load", "print_summary", "summarize", "to_json"]
