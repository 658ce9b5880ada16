"""Traces that are CSV tables: Azure's (UTC timestamps) and BurstGPT's (seconds). Neither says what contexts share.

Azure LLM inference traces 2023, 2024 and 2025 (github.com/Azure/AzurePublicDataset); BurstGPT
(github.com/HPMLL/BurstGPT), whose releases differ in further columns: of these, sessions and how long an answer took
are read where they are there.
"""

import csv
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.workload.traces.collect import BadRowError, LineParser, Row, TraceCollector, collect_lines
from kvbench.workload.traces.format import AS_RECORDED, TraceFormat
from kvbench.workload.traces.ids import session_of
from kvbench.workload.traces.many_lines import collect_many
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import Trace

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_MOST_SECONDS: Final = 2**40
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of one format that matter, and how its timestamps are written."""

    timestamp: str
    context: str
    output: str
    header: str
    """The first line of a file of this format, as its source describes it."""
    timestamp_ns: Callable[[str], int]
    session: str = ""
    """Of a column that some files have: which session a request is of, blank for none."""
    elapsed: str = ""
    """The same: seconds from a request to the end of its answer, blank where unknown."""

    def has_header(self, line: bytes) -> bool:
        """Whether `line` names the columns that matter."""
        names = [name.strip() for name in line.decode("utf-8", "replace").split(",")]
        return {self.timestamp, self.context, self.output} <= set(names)

    def is_plain(self, header: bytes) -> bool:
        """Whether lines are a moment in time and two numbers of tokens, and nothing else."""
        return self.timestamp_ns is _utc_ns and header.decode("utf-8", "replace") == self.header

    def parser(self, header: bytes) -> LineParser:
        """A parser of the lines below `header`. Raises BadRowError where that is not this format's header."""
        if not self.has_header(header):
            raise BadRowError(f"expected the header {self.header}, found {header[:_SHOWN]!r}")
        names = [name.strip() for name in _fields(header)]
        timestamp, context, output = (names.index(name) for name in (self.timestamp, self.context, self.output))
        session = names.index(self.session) if self.session in names else -1
        elapsed = names.index(self.elapsed) if self.elapsed in names else -1
        ended_ns: dict[int, int] = {}

        def parse(line: bytes) -> Row:
            fields = _fields(line)
            if len(fields) != len(names):
                raise BadRowError(f"{len(fields)} fields, but the header has {len(names)}")
            at_ns = self.timestamp_ns(fields[timestamp].strip())
            row = Row(
                at_ns,
                _tokens(self.context, fields[context].strip()),
                _tokens(self.output, fields[output].strip()),
            )
            if session < 0 or not fields[session].strip():
                return row
            number = session_of("table", fields[session].strip())
            before_ns = ended_ns.pop(number, None)
            if elapsed >= 0 and fields[elapsed].strip():
                ended_ns[number] = at_ns + _elapsed_ns(self.elapsed, fields[elapsed].strip())
            return row._replace(session=number, gap_ns=-1 if before_ns is None else max(0, at_ns - before_ns))

        return parse


def _fields(line: bytes) -> list[str]:
    try:
        text = line.decode("utf-8")
        # Of tens of millions of lines hardly any has quotes.
        return next(csv.reader([text], strict=True), []) if '"' in text or "\r" in text else text.split(",")
    except UnicodeDecodeError as error:
        raise BadRowError(f"not UTF-8 text: byte 0x{line[error.start]:02x} at column {error.start + 1}") from error
    except csv.Error as error:
        raise BadRowError(f"not a line of CSV: {error}") from error


def _tokens(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRowError(f"{name} is {text[:_SHOWN]!r}, not a whole number of tokens")
    return int(text)


def _utc_ns(text: str) -> int:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise BadRowError(f"timestamp {text[:_SHOWN]!r} is not like 2023-11-16 18:17:03.9799600")
    second, fraction, zone = match.groups()
    try:
        whole = _second(second, zone or "Z")
    except ValueError as error:
        raise BadRowError(f"timestamp {text[:_SHOWN]!r} is no moment in time: {error}") from error
    # datetime holds microseconds only; the trace has seven digits.
    return whole * 10**9 + int((fraction or "0").ljust(9, "0"))


@lru_cache(maxsize=16)
def _second(moment: str, zone: str) -> int:
    """Seconds since 1970. Many requests share one."""
    elapsed = datetime.fromisoformat(moment + zone) - _EPOCH
    return elapsed.days * 86_400 + elapsed.seconds


def _seconds_ns(text: str) -> int:
    return _elapsed_ns("timestamp", text)


def _elapsed_ns(name: str, text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MOST_SECONDS:
        raise BadRowError(f"{name} {text[:_SHOWN]!r} is not a number of seconds of 0 and more")
    return round(seconds * 1e9)


def _format(name: str, table: Table) -> TraceFormat:
    def read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
        path = stream.path
        collector = TraceCollector(
            path, name, hash_block_tokens=0, token_counting=AS_RECORDED, skip_bad_lines=skip_bad_lines
        )
        lines = stream.lines()
        number, header = next(lines, (1, b""))
        if not header:
            raise KvbenchError(f"trace {path} is empty")
        try:
            parse = table.parser(header)
        except BadRowError as error:
            # Without a header no line below it can be understood, so this is never only counted.
            raise KvbenchError(f"{path}, line {number}: {error}") from error
        if table.is_plain(header):
            collect_many(collector, lines, parse, _second)
            return collector.finish()
        return collect_lines(collector, lines, parse)

    return TraceFormat(name, lambda start: table.has_header(start.splitlines()[0]), read, header=table.header)


AZURE: Final = _format(
    "azure",
    Table("TIMESTAMP", "ContextTokens", "GeneratedTokens", "TIMESTAMP,ContextTokens,GeneratedTokens", _utc_ns),
)
BURSTGPT: Final = _format(
    "burstgpt",
    Table(
        "Timestamp",
        "Request tokens",
        "Response tokens",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        _seconds_ns,
        session="Session ID",
        elapsed="Elapsed time",
    ),
)
