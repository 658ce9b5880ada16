"""Baseten's traces of completions: Parquet, one request a row, with its times in Unix milliseconds.

Of the optional columns are read: the session, `total_hashes` (ids of the blocks, all or the full ones), the
`block_size` of these and `duration_e2e_ms`, by which the time between an answer and the next request of its session is
known. The text of prompts is not looked at.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.workload.traces.collect import BadRowError, Row, TraceCollector
from kvbench.workload.traces.format import AS_RECORDED, TraceFormat, by_fields_only
from kvbench.workload.traces.ids import check_ids, id_of_text, session_of
from kvbench.workload.traces.parquet import START, damaged, parquet_batches, parquet_file
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

_NAME: Final = "baseten"
_NEEDED: Final = ("timestamp_start_unix_ms", "input_tokens", "output_tokens")
_SESSIONS: Final = ("provided_session_id", "poor_man_session_id")
_OPTIONAL: Final = (*_SESSIONS, "total_hashes", "block_size", "duration_e2e_ms")
_BATCH_ROWS: Final = 1000
_MOST_MS: Final = 2**53


def _read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    path = stream.path
    if not stream.head:
        raise KvbenchError(f"trace {path} is empty")
    if not stream.head.startswith(START):
        raise KvbenchError(f"{path} is no Parquet file, which a trace of the {_NAME} format is")
    there = parquet_file(stream).schema_arrow.names
    batches = parquet_batches(stream, [*_NEEDED, *(name for name in _OPTIONAL if name in there)], _BATCH_ROWS)
    session_column = next((name for name in _SESSIONS if name in there), "")
    block_tokens = 0
    collector = TraceCollector(
        path, _NAME, hash_block_tokens=0, token_counting=AS_RECORDED, skip_bad_lines=skip_bad_lines, sorts=True
    )
    ended_ns: dict[int, int] = {}
    for number, row in enumerate(_rows(path, batches), start=1):
        try:
            made, block_tokens = _row(row, session_column, block_tokens, ended_ns)
            collector.set_block_tokens(block_tokens)
            collector.add(made, number)
        except BadRowError as error:
            collector.bad(number, str(error), f"row {number}")
    return collector.finish()


def _rows(path: Path, batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """The rows of pyarrow.RecordBatches. Raises KvbenchError where they have text that is none."""
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except ValueError as error:
            raise damaged(path, error) from error
        yield from rows


def _row(row: dict[str, Any], session_column: str, block_tokens: int, ended_ns: dict[int, int]) -> tuple[Row, int]:
    """One row, and the block size that holds from it on. Raises BadRowError."""
    at_ms, tokens_in, tokens_out = (_whole(name, row[name], _MOST_MS) for name in _NEEDED)
    name = row.get(session_column)
    session = -1 if name is None else session_of(_NAME, name)
    at_ns = at_ms * 1_000_000
    gap_ns = max(0, at_ns - ended_ns[session]) if session in ended_ns else -1
    ids = _ids(row.get("total_hashes"))
    if ids:
        size = _whole("block_size", row.get("block_size"), MAX_TOKENS)
        if size == 0 or block_tokens not in (0, size):
            raise BadRowError(f"block_size {size}, but {block_tokens or 'more than 0'} expected: one trace has one")
        block_tokens = size
        check_ids(len(ids), tokens_in, size, "either", keys=("total_hashes", "input_tokens"))
    duration = row.get("duration_e2e_ms")
    if session >= 0:
        ended_ns.pop(session, None)
        if duration is not None:
            ended_ns[session] = at_ns + _whole("duration_e2e_ms", duration, _MOST_MS) * 1_000_000
    return Row(at_ns, tokens_in, tokens_out, ids, session, gap_ns), block_tokens


def _ids(hashes: Any) -> list[int]:
    if hashes is None:
        return []
    if not isinstance(hashes, list):
        raise BadRowError(f"total_hashes is {hashes!r:.40}, not a list")
    ids = []
    for hash_id in hashes:
        if isinstance(hash_id, str):
            ids.append(id_of_text(hash_id))
        elif isinstance(hash_id, int) and -(2**63) <= hash_id < 2**64:
            ids.append(hash_id)
        else:
            raise BadRowError(f"total_hashes has {hash_id!r:.40}, not a number of 64 bits or text")
    return ids


def _whole(name: str, value: Any, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadRowError(f"{name} is {value!r:.40}, not a whole number of 0 to {most}")
    return value


BASETEN: Final = TraceFormat(_NAME, by_fields_only, _read, columns=frozenset(_NEEDED))
