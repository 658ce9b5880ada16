"""The table of trace formats. A new one is one file here, one line in the table, and its name in `config.names`."""

from typing import Final

from kvbench.config.names import TRACE_FORMATS
from kvbench.workload.traces.format import TraceFormat
from kvbench.workload.traces.mooncake import MOONCAKE
from kvbench.workload.traces.sharegpt import SHAREGPT
from kvbench.workload.traces.tables import AZURE, BURSTGPT

FORMATS: Final = {trace_format.name: trace_format for trace_format in (MOONCAKE, AZURE, BURSTGPT, SHAREGPT)}
"""By name. The first that recognises a file reads it."""


def register(trace_format: TraceFormat) -> None:
    """Add a format to those that are read and that a configuration may name."""
    FORMATS[trace_format.name] = trace_format
    TRACE_FORMATS.append(trace_format.name)
