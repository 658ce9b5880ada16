"""The table of trace formats. A new one is one file here, one line in the table, and its name in `config.names`."""

from typing import Final

from kvbench.config.names import TRACE_FORMATS
from kvbench.workload.traces.agentic import AGENTIC
from kvbench.workload.traces.bailian import BAILIAN
from kvbench.workload.traces.baseten import BASETEN
from kvbench.workload.traces.deltas import DELTAS
from kvbench.workload.traces.format import TraceFormat
from kvbench.workload.traces.lmcache import LMCACHE
from kvbench.workload.traces.mooncake import MOONCAKE
from kvbench.workload.traces.parquet import KVBENCH
from kvbench.workload.traces.sharegpt import MESSAGES, SHAREGPT
from kvbench.workload.traces.tables import AZURE, BURSTGPT

FORMATS: Final = {
    trace_format.name: trace_format
    for trace_format in (
        MOONCAKE,
        AZURE,
        BURSTGPT,
        SHAREGPT,
        DELTAS,
        AGENTIC,
        BAILIAN,
        MESSAGES,
        LMCACHE,
        BASETEN,
        KVBENCH,
    )
}
"""By name. A file is read by the one whose fields its first objects have; the first that recognises other files reads
them."""


def register(trace_format: TraceFormat) -> None:
    """Add a format to those that are read and that a configuration may name."""
    FORMATS[trace_format.name] = trace_format
    TRACE_FORMATS.append(trace_format.name)
