"""Collecting the requests of a trace file one by one: the checks that every format shares, and what a bad line does.

Knows no format: the readers parse lines and hand over `Row`s.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from kvbench.errors import KvbenchError
from kvbench.workload.traces.trace import MAX_TOKENS, Trace, columns_digest

_LONGEST_NS: Final = 100 * 366 * 86_400 * 10**9
_ID_MASK: Final = (1 << 64) - 1


class Row(NamedTuple):
    """One request as it stands in the file."""

    timestamp_ns: int
    """From whatever moment the format counts."""
    context_tokens: int
    output_tokens: int
    hash_ids: Sequence[int] = ()
    """-2^63 to 2^64 - 1; kept modulo 2^64."""


LineParser = Callable[[bytes], Row]


class BadRowError(ValueError):
    """What is wrong with one line; a reader of lines turns it into a message or a count."""


class TraceCollector:
    """Takes rows in the order of the file and makes them a Trace."""

    def __init__(
        self, source: Path, trace_format: str, *, hash_block_tokens: int, token_counting: str, skip_bad_lines: bool
    ) -> None:
        self._source = source
        self._format = trace_format
        self._hash_block_tokens = hash_block_tokens
        self._token_counting = token_counting
        self._skip_bad_lines = skip_bad_lines
        self._arrival_ns = array("q")
        self._context_tokens = array("i")
        self._output_tokens = array("i")
        self._hash_ids = array("Q")
        self._hash_offsets = array("q", [0])
        self._first_ns: int | None = None
        self._bad_lines = 0
        self._first_bad_line = ""

    def add(self, row: Row) -> None:
        """Append one request. Raises BadRowError and appends nothing where the row cannot be true."""
        if row.context_tokens == 0:
            raise BadRowError("a request without context tokens (one that failed?) has no KV cache")
        for name, tokens in (("context", row.context_tokens), ("output", row.output_tokens)):
            if not 0 <= tokens <= MAX_TOKENS:
                raise BadRowError(f"{tokens:.6g} {name} tokens: must be a number up to {MAX_TOKENS}")
        first_ns = row.timestamp_ns if self._first_ns is None else self._first_ns
        arrival_ns = row.timestamp_ns - first_ns
        if self._arrival_ns and arrival_ns < self._arrival_ns[-1]:
            back_s = (self._arrival_ns[-1] - arrival_ns) / 1e9
            raise BadRowError(f"the timestamp goes back by {back_s:.6g} s against the request before")
        if arrival_ns > _LONGEST_NS:
            raise BadRowError("the timestamp is more than 100 years after the first")
        self._first_ns = first_ns
        self._arrival_ns.append(arrival_ns)
        self._context_tokens.append(row.context_tokens)
        self._output_tokens.append(row.output_tokens)
        self._hash_ids.extend(hash_id & _ID_MASK for hash_id in row.hash_ids)
        self._hash_offsets.append(len(self._hash_ids))

    def bad(self, place: str, reason: str) -> None:
        """A line (`place` says which) that is no request: raises KvbenchError, or is counted if such are skipped."""
        message = f"{self._source}, {place}: {reason}"
        if not self._skip_bad_lines:
            raise KvbenchError(f"{message} (correct it, or have such lines left out and counted with skip_bad_lines)")
        self._bad_lines += 1
        self._first_bad_line = self._first_bad_line or message

    def finish(self) -> Trace:
        """The trace. Raises KvbenchError if it has no request."""
        if not self._arrival_ns:
            seen = (
                f"{self._bad_lines} bad lines, the first: {self._first_bad_line}" if self._bad_lines else "it is empty"
            )
            raise KvbenchError(f"{self._source} has no request of the {self._format} format: {seen}")
        columns = (
            np.array(self._arrival_ns, np.int64),
            np.array(self._context_tokens, np.int32),
            np.array(self._output_tokens, np.int32),
            np.array(self._hash_ids, np.uint64),
            np.array(self._hash_offsets, np.int64),
        )
        return Trace(
            np.arange(len(self._arrival_ns)),
            *columns,
            hash_block_tokens=self._hash_block_tokens,
            source=str(self._source),
            format=self._format,
            digest=columns_digest(columns, self._hash_block_tokens),
            token_counting=self._token_counting,
            bad_lines=self._bad_lines,
            first_bad_line=self._first_bad_line,
        )


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, without line ends and byte-order mark, with their numbers from 1. Raises OSError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            content = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if content:
                yield number, content


def collect_lines(collector: TraceCollector, lines: Iterator[tuple[int, bytes]], parse: LineParser) -> Trace:
    """The trace of a format that has one request per line. Raises KvbenchError, OSError."""
    for number, line in lines:
        try:
            collector.add(parse(line))
        except BadRowError as error:
            collector.bad(f"line {number}", str(error))
    return collector.finish()
