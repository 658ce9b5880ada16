"""Collecting the requests of a trace file one by one: the checks that every format shares, and what a bad line does.

Knows no format: the readers parse lines and hand over `Row`s.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.id_store import IdStore
from kvbench.workload.traces.times import LONGEST_S, LONGEST_YEARS, in_order, plausible
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

_NS: Final = 10**9


class Row(NamedTuple):
    """One request as it stands in the file."""

    timestamp_ns: int
    """From whatever moment the format counts."""
    context_tokens: int
    output_tokens: int
    hash_ids: Sequence[int] | NDArray[np.uint64] = ()
    """Of the context. -2^63 to 2^64 - 1; kept modulo 2^64."""
    session: int = -1
    """Of `ids.session_of`; -1: of none."""
    gap_ns: int = -1
    """From the end of the session's answer before; -1: unknown, or the session's first request."""
    answer_ids: Sequence[int] = ()
    """Of the answer (`Trace.answer_counts`), as `hash_ids`."""


LineParser = Callable[[bytes], Row]


class BadRowError(ValueError):
    """What is wrong with one line; a reader of lines turns it into a message or a count."""


class TraceCollector:
    """Takes rows in the order of the file and makes them a Trace.

    What is wrong with one line alone is told at once. Of times that contradict each other the later one ends the
    reading, unless bad lines are left out: then it is decided at the end, with all of them known, which are wrong.
    `sorts`: lines may stand in any order, and are sorted by time; those of the same time stay as they stood.
    """

    def __init__(
        self,
        source: Path,
        trace_format: str,
        *,
        hash_block_tokens: int,
        token_counting: str,
        skip_bad_lines: bool,
        sorts: bool = False,
    ) -> None:
        self._source = source
        self._format = trace_format
        self._hash_block_tokens = hash_block_tokens
        self._token_counting = token_counting
        self._skip_bad_lines = skip_bad_lines
        self._sorts = sorts
        # Nanoseconds from an unknown moment on may need more than 64 bits.
        self._seconds = array("q")
        self._nanoseconds = array("i")
        self._lines = array("q")
        self._context_tokens = array("i")
        self._output_tokens = array("i")
        self._hash_ids = IdStore(str(source))
        self._hash_offsets = array("q", [0])
        self._sessions = array("q")
        self._gaps_ns = array("q")
        self._answer_counts = array("q")
        self._earliest_ns: int | None = None
        self._latest_ns = 0
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
        if not -1 <= row.gap_ns <= LONGEST_S * _NS:
            raise BadRowError(f"a gap of {row.gap_ns / _NS:.6g} s: must be 0 to {LONGEST_YEARS} years")
        if self._skip_bad_lines:
            self._lines.append(line)
        else:
            self._check_time(row.timestamp_ns)
        seconds, nanoseconds = divmod(row.timestamp_ns, _NS)
        self._seconds.append(seconds)
        self._nanoseconds.append(nanoseconds)
        self._context_tokens.append(row.context_tokens)
        self._output_tokens.append(row.output_tokens)
        if len(row.hash_ids):
            self._hash_ids.extend(row.hash_ids)
        if row.answer_ids:
            self._hash_ids.extend(row.answer_ids)
        self._hash_offsets.append(len(self._hash_ids))
        self._sessions.append(row.session)
        self._gaps_ns.append(row.gap_ns)
        self._answer_counts.append(len(row.answer_ids))

    def add_many(
        self,
        seconds: NDArray[np.int64],
        nanoseconds: NDArray[np.int64],
        context_tokens: NDArray[np.int64],
        output_tokens: NDArray[np.int64],
        lines: NDArray[np.int64],
    ) -> bool:
        """Append requests that have neither ids nor sessions, one for each element of the (m,) arrays: times are
        `seconds` and `nanoseconds`. Whether it did: where `add` would have refused any, or might have, none is
        appended."""
        tokens_fit = (context_tokens > 0) & (context_tokens <= MAX_TOKENS) & (output_tokens <= MAX_TOKENS)
        if not tokens_fit.all() or (output_tokens < 0).any() or np.abs(seconds).max() > LONGEST_S:
            return False
        if self._skip_bad_lines:
            self._lines.extend(lines.tolist())
        else:
            times_ns = seconds * _NS + nanoseconds
            first = int(times_ns[0])
            earliest = first if self._earliest_ns is None else self._earliest_ns
            latest = first if self._earliest_ns is None else self._latest_ns
            if self._sorts or first < latest or (np.diff(times_ns) < 0).any():
                return False
            if int(times_ns[-1]) - earliest > LONGEST_S * _NS:
                return False
            self._earliest_ns, self._latest_ns = min(earliest, first), int(times_ns[-1])
        count = len(seconds)
        self._seconds.frombytes(seconds.tobytes())
        self._nanoseconds.frombytes(nanoseconds.astype(np.int32).tobytes())
        self._context_tokens.frombytes(context_tokens.astype(np.int32).tobytes())
        self._output_tokens.frombytes(output_tokens.astype(np.int32).tobytes())
        self._hash_offsets.extend(array("q", [len(self._hash_ids)]) * count)
        self._sessions.extend(array("q", [-1]) * count)
        self._gaps_ns.extend(array("q", [-1]) * count)
        self._answer_counts.extend(array("q", [0]) * count)
        return True

    def _check_time(self, timestamp_ns: int) -> None:
        """Raises BadRowError where the time contradicts those before it."""
        if self._earliest_ns is None:
            self._earliest_ns = self._latest_ns = timestamp_ns
        if timestamp_ns < self._latest_ns and not self._sorts:
            raise BadRowError(_going_back(self._latest_ns - timestamp_ns))
        if timestamp_ns - self._earliest_ns > LONGEST_S * _NS:
            raise BadRowError(f"the timestamp is more than {LONGEST_YEARS} years after the first")
        if self._latest_ns - timestamp_ns > LONGEST_S * _NS:
            raise BadRowError(f"the timestamp is more than {LONGEST_YEARS} years before the last")
        self._earliest_ns = min(self._earliest_ns, timestamp_ns)
        self._latest_ns = max(self._latest_ns, timestamp_ns)

    def set_block_tokens(self, tokens: int) -> None:
        """For a format that says it in the file: tokens of the blocks that hash ids stand for."""
        self._hash_block_tokens = tokens

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
        """The trace, still without a digest; its sessions have the numbers of `ids.session_of`. Raises KvbenchError if
        it has no request, or its ids cannot be kept."""
        if not self._seconds:
            seen = f"{self._bad_lines} bad lines, the first: {self._first_bad[1]}" if self._first_bad else "it is empty"
            raise KvbenchError(f"{self._source} has no request of the {self._format} format: {seen}")
        kept, times_ns, base_ns = self._kept()
        arrival_ns = times_ns - times_ns[kept[0]]
        behind = times_ns[np.sort(kept)]
        trace = Trace(
            np.arange(len(self._seconds)),
            arrival_ns,
            np.array(self._context_tokens, np.int32),
            np.array(self._output_tokens, np.int32),
            self._hash_ids.finish(),
            np.array(self._hash_offsets, np.int64),
            np.array(self._sessions, np.int64),
            np.array(self._gaps_ns, np.int64),
            np.array(self._answer_counts, np.int64),
            hash_block_tokens=self._hash_block_tokens,
            source=str(self._source),
            format=self._format,
            digest="",
            token_counting=self._token_counting,
            bad_lines=self._bad_lines,
            first_bad_line=self._first_bad[1] if self._first_bad else "",
            origin_ns=base_ns + int(times_ns[kept[0]]),
            out_of_order=int((behind < np.maximum.accumulate(behind)).sum()),
        )
        return trace if np.array_equal(kept, trace.number) else trace.take(kept)

    def _kept(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Positions of the requests whose times can be true, in order of time; (n,) the time of every request, and the
        time that these count from. The other requests are counted as bad."""
        seconds, nanoseconds = np.array(self._seconds, np.int64), np.array(self._nanoseconds, np.int64)
        near = np.flatnonzero(plausible(seconds))
        base_s = int(seconds[near[0]])
        since_s = seconds - base_s
        times_ns = np.where(np.abs(since_s) <= 2 * LONGEST_S, since_s, 0) * _NS + nanoseconds
        kept = near[np.argsort(times_ns[near], kind="stable") if self._sorts else in_order(times_ns[near])]
        bad = np.setdiff1d(np.arange(len(seconds)), kept)
        for position in bad[:1].tolist():
            self.bad(self._lines[position], _what_is_wrong(position, times_ns, near, kept))
        self._bad_lines += max(0, len(bad) - 1)
        return kept, times_ns, base_s * _NS


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
