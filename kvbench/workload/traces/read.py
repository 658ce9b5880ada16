"""From a trace file to a `Trace`: which format it is, and the reader of that format."""

from pathlib import Path
from typing import Final, Literal

from kvbench.config.run_config import TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.traces import mooncake
from kvbench.workload.traces.collect import BadRowError, TraceCollector, collect_lines
from kvbench.workload.traces.sharegpt import read_sharegpt
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.tables import AZURE, BURSTGPT, Table
from kvbench.workload.traces.trace import Trace

Format = Literal["mooncake", "azure", "burstgpt", "sharegpt"]

_TABLES: Final[dict[Format, Table]] = {"azure": AZURE, "burstgpt": BURSTGPT}
_COUNTED: Final = "as recorded in the trace"


def load_trace(workload: TraceWorkload) -> Trace:
    """The trace that a configuration asks for, cut to its first `max_requests`. Raises KvbenchError."""
    trace = read_trace(workload.path, workload.format, skip_bad_lines=workload.skip_bad_lines)
    return trace if workload.max_requests is None else trace.head(workload.max_requests)


def read_trace(
    path: str | Path, trace_format: Format | Literal["auto"] = "auto", *, skip_bad_lines: bool = False
) -> Trace:
    """All requests of the file.

    Raises KvbenchError naming file, line and what was wrong, where the file cannot be read, is of no known format, has
    a malformed line (unless `skip_bad_lines`: then they are counted in the trace) or no request at all.
    """
    with TraceStream(path) as stream:
        known = _sniffed(stream) if trace_format == "auto" else trace_format
        if known == "sharegpt":
            return read_sharegpt(stream, skip_bad_lines=skip_bad_lines)
        if known == "mooncake":
            return _read_mooncake(stream, skip_bad_lines)
        return _read_table(stream, known, skip_bad_lines)


def sniff_format(path: str | Path) -> Format:
    """The format of a file, from its first bytes. Raises KvbenchError where it is none of the four."""
    with TraceStream(path) as stream:
        return _sniffed(stream)


def _sniffed(stream: TraceStream) -> Format:
    start = stream.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise KvbenchError(f"trace {stream.path} is empty")
    if start.startswith(b"{"):
        return "mooncake"
    if start.startswith(b"["):
        return "sharegpt"
    first_line = start.splitlines()[0]
    for name, table in _TABLES.items():
        if table.has_header(first_line):
            return name
    headers = " or ".join(table.header for table in _TABLES.values())
    raise KvbenchError(
        f"{stream.path}, line 1: no known trace format: expected Mooncake JSONL, a ShareGPT JSON list, or a CSV header "
        f"{headers}; found {first_line[:40]!r}"
    )


def _read_mooncake(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    collector = TraceCollector(
        stream.path,
        "mooncake",
        hash_block_tokens=mooncake.BLOCK_TOKENS,
        token_counting=_COUNTED,
        skip_bad_lines=skip_bad_lines,
    )
    return collect_lines(collector, stream.lines(), mooncake.parse_line)


def _read_table(stream: TraceStream, name: Format, skip_bad_lines: bool) -> Trace:
    path = stream.path
    collector = TraceCollector(path, name, hash_block_tokens=0, token_counting=_COUNTED, skip_bad_lines=skip_bad_lines)
    lines = stream.lines()
    number, header = next(lines, (1, b""))
    if not header:
        raise KvbenchError(f"trace {path} is empty")
    try:
        parse = _TABLES[name].parser(header)
    except BadRowError as error:
        # Without a header no line below it can be understood, so this is never only counted.
        raise KvbenchError(f"{path}, line {number}: {error}") from error
    return collect_lines(collector, lines, parse)
