"""From a trace file to a `Trace`: which format it is, and the reader of that format."""

from pathlib import Path

from kvbench.config.run_config import TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.traces.format import TraceFormat
from kvbench.workload.traces.formats import FORMATS
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import Trace


def load_trace(workload: TraceWorkload) -> Trace:
    """The trace that a configuration asks for, cut to its first `max_requests`. Raises KvbenchError."""
    trace = read_trace(workload.path, workload.format, skip_bad_lines=workload.skip_bad_lines)
    return trace if workload.max_requests is None else trace.head(workload.max_requests)


def read_trace(path: str | Path, trace_format: str = "auto", *, skip_bad_lines: bool = False) -> Trace:
    """All requests of the file; `trace_format` is a name in the table of formats, or `auto`.

    Raises KvbenchError naming file, line and what was wrong, where the file cannot be read, is of no known format, has
    a malformed line (unless `skip_bad_lines`: then they are counted in the trace) or no request at all.
    """
    with TraceStream(path) as stream:
        known = _recognised(stream) if trace_format == "auto" else FORMATS[trace_format]
        return known.read(stream, skip_bad_lines)


def sniff_format(path: str | Path) -> str:
    """The format of a file, from its first bytes. Raises KvbenchError where it is none of the table."""
    with TraceStream(path) as stream:
        return _recognised(stream).name


def _recognised(stream: TraceStream) -> TraceFormat:
    start = stream.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise KvbenchError(f"trace {stream.path} is empty")
    for trace_format in FORMATS.values():
        if trace_format.recognises(start):
            return trace_format
    shapes = ", ".join(known.shape for known in FORMATS.values() if known.shape)
    headers = " or ".join(known.header for known in FORMATS.values() if known.header)
    raise KvbenchError(
        f"{stream.path}, line 1: no known trace format: expected {shapes}, or a CSV header {headers}; "
        f"found {start.splitlines()[0][:40]!r}"
    )
