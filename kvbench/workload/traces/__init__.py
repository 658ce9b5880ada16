"""Recorded traces of LLM services: one columnar `Trace`, and one reader per file format.

A new format is one file here and one line in the table of formats. Never: which rank gets which request.
"""

from kvbench.workload.traces.read import load_trace, read_trace, sniff_format
from kvbench.workload.traces.trace import Trace

__all__ = ["Trace", "load_trace", "read_trace", "sniff_format"]
