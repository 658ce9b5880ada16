"""A search that is to be killed: python killed_search.py FOLDER."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
import throttled
from rich.console import Console
from throttled_search import configuration, wanted

from kvbench.cluster.comm import SerialComm
from kvbench.run.output.spill_files import SpillOrder
from kvbench.studies.search import SearchOrder, run_search

throttled.plug()
throttled.READS_PER_S = 1e5
folder = Path(sys.argv[1])
changes = {
    "seconds": 1.0,
    "warmup_s": 0.1,
    "most": 12,
    "low": 100.0,
    "high": 1600.0,
    "objectives": ("storage_p50<60s",),
}
asked = wanted(configuration(folder), **changes)
order = SearchOrder(asked, folder / "search.h5", False, False, False, SpillOrder(False, None), 60.0)
run_search(SerialComm(), order, Console(quiet=True))
