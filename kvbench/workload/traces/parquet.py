"""Parquet files: kvbench's own format of traces, and what reads and writes Parquet at all, where pyarrow is installed.

A file of kvbench's own holds a whole trace, whatever format it came from: docs/workloads.md has its columns.
"""

import importlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.format import TraceFormat, by_fields_only
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.times import LONGEST_S
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

START: Final = b"PAR1"
NAME: Final = "kvbench"
_VERSION: Final = 1
_KEY: Final = b"kvbench-trace"
_COLUMNS: Final = ("arrival_ns", "context_tokens", "output_tokens", "session", "gap_ns", "hash_ids")
_ANSWERS: Final = "answer_counts"
"""A column that older files have not."""


def pyarrow(what: str) -> Any:
    """pyarrow with its module for Parquet. Raises KvbenchError, which says that `what` needs it and how to get it."""
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise KvbenchError(f"{what} needs pyarrow, which is not installed: pip install 'kvbench[parquet]'") from error


def parquet_file(stream: TraceStream) -> Any:
    """The pyarrow.parquet.ParquetFile that the content of a file is. Raises KvbenchError."""
    arrow = pyarrow(f"{stream.path} is a Parquet file: reading it")
    try:
        return arrow.parquet.ParquetFile(io.BytesIO(stream.whole()))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise damaged(stream.path, error) from error


def parquet_table(stream: TraceStream, columns: list[str]) -> Any:
    """The `columns` of a file as a pyarrow.Table. Raises KvbenchError where they are not there or damaged."""
    file = parquet_file(stream)
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise KvbenchError(
            f"{stream.path}: no column {', '.join(missing)} (it has {', '.join(file.schema_arrow.names)})"
        )
    arrow = pyarrow(f"reading {stream.path}")
    try:
        return file.read(columns=columns)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise damaged(stream.path, error) from error


def damaged(path: Path, error: Exception) -> KvbenchError:
    """What to raise where pyarrow found `error` in a file."""
    return KvbenchError(f"cannot read trace {path}: damaged, or not whole, as Parquet ({error})")


def table_bytes(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Any table as the bytes of a Parquet file. Raises KvbenchError without pyarrow."""
    arrow = pyarrow("writing a Parquet file")
    buffer = io.BytesIO()
    arrow.parquet.write_table(arrow.table(dict(columns)), buffer, compression="zstd")
    return buffer.getvalue()


def encode(trace: Trace) -> bytes:
    """A trace as the bytes of a Parquet file of kvbench's own format. Raises KvbenchError without pyarrow."""
    arrow = pyarrow("writing a trace")
    counts = np.concatenate([np.zeros(1, np.int64), np.cumsum(trace.id_counts, dtype=np.int64)])
    ids = arrow.LargeListArray.from_arrays(arrow.array(counts), arrow.array(trace.hash_ids))
    columns = {
        "arrival_ns": trace.arrival_ns - (trace.arrival_ns[0] if len(trace) else 0),
        "context_tokens": trace.context_tokens,
        "output_tokens": trace.output_tokens,
        "session": trace.session,
        "gap_ns": trace.gap_ns,
        "hash_ids": ids,
        _ANSWERS: trace.answer_counts,
    }
    rest = {
        "version": _VERSION,
        "block_tokens": trace.hash_block_tokens,
        "token_counting": trace.token_counting,
        "source_format": trace.format,
    }
    table = arrow.table(columns).replace_schema_metadata({_KEY: json.dumps(rest).encode()})
    buffer = io.BytesIO()
    arrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    """kvbench made the file: what is wrong in it is not skipped. Raises KvbenchError."""
    path = stream.path
    if not stream.head:
        raise KvbenchError(f"trace {path} is empty")
    if not stream.head.startswith(START):
        raise KvbenchError(f"{path} is no Parquet file, which a trace of the {NAME} format is")
    schema = parquet_file(stream).schema_arrow
    rest = _rest(path, (schema.metadata or {}).get(_KEY))
    answers = [_ANSWERS] if _ANSWERS in schema.names else []
    table = parquet_table(stream, [*_COLUMNS, *answers])
    arrays = {name: _column(path, table, name) for name in (*_COLUMNS[:-1], *answers)}
    lists = table.column("hash_ids").combine_chunks()
    try:
        offsets = lists.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        hash_ids = lists.values.to_numpy(zero_copy_only=False)
    except AttributeError as error:
        raise KvbenchError(f"{path}: hash_ids is no column of lists") from error
    if lists.null_count or hash_ids.dtype != np.uint64:
        raise KvbenchError(f"{path}: hash_ids must be lists of uint64, all there")
    start = int(offsets[0]) if len(offsets) else 0
    answer_counts = arrays.get(_ANSWERS, np.zeros(len(table), np.int64))
    trace = Trace(
        number=np.arange(len(table)),
        arrival_ns=arrays["arrival_ns"],
        context_tokens=arrays["context_tokens"].astype(np.int32),
        output_tokens=arrays["output_tokens"].astype(np.int32),
        hash_ids=hash_ids[start : int(offsets[-1])] if len(offsets) else hash_ids[:0],
        hash_offsets=offsets - start if len(offsets) else np.zeros(1, np.int64),
        session=arrays["session"],
        gap_ns=arrays["gap_ns"],
        answer_counts=answer_counts,
        hash_block_tokens=rest[0],
        source=str(path),
        format=NAME,
        digest="",
        token_counting=rest[1],
        bad_lines=0,
        first_bad_line="",
    )
    _check(path, trace)
    return trace


def _rest(path: Path, written: bytes | None) -> tuple[int, str]:
    """Block size and counting of tokens, from the metadata of the file."""
    try:
        rest = json.loads(written or b"")
        version, block_tokens, counting = rest["version"], rest["block_tokens"], rest["token_counting"]
    except (ValueError, KeyError, TypeError) as error:
        raise KvbenchError(f"{path}: no trace that kvbench wrote: its metadata {_KEY.decode()} is missing") from error
    if version != _VERSION:
        raise KvbenchError(f"{path}: version {version} of the {NAME} format, this kvbench reads {_VERSION}")
    if not (isinstance(block_tokens, int) and 0 <= block_tokens <= MAX_TOKENS and isinstance(counting, str)):
        raise KvbenchError(f"{path}: its metadata {_KEY.decode()} cannot be true")
    return block_tokens, counting


def _column(path: Path, table: Any, name: str) -> NDArray[np.int64]:
    column = table.column(name)
    if column.null_count or not str(column.type).startswith("int"):
        raise KvbenchError(f"{path}: {name} must be whole numbers, all there, and is {column.type}")
    values: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return values


def _check(path: Path, trace: Trace) -> None:
    """Raises KvbenchError where a row cannot be true."""
    if not len(trace):
        raise KvbenchError(f"{path} has no request of the {NAME} format: it is empty")
    tokens, unit = trace.context_tokens.astype(np.int64), max(1, trace.hash_block_tokens)
    fewest, most = tokens // unit, -(-tokens // unit)
    counts, answers = trace.hash_counts, trace.answer_counts
    fits = (counts == fewest) | (counts == most)
    most_answers = np.where(fits & (trace.output_tokens > 0), -(-(tokens + trace.output_tokens) // unit) - fewest, 0)
    wrong = {
        "arrival_ns falls": np.diff(trace.arrival_ns, prepend=0) < 0,
        "arrival_ns is of another century": trace.arrival_ns > LONGEST_S * 10**9,
        "context_tokens": (trace.context_tokens < 1) | (trace.context_tokens > MAX_TOKENS),
        "output_tokens": (trace.output_tokens < 0) | (trace.output_tokens > MAX_TOKENS),
        "session": trace.session < -1,
        "gap_ns": (trace.gap_ns < -1) | (trace.gap_ns > LONGEST_S * 10**9),
        "answer_counts that do not fit output_tokens": (answers < 0)
        | (answers > (most_answers if trace.hash_block_tokens else 0)),
        "hash_ids that do not fit context_tokens": (counts != 0) & ~fits if trace.hash_block_tokens else counts != 0,
    }
    for what, rows in wrong.items():
        if rows.any():
            raise KvbenchError(f"{path}, row {int(rows.argmax()) + 1}: {what} (the file was changed: convert it again)")


KVBENCH: Final = TraceFormat(
    NAME,
    by_fields_only,
    _read,
    shape="a Parquet file that kvbench or Baseten wrote",
    columns=frozenset(_COLUMNS),
)
