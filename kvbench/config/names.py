"""Names that a configuration uses for what other packages have, who have it, and what a configuration must know of it.

Whoever has a table of such things adds the names of what was not there when this was written.
"""

from typing import Final

TRACE_FORMATS: Final = ["mooncake", "azure", "burstgpt", "sharegpt"]
"""Of `kvbench.workload.traces.formats`."""
