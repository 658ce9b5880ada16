"""Collecting the requests of a trace file one by one: the checks that every format shares, and what a bad line does.

Knows no format: the readers parse lines and hand over `Row`s.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.times import LONGEST_S, LONGEST_YEARS, in_order, plausible
from kvbench.workload.traces.trace import MAX_TOKENS, Trace, columns_digest

_ID_MASK: Final = (1 << 64) - 1
_NS: Final = 10**9


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
    """Takes rows in the order of the file and makes them a Trace.

    What is wrong with one line alone is told at once. Of times that contradict each other the later one ends the
    reading, unless bad lines are left out: then it is decided at the end, with all of them known, which are wrong.
    """

    def __init__(
        self, source: Path, trace_format: str, *, hash_block_tokens: int, token_counting: str, skip_bad_lines: bool
    ) -> None:
        self._source = source
        self._format = trace_format
        self._hash_block_tokens = hash_block_tokens
        self._token_counting = token_counting
        self._skip_bad_lines = skip_bad_lines
        # Nanoseconds from an unknown moment on may need more than 64 bits.
        self._seconds = array("q")
        self._nanoseconds = array("i")
        self._lines = array("q")
        self._context_tokens = array("i")
        self._output_tokens = array("i")
        self._hash_ids = array("Q")
        self._hash_offsets = array("q", [0])
        self._first_ns: int | None = None
        self._last_ns = 0
        self._bad_lines = 0
        self._first_bad: tuple[int, str] | None = None

    def add(self, row: Row, line: int) -> None:
        """Append one request, which stands on `line`. Raises BadRowError and appends nothing where the row cannot be
        true."""
        if row.context_tokens == 0:
            raise BadRowError("a request without context tokens (one that failed?) has no KV cache")
        for name, tokens in (("context", row.context_tokens), ("output", row.output_tokens)):
            if not 0 <= tokens <= MAX_TOKENS:
                raise BadRowError(f"{tokens:.6g} {name} tokens: must be a number up to {MAX_TOKENS}")
        if self._skip_bad_lines:
            self._lines.append(line)
        else:
            self._check_time(row.timestamp_ns)
        seconds, nanoseconds = divmod(row.timestamp_ns, _NS)
        self._seconds.append(seconds)
        self._nanoseconds.append(nanoseconds)
        self._context_tokens.append(row.context_tokens)
        self._output_tokens.append(row.output_tokens)
        self._hash_ids.extend(hash_id & _ID_MASK for hash_id in row.hash_ids)
        self._hash_offsets.append(len(self._hash_ids))

    def _check_time(self, timestamp_ns: int) -> None:
        """Raises BadRowError where the time contradicts those before it."""
        if self._first_ns is None:
            self._first_ns = self._last_ns = timestamp_ns
        if timestamp_ns < self._last_ns:
            raise BadRowError(_going_back(self._last_ns - timestamp_ns))
        if timestamp_ns - self._first_ns > LONGEST_S * _NS:
            raise BadRowError(f"the timestamp is more than {LONGEST_YEARS} years after the first")
        self._last_ns = timestamp_ns

    def bad(self, line: int, reason: str, place: str = "") -> None:
        """A line that is no request (`place`: the words for where, if not the line alone): raises KvbenchError, or is
        counted if such are skipped."""
        message = f"{self._source}, {place or f'line {line}'}: {reason}"
        if not self._skip_bad_lines:
            raise KvbenchError(f"{message} (correct it, or have such lines left out and counted with skip_bad_lines)")
        self._bad_lines += 1
        if self._first_bad is None or line < self._first_bad[0]:
            self._first_bad = line, message

    def finish(self) -> Trace:
        """The trace. Raises KvbenchError if it has no request."""
        if not self._seconds:
            seen = f"{self._bad_lines} bad lines, the first: {self._first_bad[1]}" if self._first_bad else "it is empty"
            raise KvbenchError(f"{self._source} has no request of the {self._format} format: {seen}")
        positions, arrival_ns = self._kept()
        trace = Trace(
            np.arange(len(self._seconds)),
            arrival_ns,
            np.array(self._context_tokens, np.int32),
            np.array(self._output_tokens, np.int32),
            np.array(self._hash_ids, np.uint64),
            np.array(self._hash_offsets, np.int64),
            hash_block_tokens=self._hash_block_tokens,
            source=str(self._source),
            format=self._format,
            digest="",
            token_counting=self._token_counting,
            bad_lines=self._bad_lines,
            first_bad_line=self._first_bad[1] if self._first_bad else "",
        )
        if len(positions) < len(trace):
            trace = replace(trace.take(positions), number=np.arange(len(positions)))
        columns = (trace.arrival_ns, trace.context_tokens, trace.output_tokens, trace.hash_ids, trace.hash_offsets)
        return replace(trace, digest=columns_digest(columns, self._hash_block_tokens))

    def _kept(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the requests whose times can be true, and (n,) the time of every request since the first of
        these; the others are counted as bad."""
        seconds, nanoseconds = np.array(self._seconds, np.int64), np.array(self._nanoseconds, np.int64)
        near = np.flatnonzero(plausible(seconds))
        since_s = seconds - seconds[near[0]]
        times_ns = np.where(np.abs(since_s) <= 2 * LONGEST_S, since_s, 0) * _NS + nanoseconds
        kept = near[in_order(times_ns[near])]
        bad = np.setdiff1d(np.arange(len(seconds)), kept)
        for position in bad[:1].tolist():
            self.bad(self._lines[position], _what_is_wrong(position, times_ns, near, kept))
        self._bad_lines += max(0, len(bad) - 1)
        return kept, times_ns - times_ns[kept[0]]


def _what_is_wrong(position: int, times_ns: NDArray[np.int64], near: NDArray[np.int64], kept: NDArray[np.int64]) -> str:
    """Why the request at `position` is not among the `kept`."""
    if position not in near:
        return f"the timestamp is more than {LONGEST_YEARS} years from those of most requests"
    before = kept[kept < position]
    if len(before) and times_ns[position] < times_ns[before[-1]]:
        return _going_back(int(times_ns[before[-1]] - times_ns[position]))
    ahead_s = int(times_ns[position] - times_ns[kept[kept > position][0]]) / _NS
    return f"the timestamp is {ahead_s:.6g} s ahead of the request behind it"


def _going_back(back_ns: int) -> str:
    return f"the timestamp goes back by {back_ns / _NS:.6g} s against the request before"


def collect_lines(collector: TraceCollector, lines: Iterator[tuple[int, bytes]], parse: LineParser) -> Trace:
    """The trace of a format that has one request per line. Raises KvbenchError."""
    for number, line in lines:
        try:
            collector.add(parse(line), number)
        except BadRowError as error:
            collector.bad(number, str(error))
    return collector.finish()
