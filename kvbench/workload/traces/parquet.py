"""Parquet files: kvbench's own format of traces, and what reads and writes Parquet at all, where pyarrow is installed.

A file of kvbench's own holds a whole trace, whatever format it came from: docs/workloads.md has its columns.
"""

import importlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.format import TraceFormat, by_fields_only
from kvbench.workload.traces.id_store import IdStore, within
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.times import LONGEST_S
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

START: Final = b"PAR1"
NAME: Final = "kvbench"
_VERSION: Final = 1
_GROUP_IDS: Final = 1 << 21
"""About so many ids, and requests, are written as one group of rows."""
_BATCH_IDS: Final = 1 << 18
"""About so many are read at a time."""
_READ_BYTES: Final = 1 << 20
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
        raise KvbenchError(f"{what} needs pyarrow, which is not installed: pip install 'kvbench[export]'") from error


def parquet_file(stream: TraceStream) -> Any:
    """The pyarrow.parquet.ParquetFile that the content of a file is. Raises KvbenchError."""
    arrow = pyarrow(f"{stream.path} is a Parquet file: reading it")
    try:
        file = stream.seekable()
        file.seek(0)
        return arrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BYTES)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise damaged(stream.path, error) from error


def parquet_batches(stream: TraceStream, columns: list[str], rows: int) -> Iterator[Any]:
    """The `columns` of a file as pyarrow.RecordBatches of at most so many `rows`, in order. Raises KvbenchError where
    they are not there or damaged."""
    file = parquet_file(stream)
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise KvbenchError(
            f"{stream.path}: no column {', '.join(missing)} (it has {', '.join(file.schema_arrow.names)})"
        )
    arrow = pyarrow(f"reading {stream.path}")
    try:
        yield from file.iter_batches(batch_size=rows, columns=columns)
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
    return b"".join(encoded(trace))


def encoded(trace: Trace) -> Iterator[bytes]:
    """The same in pieces, one for each some millions of ids. Raises KvbenchError without pyarrow."""
    arrow = pyarrow("writing a trace")
    rest = {
        "version": _VERSION,
        "block_tokens": trace.hash_block_tokens,
        "token_counting": trace.token_counting,
        "source_format": trace.format,
    }
    schema = arrow.schema(
        [
            ("arrival_ns", arrow.int64()),
            ("context_tokens", arrow.int32()),
            ("output_tokens", arrow.int32()),
            ("session", arrow.int64()),
            ("gap_ns", arrow.int64()),
            ("hash_ids", arrow.large_list(arrow.uint64())),
            (_ANSWERS, arrow.int64()),
        ],
        metadata={_KEY: json.dumps(rest).encode()},
    )
    sink = _Sink()
    begin_ns = trace.arrival_ns[0] if len(trace) else 0
    with arrow.parquet.ParquetWriter(arrow.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        # A request counts for itself too: of traces without ids a group has not all.
        for first, end in within(trace.id_counts + 1, _GROUP_IDS):
            offsets = trace.hash_offsets[first : end + 1]
            ids = trace.hash_ids[int(offsets[0]) : int(offsets[-1])]
            columns = [
                arrow.array(trace.arrival_ns[first:end] - begin_ns),
                arrow.array(trace.context_tokens[first:end]),
                arrow.array(trace.output_tokens[first:end]),
                arrow.array(trace.session[first:end]),
                arrow.array(trace.gap_ns[first:end]),
                arrow.LargeListArray.from_arrays(arrow.array(offsets - offsets[0]), arrow.array(ids)),
                arrow.array(trace.answer_counts[first:end]),
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A file whose bytes are taken away as it is written."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._written += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        """What was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    """kvbench made the file: what is wrong in it is not skipped. Raises KvbenchError."""
    path = stream.path
    if not stream.head:
        raise KvbenchError(f"trace {path} is empty")
    if not stream.head.startswith(START):
        raise KvbenchError(f"{path} is no Parquet file, which a trace of the {NAME} format is")
    file = parquet_file(stream)
    schema = file.schema_arrow
    rest = _rest(path, (schema.metadata or {}).get(_KEY))
    answers = [_ANSWERS] if _ANSWERS in schema.names else []
    columns = [*_COLUMNS[:-1], *answers]
    pieces: dict[str, list[NDArray[np.int64]]] = {name: [] for name in (*columns, "hash_ids")}
    ids = IdStore(str(path))
    for batch in parquet_batches(stream, [*_COLUMNS, *answers], _batch_rows(file.metadata)):
        for name in columns:
            pieces[name].append(_column(path, batch, name))
        counts, of_batch = _lists(path, batch.column("hash_ids"))
        pieces["hash_ids"].append(counts)
        ids.extend(of_batch)
    none = [np.empty(0, np.int64)]
    arrays = {name: np.concatenate(found or none) for name, found in pieces.items()}
    requests = len(arrays["arrival_ns"])
    trace = Trace(
        number=np.arange(requests),
        arrival_ns=arrays["arrival_ns"],
        context_tokens=arrays["context_tokens"].astype(np.int32),
        output_tokens=arrays["output_tokens"].astype(np.int32),
        hash_ids=ids.finish(),
        hash_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(arrays["hash_ids"], dtype=np.int64)]),
        session=arrays["session"],
        gap_ns=arrays["gap_ns"],
        answer_counts=arrays.get(_ANSWERS, np.zeros(requests, np.int64)),
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


def _batch_rows(metadata: Any) -> int:
    """How many rows have about _BATCH_IDS numbers in all columns."""
    values = sum(
        metadata.row_group(group).column(column).num_values
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    return max(1, _BATCH_IDS * int(metadata.num_rows) // max(1, int(values)))


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


def _column(path: Path, batch: Any, name: str) -> NDArray[np.int64]:
    column = batch.column(name)
    if column.null_count or not str(column.type).startswith("int"):
        raise KvbenchError(f"{path}: {name} must be whole numbers, all there, and is {column.type}")
    values: NDArray[np.int64] = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def _lists(path: Path, column: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """How many ids each row has, and the ids of all of them."""
    try:
        offsets = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        ids = column.values
    except AttributeError as error:
        raise KvbenchError(f"{path}: hash_ids is no column of lists") from error
    if column.null_count or ids.null_count or str(ids.type) != "uint64":
        raise KvbenchError(f"{path}: hash_ids must be lists of uint64, all there")
    return np.diff(offsets), ids.to_numpy(zero_copy_only=False)[int(offsets[0]) : int(offsets[-1])]


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
