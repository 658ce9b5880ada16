"""From a trace file, or several, to a `Trace`: which format it is, and the reader of that format."""

from dataclasses import replace
from pathlib import Path

from kvbench.config.run_config import TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.traces import parquet
from kvbench.workload.traces.fields import first_objects
from kvbench.workload.traces.files import trace_files
from kvbench.workload.traces.format import TraceFormat
from kvbench.workload.traces.id_store import NONE, IdStore
from kvbench.workload.traces.merge import merged, repeated
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import Trace

_BOM = b"\xef\xbb\xbf"


def _formats() -> dict[str, TraceFormat]:
    """The table of formats, by name. Only the rank that reads a trace loads their readers."""
    from kvbench.workload.traces.formats import FORMATS  # noqa: PLC0415 - see above

    return FORMATS


def load_trace(workload: TraceWorkload) -> Trace:
    """The trace that a configuration asks for, cut to its first `max_requests`. Raises KvbenchError.

    The reference's requests know nothing of what answers say: for them the trace has, and its digest is of, contexts
    alone.
    """
    trace = read_trace(workload.path, workload.format, skip_bad_lines=workload.skip_bad_lines)
    if workload.serving == "reference":
        trace = trace.without_answers()
    if workload.max_requests is not None:
        trace = trace.head(workload.max_requests)
    return trace if workload.replay_cycles == 1 else repeated(trace, workload.replay_cycles)


def read_trace(path: str | Path, trace_format: str = "auto", *, skip_bad_lines: bool = False) -> Trace:
    """All requests of the file, of the files of a folder, or of those that a pattern matches, in order of time;
    `trace_format` is a name in the table of formats, or `auto`.

    Raises KvbenchError naming file, line and what was wrong, where a file cannot be read, is of no known format or
    another than the first, has a malformed line (unless `skip_bad_lines`: then they are counted in the trace) or no
    request at all.
    """
    return read_files(trace_files(path), str(path), trace_format, skip_bad_lines=skip_bad_lines)


def read_files(files: list[Path], source: str, trace_format: str = "auto", *, skip_bad_lines: bool = False) -> Trace:
    """The trace of these `files`, which `source` stands for. Raises KvbenchError, as `read_trace`."""
    parts: list[Trace] = []
    ids = IdStore(source)
    for index, file in enumerate(files):
        with TraceStream(file, index) as stream:
            known = recognised(stream) if trace_format == "auto" else _formats()[trace_format]
            if parts and known.name != parts[0].format:
                raise KvbenchError(
                    f"{file} is of the {known.name} format, but {files[0]} beside it of {parts[0].format}: one trace "
                    "is of one format (take it away, or give a pattern that leaves it out)"
                )
            part = known.read(stream, skip_bad_lines)
        if len(files) > 1:
            # Each file's own ids are let go as the next is read.
            ids.extend(part.hash_ids)
            part = replace(part, hash_ids=NONE)
        parts.append(part)
    return merged(parts, source, ids.finish())


def sniff_format(path: str | Path) -> str:
    """The format of a file, or of the first of several, from its beginning. Raises KvbenchError where it is none of the
    table."""
    with TraceStream(trace_files(path)[0]) as stream:
        return recognised(stream).name


def recognised(stream: TraceStream) -> TraceFormat:
    """The format of a file: told by the fields of the first object of JSON that has those of any format, by the columns
    of a Parquet file, or by its first line. Raises KvbenchError where it is none of the table."""
    start = stream.head.removeprefix(_BOM).lstrip()
    if not start:
        raise KvbenchError(f"trace {stream.path} is empty")
    if start.startswith(parquet.START):
        return _by_columns(stream)
    formats = _formats()
    for fields in first_objects(start):
        for trace_format in formats.values():
            if trace_format.fits is not None and trace_format.fits(fields):
                return trace_format
    for trace_format in formats.values():
        if trace_format.recognises(start):
            return trace_format
    shapes = ", ".join(known.shape for known in formats.values() if known.shape)
    headers = " or ".join(known.header for known in formats.values() if known.header)
    raise KvbenchError(
        f"{stream.path}, line 1: no known trace format: expected {shapes}, or a CSV header {headers}; "
        f"found {start.splitlines()[0][:40]!r}"
    )


def _by_columns(stream: TraceStream) -> TraceFormat:
    there, formats = set(parquet.parquet_file(stream).schema_arrow.names), _formats()
    for trace_format in formats.values():
        if trace_format.columns and trace_format.columns <= there:
            return trace_format
    needed = " or ".join(
        f"{', '.join(sorted(known.columns))} ({known.name})" for known in formats.values() if known.columns
    )
    raise KvbenchError(
        f"{stream.path}: no known trace format: a Parquet file needs the columns {needed}, and has "
        f"{', '.join(sorted(there))}"
    )
